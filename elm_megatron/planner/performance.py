"""How long a training step takes, by part, from shapes and device sheets alone. Torch-free.

A roofline per class of kernels (Williams et al. 2009, "Roofline"), summed without overlap inside a rank:

    matrix products   flops / (GEMM · sustained peak) + bytes / (MEMORY · bandwidth)
    attention         flops / (ATTENTION · sustained peak); backward costs 2.5 forwards (Dao et al. 2022)
    the rest          bytes / (MEMORY · bandwidth): norms, residuals, SwiGLU, rotary positions, cross entropy

The sustained peak is the sheet's peak times min(1, watts per TFLOP/s / WATTS_PER_TFLOPS): a device with less
power per operation lowers its clock under matrix products. This is why the same code has 60% MFU on an A100
and 42% on an H100.

Communication: tensor parallelism moves 2·(tp-1)/tp of the activations four times a layer over the node's
links, and OVERLAP of it is hidden. Data parallelism reduces fp32 gradients and gathers bf16 weights once a
step; what the backward pass of the last micro-batch cannot hide is exposed. The pipeline's bubble is
(pp-1)/(micro-batches·vpp) of a step (Narayanan et al. 2021). Ranks on CPU cores hide no communication, since
the cores do both; tests/bench/plan.py compares that with measured steps.

The five constants are fitted to the published rows in tests/elm_megatron/planner/test_performance.py, all
rows with one set; each row is within 15%.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

from elm_megatron.planner.devices import Device

GEMM = 0.85  # share of the sustained peak that large matrix products reach
ATTENTION = 0.40
MEMORY = 0.60  # share of the memory bandwidth
OVERLAP = 0.80  # share of tensor-parallel communication that is hidden
WATTS_PER_TFLOPS = 0.90
BACKWARD_SHARE = 0.70  # of a micro-batch; gradients are reduced meanwhile
OPTIMIZER_BYTES = 30  # per weight: gradient, master weight, two moments, read and written
EAGER = 2.0  # passes over memory of unfused layers beside fused ones


@dataclass(frozen=True)
class Shape:
    """A model, as the time model needs it.

    Attributes:
        hidden, ffn, layers, heads, groups, vocabulary: sizes; `groups` are the key-value heads.
        gated: SwiGLU (two input projections) instead of one.
    """

    hidden: int
    ffn: int
    layers: int
    heads: int
    groups: int
    vocabulary: int
    gated: bool = True

    def products(self, tp: int = 1) -> list[tuple[int, int]]:
        """(inputs, outputs) of the matrix products of one layer on one of `tp` ranks."""
        head = self.hidden // self.heads
        return [
            (self.hidden, (self.hidden + 2 * self.groups * head) // tp),
            (self.hidden // tp, self.hidden),
            (self.hidden, (2 if self.gated else 1) * self.ffn // tp),
            (self.ffn // tp, self.hidden),
        ]

    def layer_weights(self, tp: int = 1) -> int:
        """Weights of one layer's products on one of `tp` ranks."""
        return sum(k * n for k, n in self.products(tp))

    def flops_per_token(self, length: int, causal: bool = True) -> float:
        """Forward and backward: 6 per weight of a product, and attention (half of its square if `causal`)."""
        weights = self.layers * self.layer_weights() + self.vocabulary * self.hidden
        return 6.0 * weights + (6 if causal else 12) * self.layers * self.hidden * length


