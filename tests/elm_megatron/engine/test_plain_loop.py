"""Pretraining against a plain loop: transformers' Llama, torch's AdamW, the same samples, in four layouts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from conf.schema.model import ModelConfig
from conf.schema.pretrain import PretrainConfig
from data_prep.manifest import Manifest
from elm_megatron.engine.samples import Samples
from elm_megatron.engine.schedule import learning_rate
from elm_megatron.model import hf_names
from elm_megatron.run.folder import RunFolder
from elm_megatron.sources.weights import RunWeights
from tests.elm_megatron.configs import pretrain_config, small_model
from tests.elm_megatron.engine import rank_functions
from tests.elm_megatron.rank_pool import RankPool

LAYOUTS: dict[str, tuple[int, dict[str, Any]]] = {
    "one": (1, {}),
    "tp2sp-dp2": (4, {"tp": 2, "sp": True}),
    "pp2vpp2": (2, {"pp": 2, "vpp": 2}),
    "cp2dp2": (4, {"cp": 2}),
}
LENGTH = {"steps": 6, "lr": 1e-3, "min_lr": 1e-4, "warmup_steps": 2, "weight_decay": 0.1, "clip_grad": 0.5}


@pytest.fixture(scope="module")
def start(ranks: RankPool, small_data: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A run of a few steps, whose weights both loops begin with."""
    model = small_model(vocab_size=256)  # no padding
    config = pretrain_config(tmp_path_factory.mktemp("start") / "run", small_data, model=model)
    run = rank_functions.folder(config)
    ranks.run(1, rank_functions.train, config=config)
    return run


def llama(run: RunFolder, model: ModelConfig) -> torch.nn.Module:
    """The run's newest weights under transformers."""
    config = LlamaConfig(
        vocab_size=model.vocab_size,
        hidden_size=model.hidden_size,
        intermediate_size=model.ffn_hidden_size,
        num_hidden_layers=model.num_layers,
        num_attention_heads=model.num_attention_heads,
        num_key_value_heads=model.num_query_groups,
        max_position_embeddings=model.max_position_embeddings,
        rms_norm_eps=model.norm_eps,
        rope_theta=model.rope_theta,
        tie_word_embeddings=model.tie_embeddings,
    )
    weights, found = RunWeights(run, None, model), LlamaForCausalLM(config)
    tensors = {
        name: tensor
        for part in hf_names.parts(model)
        for name, tensor in hf_names.to_hf(model, part, weights.part(part))
    }
    found.load_state_dict(tensors, strict=True)
    return found


def plain_loop(run: RunFolder, config: PretrainConfig) -> list[tuple[float, float]]:
    """(loss, gradient norm) of every update."""
    model, train = llama(run, config.model), config.train
    samples = Samples.open(config.data, Manifest.load(config.data.dir), train.seq_length, train.seed)
    matrices = [p for p in model.parameters() if p.dim() > 1]
    vectors = [p for p in model.parameters() if p.dim() == 1]
    groups = [
        {"params": matrices, "weight_decay": train.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=train.lr, betas=(train.beta1, train.beta2), eps=train.eps)
    found = []
    for step in range(train.steps):
        ids = samples.ids(step * train.global_batch_size, train.global_batch_size)
        rows = [samples[int(i)] for i in ids]
        logits = model(torch.stack([row["tokens"] for row in rows])).logits
        labels = torch.stack([row["labels"] for row in rows])
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten())
        optimizer.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), train.clip_grad)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step + 1, train.steps, train)
        optimizer.step()
        found.append((loss.item(), norm.item()))
    return found


@pytest.fixture(scope="module")
def expected(start: RunFolder, small_data: Path, tmp_path_factory: pytest.TempPathFactory) -> list:
    """The plain loop's figures."""
    model = small_model(vocab_size=256)
    config = pretrain_config(tmp_path_factory.mktemp("plain") / "run", small_data, model=model, **LENGTH)
    return plain_loop(start, config)


@pytest.mark.parametrize("name", LAYOUTS)
def test_equals_a_plain_loop(
    name: str, ranks: RankPool, small_data: Path, start: RunFolder, expected: list, tmp_path: Path
) -> None:
    world, layout = LAYOUTS[name]
    model = small_model(vocab_size=256)
    changes = {**LENGTH, **layout, "init_from": str(start.path)}
    config = pretrain_config(tmp_path / name, small_data, world, model, **changes)
    run = rank_functions.folder(config)
    assert ranks.run(world, rank_functions.train, config=config) == ["done"] * world
    rows = run.read_metrics()
    assert expected[-1][0] < expected[0][0]
    assert [row["loss"] for row in rows] == pytest.approx([loss for loss, _ in expected], abs=2e-6)
    assert [row["grad_norm"] for row in rows] == pytest.approx([norm for _, norm in expected], rel=1e-5)
