"""Signals as flags: ranks finish what they are doing, agree on what was requested, save together, and leave.

USR2 means save and requeue (Slurm, before the time limit); SIGTERM and SIGINT mean save and exit. A run that
a group shares also reads requests from files, `run/requests.py`: stop, and save without leaving.
"""

from __future__ import annotations

import signal
from types import FrameType
from typing import Literal

import torch
import torch.distributed as dist

from elm_megatron.run import requests
from elm_megatron.run.requests import Requests

Request = Literal["requeue", "stop"]
CODES: dict[str, int] = {"requeue": 1, "stop": 2}


class Signals:
    """Remembers the strongest request this rank has received since `install`.

    Args:
        files: requests by files, which rank 0 alone reads; None for other ranks.
    """

    def __init__(self, files: Requests | None = None) -> None:
        self.code = 0
        self._files = files
        self._save_asked = self._save_agreed = False

    def install(self) -> None:
        """Take over USR2, SIGTERM and SIGINT in the main thread."""
        signal.signal(signal.SIGUSR2, self._on_requeue)
        signal.signal(signal.SIGTERM, self._on_stop)
        signal.signal(signal.SIGINT, self._on_stop)

    def agree(self, sums: list[float], device: torch.device) -> tuple[list[float], Request | None]:
        """Add up numbers over all ranks, and learn the strongest request that any rank has received.

        One exchange for both, because every rank must take the same decision at the same place.

        Args:
            sums: this rank's numbers; every rank gives as many.
            device: where the exchange takes place.
        """
        self._look()
        flags = [float(self.code == code) for code in CODES.values()] + [float(self._save_asked)]
        self._save_asked = False
        shared = torch.tensor([*sums, *flags], dtype=torch.float64, device=device)
        dist.all_reduce(shared)
        *totals, requeue, stop, save = shared.tolist()
        self._save_agreed |= save > 0
        return totals, "stop" if stop else "requeue" if requeue else None

    def take_save(self) -> bool:
        """Whether somebody asked for a checkpoint since the last call; the same on every rank."""
        agreed, self._save_agreed = self._save_agreed, False
        return agreed

    def _look(self) -> None:
        for what, user in (self._files.look() if self._files else {}).items():
            print(f"{user} asks this run to {what}", flush=True)
            if what == requests.SAVE:
                self._save_asked = True
            else:
                self.code = max(self.code, CODES["stop"])

    def _on_requeue(self, number: int, frame: FrameType | None) -> None:
        self.code = max(self.code, CODES["requeue"])

    def _on_stop(self, number: int, frame: FrameType | None) -> None:
        self.code = max(self.code, CODES["stop"])
