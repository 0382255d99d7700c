"""The head of the card: what the hub reads, from the records of every kind of lineage."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import yaml

from elm_megatron.card import head
from elm_megatron.run.folder import RunFolder
from tests.elm_megatron.bundle.test_write import exported, project

__all__ = ["project"]  # a fixture


def keys_of(text: str) -> dict[str, Any]:
    return yaml.safe_load(text.removeprefix("---\n").partition("\n---")[0])


def test_a_tuned_model_names_its_base_its_data_its_energy_and_its_measures(project: Path) -> None:
    RunFolder(project / "runs/finetune").update(valid_loss=2.0)
    _, trained = exported(project, "finetune", licence="apache-2.0", grams_per_kwh=250.0)
    text = head.write(trained)
    card = huggingface_hub.ModelCard(f"{text}\n\n# text\n")
    data = card.data
    assert (data.base_model, data.license, data.datasets) == ("pretrain", "apache-2.0", ["sample"])
    assert data.language == ["en", "nl"] and {"lora", "chat"} <= set(data.tags)
    (measured,) = data.eval_results
    assert measured.metric_type == "perplexity"
    assert measured.metric_value == pytest.approx(math.exp(2.0), rel=1e-5)
    emissions = data.co2_eq_emissions
    assert emissions["emissions"] == pytest.approx(trained.kwh * 250, rel=1e-5)
    assert emissions["training_type"] == "pre-training and fine-tuning" and "NVML" in emissions["source"]


def test_what_is_unknown_is_left_out(project: Path) -> None:
    for name in ("pretrain", "finetune"):
        path = Path(f"runs/{name}/run.json")
        record = json.loads(path.read_text(encoding="utf-8"))
        path.write_text(json.dumps({**record, "seconds": None, "kwh": None}), encoding="utf-8")
    _, trained = exported(project, "pretrain")
    found = keys_of(head.write(trained))
    assert found["license"] == "unknown" and found["datasets"] == ["sample"]
    assert not {"co2_eq_emissions", "model-index", "base_model"} & found.keys()


def test_an_evaluation_takes_the_place_of_an_earlier_one(project: Path) -> None:
    RunFolder(project / "runs/pretrain").update(valid_loss=1.5)
    _, trained = exported(project, "pretrain")
    text = f"{head.write(trained)}\n\n# body\n---\nend\n"
    for value in (3.25, 4.5):
        measured = [
            ("perplexity, nl", value),
            ("elm_cloze_nl, accuracy", 0.5),
            ("elm_title_en, accuracy", None),
        ]
        text = head.with_results(text, measured)
    results = huggingface_hub.ModelCard(text).data.eval_results
    shown = [(one.dataset_name, one.metric_type, one.metric_value) for one in results]
    assert shown[1:] == [("documents, nl", "perplexity", 4.5), ("elm_cloze_nl", "accuracy", 0.5)]
    assert shown[0][0] == "sample" and text.endswith("\n\n# body\n---\nend\n")
    for other in ("no head", "---\n- a\n---\n", ""):
        assert head.with_results(other, [("perplexity, nl", 1.0)]) == other
