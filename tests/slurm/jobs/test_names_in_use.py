"""From the command line: a name in use is refused, and a purged run does not start over."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from conf.errors import InputError
from conf.plain import plain
from elm_megatron.run.folder import RunFolder
from slurm.jobs.submit import submit
from tests.elm_megatron.checkpoint.saved_steps import saved
from tests.elm_megatron.configs import pretrain_config
from tests.elm_megatron.small_dataset import make_dataset

ROOT = Path(__file__).resolve().parents[3]
LLAMA = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 64, "vocab_size": 256}
LLAMA |= {"intermediate_size": 160, "num_hidden_layers": 2, "num_attention_heads": 4, "rms_norm_eps": 1e-5}
LLAMA |= {"max_position_embeddings": 64, "num_key_value_heads": 2, "hidden_act": "silu"}


def launch(verb: str, *overrides: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Give a command in a folder."""
    command = [sys.executable, str(ROOT / "launch" / f"{verb}.py"), *overrides]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=240)


@pytest.fixture
def pretrained(tmp_path: Path) -> RunFolder:
    """A pretraining run with a checkpoint, as the launcher leaves it."""
    run = RunFolder(tmp_path / "runs" / "mine")
    run.create()
    config = pretrain_config(run.path, make_dataset(tmp_path / "data"))
    run.config.write_text(yaml.safe_dump(plain(config)), encoding="utf-8")
    run.update(verb="pretrain", state="cancelled", step=0)
    saved(run, 3)
    run.update(step=3)
    return run


@pytest.mark.parametrize(
    ("verb", "overrides"),
    [
        ("export", ["source=mine"]),
        ("eval", ["source=mine"]),
        ("import_hf", ["source=foreign"]),
        ("preprocess", ["corpus=sample"]),
        ("finetune", ["source=mine", "tune.seq_length=64"]),
        ("export", ["source=mine", "dry_run=true"]),
    ],
)
def test_another_verb_changes_no_byte(verb: str, overrides: list[str], pretrained: RunFolder) -> None:
    project = pretrained.path.parents[1]
    (project / "foreign").mkdir()
    (project / "foreign" / "config.json").write_text(json.dumps(LLAMA))
    before = {path: path.read_bytes() for path in pretrained.path.rglob("*") if path.is_file()}
    done = launch(verb, *overrides, "run.name=mine", folder=project)
    assert done.returncode == 2, done.stderr
    assert "runs/mine is a pretrain run (step 3, cancelled), which" in done.stderr
    assert "Traceback" not in done.stderr
    assert {path: path.read_bytes() for path in pretrained.path.rglob("*") if path.is_file()} == before


def test_a_purged_run_is_refused_before_anything_starts(
    pretrained: RunFolder, capsys: pytest.CaptureFixture
) -> None:
    config = pretrain_config(pretrained.path, pretrained.path.parents[1] / "data")
    for path in pretrained.checkpoints.glob("step-*/manifest.json"):
        path.unlink()
    before = {path: path.read_bytes() for path in pretrained.path.rglob("*") if path.is_file()}
    with pytest.raises(
        InputError, match=r"was saved at step 3, and .*/checkpoints has no complete checkpoint"
    ):
        submit(print, config, 1, "pretrain")
    assert {path: path.read_bytes() for path in pretrained.path.rglob("*") if path.is_file()} == before
    pretrained.update(state="done", step=10)
    assert submit(print, config, 1, "pretrain") == 0
    assert "is finished: 10 steps" in capsys.readouterr().out
