"""The runs behind a model are found wherever their project is."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from elm_megatron.run.folder import RunFolder
from elm_megatron.sources.lineage import stages_of

HASH = "a" * 64


def made(folder: Path, config: dict[str, Any], **record: Any) -> RunFolder:
    """A run as its job leaves it."""
    run = RunFolder(folder)
    run.create()
    run.config.write_text(yaml.safe_dump({"run": {"name": folder.name}, **config}))
    run.update(manifest_sha256=HASH, **record)
    return run


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Pretrained, tuned on that by an absolute path, exported from there."""
    runs = tmp_path / "project" / "runs"
    made(runs / "base", {"train": {}}, verb="pretrain")
    made(runs / "tuned", {"tune": {}, "source": str(runs / "base")}, verb="finetune")
    made(runs / "export", {}, verb="export", export={"path": "model", "source": str(runs / "tuned")})
    (runs / "export" / "model").mkdir()
    (runs / "export" / "model" / "config.json").write_text("{}")
    return tmp_path / "project"


def names(folder: Path) -> list[str]:
    """Of the runs behind a model, each as its record calls it."""
    return [stage.record.get("verb") for stage in stages_of(folder)]


def test_a_moved_project_keeps_its_lineage(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    wanted = ["pretrain", "finetune"]
    assert names(project / "runs" / "export") == wanted
    moved = Path(shutil.move(project, tmp_path / "moved"))
    assert names(moved / "runs" / "export" / "model") == wanted
    (moved / "runs" / "base").rename(moved / "runs" / "first")  # its config.yaml knows the old name
    assert names(moved / "runs" / "export") == wanted
    (tmp_path / "linked").symlink_to(moved / "runs" / "export" / "model")
    assert names(tmp_path / "linked") == wanted


def test_another_run_of_the_name_is_not_taken_for_the_base(project: Path) -> None:
    shutil.rmtree(project / "runs" / "base")
    made(project / "runs" / "first", {"run": {"name": "base"}, "train": {}}, verb="pretrain").update(
        manifest_sha256="b" * 64
    )
    assert names(project / "runs" / "tuned") == ["Earlier training, its records lost", "finetune"]
