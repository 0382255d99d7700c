"""Whether tuning on the published spreadsheet teaches anything, over three seeds."""

from __future__ import annotations

import statistics
from pathlib import Path

import pytest

from elm_megatron.run_folder import RunFolder
from elm_megatron.tune.config import TARGETS
from elm_megatron.tune.source import resolve
from tests.elm_megatron.configs import pretrain_config, small_model
from tests.elm_megatron.rank_pool import RankPool
from tests.elm_megatron.tune import cases
from tests.elm_megatron.tune.test_spreadsheet import real_spreadsheet

SEEDS = (1, 2, 3)


@pytest.fixture(scope="module")
def tiny(ranks: RankPool, tune_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base of the size of model=tiny."""
    folder = tmp_path_factory.mktemp("bases") / "tiny"
    sizes = {"hidden_size": 256, "ffn_hidden_size": 640, "num_query_groups": 4}
    model = small_model(vocab_size=cases.VOCAB, max_position_embeddings=512, **sizes)
    config = pretrain_config(folder, tune_data, model=model, steps=120, seq_length=128, lr=2e-3, min_lr=2e-4)
    cases.folder_of(config)
    assert ranks.run(1, cases.pretrain, config=config) == ["done"]
    return folder


def validations(
    ranks: RankPool, folder: Path, base: Path, stage: str, seed: int, **changes: object
) -> list[dict]:
    """The rows of valid.jsonl of one run on the spreadsheet."""
    sheet = real_spreadsheet()
    if sheet is None:
        pytest.skip("the published spreadsheet is not here; ELM_SAMPLE_DIR names its folder")
    files = {f"{stage}_files": [str(sheet.absolute())], f"{stage}_valid_fraction": 0.2}
    settings = {"seed": seed, "steps": 40, "eval_every": 40, "dropout": 0.05, "seq_length": 512}
    settings |= {"r": 16, "alpha": 32.0, "targets": list(TARGETS), **changes}
    config = cases.finetune_config(
        folder, base, 1, stage, model=resolve(str(base)).model, **files, **settings
    )
    cases.folder_of(config)
    assert ranks.run(1, cases.finetune, config=config) == ["done"]
    run = RunFolder(folder)
    return run.read_metrics(run.valid)


@pytest.mark.slow
def test_sft_lowers_the_validation_loss(ranks: RankPool, tiny: Path, tmp_path: Path) -> None:
    for seed in SEEDS:
        first, last = validations(ranks, tmp_path / str(seed), tiny, "sft", seed, lr=2e-3, min_lr=2e-4)
        print("sft", seed, round(first["loss"], 4), round(last["loss"], 4))
        assert last["loss"] < 0.95 * first["loss"]


@pytest.mark.slow
def test_dpo_raises_the_margin_on_held_out_pairs(ranks: RankPool, tiny: Path, tmp_path: Path) -> None:
    margins = []
    for seed in SEEDS:
        first, last = validations(ranks, tmp_path / str(seed), tiny, "dpo", seed, lr=1e-3, min_lr=1e-4)
        print("dpo", seed, first["margin"], round(last["margin"], 4), round(last["accuracy"], 3))
        margins.append(last["margin"] - first["margin"])
    assert statistics.mean(margins) > 2 * statistics.stdev(margins)
    assert min(margins) > 0
