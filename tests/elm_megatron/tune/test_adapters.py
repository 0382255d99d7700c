"""Adapter files both ways, merging, and which base an adapter belongs to."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import peft
import pytest
import torch
from transformers import AutoModelForCausalLM

from conf.errors import InputError
from conf.schema.model import ModelConfig
from conf.schema.parallel import ParallelConfig
from conf.schema.tune import TARGETS, TuneConfig
from data_prep.tokenizer import Tokenizer
from elm_megatron.model import hf_names
from elm_megatron.sources import adapters
from elm_megatron.sources.source import resolve
from elm_megatron.sources.weights import FolderWeights
from elm_megatron.tune.corpus import SftData
from tests.elm_megatron.rank_pool import RankPool
from tests.elm_megatron.tune import configs, rank_functions

LARGE = ModelConfig("large", 2048, 5120, 16, 32, 32, 2048, 32000)


def tokens() -> list[list[int]]:
    """Two sequences of ids."""
    generator = torch.Generator().manual_seed(7)
    return torch.randint(4, configs.VOCAB, (2, 48), generator=generator).tolist()


def files_of(folder: Path) -> dict[str, str]:
    """sha256 of every file below a folder."""
    return {
        str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(folder.rglob("*"))
        if p.is_file()
    }


@pytest.fixture(scope="module")
def tuned(ranks: RankPool, base: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple:
    """A finished tuning of q and v on two tensor-parallel ranks, the base's files before, and its config."""
    before = files_of(base)
    folder = tmp_path_factory.mktemp("tuned") / "qv"
    config = configs.finetune_config(folder, base, 2, tp=2, r=8, alpha=16.0, steps=12, lr=5e-3, save_every=6)
    configs.folder_of(config)
    assert ranks.run(2, rank_functions.finetune, config=config) == ["done"] * 2
    return config, before


def test_base_is_untouched_and_checkpoints_hold_the_adapter_alone(tuned: tuple, base: Path) -> None:
    config, before = tuned
    assert files_of(base) == before
    from elm_megatron.checkpoint.manifest import Checkpoint
    from elm_megatron.run.folder import RunFolder
    from elm_megatron.run.steps import committed

    checkpoint = Checkpoint.open(committed(RunFolder(config.run.dir))[0])
    held = checkpoint.reader().names()
    assert len(held) == 2 * 2 * config.model.num_layers
    assert all(".lora_" in name and ("q_proj" in name or "v_proj" in name) for name in held)
    elements = config.tune.trainable_parameters(config.model)
    on_disk = sum(p.stat().st_size for p in checkpoint.folder.glob("*.safetensors"))
    assert on_disk < 1.2 * (3 * 4 * elements) + 20_000  # weights and two moments, fp32


def test_ours_loads_in_peft(tuned: tuple, ranks: RankPool, exported: Path) -> None:
    config, _ = tuned
    folder = Path(config.run.dir) / "adapter"
    reference = AutoModelForCausalLM.from_pretrained(exported, dtype=torch.float32)
    with torch.no_grad():
        without = reference(torch.tensor(tokens())).logits
        theirs = peft.PeftModel.from_pretrained(reference, folder).eval()(torch.tensor(tokens())).logits
    config.parallel = ParallelConfig()
    config.cluster.tasks_per_node = 1
    (mine,) = ranks.run(1, rank_functions.logits, config=config, adapter=str(folder), tokens=tokens())
    assert (theirs - without).abs().max() > 0.1
    assert (torch.from_numpy(mine) - theirs).abs().max() < 1e-4


