"""Reports: tables, statistics and figures of finished runs, from what their folders hold alone."""
