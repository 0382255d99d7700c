"""Tasks by name and by path, their data in local files, invented items in their own formats."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from conf.errors import InputError
from conf.schema.hf import EvalConfig
from conf.schema.run import RunConfig
from elm_megatron.evaluate import tasks_run
from elm_megatron.evaluate.task_files import load
from tests.elm_megatron.model_jobs import Made

ITEM = {"text": "Wat is de naam van de stad?", "choices": ["Rotterdam", "Delft"], "answer": 0}
TASK = {
    "task": "own",
    "dataset_path": "json",
    "dataset_kwargs": {"data_files": {"test": "items.jsonl"}},
    "test_split": "test",
    "output_type": "multiple_choice",
    "doc_to_text": "{{text}}",
    "doc_to_choice": "choices",
    "doc_to_target": "answer",
    "metric_list": [{"metric": "acc"}],
}
GENERATION = {
    "output_type": "generate_until",
    "doc_to_choice": None,
    "doc_to_target": "{{choices[0]}}",
    "generation_kwargs": {"until": ["\n"], "max_gen_toks": 4},
    "metric_list": [{"metric": "exact_match"}],
}
FILTERS = {
    **GENERATION,
    "filter_list": [
        {
            "name": "strict",
            "filter": [{"function": "regex", "regex_pattern": "(x)"}, {"function": "take_first"}],
        }
    ],
}
TWO_FILTERS = {
    **FILTERS,
    "filter_list": [*FILTERS["filter_list"], {"name": "whole", "filter": [{"function": "take_first"}]}],
}
ROLLING = {
    "output_type": "loglikelihood_rolling",
    "doc_to_text": "",
    "doc_to_choice": None,
    "doc_to_target": "{{text}}",
    "metric_list": [{"metric": "word_perplexity"}, {"metric": "bits_per_byte"}],
}


def task_file(folder: Path, **changes: object) -> str:
    """A task with three invented items."""
    (folder / "items.jsonl").write_text("".join(json.dumps(ITEM) + "\n" for _ in range(3)), encoding="utf-8")
    task = {key: value for key, value in {**TASK, **changes}.items() if value is not None}
    (folder / "own.yaml").write_text(yaml.safe_dump(task), encoding="utf-8")
    return str(folder / "own.yaml")


@pytest.fixture(scope="module")
def exported(made) -> Made:
    """A small exported model."""
    return made("gqa")


@pytest.mark.parametrize(
    ("changes", "metric"),
    [
        ({}, "acc"),
        ({"metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}]}, "acc_norm"),
        (GENERATION, "exact_match"),
        (FILTERS, "exact_match (strict)"),
        (TWO_FILTERS, "exact_match (strict)"),
        (ROLLING, "bits_per_byte"),
        ({"dataset_kwargs": {"data_files": "items.jsonl"}, "test_split": "train"}, "acc"),
        ({"dataset_kwargs": {"data_files": ["items.jsonl"]}, "test_split": "train"}, "acc"),
        ({"dataset_kwargs": {"data_files": {"test": ["items.jsonl", "items.jsonl"]}}}, "acc"),
    ],
)
def test_every_kind_of_task_is_reported(changes: dict, metric: str, exported: Made, tmp_path: Path) -> None:
    pytest.importorskip("lm_eval", reason="needs the eval extra")
    from elm_megatron.evaluate.generate import load as load_model
    from elm_megatron.model import device
    from elm_megatron.sources.source import resolve

    model = load_model(resolve(str(exported.hf)), device.named("cpu"))
    found = tasks_run.run(model, exported.hf, [task_file(tmp_path, **changes)], None, 2, tmp_path / "cache")
    (figures,) = found.values()
    assert figures["metric"] == metric and isinstance(figures["value"], float)
    assert figures["items"] in (3, 6) and len(figures["samples"]) == figures["items"]
    assert ("accuracy" in figures) == metric.startswith("acc")


def test_two_tasks_of_one_name_are_refused(tmp_path: Path) -> None:
    """Else the second would take the place of the first in the results."""
    pytest.importorskip("lm_eval", reason="needs the eval extra")
    from elm_megatron.evaluate.evaluate import _tasks

    names = []
    for folder in (tmp_path / "a", tmp_path / "b"):
        folder.mkdir()
        names.append(task_file(folder))
    config = EvalConfig(RunConfig("x", str(tmp_path)), "source", tasks=names)
    with pytest.raises(InputError, match=r"is called own, as is .*a/own\.yaml; give one of them\.$"):
        _tasks(config)


def test_a_task_lm_eval_cannot_run_is_a_sentence(exported: Made, tmp_path: Path) -> None:
    pytest.importorskip("lm_eval", reason="needs the eval extra")
    from elm_megatron.evaluate.generate import load as load_model
    from elm_megatron.model import device
    from elm_megatron.sources.source import resolve

    model = load_model(resolve(str(exported.hf)), device.named("cpu"))
    name = task_file(tmp_path, doc_to_text="{{no_such_column.strip()}}")
    with pytest.raises(InputError, match="lm-eval cannot run it"):
        tasks_run.run(model, exported.hf, [name], None, 2, tmp_path / "cache")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dataset_kwargs": None}, "not a task with local data"),
        ({"dataset_kwargs": {"data_files": {"test": "gone.jsonl"}}}, r"gone\.jsonl does not exist"),
        ({"task": None}, "no key task"),
    ],
)
def test_files_that_are_no_tasks(changes: dict, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        load(task_file(tmp_path, **changes))


@pytest.mark.parametrize(
    "name", ["arc_nl", "belebele_nld_Latn", "m_mmlu_nl", "mmlu-nl", "scala-nl", "squad-nl"]
)
def test_what_must_be_fetched_is_named(name: str, tmp_path: Path) -> None:
    if "_" in name:
        pytest.importorskip("lm_eval", reason="needs the eval extra")
    with pytest.raises(InputError, match=r"give eval\.task_data=<folder>, and fetch it with: hf download "):
        load(name)
    with pytest.raises(InputError, match=r"holds no file of the split .*hf download .* --repo-type dataset"):
        load(name, str(tmp_path))


def test_lm_evals_dutch_tasks_read_a_local_folder(exported: Made, tmp_path: Path) -> None:
    """Invented items in the tasks' own formats: a folder for each language, and EuroEval's."""
    pytest.importorskip("lm_eval", reason="needs the eval extra")
    from elm_megatron.evaluate.generate import load as load_model
    from elm_megatron.model import device
    from elm_megatron.sources.source import resolve

    def put(path: str, rows: list[dict]) -> None:
        file = tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")

    arc = {"id": "1", "instruction": "Welke stad?", "answer": "A"}
    arc |= {f"option_{letter}": f"stad {letter}" for letter in "abcde"}
    put("alexandrainst/m_arc/nl/test.jsonl", [arc] * 3)
    put("alexandrainst/m_arc/de/test.jsonl", [{"wrong": 1}])
    put(
        "EuroEval/mmlu-nl-mini/data/test-00000.jsonl",
        [{"text": "Wat?\na. x\nb. y\nc. z\nd. w", "label": "b"}] * 2,
    )
    put("EuroEval/scala-nl/test.jsonl", [{"text": "Dit is goed .", "label": "correct"}] * 2)
    model = load_model(resolve(str(exported.hf)), device.named("cpu"))
    names = ["arc_nl", "mmlu-nl", "scala-nl"]
    found = tasks_run.run(model, exported.hf, names, None, 2, tmp_path / "cache", str(tmp_path))
    assert {name: figures["items"] for name, figures in found.items()} == dict(
        zip(names, (3, 2, 2), strict=True)
    )


def test_without_lm_eval_the_extra_is_named() -> None:
    assert tasks_run.missing_extra(["a", "b"]).endswith(
        "lm-eval is not installed; pip install -e .[eval] brings it"
    )
