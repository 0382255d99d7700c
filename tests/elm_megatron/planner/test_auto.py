"""`auto`: numbers by memory and time, with their reason, kept by the run; what cannot fit is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from conf import compose
from conf.errors import InputError
from conf.schema.pretrain import PretrainConfig
from conf.schema.tune import FinetuneConfig
from elm_megatron.planner import layout, memory
from elm_megatron.planner.overhead import beside

GIB = 2**30
LARGE = ("model=large", "cluster=snellius")
AUTO = "train.micro_batch_size=auto"


def asked(*keys: str, verb: str = "pretrain", schema: type = PretrainConfig) -> Any:
    """A composed and checked command."""
    found: list[Any] = []
    compose.run(verb, schema, found.append, list(keys))
    return found[0]


def settled(config: Any) -> list[str]:
    """What settling says."""
    said: list[str] = []
    layout.settle(config, said.append)
    return said


def test_the_micro_batch_is_the_fastest_that_fits_and_says_why() -> None:
    config = asked(*LARGE, AUTO)
    (why,) = settled(config)
    assert config.train.micro_batch_size == 16
    held = sum(memory.rank_parts(config).values()) / GIB
    usable = layout.capacity(config) / GIB
    assert why.startswith(
        f"train.micro_batch_size=auto: 16: {held:.1f} of {usable:.1f} usable GiB a GPU, the shortest"
    )
    assert "32 needs 82.1 GiB" in why


@pytest.mark.parametrize(
    ("keys", "size"),
    [
        (["cluster=snellius_a100"], 8),
        (["cluster=snellius_a100", "train.recompute=full"], 16),
        (["train.global_batch_size=12"], 3),
        (["cluster.nodes=16"], 4),  # all that a rank has of the batch
        (["cluster.device=cpu", "cluster.gpus_per_node=0", "cluster.tasks_per_node=1"], 4),
    ],
)
def test_it_follows_memory_batch_and_device(keys: list[str], size: int) -> None:
    config = asked(*LARGE, AUTO, *keys)
    settled(config)
    assert config.train.micro_batch_size == size
    config.check()


def test_both_are_chosen_together_and_a_batch_that_fits_nowhere_is_refused() -> None:
    config = asked(*LARGE, AUTO, "parallel=auto")
    assert [text.partition(":")[0] for text in settled(config)] == ["parallel=auto", AUTO]
    assert (config.parallel.tp, config.train.micro_batch_size) == (1, 16)
    small = asked(*LARGE, AUTO)
    small.cluster.site.gpu_memory_gb = 8
    with pytest.raises(InputError, match=r"train.micro_batch_size=auto: .* one sequence needs 9.9 GiB"):
        settled(small)


def test_a_run_keeps_its_numbers_where_they_fit(tmp_path: Path) -> None:
    folder = f"run.dir={tmp_path}/kept"
    first = asked(*LARGE, folder, AUTO, "parallel=auto")
    settled(first)
    first.train.micro_batch_size, first.parallel.tp = 32, 2  # as an older planner chose
    first.parallel.sp = True
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "config.yaml").write_text(compose.as_yaml(first))
    again = asked(*LARGE, folder, AUTO, "parallel=auto")
    (said,) = settled(again)
    assert (again.parallel.tp, again.train.micro_batch_size) == (2, 32) and "was begun" in said
    elsewhere = asked("model=large", "cluster=snellius_a100", folder, AUTO, "cluster.gpus_per_node=1")
    settled(elsewhere)
    assert elsewhere.train.micro_batch_size < 32, "which does not fit an A100 of 40 GiB"


def test_what_does_not_fit_is_refused_unless_forced() -> None:
    keys = [*LARGE, "train.micro_batch_size=64"]
    with pytest.raises(InputError) as caught:
        settled(asked(*keys))
    assert "a rank needs 156.6 GiB" in str(caught.value) and "force=true" in str(caught.value)
    assert settled(asked(*keys, "force=true")) == settled(asked(*keys, "dry_run=true")) == []


@pytest.mark.parametrize(("stage", "most"), [("sft", 32), ("dpo", 16)])
def test_tuning_has_its_own_batch(stage: str, most: int) -> None:
    keys = ["source=x", *LARGE, f"stage={stage}", "cluster.gpus_per_node=1", "tune.micro_batch_size=auto"]
    config = asked(*keys, verb="finetune", schema=FinetuneConfig)
    (why,) = settled(config)
    assert why.startswith(f"tune.micro_batch_size=auto: {most}")
    assert set(memory.rank_parts(config)) == {"weights", "adapter", "activations", "output layer"}


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("0", "=0: must be at least 1"),
        ("many", "=many: must be a whole number or auto"),
        ("1.5", "=1.5: must be a whole number or auto"),
    ],
)
def test_nonsense_is_one_sentence(value: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        asked(*LARGE, f"train.micro_batch_size={value}")


def test_what_lies_beside_the_tensors_grows_with_the_groups() -> None:
    one, many = asked(*LARGE, "cluster.gpus_per_node=1"), asked(*LARGE, "parallel.tp=2")
    assert beside(one)["NCCL"] == 0 < beside(many)["NCCL"]
    slice_ = asked(*LARGE)
    slice_.cluster.site.gpu_memory_gb = 5
    assert layout.capacity(slice_) == 5 * GIB - sum(beside(slice_).values())
