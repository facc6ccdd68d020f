"""Where a proximal artery ends too early."""

from __future__ import annotations

from typing import Any

import pandas as pd

from rlvo_lib.head import HeadFrame


def find_occlusion(
    points: pd.DataFrame, segments: pd.DataFrame, frame: HeadFrame
) -> dict[str, Any]:
    return {}
