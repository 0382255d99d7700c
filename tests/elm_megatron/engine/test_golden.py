"""Golden loss curves: ten steps of a tiny model, kept with the versions that made them.

    python -m tests.elm_megatron.engine.test_golden

writes them anew, after a change that is meant to change them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from elm_megatron.run.folder import RunFolder
from slurm.jobs.record import versions
from tests.elm_megatron.configs import pretrain_config
from tests.elm_megatron.engine import rank_functions
from tests.elm_megatron.rank_pool import RankPool
from tests.elm_megatron.small_dataset import make_dataset

GOLDEN = Path(__file__).resolve().parents[1] / "fixtures" / "golden"
RUNS: dict[str, dict[str, Any]] = {
    "plain": {},
    "documents": {"reset_attention_mask": True, "eod_mask_loss": True},
    "cosine": {"lr": 1e-2, "min_lr": 1e-3, "warmup_steps": 3, "weight_decay": 0.3, "clip_grad": 0.2},
    "z-loss": {"z_loss": 1e-2},
}
COLUMNS = ("loss", "grad_norm", "lr")


def curve(ranks: RankPool, folder: Path, data: Path, changes: dict[str, Any]) -> dict[str, list[float]]:
    """The columns of ten steps on one rank in fp32, and the validation losses."""
    config = pretrain_config(folder, data, eval_every=5, **changes)
    run = RunFolder(folder)
    run.create()
    assert ranks.run(1, rank_functions.train, config=config) == ["done"]
    rows = run.read_metrics()
    valid = [row["loss"] for row in run.read_metrics(run.valid)]
    return {**{name: [row[name] for row in rows] for name in COLUMNS}, "valid_loss": valid}


@pytest.mark.parametrize("name", RUNS)
def test_curve_is_as_kept(name: str, ranks: RankPool, small_data: Path, tmp_path: Path) -> None:
    kept = json.loads((GOLDEN / f"{name}.json").read_text(encoding="utf-8"))
    found = curve(ranks, tmp_path / "run", small_data, RUNS[name])
    for column, values in found.items():
        assert values == pytest.approx(kept["curve"][column], rel=1e-5), (column, kept["versions"])


def main() -> None:
    """Write the curves."""
    import tempfile

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        ranks, data = RankPool(1, folder / "rendezvous"), make_dataset(folder / "data")
        for name, changes in RUNS.items():
            found = {"versions": versions(), "curve": curve(ranks, folder / name, data, changes)}
            (GOLDEN / f"{name}.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        ranks.close()


if __name__ == "__main__":
    main()
