"""No remote task outlives the code that started it."""
