"""Studies: a grid of runs as one job that can be broken off, gone on with and extended; launchers do its work."""
