"""Low-rank adapters (Hu et al. 2021) on megatron-core's linear layers, in every layout.

An adapter adds (alpha / r) · B·A·x to one projection, named as in PEFT. Megatron fuses q, k, v into one layer
and gate and up into another; here every projection keeps its own A and B in Hugging Face's layout, and their
outputs are placed into the fused output, so that what was not asked for is not touched.

- column-parallel layers (q, k, v, gate, up): A [r, in] is on every rank, B [out / tp, r] is cut by rows;
- row-parallel layers (o, down): A [r, in / tp] is cut by columns, B [out, r] is on every rank.

The rank dimension r is never cut. With sequence parallelism a matrix that stands on every rank sees a part of
the sequence only; it is marked so that megatron-core sums its gradient over the tensor-parallel ranks.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from typing import Any

import torch
from megatron.core.tensor_parallel import (
    copy_to_tensor_model_parallel_region,
    gather_from_sequence_parallel_region,
    get_cuda_rng_tracker,
    reduce_from_tensor_model_parallel_region,
    reduce_scatter_to_sequence_parallel_region,
    set_tensor_model_parallel_attributes,
)
from megatron.core.transformer.utils import make_sharded_tensors_for_checkpoint

from conf.schema.tune import TuneConfig
from elm_megatron.model.initial_weights import drawn
from elm_megatron.model.llama import DTYPES
from elm_megatron.model.sharding import location, sharded_tensors

COLUMN, ROW = "column", "row"


class Projection(torch.nn.Module):
    """One projection's adapter.

    Args:
        inputs, outputs: this rank's share of the projection's sizes.
        kind: COLUMN or ROW, of the linear layer it belongs to.
        base: that layer; gives device and layout.
        tune: rank, alpha, dropout, precision.
    """

    def __init__(self, inputs: int, outputs: int, kind: str, base: torch.nn.Module, tune: TuneConfig):
        super().__init__()
        self.kind, self.scale, self.dropout = kind, tune.alpha / tune.r, tune.dropout
        self.sequence_parallel = base.config.sequence_parallel
        like = {"dtype": DTYPES[tune.adapter_precision], "device": base.weight.device}
        self.lora_A = torch.nn.Parameter(torch.empty(tune.r, inputs, **like))
        self.lora_B = torch.nn.Parameter(torch.zeros(outputs, tune.r, **like))
        cut, whole = (self.lora_B, self.lora_A) if kind == COLUMN else (self.lora_A, self.lora_B)
        set_tensor_model_parallel_attributes(cut, True, 0 if kind == COLUMN else 1, 1)
        whole.sequence_parallel = self.sequence_parallel
        for param in (self.lora_A, self.lora_B):
            param.adapter = True

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x [s, b, in] (this rank's share) → the addition to the layer's output, in x's dtype."""
        inner = torch.nn.functional.linear(self._dropped(x).to(self.lora_A.dtype), self.lora_A) * self.scale
        return torch.nn.functional.linear(self._exchanged(inner), self.lora_B).to(x.dtype)

    def _exchanged(self, inner: torch.Tensor) -> torch.Tensor:
        """[s, b, r] as B needs it: r is small, so this is where ranks talk to each other."""
        if self.kind == COLUMN:
            if self.sequence_parallel:
                return gather_from_sequence_parallel_region(inner)
            return copy_to_tensor_model_parallel_region(inner)
        if self.sequence_parallel:
            return reduce_scatter_to_sequence_parallel_region(inner)
        return reduce_from_tensor_model_parallel_region(inner)

    def _dropped(self, x: torch.Tensor) -> torch.Tensor:
        if self.dropout == 0.0 or not self.training:
            return x
        replicated = self.kind == COLUMN and not self.sequence_parallel
        # Ranks that hold the same numbers must drop the same of them, others must not.
        with contextlib.nullcontext() if replicated else get_cuda_rng_tracker().fork():
            return torch.nn.functional.dropout(x, self.dropout)


