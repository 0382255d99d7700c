"""Weights & Biases: what it is given, and that nothing it does ends a run. The package is a stand-in."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from conf.errors import InputError
from elm_megatron.engine.wandb_log import WandbLog
from elm_megatron.run.folder import RunFolder
from tests.elm_megatron.configs import pretrain_config

CONFIG = "model: {name: tiny}\ntrain: {lr: 0.1}\ncluster: {account: mine, mail_user: me@example.org}\n"


class Stub:
    """Records what it is told; with `broken`, every row is refused."""

    def __init__(self, broken: bool = False):
        self.broken, self.began, self.rows, self.finished = broken, {}, [], False
        self.Settings = lambda **settings: SimpleNamespace(**settings)

    def init(self, **keys: Any) -> Stub:
        self.began = keys
        return self

    def log(self, figures: dict[str, Any], step: int) -> None:
        if self.broken:
            raise ConnectionError("no route")
        self.rows.append((step, figures))

    def finish(self) -> None:
        self.finished = True


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    """A run folder with a configuration."""
    run = RunFolder(tmp_path / "run")
    run.create()
    run.config.write_text(CONFIG)
    return run


def test_rows_are_copied_offline_and_without_names(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    stub = Stub()
    monkeypatch.setitem(sys.modules, "wandb", stub)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    log = WandbLog("elm", run)
    log.log("train", {"step": 3, "loss": 1.5})
    log.log("valid", {"step": 3, "loss": 2.5})
    log.close()
    assert (stub.began["project"], stub.began["mode"]) == ("elm", "offline")
    assert stub.began["config"] == {"model": {"name": "tiny"}, "train": {"lr": 0.1}}
    assert stub.rows == [(3, {"train/loss": 1.5}), (3, {"valid/loss": 2.5})] and stub.finished


def test_a_broken_one_is_said_once(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", Stub(broken=True))
    log = WandbLog("elm", run)
    for step in (1, 2):
        log.log("train", {"step": step, "loss": 1.0})
    log.close()
    said = capsys.readouterr().out
    assert said.count("\n") == 1 and "no route" in said and "goes on without it" in said


def test_a_missing_one_names_the_extra(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    WandbLog("elm", run).log("train", {"step": 1, "loss": 1.0})
    assert "pip install -e '.[wandb]'" in capsys.readouterr().out


def test_a_project_is_a_name(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"train\.wandb='a/b'"):
        pretrain_config(tmp_path / "run", tmp_path, wandb="a/b")
