"""Real applications (`examples/`) behind a real gateway process, used by real clients."""
