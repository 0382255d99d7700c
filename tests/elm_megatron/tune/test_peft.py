"""Our adapters against PEFT's on the exported model: the same data in the same order, the same adapter."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from transformers import AutoModelForCausalLM

from conf.schema.tune import TARGETS
from data_prep.tokenizer import Tokenizer
from elm_megatron.run.folder import RunFolder
from elm_megatron.sources import adapters
from elm_megatron.tune import lora
from elm_megatron.tune.corpus import SftData
from tests.elm_megatron.rank_pool import RankPool
from tests.elm_megatron.tune import configs, rank_functions

LAYOUTS = {
    "one": (1, {}),
    "tp2": (2, {"tp": 2}),
    "pp2": (2, {"pp": 2}),
    "tp2sp": (2, {"tp": 2, "sp": True}),
    "tp2dp2-packed": (4, {"tp": 2, "packing": True, "micro_batch_size": 1, "global_batch_size": 2}),
}
SETTINGS = {"r": 64, "alpha": 128.0, "targets": list(TARGETS)}


def load(exported: Path) -> torch.nn.Module:
    """The exported base under Hugging Face."""
    return AutoModelForCausalLM.from_pretrained(exported, dtype=torch.float32)


def peft_model(exported: Path, config: Any) -> torch.nn.Module:
    """The base with PEFT's adapters, A at the values ours start from."""
    tune = config.tune
    model = peft.get_peft_model(
        load(exported),
        peft.LoraConfig(
            r=tune.r,
            lora_alpha=tune.alpha,
            lora_dropout=0.0,
            target_modules=tune.targets,
            task_type="CAUSAL_LM",
        ),
    )
    named = dict(model.named_parameters())
    for layer in range(config.model.num_layers):
        for target in tune.targets:
            name = adapters.peft_name(layer, target, "lora_A").replace(".weight", ".default.weight")
            start = lora.initial_a(
                adapters.megatron_name(layer, target, "lora_A"), tuple(named[name].shape), tune.seed
            )
            named[name].data.copy_(start)
    return model


def train_peft(exported: Path, data_dir: Path, config: Any) -> tuple[list[float], list[float], dict]:
    """PEFT's losses, gradient norms and ΔW of every projection, on the batches our loop takes."""
    model, tune = peft_model(exported, config), config.tune
    rows = SftData.read(config, Tokenizer.load(data_dir)).train
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(
        parameters, tune.lr, betas=(tune.beta1, tune.beta2), eps=tune.eps, weight_decay=0.0
    )
    losses, norms = [], []
    for step in range(tune.steps):
        ids = rows.ids(step * tune.global_batch_size, tune.global_batch_size)
        total, answers = 0.0, 0.0
        for row in ids:  # example by example: PEFT sees no padding and no packing
            for i in rows.rows[row]:
                example = rows.examples[i]
                tokens = torch.from_numpy(example.ids.astype("int64"))[None]
                each = torch.nn.functional.cross_entropy(
                    model(tokens[:, :-1]).logits[0], tokens[0, 1:], reduction="none"
                )
                mask = torch.from_numpy(example.answer[1:])
                total, answers = total + each[mask].sum(), answers + mask.sum()
        loss = total / answers
        optimizer.zero_grad()
        loss.backward()
        norms.append(torch.nn.utils.clip_grad_norm_(parameters, tune.clip_grad).item())
        optimizer.step()
        losses.append(loss.item())
    named = dict(model.named_parameters())
    delta = {}
    for layer in range(config.model.num_layers):
        for target in tune.targets:
            a, b = (
                named[adapters.peft_name(layer, target, m).replace(".weight", ".default.weight")].detach()
                for m in adapters.MATRICES
            )
            delta[layer, target] = tune.alpha / tune.r * (b @ a)
    return losses, norms, delta


def ours(ranks: RankPool, config: Any) -> tuple[list[float], list[float], dict]:
    """Our losses, gradient norms and ΔW, read from the run's PEFT folder."""
    configs.folder_of(config)
    assert (
        ranks.run(config.world_size, rank_functions.finetune, config=config) == ["done"] * config.world_size
    )
    run = RunFolder(config.run.dir)
    adapter = adapters.read(run.path / "adapter", config.model)
    delta = {key: adapter.scale * (b @ a) for key, (a, b) in adapter.tensors.items()}
    rows = run.read_metrics()
    return [row["loss"] for row in rows], [row["grad_norm"] for row in rows], delta


def furthest(mine: dict, reference: dict) -> float:
    """Largest ‖ΔW − ΔW_peft‖ / ‖ΔW_peft‖."""
    assert mine.keys() == reference.keys()
    return max(((mine[k] - reference[k]).norm() / reference[k].norm()).item() for k in reference)


@pytest.mark.parametrize("name", LAYOUTS)
def test_equals_peft(
    name: str, ranks: RankPool, base: Path, exported: Path, corpus: Path, tmp_path: Path
) -> None:
    world, changes = LAYOUTS[name]
    config = configs.finetune_config(tmp_path / name, base, world, **{**SETTINGS, **changes})
    losses, norms, delta = ours(ranks, config)
    expected_losses, expected_norms, expected = train_peft(exported, corpus, config)
    assert sum(expected_losses[-5:]) < sum(expected_losses[:5]) - 0.2
    assert len(losses) == 20
    print(name, max(abs(a - b) for a, b in zip(losses, expected_losses, strict=True)))
    print(name, max(abs(a / b - 1) for a, b in zip(norms, expected_norms, strict=True)))
    assert losses == pytest.approx(expected_losses, abs=1e-6)
    assert norms == pytest.approx(expected_norms, rel=1e-5)
    worst = furthest(delta, expected)
    print(f"{name}: largest relative difference of an adapter {worst:.1e}")
    assert worst < 1e-3


def test_another_alpha_does_not_equal_peft(
    ranks: RankPool, base: Path, exported: Path, corpus: Path, tmp_path: Path
) -> None:
    config = configs.finetune_config(tmp_path / "half", base, 1, **{**SETTINGS, "alpha": 64.0})
    losses, _, delta = ours(ranks, config)
    config.tune.alpha = 128.0
    expected_losses, _, expected = train_peft(exported, corpus, config)
    assert max(abs(a - b) for a, b in zip(losses, expected_losses, strict=True)) > 1e-2
    assert furthest(delta, expected) > 1e-1
