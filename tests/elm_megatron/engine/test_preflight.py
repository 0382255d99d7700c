"""The dry run's figures against the published ones, and against ranks that were really built."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from conf.plain import plain
from elm_megatron.planner import memory
from tests.elm_megatron.configs import pretrain_config, small_model
from tests.elm_megatron.engine import rank_functions
from tests.elm_megatron.rank_pool import RankPool

LARGE = {"hidden_size": 2048, "ffn_hidden_size": 5120, "num_layers": 16, "num_attention_heads": 32}
SMALL = {"hidden_size": 1024, "ffn_hidden_size": 2720, "num_layers": 8, "num_attention_heads": 8}


def preflight(config: object, folder: Path) -> dict:
    """Run the command as a launcher does."""
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(plain(config)))
    command = [sys.executable, "-m", "elm_megatron.engine.preflight", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return json.loads(done.stdout)


@pytest.mark.parametrize(("sizes", "parameters"), [(LARGE, 902_891_520), (SMALL, 165_954_560)])
def test_published_parameter_counts(sizes: dict, parameters: int, tmp_path: Path) -> None:
    model = small_model(
        **sizes,
        num_query_groups=sizes["num_attention_heads"],
        max_position_embeddings=2048,
        vocab_size=32_000,
    )
    large = sizes is LARGE
    layout = {"tp": 4, "pp": 4} if large else {}
    config = pretrain_config(
        tmp_path / "run",
        tmp_path,
        512 if large else 1,
        model,
        global_batch_size=256,
        seq_length=2048,
        **layout,
    )
    found = preflight(config, tmp_path)
    assert found["parameters"] == parameters
    assert found["world_size"] == config.world_size
    if large:
        assert [rank["rank"] for rank in found["ranks"]] == [0, 511]
        assert 16 * min(r["parameters"] for r in found["ranks"]) == pytest.approx(parameters, rel=0.2)


BUILT = {
    "one": (1, {}),
    "bf16": (1, {"precision": "bf16"}),
    "tp2": (2, {"tp": 2}),
    "tp2sp": (2, {"tp": 2, "sp": True}),
    "dp2": (2, {}),
    "cp2": (2, {"cp": 2}),
    "full": (1, {"recompute": "full"}),
    "selective": (1, {"recompute": "selective"}),
}


@pytest.mark.parametrize("name", BUILT)
def test_bytes_equal_those_of_built_ranks(
    name: str, ranks: RankPool, small_data: Path, tmp_path: Path
) -> None:
    """Weights, gradients and optimizer to the byte (dp shards: to bucket padding), activations within 3%."""
    world, changes = BUILT[name]
    config = pretrain_config(tmp_path / "run", small_data, world, global_batch_size=4, **changes)
    rank_functions.folder(config)
    held = ranks.run(world, rank_functions.held_bytes, config=config)[0]
    said = preflight(config, tmp_path)["ranks"][0]
    for key in ("parameters", "weight_bytes"):
        assert said[key] == held[key]
    padding = 0.05 if name in ("dp2", "cp2") else 0.0
    assert said["gradient_bytes"] == pytest.approx(held["gradient_bytes"], rel=padding)
    assert said["optimizer_bytes"] == pytest.approx(held["optimizer_bytes"], rel=padding)
    activations = said["activation_bytes"]
    if name == "full":  # the layer that backward computes again is not held in forward
        again = replace(config.train, recompute="none")
        activations -= memory.layer_bytes(config.model, config.parallel, again)
    assert activations == pytest.approx(held["activation_bytes"], rel=0.03)
