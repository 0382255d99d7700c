"""Which checkpoints a save removes."""

from __future__ import annotations

import json
from pathlib import Path

from elm_megatron.checkpoint.manifest import SCHEMA
from elm_megatron.checkpoint.retention import Retention


def test_retention_keeps_the_last_every_nth_and_the_best(tmp_path: Path) -> None:
    folders = []
    for step, loss in [(10, 5.0), (20, 3.0), (30, 4.0), (40, None), (50, 4.5)]:
        folder = tmp_path / f"step-{step:08d}"
        folder.mkdir()
        manifest = {"schema": SCHEMA, "step": step, "valid_loss": loss, "files": {}}
        (folder / "manifest.json").write_text(json.dumps(manifest))
        folders.insert(0, folder)
    names = {int(f.name[-2:]) for f in Retention(last=2, every=30, best=True).to_keep(folders)}
    assert names == {50, 40, 30, 20}
    assert {f.name[-2:] for f in Retention(last=1).to_keep(folders)} == {"50"}
