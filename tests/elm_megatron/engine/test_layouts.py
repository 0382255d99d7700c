"""Every layout trains the same model: losses, gradient norms and final weights agree with one rank."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from conf.schema.pretrain import PretrainConfig
from elm_megatron.checkpoint.manifest import Checkpoint
from elm_megatron.run.steps import committed
from tests.elm_megatron.configs import pretrain_config
from tests.elm_megatron.engine import rank_functions
from tests.elm_megatron.rank_pool import RankPool

LAYOUTS = {
    "tp2": (2, {"tp": 2}),
    "pp2": (2, {"pp": 2}),
    "tp2pp2": (4, {"tp": 2, "pp": 2}),
    "pp2vpp2": (2, {"pp": 2, "vpp": 2}),
    "tp2sp": (2, {"tp": 2, "sp": True}),
    "dp2": (2, {}),
    "dp2-plain": (2, {"distributed_optimizer": False}),
    "tp2dp2": (4, {"tp": 2}),
    "cp2": (2, {"cp": 2}),
    "cp2pp2": (4, {"cp": 2, "pp": 2}),
    "tp2spcp2": (4, {"tp": 2, "sp": True, "cp": 2}),
    "cp2dp2": (4, {"cp": 2}),
    "cp2-recompute": (2, {"cp": 2, "recompute": "full"}),
    "pp2vpp2dp2": (4, {"pp": 2, "vpp": 2}),
    "recompute": (1, {"recompute": "full"}),
    "recompute-selective": (1, {"recompute": "selective"}),
}


def run(ranks: RankPool, config: PretrainConfig) -> list[dict]:
    """Train and return the rows of metrics.jsonl."""
    folder = rank_functions.folder(config)
    assert ranks.run(config.world_size, rank_functions.train, config=config) == ["done"] * config.world_size
    return folder.read_metrics()


def weights(config: PretrainConfig) -> dict[str, torch.Tensor]:
    """The whole tensors of the run's last checkpoint."""
    checkpoint = Checkpoint.open(committed(rank_functions.folder(config))[0])
    checkpoint.verify()
    reader = checkpoint.reader()
    return {name: reader.read(name) for name in reader.names()}


@pytest.fixture(scope="module")
def one_rank(ranks: RankPool, small_data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple:
    """Rows and weights of the reference, one rank in fp32."""
    config = pretrain_config(tmp_path_factory.mktemp("runs") / "one", small_data)
    return run(ranks, config), weights(config)


def relative(mine: list[dict], reference: list[dict], key: str) -> float:
    """Largest relative difference of a column."""
    assert len(mine) == len(reference) == 10
    return max(abs(a[key] - b[key]) / abs(b[key]) for a, b in zip(mine, reference, strict=True))


def test_reference_learns(one_rank: tuple) -> None:
    rows, _ = one_rank
    assert rows[-1]["loss"] < 0.8 * rows[0]["loss"]
    assert [row["step"] for row in rows] == list(range(1, 11))


@pytest.mark.parametrize("name", LAYOUTS)
def test_layout_equals_one_rank(
    name: str, ranks: RankPool, small_data: Path, tmp_path: Path, one_rank: tuple
) -> None:
    world, changes = LAYOUTS[name]
    config = pretrain_config(tmp_path / name, small_data, world, **changes)
    rows, (reference, expected) = run(ranks, config), one_rank
    assert relative(rows, reference, "loss") < 1e-5
    assert relative(rows, reference, "grad_norm") < 1e-4
    final = weights(config)
    assert final.keys() == expected.keys()
    for tensor, wanted in expected.items():
        assert (final[tensor] - wanted).norm() < 1e-4 * wanted.norm(), tensor


def test_bf16_within_the_spread_of_seeds(ranks: RankPool, small_data: Path, tmp_path: Path) -> None:
    """Layouts in bf16 differ less from one rank than three times what another seed does."""
    reference = run(ranks, pretrain_config(tmp_path / "one", small_data, precision="bf16"))
    seeds = [
        run(ranks, pretrain_config(tmp_path / f"seed{s}", small_data, precision="bf16", seed=s))
        for s in (1, 2)
    ]
    spread = max(relative(rows, reference, "loss") for rows in seeds)
    for name in ("tp2", "pp2", "tp2sp", "tp2dp2", "cp2", "recompute"):
        world, changes = LAYOUTS[name]
        config = pretrain_config(tmp_path / name, small_data, world, precision="bf16", **changes)
        assert relative(run(ranks, config), reference, "loss") < 3 * spread


def test_z_loss_in_every_layout(ranks: RankPool, small_data: Path, tmp_path: Path, one_rank: tuple) -> None:
    """Learnt alike by tensor-parallel ranks, stages and data-parallel ranks; the first loss stays plain."""
    reference = run(ranks, pretrain_config(tmp_path / "one", small_data, z_loss=1e-2))
    assert reference[0]["loss"] == one_rank[0][0]["loss"]
    assert relative(reference, one_rank[0], "loss") > 1e-4
    assert reference[0]["grad_norm"] != pytest.approx(one_rank[0][0]["grad_norm"], rel=1e-4)
    for name, world, layout in (("tp2pp2", 4, {"tp": 2, "pp": 2}), ("dp2", 2, {})):
        rows = run(ranks, pretrain_config(tmp_path / name, small_data, world, z_loss=1e-2, **layout))
        assert relative(rows, reference, "loss") < 1e-5
        assert relative(rows, reference, "grad_norm") < 1e-4


def test_tied_embeddings_over_two_stages(ranks: RankPool, small_data: Path, tmp_path: Path) -> None:
    from tests.elm_megatron.configs import small_model

    model = small_model(tie_embeddings=True)
    one = pretrain_config(tmp_path / "one", small_data, model=model)
    two = pretrain_config(tmp_path / "two", small_data, 2, model=model, pp=2)
    assert relative(run(ranks, two), run(ranks, one), "loss") < 1e-5
    assert "output_layer.weight" not in weights(two)


def test_the_output_layer_waits_for_its_weight(ranks: RankPool, small_data: Path, tmp_path: Path) -> None:
    """Tied over two stages it is gathered by itself, and the loss uses it without calling the layer."""
    from tests.elm_megatron.configs import small_model

    model = small_model(tie_embeddings=True)
    one = pretrain_config(tmp_path / "one", small_data, model=model)
    four = pretrain_config(tmp_path / "four", small_data, 4, model=model, pp=2)
    assert relative(run(ranks, four), run(ranks, one), "loss") < 1e-5