def test_peft_loads_in_ours_and_merges(ranks: RankPool, exported: Path, base: Path, tmp_path: Path) -> None:
    """An adapter made by PEFT, on all projections, with rank-stabilised scaling."""
    torch.manual_seed(3)
    model = peft.get_peft_model(
        AutoModelForCausalLM.from_pretrained(exported, dtype=torch.float32),
        peft.LoraConfig(
            r=4, lora_alpha=6, target_modules=list(TARGETS), use_rslora=True, task_type="CAUSAL_LM"
        ),
    )
    for name, param in model.named_parameters():
        if "lora_B" in name:
            param.data.normal_(0, 0.05)
    model.save_pretrained(tmp_path / "theirs")
    with torch.no_grad():
        theirs = model.eval()(torch.tensor(tokens())).logits
    config = configs.finetune_config(
        tmp_path / "x",
        base,
        r=4,
        alpha=6 * 4 / 2.0,
        targets=list(TARGETS),
        init_from=str(tmp_path / "theirs"),
    )
    (mine,) = ranks.run(1, rank_functions.logits, config=config, adapter=None, tokens=tokens())
    assert (torch.from_numpy(mine) - theirs).abs().max() < 1e-4
    merged = load_merged(exported, tmp_path / "theirs", config.model)
    with torch.no_grad():
        folded = merged(torch.tensor(tokens())).logits
    assert (folded - theirs).abs().max() < 1e-4


@pytest.mark.parametrize("layout", [{}, {"tp": 2}, {"pp": 2}, {"tp": 2, "sp": True}])
def test_the_published_shape_goes_through_every_layout(
    layout: dict, ranks: RankPool, exported: Path, base: Path, corpus: Path, tmp_path: Path
) -> None:
    """PEFT's file (r=64, q and v, alpha 128) gives PEFT's loss, and comes out of the run as it went in."""
    torch.manual_seed(5)
    lora = peft.LoraConfig(r=64, lora_alpha=128, lora_dropout=0.05, target_modules=["q_proj", "v_proj"])
    model = peft.get_peft_model(AutoModelForCausalLM.from_pretrained(exported, dtype=torch.float32), lora)
    for name, param in model.named_parameters():
        if "lora_B" in name:
            param.data.normal_(0, 0.05)
    model.eval().save_pretrained(tmp_path / "theirs")
    world = 2 if layout else 1
    changes = {"r": 64, "alpha": 128.0, "steps": 1, "lr": 1e-9, "min_lr": 1e-9}
    config = configs.finetune_config(
        tmp_path / "x", base, world, init_from=str(tmp_path / "theirs"), **changes, **layout
    )
    run = configs.folder_of(config)
    assert ranks.run(world, rank_functions.finetune, config=config) == ["done"] * world
    (row,) = run.read_metrics()
    rows = SftData.read(config, Tokenizer.load(corpus)).train
    total, answers = torch.zeros(()), 0
    for example in (rows.examples[i] for row_id in rows.ids(0, 8) for i in rows.rows[row_id]):
        ids, mask = torch.from_numpy(example.ids.astype("int64")), torch.from_numpy(example.answer[1:])
        with torch.no_grad():
            each = torch.nn.functional.cross_entropy(
                model(ids[None, :-1]).logits[0], ids[1:], reduction="none"
            )
        total, answers = total + each[mask].sum(), answers + int(mask.sum())
    assert abs(row["loss"] - (total / answers).item()) < 1e-4
    given, kept = (adapters.read(tmp_path / p, config.model) for p in ("theirs", "x/adapter"))
    assert (kept.r, kept.scale, kept.targets) == (64, 2.0, ("q_proj", "v_proj"))
    for key, pair in given.tensors.items():
        assert all(torch.allclose(a, b, atol=1e-7) for a, b in zip(pair, kept.tensors[key], strict=True))


def load_merged(exported: Path, adapter: Path, model: ModelConfig) -> torch.nn.Module:
    """The exported base under Hugging Face with an adapter folded in by us."""
    weights = adapters.MergedWeights(FolderWeights(exported), adapters.read(adapter, model))
    found = AutoModelForCausalLM.from_pretrained(exported, dtype=torch.float32)
    tensors = {
        k: v for part in hf_names.parts(model) for k, v in hf_names.to_hf(model, part, weights.part(part))
    }
    found.load_state_dict(tensors, strict=True)
    return found


def test_merge_changes_only_what_was_asked_for(tuned: tuple, exported: Path) -> None:
    config, _ = tuned
    model, plain = config.model, FolderWeights(exported)
    merged = adapters.MergedWeights(plain, adapters.read(Path(config.run.dir) / "adapter", config.model))
    for part in hf_names.parts(model):
        before, after = (dict(hf_names.to_hf(model, part, w.part(part))) for w in (plain, merged))
        for name in before:
            changed = not torch.equal(before[name], after[name])
            assert changed == ("q_proj" in name or "v_proj" in name), name