class AdaptedLinear(torch.nn.Module):
    """A frozen linear layer of megatron-core with adapters on some of its projections.

    Args:
        base: the layer.
        kind: COLUMN or ROW.
        groups: into how many equal groups this rank's output falls (query groups; 1 elsewhere).
        widths: per group, the channels of each projection, in the order they lie in: {"q_proj": 128, …}.
        tune: names the projections that get an adapter.
    """

    def __init__(
        self, base: torch.nn.Module, kind: str, groups: int, widths: dict[str, int], tune: TuneConfig
    ):
        super().__init__()
        self.base, self.kind, self.groups, self.widths = base, kind, groups, widths
        inputs = base.weight.shape[1]
        self.adapters = torch.nn.ModuleDict(
            {
                name: Projection(inputs, groups * width, kind, base, tune)
                for name, width in widths.items()
                if name in tune.targets
            }
        )
        self.enabled = True

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """As the base layer, with the adapters' additions."""
        output, bias = self.base(x)
        if not self.enabled:
            return output, bias
        if len(self.widths) == 1:
            (adapter,) = self.adapters.values()
            return output + adapter(x), bias
        shape = output.shape
        parts = output.view(*shape[:-1], self.groups, -1).split(list(self.widths.values()), dim=-1)
        added = [
            part + self.adapters[name](x).view_as(part) if name in self.adapters else part
            for name, part in zip(self.widths, parts, strict=True)
        ]
        return torch.cat(added, dim=-1).view(shape), bias

    def sharded_state_dict(
        self, prefix: str = "", sharded_offsets: tuple = (), metadata: dict | None = None
    ) -> dict[str, Any]:
        """The base's entries under the base's names, and `<prefix><projection>.lora_A`, `….lora_B`."""
        entries = self.base.sharded_state_dict(prefix, sharded_offsets, metadata)
        axes = {"lora_B": 0} if self.kind == COLUMN else {"lora_A": 1}
        for name, adapter in self.adapters.items():
            entries |= make_sharded_tensors_for_checkpoint(
                adapter.state_dict(prefix="", keep_vars=True),
                f"{prefix}{name}.",
                axes,
                sharded_offsets,
                tp_group=self.base.tp_group,
                dp_cp_group=(metadata or {}).get("dp_cp_group"),
            )
        return entries

    def backward_dw(self) -> None:
        """megatron-core's hook for weight gradients computed later; nothing is put off here."""


def is_adapter(param: torch.nn.Parameter) -> bool:
    """Whether a parameter belongs to an adapter."""
    return getattr(param, "adapter", False)


def attach(chunks: list[torch.nn.Module], tune: TuneConfig) -> None:
    """Freeze a model and put adapters on the projections asked for, A and B uninitialised."""
    for chunk in chunks:
        chunk.requires_grad_(False)
        for layer in chunk.decoder.layers:
            _attach_layer(layer, tune)
    if tune.recompute == "full":
        for chunk in chunks:
            _let_gradients_in(chunk)


def _attach_layer(layer: torch.nn.Module, tune: TuneConfig) -> None:
    attention, mlp = layer.self_attention, layer.mlp
    channels, groups = attention.hidden_size_per_attention_head, attention.num_query_groups_per_partition
    queries = attention.num_attention_heads_per_partition // groups
    qkv = {"q_proj": queries * channels, "k_proj": channels, "v_proj": channels}
    fc1 = dict.fromkeys(("gate_proj", "up_proj"), mlp.linear_fc1.weight.shape[0] // 2)
    places = [
        (attention, "linear_qkv", COLUMN, groups, qkv),
        (attention, "linear_proj", ROW, 1, {"o_proj": attention.linear_proj.weight.shape[0]}),
        (mlp, "linear_fc1", COLUMN, 1, fc1),
        (mlp, "linear_fc2", ROW, 1, {"down_proj": mlp.linear_fc2.weight.shape[0]}),
    ]
    for owner, name, kind, count, widths in places:
        if set(widths) & set(tune.targets):
            setattr(owner, name, AdaptedLinear(getattr(owner, name), kind, count, widths, tune))


def _let_gradients_in(chunk: torch.nn.Module) -> None:
    """A recomputed layer whose input needs no gradient gives none to its adapters either."""
    if chunk.pre_process:
        chunk.embedding.register_forward_hook(
            lambda module, inputs, output: output.requires_grad_() if torch.is_grad_enabled() else output
        )


@torch.no_grad()
def initialize(chunks: list[torch.nn.Module], seed: int) -> None:
    """Initial adapters, the same in every layout: A uniform within ±1/√in (PEFT's choice), B zero."""
    for chunk in chunks:
        for param, shards in sharded_tensors(chunk):
            if not is_adapter(param):
                continue
            (shard,) = shards
            where = location(shard)
            if where.name.rsplit(".", 2)[-2] == "lora_B":
                param.zero_()
                continue
            param.copy_(where.of(initial_a(where.name, where.whole, seed)))


def initial_a(name: str, shape: tuple[int, ...], seed: int) -> torch.Tensor:
    """A whole A matrix [r, in] at the start, fp32: a function of the seed and its name alone."""
    bound = 1.0 / math.sqrt(shape[1])
    return drawn(name, shape, seed, lambda out, generator: out.uniform_(-bound, bound, generator=generator))


@torch.no_grad()
def load(chunks: list[torch.nn.Module], tensors: dict[str, torch.Tensor]) -> None:
    """Copy whole matrices, named as in a checkpoint, into attached adapters; each rank takes its share."""
    for chunk in chunks:
        for param, shards in sharded_tensors(chunk):
            if is_adapter(param):
                where = location(shards[0])
                param.copy_(where.of(tensors[where.name]))


@contextlib.contextmanager
def switched_off(chunks: list[torch.nn.Module]) -> Iterator[None]:
    """The base model alone, without its adapters."""
    layers = [m for chunk in chunks for m in chunk.modules() if isinstance(m, AdaptedLinear)]
    for layer in layers:
        layer.enabled = False
    try:
        yield
    finally:
        for layer in layers:
            layer.enabled = True


def trainable_parameters(chunks: list[torch.nn.Module]) -> int:
    """Elements of the parameters this rank trains."""
    return sum(p.numel() for chunk in chunks for p in chunk.parameters() if p.requires_grad)
