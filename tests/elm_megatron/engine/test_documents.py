"""What happens at a document's end: attention and positions that begin anew, and losses left out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from conf.errors import InputError
from conf.schema.pretrain import PretrainConfig
from elm_megatron.engine.packing import document_ends
from elm_megatron.run.world import World
from tests.elm_megatron.configs import pretrain_config
from tests.elm_megatron.engine import rank_functions
from tests.elm_megatron.rank_pool import RankPool
from tests.elm_megatron.small_dataset import make_dataset

ALL: dict[str, Any] = {"reset_attention_mask": True, "eod_mask_loss": True}
LAYOUTS: dict[str, tuple[int, dict[str, Any]]] = {
    "tp2": (2, {"tp": 2}),
    "tp2sp": (2, {"tp": 2, "sp": True}),
    "pp2": (2, {"pp": 2}),
    "pp2vpp2": (2, {"pp": 2, "vpp": 2}),
    "dp2": (2, {}),
    "recompute": (1, {"recompute": "full"}),
    "larger micro-batches": (1, {"micro_batch_size": 8}),
}


@pytest.fixture(scope="module")
def short_documents(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Documents of 40 tokens, so that a sample of 64 holds pieces of two or three."""
    return make_dataset(tmp_path_factory.mktemp("data") / "small", documents=200, valid_tokens=8000)


def trained(ranks: RankPool, config: PretrainConfig) -> dict[str, list[float]]:
    """Losses and gradient norms of a run."""
    run = rank_functions.folder(config)
    ranks.run(config.world_size, rank_functions.train, config=config)
    rows = run.read_metrics()
    return {key: [row[key] for row in rows] for key in ("loss", "grad_norm")}


@pytest.fixture(scope="module")
def one_rank(
    ranks: RankPool, short_documents: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, list[float]]:
    """One rank with documents kept apart."""
    config = pretrain_config(tmp_path_factory.mktemp("runs") / "one", short_documents, steps=4, **ALL)
    return trained(ranks, config)


@pytest.mark.parametrize("name", LAYOUTS)
def test_layouts_agree(
    name: str, ranks: RankPool, short_documents: Path, tmp_path: Path, one_rank: dict[str, list[float]]
) -> None:
    """However a batch is cut, each token weighs the same, though micro-batches lose unlike numbers."""
    world, changes = LAYOUTS[name]
    config = pretrain_config(tmp_path / "run", short_documents, world, steps=4, **ALL, **changes)
    found = trained(ranks, config)
    assert found["loss"] == pytest.approx(one_rank["loss"], rel=1e-5)
    assert found["grad_norm"] == pytest.approx(one_rank["grad_norm"], rel=1e-4)


def test_each_option_changes_what_is_learnt(
    ranks: RankPool, short_documents: Path, tmp_path: Path, one_rank: dict[str, list[float]]
) -> None:
    seen = [one_rank["loss"]]
    for name in ("reset_attention_mask", "eod_mask_loss", None):
        chosen = {name: True} if name else {}
        config = pretrain_config(tmp_path / str(name), short_documents, steps=4, **chosen)
        found = trained(ranks, config)["loss"]
        assert all(found[-1] != pytest.approx(other[-1], rel=1e-5) for other in seen)
        seen.append(found)


def inner_losses(world: World, config: PretrainConfig) -> tuple[list[float], list[float], float]:
    """Losses of the second document of a row, inside the row and alone; and Σ loss mask over EOS."""
    import torch

    from elm_megatron.engine import data, distributed
    from elm_megatron.engine.pretraining import Pretraining
    from elm_megatron.engine.train import Trainer
    from elm_megatron.model import device as devices

    device = devices.prepare("cpu", world.local_rank)
    distributed.join(world, device, config.parallel)
    distributed.seed_everything(1)
    trainer = Trainer(Pretraining(config, world, device))
    (batch,) = data.micro_batches(
        trainer.task.train_set, trainer.task.train_set.ids(0, 2), 2, 0, 1, device, trainer.task.keep_apart
    )
    start, stop = batch.packed.cu_seqlens_q.tolist()[1:3]
    part = slice(start, stop)
    model = trainer.chunks[0]
    with torch.no_grad():
        inside = model(
            batch.tokens, batch.position_ids, None, labels=batch.labels, packed_seq_params=batch.packed
        )[0, part]
        positions = torch.arange(stop - start)[None]
        alone = model(batch.tokens[:, part], positions, None, labels=batch.labels[:, part])[0]
    masked = float(batch.loss_mask[batch.tokens == trainer.task.keep_apart].sum())
    distributed.leave()
    return inside.tolist(), alone.tolist(), masked


def test_a_document_is_read_as_if_it_stood_alone(
    ranks: RankPool, short_documents: Path, tmp_path: Path
) -> None:
    config = pretrain_config(tmp_path / "run", short_documents, **ALL)
    rank_functions.folder(config)
    ((inside, alone, masked),) = ranks.run(1, inner_losses, config=config)
    assert len(inside) > 10
    assert inside == pytest.approx(alone, rel=1e-6)
    assert masked == 0.0


def test_ends_are_behind_each_eos_and_at_each_row() -> None:
    import torch

    tokens = torch.tensor([[5, 2, 6, 7], [2, 8, 9, 2]])
    assert document_ends(tokens, 2) == [0, 2, 4, 5, 8]


def test_refusals(small_data: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"only with parallel\.cp=1, found 2"):
        pretrain_config(tmp_path / "run", small_data, 2, cp=2, reset_attention_mask=True)
