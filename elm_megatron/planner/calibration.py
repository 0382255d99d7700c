"""The correction of predicted times by a run that was measured, kept for each cluster. Torch-free.

`python launch/plan.py calibrate=<run>` writes it; every later plan and dry run for that cluster uses it.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from conf.errors import InputError
from data_prep import files

FILE = Path("runs") / ".plan" / "calibration.json"


def keep(cluster: str, factor: float, run: str) -> None:
    """Keep measured over predicted seconds of a run's step for its cluster."""
    known = _known()
    known[cluster] = {"factor": factor, "run": run}
    FILE.parent.mkdir(parents=True, exist_ok=True)
    files.write(FILE, json.dumps(known, indent=1) + "\n")


def factor_of(cluster: str) -> float:
    """The correction kept for a cluster; 1 where no run was measured.

    Raises:
        InputError: the file holds something else than a factor.
    """
    found = _known().get(cluster, {"factor": 1.0})
    factor = found.get("factor") if isinstance(found, dict) else None
    if not isinstance(factor, int | float) or not (math.isfinite(factor) and factor > 0):
        raise InputError(f"{FILE}: {cluster} has no factor above 0; remove the file to plan without one.")
    return float(factor)


def calibrated_by(cluster: str) -> str | None:
    """The run that a cluster's predictions are corrected by."""
    return _known().get(cluster, {}).get("run")


def _known() -> dict[str, Any]:
    try:
        known = json.loads(FILE.read_text(encoding="utf-8"))
        if not isinstance(known, dict):
            raise ValueError("it is no mapping")
        return known
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise InputError(
            f"{FILE}: cannot be read ({error}); remove it to plan without a calibration."
        ) from error
