"""What is sent and heard: creating, ending and watching tasks, their follow-ups and events."""
