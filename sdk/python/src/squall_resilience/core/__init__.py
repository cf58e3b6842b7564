"""State machines of the patterns: no threads, no sleeping, no I/O; the time is handed in. Shells around them hold the locks."""
