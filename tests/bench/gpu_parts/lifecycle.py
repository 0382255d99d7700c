"""Part D: what happens to a run made on this device: resume, LoRA with packing, export, generate."""

from __future__ import annotations

import multiprocessing
import shutil
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from conf.schema.hf import ExportConfig, GenerateConfig
from conf.schema.run import RunConfig
from elm_megatron.run.folder import RunFolder
from elm_megatron.run.world import World
from tests.bench.gpu_parts.training import pretrain
from tests.elm_megatron.configs import small_model
from tests.elm_megatron.tune.configs import finetune_config, folder_of

DATA = Path(__file__).resolve().parents[2] / "elm_megatron" / "fixtures" / "run-62c88f5" / "data" / "sample"
VOCAB = 384
STEPS, CUT = 4, 2


def measure(device: str, work: Path) -> dict[str, str]:
    """What became of each stage: "ok" with what was seen, or how it failed."""
    shutil.copytree(DATA, work / "data")
    stages: list[tuple[str, Callable[[str, Path], str]]] = [
        ("resume", _resume), ("LoRA with packing", _tune), ("export", _export), ("generate", _generate),
    ]  # fmt: skip
    found = {}
    for name, stage in stages:
        try:
            found[name] = stage(device, work)
        except Exception as error:
            found[name] = f"failed: {type(error).__name__}: {error}"[:300]
    return found


def _model() -> Any:
    return small_model(vocab_size=VOCAB, max_position_embeddings=256)


def _resume(device: str, work: Path) -> str:
    """A few steps, and the last of them once more from the checkpoint in the middle."""
    changes = {"steps": STEPS, "save_every": CUT, "model": _model(), "lr": 3e-4, "min_lr": 3e-4}
    run = pretrain(work / "run", work / "data", device, **changes)
    before = [(row["loss"], row["grad_norm"]) for row in run.read_metrics()]
    shutil.rmtree(run.checkpoints / f"step-{STEPS:08d}")
    (run.checkpoints / "latest").write_text(f"step-{CUT:08d}\n")
    pretrain(work / "run", work / "data", device, **changes)
    after = [(row["loss"], row["grad_norm"]) for row in run.read_metrics()]
    pairs = [pair for x, y in zip(after, before, strict=True) for pair in zip(x, y, strict=True)]
    apart = max(abs(a - b) / abs(b) for a, b in pairs)
    return "ok, bit-identical" if after == before else f"differs by {apart:.1e}"


def _tune(device: str, work: Path) -> str:
    from elm_megatron.engine import distributed
    from elm_megatron.engine.job import Train
    from elm_megatron.tune.tasks import tuning

    changes = {"model": _model(), "packing": True, "steps": 4, "precision": "bf16"}
    config = finetune_config(work / "lora", work / "run", **changes)
    config.cluster.device, config.tokenizer.vocab_size = device, VOCAB
    run = folder_of(config)
    try:
        Train(config, tuning)(World.single(work / "lora"))
    finally:
        distributed.leave()
    rows = run.read_metrics()
    return f"ok, {len(rows)} steps, loss {rows[0]['loss']:.3f} to {rows[-1]['loss']:.3f}"


def _export(device: str, work: Path) -> str:
    """In a process of its own beside a GPU: an export puts the CPU in CUDA's place."""
    if device == "cpu":
        _export_here(work)
    else:
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            pool.submit(_export_here, work).result()
    return "ok, the gate compared its logits with megatron-core's"


def _export_here(work: Path) -> None:
    from elm_megatron.hf.job import Export

    config = ExportConfig(RunConfig("export", str(work / "export")), str(work / "run"))
    config.check()
    RunFolder(work / "export").create()
    Export(config)(World.single(work / "export"))


def _generate(device: str, work: Path) -> str:
    from elm_megatron.evaluate.generate import Generator

    config = GenerateConfig(source=str(work / "run"), max_new_tokens=8)
    text = Generator.of(config).complete("De ", config)
    return f"ok, {len(text)} characters"
