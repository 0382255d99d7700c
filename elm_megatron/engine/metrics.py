"""What a run says of itself while it trains: metrics.jsonl, valid.jsonl, TensorBoard, a line on screen.

Only rank 0 makes one.
"""

from __future__ import annotations

import time
from contextlib import AbstractContextManager
from datetime import timedelta
from typing import Any

from data_prep import files
from elm_megatron.engine.wandb_log import WandbLog
from elm_megatron.run.folder import Rows, RunFolder

SCREEN_SECONDS = 2.0
EVENT_BYTES = 100  # of one number, about
FORMATS = {"perplexity": ".1f", "margin": ".3f", "accuracy": ".0%"}
TENSORBOARD = ("loss", "lr", "grad_norm", "tokens_per_second", "mfu", "step_seconds", "memory_bytes")


class Metrics:
    """Writes a run's rows.

    Args:
        run: the run's folder.
        steps: updates of the whole run.
        step: updates done already; TensorBoard forgets what lies after it.
        wandb: a project of Weights & Biases that gets a copy, None for none.
    """

    def __init__(self, run: RunFolder, steps: int, step: int, wandb: str | None = None):
        from torch.utils.tensorboard import SummaryWriter

        self._steps, self._folder = steps, run.tensorboard
        self._train, self._valid = Rows(run.metrics), Rows(run.valid)
        self._first, self._start = step, time.monotonic()
        self._last_line = 0.0
        self._board = SummaryWriter(str(run.tensorboard), purge_step=step + 1 if step else None)
        self._wandb = WandbLog(wandb, run) if wandb else None

    def train(self, row: dict[str, Any]) -> None:
        """One logged training step; row has `step`, `loss`, … as in metrics.jsonl."""
        self._train.append(row)
        with self._events():
            for name in TENSORBOARD:
                if row[name] is not None:
                    self._board.add_scalar(f"train/{name}", row[name], row["step"])
        if self._wandb:
            self._wandb.log("train", row)
        now = time.monotonic()
        last = row["step"] == self._steps
        if last or now - self._last_line >= SCREEN_SECONDS:
            self._last_line = now
            print(self._line(row, now), flush=True)

    def _events(self) -> AbstractContextManager[None]:
        """Around TensorBoard, whose writer meets a full disk in a thread of its own."""
        return files.full_disk_named(self._folder, EVENT_BYTES, "TensorBoard's event file")

    def _line(self, row: dict[str, Any], now: float) -> str:
        done = row["step"] - self._first
        left = timedelta(seconds=round((now - self._start) / max(1, done) * (self._steps - row["step"])))
        mfu = "" if row["mfu"] is None else f"  mfu {row['mfu']:.0%}"
        return (
            f"step {row['step']:>{len(str(self._steps))}}/{self._steps}  loss {row['loss']:.4f}  "
            f"lr {row['lr']:.2e}  grad_norm {row['grad_norm']:.3f}  "
            f"{row['tokens_per_second']:,.0f} tokens/s{mfu}  left {left}"
        )

    def valid(self, row: dict[str, Any]) -> None:
        """One validation; row has `step`, `loss`, `perplexity`, `time`, `loss_<language>`; DPO its margin."""
        self._valid.append(row)
        parts = {name: row[name] for name in row if name.startswith("loss")}
        with self._events():
            for name, loss in parts.items():
                self._board.add_scalar(f"valid/{name}", loss, row["step"])
        if self._wandb:
            self._wandb.log("valid", row)
        languages = "".join(f"  {name[5:]} {loss:.4f}" for name, loss in parts.items() if name != "loss")
        said = ("margin", "accuracy") if "margin" in row else ("perplexity",)  # preferences have none
        figures = "".join(f"  {name} {row[name]:{FORMATS[name]}}" for name in said)
        print(f"step {row['step']}: validation loss {row['loss']:.4f}{languages}{figures}", flush=True)

    def close(self) -> None:
        """Close the files; TensorBoard is flushed."""
        self._train.close()
        self._valid.close()
        with self._events():
            self._board.close()
        if self._wandb:
            self._wandb.close()
