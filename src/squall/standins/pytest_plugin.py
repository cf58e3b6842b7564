"""The pytest plugin of the stand-ins; loaded by every pytest that has Squall installed, so it imports nothing heavy."""
