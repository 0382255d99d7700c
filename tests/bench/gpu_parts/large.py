"""Part C: `model=large` on made-up tokens: seconds a step, MFU, and memory beside what the planner says."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

from conf.schema.model import ModelConfig
from elm_megatron.planner import layout
from elm_megatron.run.folder import RunFolder
from tests.bench.gpu_parts.training import pretrain
from tests.elm_megatron.configs import pretrain_config
from tests.elm_megatron.small_dataset import make_dataset

VARIANTS: dict[str, tuple[str, bool, int, dict[str, Any]]] = {  # precision, TE's layers, micro-batch, more
    "torch mb4": ("bf16", False, 4, {}),
    "te mb4": ("bf16", True, 4, {}),
    "te mb16": ("bf16", True, 16, {}),
    "te mb4 z-loss": ("bf16", True, 4, {"z_loss": 1e-4}),
    "te mb4 documents": ("bf16", True, 4, {"reset_attention_mask": True}),
    "te mb4 fp8": ("fp8", True, 4, {}),
}
PROFILED = ("torch mb4", "te mb4", "te mb4 fp8")
LARGE = {"hidden_size": 2048, "ffn_hidden_size": 5120, "num_layers": 16, "num_attention_heads": 32,
         "max_position_embeddings": 2048, "vocab_size": 32_000}  # fmt: skip
SMALL = {"hidden_size": 64, "ffn_hidden_size": 128, "num_layers": 2, "num_attention_heads": 4,
         "max_position_embeddings": 64, "vocab_size": 512}  # fmt: skip


def measure(name: str, small: bool, work: Path, out: Path) -> dict[str, Any]:
    """One variant; the first steps, which compile and choose algorithms, are left out."""
    precision, engine, micro, more = VARIANTS[name]
    sizes = SMALL if small else LARGE
    model = ModelConfig("large", num_query_groups=sizes["num_attention_heads"], norm_eps=1e-12, **sizes)
    length, batch, steps = sizes["max_position_embeddings"], 8 if small else 64, 3 if small else 8
    tokens = batch * length * (steps + 2)
    data = make_dataset(work / "data", tokens, 4 * length + 1, documents=max(3, tokens // 2000))
    changes = {"steps": steps, "global_batch_size": batch, "micro_batch_size": micro, "seq_length": length,
               "eval_batches": 1, "eval_every": 10**6, "save_every": 10**6, "lr": 3e-4, "min_lr": 3e-4,
               **more}  # fmt: skip
    profile = out / f"profile-{name.replace(' ', '-')}.txt" if name in PROFILED else None
    device = "cpu" if small else "gpu"
    run = pretrain(work / "run", data, device, precision, model, engine, profile, **changes)
    return {**_figures(run, small), "planned_gib": _planned(work, data, model, device, precision, changes)}


def _figures(run: RunFolder, small: bool) -> dict[str, Any]:
    rows = run.read_metrics()
    late = rows if small else [row for row in rows[3:] if row is not rows[-2]]  # the last but one is profiled
    return {
        "step_seconds": statistics.median(row["step_seconds"] for row in late),
        "tokens_per_second": statistics.median(row["tokens_per_second"] for row in late),
        "mfu": late[-1]["mfu"],
        "losses": [row["loss"] for row in rows],
        "data_seconds": late[-1]["data_seconds"],
        "memory_gib": max(row["memory_bytes"] for row in rows) / 2**30,
        "kernels": run.read()["kernels"],
    }


def _planned(
    work: Path, data: Path, model: ModelConfig, device: str, precision: str, changes: dict[str, Any]
) -> float:
    config = pretrain_config(work / "planned", data, 1, model, **changes)
    config.cluster.device, config.train.precision = device, precision
    return layout.rank_bytes(config, config.parallel) / 2**30
