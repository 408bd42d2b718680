"""What a run is told: layers of settings, from flags, files and variables, resolved to one configuration."""
