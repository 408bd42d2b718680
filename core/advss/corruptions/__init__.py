"""Common corruptions of images by their published definitions (Hendrycks and Dietterich 2019)."""

from __future__ import annotations

from advss.corruptions.made import KINDS as KINDS
from advss.corruptions.made import corrupt as corrupt
from advss.corruptions.tables import SEVERITIES as SEVERITIES
from advss.corruptions.tables import table_of as table_of
