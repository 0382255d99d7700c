"""What may change when a run goes on, and what earlier versions wrote that is no key any more."""

from __future__ import annotations

from pathlib import Path

import pytest

from conf.errors import InputError
from conf.plain import plain
from elm_megatron.run.resume import check_resume
from tests.elm_megatron.configs import pretrain_config


@pytest.mark.parametrize("value", [True, False])
def test_a_run_made_with_a_key_that_was_removed_goes_on(tmp_path: Path, value: bool) -> None:
    config = plain(pretrain_config(tmp_path / "run", tmp_path))
    old = config | {"data": config["data"] | {"reset_position_ids": value}}
    check_resume(old, config, "runs/x")
    with pytest.raises(InputError, match=r"data\.eod_mask_loss=True: runs/x was started with"):
        check_resume(old, config | {"data": config["data"] | {"eod_mask_loss": True}}, "runs/x")


def test_a_run_made_before_a_key_of_its_corpus_goes_on(tmp_path: Path) -> None:
    """How a dataset was made may be told in other words today; which one it is, its manifest's hash says."""
    config = plain(pretrain_config(tmp_path / "run", tmp_path))
    corpus = {key: value for key, value in config["corpus"].items() if key != "rights_basis"}
    corpus["harvest"] = corpus["harvest"] | {"sources": [{"name": "thesis", "url": "https://old/oai"}]}
    check_resume(config | {"corpus": corpus}, config, "runs/x")


@pytest.mark.parametrize(
    ("group", "key", "value"),
    [
        ("train", "log_every", 7), ("train", "keep_last", 9), ("train", "wandb", "elm"),
        ("train", "micro_batch_size", 1), ("train", "distributed_optimizer", False), ("parallel", "tp", 2),
        ("cluster", "nodes", 4), ("cluster", "exclude", "n3"),
    ],
)  # fmt: skip
def test_what_changes_nothing_that_is_learnt_may_change(
    tmp_path: Path, group: str, key: str, value: object
) -> None:
    config = plain(pretrain_config(tmp_path / "run", tmp_path))
    check_resume(config, config | {group: config[group] | {key: value}}, "runs/x")
