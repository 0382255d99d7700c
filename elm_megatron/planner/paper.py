"""Scale on paper: MFU and cost of 1B, 8B and 70B models from 8 to 4,096 GPUs.

    python -m elm_megatron.planner.paper scale.png [--device h100]

For each model and number of GPUs the fastest layout that fits is taken. The picture has its assumptions
beside it.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from data_prep import files
from elm_megatron.planner.devices import Device, device
from elm_megatron.planner.layout import USABLE
from elm_megatron.planner.performance import Layout, Shape, StepTime, mfu, step_time

MODELS = {  # Llama 3's sizes; 1B is Llama 3.2's
    "1B": Shape(2048, 8192, 16, 32, 8, 128256),
    "8B": Shape(4096, 14336, 32, 32, 8, 128256),
    "70B": Shape(8192, 28672, 80, 64, 8, 128256),
}
GPUS = (8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096)
GPUS_PER_NODE = 8
LENGTH = 4096
BATCH = 4096  # sequences: 16.8 million tokens, so that 4,096 GPUs have one each
BYTES = 2 + 4  # bf16 weight and fp32 gradient of each weight a GPU has
OPTIMIZER = 12  # fp32 master and two moments, over the data-parallel ranks
# A layer of a micro-batch keeps 34 bytes per token and channel without dropout masks or an attention matrix
# (Korthikanti et al. 2022, "Reducing activation recomputation", section 4), all of it split over tp.
ACTIVATION = 34


@dataclass(frozen=True)
class Scaled:
    """The fastest layout of one model on so many GPUs."""

    model: str
    layout: Layout
    step: StepTime
    mfu: float

    @property
    def gpu_hours(self) -> float:
        """GPU-hours of 10^12 tokens."""
        tokens_per_hour = self.layout.global_batch * self.layout.length / self.step.total * 3600
        return 1e12 / tokens_per_hour * self.layout.gpus


def held(shape: Shape, layout: Layout) -> float:
    """Bytes of the fullest GPU: the first pipeline stage, with its micro-batches in flight."""
    weights = shape.layers / layout.pp * shape.layer_weights(layout.tp)
    weights += (2 if layout.pp == 1 else 1) * shape.vocabulary * shape.hidden / layout.tp
    tokens = layout.micro_batch * layout.length
    one = ACTIVATION * tokens * shape.hidden / layout.tp * shape.layers / layout.pp
    flight = min(layout.pp, layout.micro_batches)
    logits = 4 * tokens * shape.vocabulary / layout.tp if layout.pp == 1 else 0
    return weights * (BYTES + OPTIMIZER / layout.dp) + one * flight + logits


def layouts(shape: Shape, gpus: int) -> Iterator[Layout]:
    """Every layout that divides the model, the GPUs and the batch."""
    for tp in (1, 2, 4, 8):
        for pp in (1, 2, 4, 8, 16):
            if gpus % (tp * pp) or shape.layers % pp or shape.groups % tp:
                continue
            dp = gpus // (tp * pp)
            for micro_batch in (1, 2, 4, 8):
                if BATCH % (dp * micro_batch) == 0:
                    yield Layout(gpus, GPUS_PER_NODE, micro_batch, BATCH, LENGTH, tp=tp, pp=pp)


def scaling(sheet: Device, gpus: Sequence[int] = GPUS) -> list[Scaled]:
    """The fastest layout that fits, for each model and number of GPUs; none where no layout fits."""
    found = []
    capacity = sheet.memory_gb * 2**30 * USABLE
    for name, shape in MODELS.items():
        for count in gpus:
            fitting = [one for one in layouts(shape, count) if held(shape, one) <= capacity]
            if not fitting:
                continue
            best = min(fitting, key=lambda one: step_time(shape, one, sheet).total)
            step = step_time(shape, best, sheet)
            found.append(Scaled(name, best, step, mfu(shape, best, sheet, step.total)))
    return found


def plot(rows: Sequence[Scaled], sheet: Device, path: Path) -> None:
    """MFU and GPU-hours over GPUs, with the assumptions below; PNG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(11, 5), layout="constrained")
    for name in MODELS:
        some = [row for row in rows if row.model == name]
        counts = [row.layout.gpus for row in some]
        left.plot(counts, [100 * row.mfu for row in some], "o-", label=name)
        right.plot(counts, [row.gpu_hours for row in some], "o-", label=name)
    for axis, text in ((left, "MFU, %"), (right, "GPU-hours for 10¹² tokens")):
        axis.set_xscale("log", base=2)
        axis.set_xlabel(f"GPUs ({sheet.name})")
        axis.set_ylabel(text)
        axis.grid(True, alpha=0.3)
        axis.legend()
    left.set_ylim(bottom=0)
    right.set_yscale("log")
    figure.suptitle(
        f"Predicted, not measured. bf16, sequence {LENGTH}, {BATCH} sequences a step, fused kernels,\n"
        f"{GPUS_PER_NODE} GPUs a node, {sheet.link_gb:g} GB/s inside a node and 400 GB/s between nodes, no "
        "failures,\nno checkpoints, the fastest layout of tp, pp and micro-batch that fits",
        fontsize=9,
    )
    with files.replacing(path) as picture:
        figure.savefig(picture, format="png", dpi=120)
    pyplot.close(figure)


def main() -> None:
    """Write the picture and print its rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("picture", type=Path)
    parser.add_argument("--device", default="h100")
    arguments = parser.parse_args()
    sheet = device(arguments.device)
    rows = scaling(sheet)
    for row in rows:
        cut = row.layout
        print(
            f"{row.model:>4} {cut.gpus:5} GPUs  tp={cut.tp} pp={cut.pp} dp={cut.dp} mb={cut.micro_batch}  "
            f"MFU {row.mfu:.0%}  {row.gpu_hours:,.0f} GPU-hours for 10^12 tokens"
        )
    plot(rows, sheet, arguments.picture)
    print(f"written: {arguments.picture}")


if __name__ == "__main__":
    main()
