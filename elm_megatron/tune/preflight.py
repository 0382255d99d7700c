"""What a tuning run would train, counted on a model that holds no memory.

    python -m elm_megatron.tune.preflight config.yaml

prints one JSON object. A launcher runs it as a process of its own, because launchers hold no torch.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import yaml

from conf import typed
from conf.schema.model import ModelConfig
from conf.schema.parallel import ParallelConfig
from conf.schema.tune import FinetuneConfig, TuneConfig
from elm_megatron.engine.preflight import build_on_meta, count
from elm_megatron.model import device
from elm_megatron.tune import lora


def trainable_parameters(model: ModelConfig, tune: TuneConfig) -> int:
    """Parameters of the adapter, built on one pretended rank; call `device.pretend` first."""
    chunks = build_on_meta(model, ParallelConfig(), 1, 0, tune.precision)
    lora.attach(chunks, tune)
    return lora.trainable_parameters(chunks)


def report(config: FinetuneConfig) -> dict:
    """The counts as plain containers."""
    device.pretend()
    return {
        "parameters": count(build_on_meta(config.model, ParallelConfig(), 1, 0, config.tune.precision)),
        "trainable_parameters": trainable_parameters(config.model, config.tune),
        "world_size": config.world_size,
        "dp": config.dp,
    }


def main() -> None:
    """Read a config.yaml and print the report as JSON."""
    data = yaml.safe_load(Path(sys.argv[1]).read_text(encoding="utf-8"))
    config = typed.build(FinetuneConfig, data)
    config.check()
    print(json.dumps(report(config)))


if __name__ == "__main__":
    main()
