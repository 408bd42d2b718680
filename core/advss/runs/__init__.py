"""Where a run lives and how it is opened: its folder, its session, its classifier, and finished runs."""