def test_another_base_is_refused(
    tuned: tuple, ranks: RankPool, base: Path, corpus: Path, tmp_path: Path
) -> None:
    config, _ = tuned
    from tests.elm_megatron.configs import pretrain_config

    other = pretrain_config(tmp_path / "other", corpus, model=configs.base_model(), steps=1, seed=5)
    configs.folder_of(other)
    ranks.run(1, rank_functions.pretrain, config=other)
    adapter = str(Path(config.run.dir))
    warm = configs.finetune_config(tmp_path / "warm", tmp_path / "other", r=8, alpha=16.0, init_from=adapter)
    configs.folder_of(warm)
    (sentence,) = ranks.run(1, rank_functions.finetune_to_refusal, config=warm)
    assert sentence.startswith("the adapter was trained on another base")
    # The same run folder, resumed over a base that was exchanged behind its back:
    swapped = configs.finetune_config(tmp_path / "qv", tmp_path / "other", r=8, alpha=16.0, steps=14)
    shutil.copytree(config.run.dir, tmp_path / "qv")
    (sentence,) = ranks.run(1, rank_functions.finetune_to_refusal, config=swapped)
    assert "another base_fingerprint" in sentence
    wider = configs.finetune_config(tmp_path / "wider", base)
    wider.model.ffn_hidden_size = 96
    configs.folder_of(wider)
    (sentence,) = ranks.run(1, rank_functions.finetune_to_refusal, config=wider)
    assert "the run's model wants" in sentence
    deeper = configs.finetune_config(tmp_path / "deeper", base)
    deeper.model.num_layers += 1
    configs.folder_of(deeper)
    (sentence,) = ranks.run(1, rank_functions.finetune_to_refusal, config=deeper)
    assert "which the run's model has" in sentence
    wrong = configs.base_model()
    wrong.hidden_size = 128
    with pytest.raises(InputError, match="must be"):
        adapters.read(Path(config.run.dir) / "adapter", wrong)


def test_a_tuning_run_stands_for_base_and_adapter(tuned: tuple, base: Path) -> None:
    config, _ = tuned
    found = resolve(config.run.dir)
    assert (found.stored.folder, found.adapter) == (base, Path(config.run.dir) / "adapter")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("peft_type", "IA3", "allowed is 'LORA'"),
        ("use_dora", True, "not plain LoRA"),
        ("bias", "all", "not plain LoRA"),
        ("r", 4, "must be"),
        ("r", None, "r=None, must be a number above 0"),
        ("lora_alpha", 0, "lora_alpha=0, must be a number above 0"),
    ],
)
def test_foreign_kinds_are_refused(
    key: str, value: object, message: str, tuned: tuple, tmp_path: Path
) -> None:
    config, _ = tuned
    folder = shutil.copytree(Path(config.run.dir) / "adapter", tmp_path / "a")
    raw = json.loads((folder / adapters.CONFIG).read_text())
    (folder / adapters.CONFIG).write_text(json.dumps({**raw, key: value}))
    with pytest.raises(InputError, match=message):
        adapters.read(folder, config.model)


def test_a_pickle_is_never_opened(tuned: tuple, tmp_path: Path) -> None:
    config, _ = tuned
    folder = shutil.copytree(Path(config.run.dir) / "adapter", tmp_path / "a")
    (folder / adapters.TENSORS).rename(folder / "adapter_model.bin")
    with pytest.raises(InputError, match="never opened"):
        adapters.read(folder, config.model)


def test_published_trainable_parameters(ranks: RankPool) -> None:
    assert TuneConfig().trainable_parameters(LARGE) == 8_388_608
    assert ranks.run(1, rank_functions.count_on_meta, model=LARGE, tune=TuneConfig()) == [8_388_608]
    every = TuneConfig(r=8, targets=list(TARGETS))
    grouped = ModelConfig("g", 64, 160, 4, 4, 2, 64, 512)
    assert ranks.run(1, rank_functions.count_on_meta, model=grouped, tune=every) == [
        every.trainable_parameters(grouped)
    ]
