"""The manifest tells damage from what cannot be read now."""

from __future__ import annotations

import errno
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from conf.errors import InputError
from data_prep import files
from elm_megatron.checkpoint.manifest import Checkpoint
from elm_megatron.run.folder import RunFolder
from tests.elm_megatron.checkpoint.saved_steps import saved


def test_a_changed_manifest_is_found(tmp_path: Path) -> None:
    """Every number counts: consumed_samples decides which data come next."""
    folder = saved(RunFolder(tmp_path), 4)
    path = folder / "manifest.json"
    Checkpoint.open(folder).annotate(consumed_samples=8)
    assert Checkpoint.open(folder).manifest["consumed_samples"] == 8
    path.write_text(path.read_text().replace('"consumed_samples": 8', '"consumed_samples": 9'))
    with pytest.raises(InputError, match="its hash differs"):
        Checkpoint.open(folder)


def test_a_manifest_without_a_hash_still_loads(tmp_path: Path) -> None:
    folder = saved(RunFolder(tmp_path), 4)
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    del manifest["sha256"]
    path.write_text(json.dumps(manifest))
    Checkpoint.open(folder).verify()
    Checkpoint.open(folder).annotate(valid_loss=1.0)
    assert "sha256" in Checkpoint.open(folder).manifest


@pytest.mark.parametrize("text", ["[]", "{}", '{"schema": 1, "step": 4}', "", "\x00" * 100])
def test_what_is_no_manifest_is_refused(tmp_path: Path, text: str) -> None:
    folder = saved(RunFolder(tmp_path), 4)
    (folder / "manifest.json").write_text(text)
    with pytest.raises(InputError, match=r"manifest\.json: "):
        Checkpoint.open(folder)


def failing(times: int, code: int) -> Callable[[Path], str]:
    """`files.sha256`, failing so many times first."""
    original, calls = files.sha256, []

    def sha256(path: Path) -> str:
        calls.append(path)
        if len(calls) <= times:
            raise OSError(code, "Input/output error", str(path))
        return original(path)

    return sha256


@pytest.mark.parametrize("code", [errno.EIO, errno.ESTALE, errno.EACCES, errno.ETIMEDOUT])
def test_reading_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    folder = saved(RunFolder(tmp_path), 4)
    monkeypatch.setattr(files, "READ_PAUSES", (0.0, 0.0))
    monkeypatch.setattr(files, "sha256", failing(2, code))
    Checkpoint.open(folder).verify()
    monkeypatch.setattr(files, "sha256", failing(3, code))
    with pytest.raises(files.Unreadable, match=r"3 times in a row\. It is not taken for damaged"):
        Checkpoint.open(folder).verify()
