"""Predicted bytes against ranks that were really built, with the sizes of tiny and small."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from conf.names import CONF
from conf.schema.model import ModelConfig
from conf.schema.pretrain import PretrainConfig
from elm_megatron.planner import memory
from tests.elm_megatron.configs import pretrain_config
from tests.elm_megatron.engine import rank_functions
from tests.elm_megatron.rank_pool import RankPool
from tests.elm_megatron.small_dataset import VOCAB

KEYS = ("hidden_size", "ffn_hidden_size", "num_layers", "num_attention_heads")
LENGTH = 64
LAYOUTS = {  # ranks, and keys of parallel and train
    "one": (1, {}),
    "bf16": (1, {"precision": "bf16"}),
    "tp2": (2, {"tp": 2}),
    "tp2 sp": (2, {"tp": 2, "sp": True}),
    "dp2": (2, {}),
    "dp2, whole optimizers": (2, {"distributed_optimizer": False}),
    "cp2": (2, {"cp": 2}),
    "pp2": (2, {"pp": 2}),
    "pp2 vpp2": (2, {"pp": 2, "vpp": 2, "micro_batch_size": 1}),
    "tp2 pp2": (4, {"tp": 2, "pp": 2}),
    "pp2 dp2 bf16": (4, {"pp": 2, "precision": "bf16"}),
}


def model_of(name: str, vocabulary: int) -> ModelConfig:
    """A model of conf/model/, with another vocabulary."""
    sizes = yaml.safe_load((CONF / "model" / f"{name}.yaml").read_text(encoding="utf-8"))
    heads = sizes["num_attention_heads"]
    numbers = [sizes[key] for key in KEYS]
    return ModelConfig(name, *numbers, heads, LENGTH, vocabulary)


def built(
    ranks: RankPool, folder: Path, data: Path, world: int, model: ModelConfig, **changes: object
) -> tuple[PretrainConfig, list[dict[str, int]]]:
    """A run's settings, and what each of its ranks holds."""
    changes = {"seq_length": LENGTH, "global_batch_size": 4, **changes}
    config = pretrain_config(folder / "run", data, world, model, **changes)
    rank_functions.folder(config)
    return config, ranks.run(world, rank_functions.held_bytes, config=config)


@pytest.mark.slow
@pytest.mark.parametrize("name", LAYOUTS)
def test_the_planner_has_the_bytes_of_small(
    name: str, ranks: RankPool, small_data: Path, tmp_path: Path
) -> None:
    """To the byte; shards of data-parallel ranks up to the padding of megatron-core's buckets."""
    world, changes = LAYOUTS[name]
    config, held = built(ranks, tmp_path, small_data, world, model_of("small", 32_000), **changes)
    padded = 1e-4 if config.dp * config.parallel.cp > 1 else 0.0
    stages = config.parallel.pp
    for rank, found in enumerate(held):
        said = memory.stage_parts(config, rank * stages // world)
        assert said["weights"] == found["weight_bytes"]
        assert said["gradients"] == pytest.approx(found["gradient_bytes"], rel=padded, abs=0)
        assert said["optimizer"] == pytest.approx(found["optimizer_bytes"], rel=padded, abs=0)


@pytest.mark.slow
@pytest.mark.parametrize("recompute", ["none", "selective", "full"])
@pytest.mark.parametrize(("name", "vocabulary"), [("tiny", VOCAB), ("small", 32_000)])
def test_activations_are_those_that_autograd_saves(
    name: str, vocabulary: int, recompute: str, ranks: RankPool, small_data: Path, tmp_path: Path
) -> None:
    model = model_of(name, vocabulary)
    config, (held,) = built(ranks, tmp_path, small_data, 1, model, recompute=recompute)
    said = memory.activation_bytes(model, config.parallel, config.train, 0, "cpu")
    if recompute == "full":  # the layer that backward computes again is not held in forward
        said -= memory.layer_bytes(model, config.parallel, replace(config.train, recompute="none"))
    assert said == pytest.approx(held["activation_bytes"], rel=0.10)
