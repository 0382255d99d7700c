"""Scale on paper: layouts that fit, MFU that falls with the GPUs, and a picture."""

from __future__ import annotations

from pathlib import Path

from elm_megatron.planner import paper
from elm_megatron.planner.devices import device
from elm_megatron.planner.layout import USABLE


def test_what_is_taken_fits_and_more_gpus_never_help_one_gpu(tmp_path: Path) -> None:
    sheet = device("h100")
    rows = paper.scaling(sheet)
    assert {row.model for row in rows} == set(paper.MODELS)
    for row in rows:
        assert paper.held(paper.MODELS[row.model], row.layout) <= sheet.memory_gb * 2**30 * USABLE
    for model in ("1B", "8B"):
        some = [row for row in rows if row.model == model]
        assert [row.layout.gpus for row in some] == list(paper.GPUS)
        assert some[-1].mfu < some[0].mfu and some[-1].gpu_hours > some[0].gpu_hours
    assert not [row for row in rows if row.model == "70B" and row.layout.gpus == 8]  # 80 GB cannot have it
    paper.plot(rows, sheet, tmp_path / "scale.png")
    assert (tmp_path / "scale.png").read_bytes()[:4] == b"\x89PNG"
