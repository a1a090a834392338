"""What the dead left: their tasks, their keys, and creates that got no answer."""
