"""The whole chain, as `launch/quickstart.sh` starts it, on machines set up unlike the developers'."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
STAGES = ("preprocess", "pretrain", "finetune", "export", "eval")
SMALL = ["train.steps=4", "train.save_every=2", "train.eval_every=2", "train.seq_length=64"]
SMALL += ["train.global_batch_size=4", "train.micro_batch_size=4", "tune.steps=2", "tune.save_every=2"]
SMALL += ["tune.eval_every=2", "tune.global_batch_size=4", "tune.micro_batch_size=4", "max_new_tokens=5"]


@pytest.fixture
def latin_1(tmp_path: Path) -> dict[str, str]:
    """The environment of a real locale whose texts are Latin-1; the machine need not have it installed."""
    folder, name = tmp_path / "locales", "nl_NL.ISO-8859-1"
    folder.mkdir()
    made = shutil.which("localedef") and subprocess.run(
        ["localedef", "-f", "ISO-8859-1", "-i", "nl_NL", str(folder / name)], capture_output=True
    )
    if not made or not (folder / name).exists():
        pytest.skip("no localedef, or no source of nl_NL")
    return {"LOCPATH": str(folder), "LC_ALL": name, "LANG": name, "PYTHONUTF8": "0"}


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on a file system of its own that has no room at all."""
    folder = tmp_path / "full"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("a small file system cannot be mounted here")
    try:
        with pytest.raises(OSError), (folder / "filler").open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def chain(folder: Path, **env: str) -> None:
    """Run the chain from a folder; every stage must end well."""
    folder.mkdir()
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    command = [sys.executable, str(ROOT / "launch/pipeline.py"), "experiment=quickstart", *SMALL]
    done = subprocess.run(command, cwd=folder, env={**kept, **env}, capture_output=True)
    assert done.returncode == 0, done.stderr.decode(errors="replace")[-3000:]
    assert b"Traceback" not in done.stderr
    assert b"Uit het onderzoek naar de haven blijkt dat" in done.stdout
    for stage in STAGES:
        record = folder / "runs" / f"quickstart-tiny-sample-{stage}" / "run.json"
        assert json.loads(record.read_text(encoding="utf-8"))["state"] == "done", stage


@pytest.mark.slow
def test_in_the_c_locale_in_a_folder_with_spaces_and_accents(tmp_path: Path) -> None:
    chain(tmp_path / "map met spaties, één ü", LANG="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0")


@pytest.mark.slow
def test_in_a_real_latin_1_locale_with_a_full_tmpdir(
    latin_1: dict[str, str], full_disk: Path, tmp_path: Path
) -> None:
    chain(tmp_path / "elders, één ü", TMPDIR=str(full_disk), **latin_1)
