"""What is true: the records of all tasks, who runs what, and what time it is."""
