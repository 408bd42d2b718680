"""The checks, one fact a function, in files by what they are about."""
