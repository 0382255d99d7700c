"""What a name stands for."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from conf.errors import InputError
from data_prep.manifest import TokenizerInfo
from elm_megatron.sources import tokenizer_files
from elm_megatron.sources.places import locate, require_hf_folder, split_step
from elm_megatron.sources.source import beginning, parameters_of
from elm_megatron.sources.tokenizer_files import TokenizerSource
from tests.elm_megatron import model_jobs as cases
from tests.elm_megatron.configs import small_model

TOKENIZER = Path(__file__).resolve().parents[1] / "fixtures/run-62c88f5/data/sample/tokenizer.model"


def test_sources(made: Callable[[str], cases.Made], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A folder, an export run, a run's name; a run that was not exported names the command."""
    one = made("gqa")
    assert require_hf_folder(str(one.hf)) == require_hf_folder(str(one.hf.parent)) == one.hf
    with pytest.raises(InputError, match=r"python launch/export\.py source="):
        require_hf_folder(str(one.run))
    for run, said in (
        ("gguf", "holds only model.gguf, which llama.cpp alone reads"),
        ("empty", "no key model"),
    ):
        (tmp_path / run).mkdir()
        (tmp_path / run / "config.yaml").write_text("source: x\n")
        (tmp_path / run / "run.json").write_text('{"schema": 1}')
        (tmp_path / run / "model.gguf").touch() if run == "gguf" else None
        with pytest.raises(InputError, match=said):
            parameters_of(str(tmp_path / run))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "mine").symlink_to(one.hf.parent)
    assert locate("mine") == tmp_path / "runs" / "mine"
    with pytest.raises(InputError, match="source=other: neither other nor runs/other is a run"):
        locate("other")


def test_init_from_another_tokenizer_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it can be told; the dataset of an old run may be gone."""
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({"model": vars(small_model(vocab_size=512))}))
    before = TokenizerSource(tmp_path, TokenizerInfo("a" * 64, 512, 1, 2, 3), None)
    monkeypatch.setattr(tokenizer_files, "of_run", lambda run, data_dir: before)
    assert beginning(f"{tmp_path}@4", "a" * 64).step == 4
    with pytest.raises(InputError, match=f"init_from={tmp_path}: was trained with another tokenizer"):
        beginning(str(tmp_path), "b" * 64)
    monkeypatch.undo()
    assert beginning(str(tmp_path), "b" * 64).step is None


@pytest.mark.parametrize("named", [{}, {"bos_token_id": 1}, {"eos_token_id": 7}, {"eos_token_id": [9, 2]}])
def test_a_folder_that_names_no_end_of_texts(named: dict, tmp_path: Path) -> None:
    """SentencePiece's own ids then serve an evaluation."""
    shutil.copy(TOKENIZER, tmp_path / "tokenizer.model")
    (tmp_path / "config.json").write_text(json.dumps({"vocab_size": 384, **named}))
    found = tokenizer_files.of_folder(tmp_path)
    wanted = named.get("eos_token_id", 2)
    assert found.first_id == (wanted[0] if isinstance(wanted, list) else wanted)
    assert (found.info.bos_id, found.load().eos_id) == (1, found.first_id)


def test_a_model_without_any_such_id_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"put eos_token_id into config\.json"):
        _ = TokenizerSource(tmp_path, TokenizerInfo("a" * 64, 512, None, None, None), None).first_id
    assert TokenizerSource(tmp_path, TokenizerInfo("a" * 64, 512, 1, None, None), None).first_id == 1


@pytest.mark.parametrize("name", ["home@eur.nl/base", "base@home"])
def test_only_digits_are_a_step(name: str):
    """A folder may hold an @."""
    assert split_step(f"/x/{name}") == (f"/x/{name}", None)
    assert split_step(f"/x/{name}@12") == (f"/x/{name}", 12)
