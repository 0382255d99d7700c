"""DPO against a plain loop: transformers, PEFT, the published formula, torch's AdamW, in four layouts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from transformers import AutoModelForCausalLM

from data_prep.tokenizer import Tokenizer
from elm_megatron.tune.pairs import PairData
from tests.elm_megatron.rank_pool import RankPool
from tests.elm_megatron.tune import configs, rank_functions
from tests.elm_megatron.tune.test_runs import answer_log_prob

LAYOUTS: dict[str, tuple[int, dict[str, Any]]] = {
    "one": (1, {}),
    "tp2sp": (2, {"tp": 2, "sp": True}),
    "pp2dp2": (4, {"pp": 2}),
    "pp2vpp2": (2, {"pp": 2, "vpp": 2}),
}
ADAPTER = {"r": 8, "alpha": 16.0}
DPO = {**ADAPTER, "steps": 4, "lr": 2e-3, "min_lr": 2e-3, "micro_batch_size": 2, "schedule": "constant"}
BETA, SMOOTHING = 0.3, 0.1


@pytest.fixture(scope="module")
def tuned(ranks: RankPool, base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finetune run whose adapter is not the reference any more."""
    folder = tmp_path_factory.mktemp("tuned") / "sft"
    config = configs.finetune_config(folder, base, steps=6, lr=1e-2, min_lr=1e-2, **ADAPTER)
    configs.folder_of(config)
    assert ranks.run(1, rank_functions.finetune, config=config) == ["done"]
    return folder


def configured(folder: Path, tuned: Path, world: int, **layout: Any) -> Any:
    """The preference run."""
    changes = {**DPO, **layout, "dpo_beta": BETA, "dpo_label_smoothing": SMOOTHING}
    return configs.finetune_config(folder, tuned, world, "dpo", **changes)


@pytest.fixture(scope="module")
def expected(tuned: Path, exported: Path, corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> list:
    """(loss, gradient norm) of every update of the plain loop."""
    config = configured(tmp_path_factory.mktemp("plain") / "x", tuned, 1)
    tune, pairs = config.tune, PairData.read(config, Tokenizer.load(corpus)).train
    model = peft.PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(exported, dtype=torch.float32),
        tuned / "adapter",
        is_trainable=True,
    ).double()  # so that all rounding is ours
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(
        parameters, tune.lr, betas=(tune.beta1, tune.beta2), eps=tune.eps, weight_decay=0.0
    )
    log_sigmoid, found = torch.nn.functional.logsigmoid, []
    for step in range(tune.steps):
        total = torch.zeros((), dtype=torch.float64)
        for i in pairs.ids(step * tune.global_batch_size, tune.global_batch_size):
            ratios = []
            for example in (pairs.both.examples[i], pairs.both.examples[i + len(pairs)]):
                with torch.no_grad(), model.disable_adapter():
                    reference = answer_log_prob(model, example)
                ratios.append(answer_log_prob(model, example) - reference)
            margin = BETA * (ratios[0] - ratios[1])
            total = total - (1 - SMOOTHING) * log_sigmoid(margin) - SMOOTHING * log_sigmoid(-margin)
        loss = total / tune.global_batch_size
        optimizer.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(parameters, tune.clip_grad)
        optimizer.step()
        found.append((loss.item(), norm.item()))
    return found


@pytest.mark.parametrize("name", LAYOUTS)
def test_equals_a_plain_loop(name: str, ranks: RankPool, tuned: Path, expected: list, tmp_path: Path) -> None:
    world, layout = LAYOUTS[name]
    config = configured(tmp_path / name, tuned, world, **layout)
    run = configs.folder_of(config)
    assert ranks.run(world, rank_functions.finetune, config=config) == ["done"] * world
    rows = run.read_metrics()
    assert abs(rows[0]["loss"] - 0.6931) > 1e-4
    print(name, [(r["loss"] - e[0], r["grad_norm"] / e[1] - 1) for r, e in zip(rows, expected, strict=True)])
    assert [row["loss"] for row in rows] == pytest.approx([loss for loss, _ in expected], abs=1e-6)
    assert [row["grad_norm"] for row in rows] == pytest.approx([norm for _, norm in expected], rel=1e-5)
