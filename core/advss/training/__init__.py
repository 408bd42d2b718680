"""One trainer for every stage: steps, schedule, precision, checkpoints, signals."""
