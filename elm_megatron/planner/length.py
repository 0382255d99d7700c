"""How long a pretraining run is: steps, tokens, and a first estimate of its hours; torch-free.

hours = FLOPs of the tokens ÷ (units × peak of the site's hardware × assumed utilisation). A unit is a GPU,
or on CPUs a node.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from conf.schema.pretrain import PretrainConfig
from data_prep.manifest import FILE, Manifest


@dataclass
class Length:
    """A first estimate of a run's length.

    Attributes:
        steps: optimizer updates.
        tokens: seen in all of them.
        basis: where the number of tokens in the dataset comes from.
        hours: on the cluster; None where no peak is known for its device and the precision.
    """

    steps: int
    tokens: int
    basis: str
    hours: float | None


def estimate(config: PretrainConfig) -> Length:
    """Steps, tokens and hours of a pretraining run."""
    train, site = config.train, config.cluster.site
    available, basis = dataset_tokens(config)
    samples = int((train.epochs or 0) * ((available - 1) // train.seq_length))
    steps = train.steps or train.steps_within(samples)[0]
    tokens = train.consumed(steps) * train.seq_length
    if no_peak(config):
        return Length(steps, tokens, basis, None)
    units = config.world_size if config.cluster.device == "gpu" else config.cluster.nodes
    flops = config.model.flops_per_token(train.seq_length) * tokens
    return Length(steps, tokens, basis, flops / (units * site.peak_tflops * 1e12 * site.mfu) / 3600)


def no_peak(config: PretrainConfig) -> str | None:
    """Why the site's `peak_tflops` says nothing of a run; None where it does."""
    site = config.cluster.site
    if not site.peak_tflops:
        return f"cluster={config.cluster.name} names no peak_tflops"
    if config.cluster.device == "cpu" and site.gpus:
        return "peak_tflops is that of a GPU, and this is cluster.device=cpu"
    if config.train.precision == "fp32":
        return "peak_tflops is that of bf16, and this is train.precision=fp32"
    return None


def dataset_tokens(config: PretrainConfig) -> tuple[int, str]:
    """Training tokens of one epoch, and where that number comes from."""
    folder = Path(config.data.dir)
    if (folder / FILE).exists():
        return Manifest.load(folder).splits["train"].tokens, f"from {folder / FILE}"
    return config.corpus.expected_tokens, f"{folder} is not there yet, from corpus.expected_tokens"
