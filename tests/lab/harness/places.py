# SPDX-License-Identifier: Apache-2.0
"""Where the project is, and where the lab keeps what takes long to make."""

import os
from pathlib import Path

PROJECT = Path(__file__).parents[3]


def cache_folder() -> Path:
    """Where images are kept: $ZONED_LAB_CACHE, else /var/cache/zoned-lab."""
    return Path(os.environ.get("ZONED_LAB_CACHE") or "/var/cache/zoned-lab")
