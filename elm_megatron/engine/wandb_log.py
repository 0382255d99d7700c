"""A copy of the metrics for Weights & Biases, where `train.wandb=<project>` asks for one.

Offline unless the environment's WANDB_MODE says otherwise, since compute nodes have no network: `wandb sync`
uploads the run's wandb/offline-* folders later. Whatever goes wrong here is said once and ends no run.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import yaml

from elm_megatron.run.folder import RunFolder

SECTIONS = ("model", "corpus", "data", "train", "tune", "parallel")  # the rest tells of accounts and people


class WandbLog:
    """One attempt of a run at Weights & Biases; only rank 0 makes one.

    Args:
        project: where it belongs.
        run: its folder, whose name is the run's; wandb/ is made there.
    """

    def __init__(self, project: str, run: RunFolder):
        self._run: Any = None
        self._harmless(lambda: self._start(project, run))

    def _start(self, project: str, run: RunFolder) -> None:
        import wandb  # in the extra wandb

        config = yaml.safe_load(run.config.read_text(encoding="utf-8")) if run.config.exists() else {}
        self._run = wandb.init(
            project=project,
            name=run.path.name,
            dir=str(run.path),
            mode=os.environ.get("WANDB_MODE", "offline"),
            config={name: config[name] for name in SECTIONS if name in config},
            settings=wandb.Settings(
                silent=True,
                console="off",
                save_code=False,
                disable_git=True,
                x_disable_meta=True,  # else it writes the user's name, the machine's and the command line
                x_disable_machine_info=True,
                x_save_requirements=False,
            ),
        )

    def log(self, kind: str, row: dict[str, Any]) -> None:
        """A row of metrics.jsonl (kind "train") or valid.jsonl ("valid")."""
        figures = {f"{kind}/{name}": value for name, value in row.items() if name != "step"}
        if self._run is not None:
            self._harmless(lambda: self._run.log(figures, step=row["step"]))

    def close(self) -> None:
        """Finish the attempt's files."""
        if self._run is not None:
            self._harmless(lambda: self._run.finish())

    def _harmless(self, action: Callable[[], object]) -> None:
        try:
            action()
        except Exception as error:  # whatever a foreign package raises
            missing = isinstance(error, ImportError)
            why = "the extra wandb is not installed (pip install -e '.[wandb]')" if missing else repr(error)
            print(f"train.wandb: {why}; the run goes on without it", flush=True)
            self._run = None