@dataclass(frozen=True)
class Layout:
    """How a job is cut, and the batch.

    Attributes:
        gpus, gpus_per_node: of the job, and of each of its nodes.
        micro_batch, global_batch: sequences.
        length: tokens of a sequence.
        recompute: none, selective, full, or `half_products` (every second matrix product again).
        sharded: weights are gathered for each micro-batch (FSDP); this suite does not do so.
        fused: kernels that make one pass over memory (Transformer Engine, or compiled).
        network_gb: bandwidth between nodes, GB/s of a whole node in one direction.
        cores: of a node whose ranks compute on them; None where each rank has a GPU.
    """

    gpus: int
    gpus_per_node: int
    micro_batch: int
    global_batch: int
    length: int
    tp: int = 1
    pp: int = 1
    vpp: int = 1
    cp: int = 1
    recompute: str = "none"
    sharded: bool = False
    fused: bool = True
    network_gb: float = 400.0
    cores: int | None = None

    @property
    def dp(self) -> int:
        """Data-parallel size."""
        return self.gpus // (self.tp * self.pp * self.cp)

    @property
    def micro_batches(self) -> int:
        """Micro-batches of a step on each rank."""
        return max(1, self.global_batch // (self.dp * self.micro_batch))


@dataclass(frozen=True)
class StepTime:
    """Seconds of one step, by part; `total` is their sum."""

    products: float
    attention: float
    memory: float
    head: float
    tensor_parallel: float
    data_parallel: float
    pipeline: float
    bubble: float
    optimizer: float

    @property
    def total(self) -> float:
        """Seconds of the step."""
        return sum(getattr(self, part.name) for part in fields(self))

    def scaled(self, factor: float) -> StepTime:
        """Every part times a factor, for a model calibrated with a run."""
        return replace(self, **{part.name: getattr(self, part.name) * factor for part in fields(self)})


def step_time(shape: Shape, layout: Layout, device: Device) -> StepTime:
    """Seconds of one training step in bf16 on the slowest rank."""
    tokens = layout.micro_batch * layout.length // layout.cp
    peak = (
        device.peak_tflops
        * device.efficiency
        * 1e12
        * min(1.0, device.watts / device.peak_tflops / WATTS_PER_TFLOPS)
    )
    bandwidth = MEMORY * device.bandwidth_gb * 1e9
    tp, layers = layout.tp, shape.layers / layout.pp

    def product(k: float, n: float) -> float:
        return 2 * tokens * k * n / (GEMM * peak) + 2 * (tokens * k + k * n + tokens * n) / bandwidth

    forward = sum(product(k, n) for k, n in shape.products(tp))
    square = 4 * layout.micro_batch * layout.length**2 * (shape.hidden / tp) / 2 / layout.cp
    attention = square / (ATTENTION * peak)
    passes = 1.0 if layout.fused else EAGER
    ffn = shape.ffn * (3 if shape.gated else 2)
    memory = 2 * tokens * passes * (10 * shape.hidden + ffn + 4 * shape.hidden) / tp / bandwidth
    exchanged = 2 * (tp - 1) / tp * tokens * shape.hidden * 2 / (device.link_gb * 1e9) if tp > 1 else 0.0
    exchanged *= 2 if layout.cores else 1 - OVERLAP  # cores that copy do not compute
    again = {"none": 0.0, "selective": 0.0, "half_products": 0.5, "full": 1.0}[layout.recompute]

    products = layers * forward * (3 + again)
    attentions = layers * attention * (3.5 + (1 if layout.recompute in ("full", "selective") else 0))
    memories = layers * memory * (3 + (again > 0))
    # Forward and backward each exchange twice a layer; a layer computed again exchanges again.
    tensor_parallel = layers * exchanged * (2 + (layout.recompute == "full"))
    logits = tokens * shape.vocabulary / tp
    head = 3 * product(shape.hidden, shape.vocabulary / tp) + 12 * logits / bandwidth

    one = products + attentions + memories + tensor_parallel + head
    count = layout.micro_batches
    weights = layers * shape.layer_weights(tp)
    weights += 2 * shape.vocabulary * shape.hidden / tp / (1 if layout.pp == 1 else 2)
    return StepTime(
        products=count * products,
        attention=count * attentions,
        memory=count * memories,
        head=count * head,
        tensor_parallel=count * tensor_parallel,
        data_parallel=_exposed(weights, layout, one, _ring_bandwidth(layout, device)),
        pipeline=_between_stages(tokens * shape.hidden / tp, layout, device),
        bubble=(layout.pp - 1) / layout.vpp * one * _idle_in_bubble(layout),
        optimizer=weights * ((0 if layout.sharded else 10) + OPTIMIZER_BYTES / layout.dp) / bandwidth,
    )


def _ring_bandwidth(layout: Layout, device: Device) -> float:
    """Bytes per second that each rank of a data-parallel ring has.

    A ring leaves each node once, so that it has the bandwidth of the whole node. The rings of different
    tensor ranks share it.
    """
    if layout.gpus <= layout.gpus_per_node:
        return device.link_gb * 1e9
    inside = min(layout.dp, max(1, layout.gpus_per_node // (layout.tp * layout.cp)))
    return min(layout.network_gb * inside / layout.gpus_per_node, device.link_gb) * 1e9


def _exposed(weights: float, layout: Layout, one: float, network: float) -> float:
    """Seconds of data-parallel communication that nothing hides."""
    copies = layout.dp * layout.cp
    if copies == 1:
        return 0.0
    if layout.sharded:  # weights are gathered for forward and backward, gradients scattered
        return max(0.0, layout.micro_batches * (8 * weights / network - one))
    moved = 6 * weights * (copies - 1) / copies  # fp32 gradients scattered, bf16 weights gathered
    return max(0.0, moved / network - (0.0 if layout.cores else BACKWARD_SHARE * one))


def _idle_in_bubble(layout: Layout) -> float:
    """The share of a bubble in which devices idle.

    Where more ranks than cores share a node, those that have work take the cores of those that wait.
    """
    if not layout.cores or layout.pp == 1:
        return 1.0
    crowding = min(layout.gpus, layout.gpus_per_node) / layout.cores
    return 1.0 - min(1.0, max(0.0, (crowding - 1) / (layout.pp - 1)))


def _between_stages(elements: float, layout: Layout, device: Device) -> float:
    """Seconds of sends between pipeline stages that nothing hides: those of the first micro-batch."""
    inside = layout.gpus <= layout.gpus_per_node
    network = (device.link_gb if inside else layout.network_gb / layout.gpus_per_node) * 1e9
    return 0.0 if layout.pp == 1 else 2 * (layout.pp - 1) * layout.vpp * 2 * elements / network


def mfu(shape: Shape, layout: Layout, device: Device, seconds: float, causal: bool = True) -> float:
    """Model FLOPs of a step over what the devices' sheets allow in that time."""
    flops = shape.flops_per_token(layout.length, causal) * layout.global_batch * layout.length
    return flops / (layout.gpus * device.peak_tflops * 1e12 * seconds)


def tokens_per_second(layout: Layout, seconds: float) -> float:
    """Tokens of the whole job in a second."""
    return layout.global_batch * layout.length / seconds
