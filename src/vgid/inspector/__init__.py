"""Before and after in a browser: `vgid inspect`."""
