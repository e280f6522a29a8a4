"""One run: its way and its end, its directory, its replay, its estimate."""
