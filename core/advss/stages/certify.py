"""``advss certify``: radii within which the smoothed classifier of a run cannot be fooled, for its test images."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from advss.config import CertifySettings
from advss.data.splits import Part, part_tensors
from advss.errors import UsageError
from advss.models.smoothed import SmoothedClassifier, fewest_copies, largest_radius
from advss.randomness import stream
from advss.reports.certified import Certified, draw_certified, summary
from advss.stages.evaluate import load_classifier
from advss.stages.run import reopened
from advss.stages.runs import classifier_of, find_run
from advss.stages.session import Session, choose_device, tracked
from advss.training.checkpoints import load_checkpoint, write_json

STAGE: Final = "certify"
SAVE_EVERY_S = 10.0
