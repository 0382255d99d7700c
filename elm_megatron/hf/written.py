"""What a writer of an export says about the file or folder it wrote; the gate and the record need it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from elm_megatron.hf.gate import Exported, Rounding


@dataclass(frozen=True)
class Written:
    """An export that has not got its name yet.

    Attributes:
        dtype: of the stored weights.
        files: {name: {"bytes", "sha256"}} of the weights.
        rounding: what storing did to a tensor's numbers; None for fp32.
        exported: reads the weights back, for the gate.
        settings: config.json of the model as written.
    """

    dtype: str
    files: dict[str, dict[str, Any]]
    rounding: Rounding | None
    exported: Exported
    settings: dict[str, Any]
