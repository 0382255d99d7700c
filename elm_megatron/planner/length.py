"""How long a pretraining run is: steps, tokens, and its predicted hours; torch-free.

The hours are steps × the step time of `performance.py`. Where the site's YAML names a peak and no memory,
they are FLOPs of the tokens ÷ (nodes or GPUs × their peak × assumed utilisation).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from conf.errors import InputError
from conf.schema.pretrain import PretrainConfig
from conf.schema.train import TrainConfig
from data_prep.manifest import FILE, Manifest
from elm_megatron.planner.calibration import calibrated_by, factor_of
from elm_megatron.planner.devices import Device
from elm_megatron.planner.inputs import device_of, layout_of, shape_of
from elm_megatron.planner.performance import mfu, step_time


@dataclass
class Length:
    """A first estimate of a run's length.

    Attributes:
        steps: optimizer updates.
        tokens: seen in all of them.
        basis: where the number of tokens in the dataset comes from.
        hours: on the cluster; None where no peak is known for its device and the precision.
        how: what the hours are reckoned with, in a phrase.
    """

    steps: int
    tokens: int
    basis: str
    hours: float | None
    how: str | None


def estimate(config: PretrainConfig) -> Length:
    """Steps, tokens and hours of a pretraining run."""
    train, site = config.train, config.cluster.site
    available, basis = dataset_tokens(config)
    steps = steps_of(train, available)
    tokens = train.consumed(steps) * train.seq_length
    sheet = _sheet(config)
    if sheet is not None:
        seconds = step_time(shape_of(config.model), layout_of(config), sheet).total
        seconds *= factor_of(config.cluster.name)
        used = mfu(shape_of(config.model), layout_of(config), sheet, seconds)
        kernels = " with Transformer Engine" if config.cluster.device == "gpu" else ""
        how = f"{seconds:.3g} s a step on {sheet.name}{kernels}, {used:.0%} of its peak"
        if run := calibrated_by(config.cluster.name):
            how += f", corrected by run {run}"
        return Length(steps, tokens, basis, steps * seconds / 3600, how)
    if no_peak(config):
        return Length(steps, tokens, basis, None, None)
    flops = config.model.flops_per_token(train.seq_length) * tokens
    on_gpus = config.cluster.device == "gpu"
    units, unit = (config.world_size, "GPU") if on_gpus else (config.cluster.nodes, "node")
    hours = flops / (units * site.peak_tflops * 1e12 * site.mfu) / 3600
    return Length(steps, tokens, basis, hours, f"at {site.mfu:.0%} of {site.peak_tflops:g} TFLOP/s a {unit}")


def _sheet(config: PretrainConfig) -> Device | None:
    """The device that a step is timed on; None where the site says too little for that."""
    try:
        return device_of(config)
    except InputError:
        if config.cluster.site.gpu_model:  # a name without a sheet is a mistake
            raise
        return None


def steps_of(train: TrainConfig, available: int) -> int:
    """Updates of a run on a dataset of so many training tokens."""
    samples = int((train.epochs or 0) * ((available - 1) // train.seq_length))
    return train.steps or train.steps_within(samples)[0]


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
