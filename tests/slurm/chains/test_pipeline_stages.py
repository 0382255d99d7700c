"""Chains of other stages: which there are, what each reads, and the files of the community."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from conf import compose
from conf.errors import InputError
from conf.schema.pipeline import PipelineConfig
from conf.schema.tune import FinetuneConfig
from elm_megatron.community.exports import held_out_pairs, newest, of_community
from slurm.chains.stages import community_export


def config(*argv: str) -> PipelineConfig:
    found: list[PipelineConfig] = []
    compose.run("pipeline", PipelineConfig, lambda one: found.append(one), ["run.name=x", *argv])
    return found[0]


def export(folder: Path, name: str, age: int = 0, **rows: int) -> Path:
    """An export with so many rows in each file, made `age` seconds ago."""
    made = folder / "community" / "exports" / name
    made.mkdir(parents=True)
    for kind in ("sft-train", "sft-valid", "dpo-train", "dpo-valid"):
        (made / f"{kind}.jsonl").write_text("{}\n" * rows.get(kind.replace("-", "_"), 0))
    (made / "manifest.json").write_text("{}")
    then = 1_700_000_000 - age
    os.utime(made / "manifest.json", (then, then))
    return made


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_the_stages_of_today_are_the_default() -> None:
    assert config().verbs == ["preprocess", "pretrain", "finetune", "export"]
    conf = "cluster.slurm_conf=null"
    assert config("cluster=dev", conf).verbs == ["preprocess", "pretrain", "finetune", "export", "eval"]


def test_each_stage_reads_the_one_before() -> None:
    loop = config("stages=[community,finetune,dpo,compare,serve]", "source=now")
    assert loop.tuning().source == "now" and loop.preferring().source == "runs/x-finetune"
    assert loop.comparing().source == ["runs/x-dpo", "now"] == loop.serving().source
    whole = config("stages=[preprocess,pretrain,finetune,dpo,export]")
    assert whole.exporting().source == "runs/x-dpo" and whole.tuning().source == "runs/x-pretrain"
    assert (loop.tune.lr, loop.dpo_tune.lr) == (2e-3, 1e-4)  # each stage has its own rate
    assert community_export(loop) == Path.cwd() / "community/exports/x" and community_export(whole) is None


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["stages=[]"], "stages=[]: give at least one"),
        (["stages=[finetune,pretrain]"], "each is given once, in the order community, preprocess"),
        (["stages=[finetune,finetune]", "source=a"], "each is given once"),
        (["stages=[finetune]"], "source=null: finetune needs a model"),
        (["source=a"], "source=a: stages has pretrain"),
        (["stages=[serve]"], "source=null: serve needs a model"),
        (["stages=[compare]", "source=a"], "compare needs finetune or dpo"),
        (["stages=[cook]"], "allowed are"),
    ],
)
def test_chains_that_cannot_be_are_a_sentence(argv: list[str], said: str) -> None:
    with pytest.raises(InputError) as caught:
        config(*argv)
    assert said in str(caught.value) and "\n" not in str(caught.value)


def tuning(*argv: str) -> FinetuneConfig:
    found: list[FinetuneConfig] = []
    compose.run("finetune", FinetuneConfig, lambda one: found.append(one), ["run.name=t", *argv])
    return found[0]


def test_community_is_the_newest_export(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has no export; make one with"):
        of_community(tuning("sft.files=[community]"))
    export(tmp_path, "spring", 100, sft_train=2)
    made = export(tmp_path, "autumn", sft_train=2, sft_valid=1, dpo_train=1, dpo_valid=1)
    assert newest() == made
    sft = of_community(tuning("sft.files=[community]"))
    assert sft.sft.files == [str(made / "sft-train.jsonl")]
    assert sft.sft.valid_files == [str(made / "sft-valid.jsonl")]
    dpo = of_community(tuning("stage=dpo", "dpo.files=[community,more.jsonl]"))
    assert dpo.dpo.files == [str(made / "dpo-train.jsonl"), "more.jsonl"]
    assert held_out_pairs(dpo.dpo.files) == [str(made / "dpo-valid.jsonl")]
    assert of_community(tuning()) == tuning()


def test_a_run_goes_on_with_the_export_it_was_begun_with(tmp_path: Path) -> None:
    first = export(tmp_path, "spring", 100, sft_train=2)
    (tmp_path / "runs" / "t").mkdir(parents=True)
    begun = {"sft": {"files": [str(first / "sft-train.jsonl")]}}
    (tmp_path / "runs" / "t" / "config.yaml").write_text(json.dumps(begun))
    export(tmp_path, "autumn", sft_train=2)
    assert of_community(tuning("sft.files=[community]")).sft.files == begun["sft"]["files"]
    assert of_community(tuning("sft.files=[community]")).sft.valid_files == []  # nobody is held out there
