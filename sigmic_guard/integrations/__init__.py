"""What connects the library with hosts and tools; each module imports what it is named after."""
