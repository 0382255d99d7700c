"""What a sweep's points are called: the same command, with other means of carrying it out, finds its runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from conf import compose
from conf.points import suffix
from conf.schema.pretrain import PretrainConfig


@pytest.fixture(autouse=True)
def caller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def names(*argv: str) -> list[str]:
    """The runs of a sweep."""
    found: list[PretrainConfig] = []
    compose.run("pretrain", PretrainConfig, lambda config: found.append(config), ["-m", "run.name=x", *argv])
    return [Path(config.run.dir).name for config in found]


SWEEP = ("cluster=dev", "train.lr=1e-3,2e-3")
RUNS = ["x-train.lr=0.001", "x-train.lr=0.002"]


CARRIED_OUT = [
    "cluster.exclude=n3",
    "cluster.at_once=2",
    "cluster.reservation=course",
    "cluster.mail_user=a@b.nl",
    "cluster.mail_type=END",
    "cluster.dependency=singleton",
    "cluster.time=20",
    "cluster.memory_gb=4",
    "cluster.max_stalls=5",
    "cluster.account=elm",
    "cluster.signal_seconds=60",
    "cluster.constraint=a",
    "cluster.modules=[a/b]",
    "cluster.interface=lo",
    "cluster.mpi=pmix",
    "cluster.partition=low",
    "train.log_every=7",
    "train.save_every=3",
    "train.eval_every=2",
    "train.keep_last=1",
    "dry_run=true",
    "train.stall_seconds=100",
    "train.wandb=elm",
    "train.log_sample_ids=true",
]


@pytest.mark.parametrize("added", CARRIED_OUT)
def test_how_a_sweep_is_carried_out_is_no_part_of_its_names(added: str) -> None:
    assert names(*SWEEP, added) == RUNS


@pytest.mark.parametrize(
    ("added", "part"),
    [
        ("cluster.nodes=2", "-cluster.nodes=2-"),
        ("cluster.tasks_per_node=2", "-cluster.tasks_per_node=2-"),
        ("parallel.tp=2", "-parallel.tp=2-"),
        ("train.micro_batch_size=2", "train.micro_batch_size=2"),
        ("train.seed=7", "train.seed=7"),
        ("train.eval_batches=1", "-train.eval_batches=1-"),
    ],
)
def test_what_is_learnt_or_measured_is(added: str, part: str) -> None:
    assert all(part in name for name in names(*SWEEP, added))


def test_a_scaling_sweep_is_named_by_its_nodes() -> None:
    sweep = ("cluster=dev", "cluster.nodes=1,2,4")
    assert names(*sweep, "cluster.at_once=2") == [f"x-cluster.nodes={count}" for count in (1, 2, 4)]


def test_points_that_only_differ_in_how_they_are_carried_out_have_names_of_their_own() -> None:
    assert names("train.log_every=1,5") == ["x-train.log_every=1", "x-train.log_every=5"]


@pytest.mark.parametrize("again", [["cluster.at_once=2", "cluster.exclude=n3"], ["cluster.at_once=4"], []])
def test_runs_under_the_names_of_earlier_versions_are_found(again: list[str]) -> None:
    """These held every override; the sweep may be repeated with others, or with none of them."""
    old = [
        f"x-cluster.at_once=2-cluster.exclude=n3-train.log_every=7-train.lr={rate}" for rate in (0.001, 0.002)
    ]
    for name in old:
        Path("runs", name).mkdir(parents=True)
    assert names(*SWEEP, *again) == old
    assert names(*SWEEP, *again, "train.seed=7") == [f"x-train.lr={r}-train.seed=7" for r in (0.001, 0.002)]
    Path("runs", RUNS[0]).mkdir()
    assert names(*SWEEP) == [RUNS[0], old[1]]


def test_two_runs_of_earlier_versions_are_no_answer() -> None:
    for place in ("a", "b"):
        Path("runs", f"x-cluster.reservation={place}-train.lr=0.001").mkdir(parents=True)
    assert names(*SWEEP)[0] == RUNS[0]
    assert names(*SWEEP, "cluster.reservation=b")[0] == "x-cluster.reservation=b-train.lr=0.001"


def test_a_long_name_of_an_earlier_version_is_found() -> None:
    """It ends in a hash of the whole, so that its parts cannot be read."""
    keys = [f"train.{key}=0.5" for key in ("beta1", "beta2", "clip_grad", "min_lr", "weight_decay")]
    old = "x" + suffix(["cluster.at_once=2", *keys[:3], "train.lr=0.001", *keys[3:]])
    Path("runs", old).mkdir(parents=True)
    assert len(old) == 101
    assert names(*SWEEP, *keys, "cluster.at_once=2")[0] == old
