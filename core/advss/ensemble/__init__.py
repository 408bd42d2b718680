"""M tasks as one objective, with the diversity term between them."""
