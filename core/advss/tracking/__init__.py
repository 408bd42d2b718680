"""Tracking: a local journal is the one source of truth, and MLflow is filled from it.

Training writes to the journal only (:mod:`.journal`). A background thread (:mod:`.sender`) reads that file and replays
it to MLflow (:mod:`.replay`); ``advss sync`` (:mod:`.sync`) is the same replay in the foreground. So a server that is
dead, slow or not installed costs training nothing and loses nothing.
"""
