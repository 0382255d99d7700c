"""What a kernel computes, beside the same formula in torch's fp32: values and gradients of a few rows.

One function for each operation that `kernels.py` names; `self_check.py` runs them at the start of a run.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import NamedTuple

import torch
from megatron.core.fusions.fused_bias_swiglu import bias_swiglu_impl
from megatron.core.models.common.embeddings.rope_utils import apply_rotary_pos_emb
from megatron.core.models.common.language_module.language_module import LanguageModule
from megatron.core.transformer.enums import AttnMaskType
from megatron.core.transformer.transformer_config import TransformerConfig

from elm_megatron.model import cross_entropy, torch_layers
from elm_megatron.model import device as devices
from elm_megatron.model.packed import PackedRow

ROWS, WIDTH, VOCABULARY = 8, 32, 64
LENGTH, ENDS = 16, [0, 3, 9, 16]  # of attention's rows, and the documents in them


class Compared(NamedTuple):
    """One quantity: what it is, as the kernel gives it, as torch gives it in fp32."""

    what: str
    found: torch.Tensor
    expected: torch.Tensor


class Bench(NamedTuple):
    """What the checks work with.

    Attributes:
        config: the run's.
        device: the rank's.
        attention: the core attention of one of the run's layers; None where it takes other ranks' keys.
        transformer_engine: whether the layers are Transformer Engine's.
        fused_loss: whether Transformer Engine's cross entropy serves.
        z_loss: of the run.
        packed: whether documents are packed.
    """

    config: TransformerConfig
    device: torch.device
    attention: torch.nn.Module | None
    transformer_engine: bool
    fused_loss: bool
    z_loss: float
    packed: bool

    def drawn(self, *shape: int, scale: float = 1.0, seed: int = 0) -> torch.Tensor:
        """Random numbers in the run's dtype, on its device; the run's generators keep their state."""
        generator = torch.Generator("cpu").manual_seed(sum(shape) + seed)
        numbers = torch.randn(shape, generator=generator, device="cpu") * scale
        return numbers.to(self.config.params_dtype).to(self.device)


def _leaf(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().clone().requires_grad_()


def _compared(
    names: tuple[str, ...],
    inputs: tuple[torch.Tensor, ...],
    kernel: Callable[..., torch.Tensor],
    formula: Callable[..., torch.Tensor],
) -> Iterator[Compared]:
    """Values and gradients by each input of a kernel and of a formula, which gets the inputs in fp32."""
    mine, exact = [_leaf(x) for x in inputs], [_leaf(x.float()) for x in inputs]
    found, expected = kernel(*mine), formula(*exact)
    slope = torch.linspace(-1.0, 1.0, expected.numel(), device=expected.device).view_as(expected)
    mine_by = torch.autograd.grad((found.float() * slope).sum(), mine)
    exact_by = torch.autograd.grad((expected * slope).sum(), exact)
    yield Compared("the value", found, expected)
    for name, one, other in zip(names, mine_by, exact_by, strict=True):
        yield Compared(f"the gradient by {name}", one, other)


# -- cross entropy: 8 rows, the first and one more of them masked -------------------------------------------


def _cross_entropy(bench: Bench) -> Iterator[Compared]:
    labels = (torch.arange(ROWS, device=bench.device) * 11 + 3) % VOCABULARY
    mask = torch.ones(ROWS, device=bench.device)
    mask[0] = mask[ROWS // 2 + 1] = 0.0
    yield from (_fused_loss if bench.fused_loss else _linear_loss)(bench, labels, mask)


def _exact_loss(
    logits: torch.Tensor, labels: torch.Tensor, z_loss: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """(losses, losses with what is learnt beside them)."""
    losses = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
    return losses, losses + z_loss * torch.logsumexp(logits, -1).square()


def _linear_loss(bench: Bench, labels: torch.Tensor, mask: torch.Tensor) -> Iterator[Compared]:
    """This suite's: loss of each row, gradients by the output layer's input and weight."""
    inputs = bench.drawn(ROWS, WIDTH), bench.drawn(VOCABULARY, WIDTH, scale=0.5)
    hidden, weight = map(_leaf, inputs)
    losses = cross_entropy.linear_cross_entropy(hidden, weight, labels, mask, None, z_loss=bench.z_loss)
    found = torch.autograd.grad((losses * mask).sum() / mask.sum(), (hidden, weight))
    hidden, weight = (_leaf(x.float()) for x in inputs)
    expected, learnt = _exact_loss(hidden @ weight.t(), labels, bench.z_loss)
    exact = torch.autograd.grad((learnt * mask).sum() / mask.sum(), (hidden, weight))
    yield Compared("the loss", losses, expected)
    yield Compared("the gradient by the output layer's input", found[0], exact[0])
    yield Compared("the gradient by the output layer's weight", found[1], exact[1])


def _fused_loss(bench: Bench, labels: torch.Tensor, mask: torch.Tensor) -> Iterator[Compared]:
    """Transformer Engine's, called as megatron-core's models call it: two sequences of four tokens."""
    logits = bench.drawn(ROWS // 2, 2, VOCABULARY)  # [s, b, v]
    labels, mask = labels.view(2, -1), mask.view(2, -1)  # [b, s]
    alone = SimpleNamespace(config=bench.config, pg_collection=SimpleNamespace(tp=None))
    mine = _leaf(logits)
    # The kernel writes the gradient into the logits' own memory.
    losses = LanguageModule.compute_language_model_loss(alone, labels, mine.clone())
    (found,) = torch.autograd.grad((losses * mask).sum() / mask.sum(), mine)
    exact = _leaf(logits.float())
    rows = exact.transpose(0, 1).flatten(0, 1)
    expected, _ = _exact_loss(rows, labels.flatten(), 0.0)
    (by_logits,) = torch.autograd.grad((expected.view_as(mask) * mask).sum() / mask.sum(), exact)
    yield Compared("the loss", losses, expected)
    yield Compared("the gradient by the logits", found, by_logits)


# -- the parts of a layer -----------------------------------------------------------------------------------


def _norm_formula(eps: float) -> Callable[..., torch.Tensor]:
    return lambda x, weight: x * (x.square().mean(-1, keepdim=True) + eps).rsqrt() * weight


def _norm(bench: Bench) -> Iterator[Compared]:
    config, x = bench.config, bench.drawn(4, 2, WIDTH)
    scale = bench.drawn(WIDTH, scale=0.1) + 1.0
    if not bench.transformer_engine:
        norm = torch_layers.RMSNorm(config, WIDTH, eps=config.layernorm_epsilon).to(bench.device)

        def with_torch(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
            del norm.weight
            norm.weight = weight
            return norm(x)

        formula = _norm_formula(config.layernorm_epsilon)
        yield from _compared(("the input", "the weight"), (x, scale), with_torch, formula)
        return
    from transformer_engine import pytorch as te

    layer = te.LayerNormLinear(
        WIDTH, WIDTH, eps=config.layernorm_epsilon, bias=False, normalization="RMSNorm",
        params_dtype=config.params_dtype, device=bench.device,
    )  # fmt: skip
    matrix = bench.drawn(WIDTH, WIDTH, scale=WIDTH**-0.5)
    with torch.no_grad():
        layer.layer_norm_weight.copy_(scale)
        layer.weight.copy_(matrix)
    norm_formula = _norm_formula(config.layernorm_epsilon)
    names = ("the input", "the norm's weight", "the matrix")
    exact = [_leaf(t.float()) for t in (x, scale, matrix)]
    mine = _leaf(x)
    found, expected = layer(mine), norm_formula(exact[0], exact[1]) @ exact[2].t()
    slope = torch.linspace(-1.0, 1.0, expected.numel(), device=bench.device).view_as(expected)
    by = torch.autograd.grad((found.float() * slope).sum(), (mine, layer.layer_norm_weight, layer.weight))
    exact_by = torch.autograd.grad((expected * slope).sum(), exact)
    yield Compared("the value", found, expected)
    for name, one, other in zip(names, by, exact_by, strict=True):
        yield Compared(f"the gradient by {name}", one, other)


def _turned(x: torch.Tensor, angles: torch.Tensor) -> torch.Tensor:
    first, second = x.chunk(2, -1)
    return x * angles.cos() + torch.cat([-second, first], -1) * angles.sin()


def _rotary(bench: Bench) -> Iterator[Compared]:
    """Llama's: halves, not neighbours. Packed too, where positions begin anew in each sequence."""
    half = torch.outer(torch.arange(LENGTH), 1.0 / 100.0 ** (torch.arange(8) / 8))
    angles = torch.cat([half, half], -1)[:, None, None, :].to(bench.device)
    x = bench.drawn(LENGTH, 1, 2, 16)
    fused = bench.transformer_engine

    def kernel(x: torch.Tensor) -> torch.Tensor:
        return apply_rotary_pos_emb(x, angles, bench.config) if fused else torch_layers.rotate(x, angles)

    yield from _compared(("the input",), (x,), kernel, lambda x: _turned(x, angles))
    if not bench.packed:
        return
    row = PackedRow.of(ENDS, bench.device)
    table = angles[: row.max_seqlen_q]  # as the model gives it

    def packed(x: torch.Tensor) -> torch.Tensor:
        if devices.is_gpu(bench.device) and not fused:
            return torch_layers.rotate(x, row.angles(table))
        return apply_rotary_pos_emb(x.squeeze(1), table, bench.config, row.cu_seqlens_q).unsqueeze(1)

    yield from _compared(("packed input",), (x,), packed, lambda x: _turned(x, row.angles(table)))


def _swiglu(bench: Bench) -> Iterator[Compared]:
    def kernel(x: torch.Tensor) -> torch.Tensor:
        return bias_swiglu_impl(x, None) if bench.transformer_engine else torch_layers.swiglu(x)

    def formula(x: torch.Tensor) -> torch.Tensor:
        gate, up = x.chunk(2, -1)
        return gate * gate.sigmoid() * up

    yield from _compared(("the input",), (bench.drawn(4, 2, 2 * WIDTH),), kernel, formula)


def attention(bench: Bench) -> Iterator[Compared]:
    """Plain: two sequences. Packed: three documents, one behind the other."""
    assert bench.attention is not None
    config, module = bench.config, bench.attention
    ranks = config.tensor_model_parallel_size
    shapes = [(config.num_attention_heads // ranks,), *[(config.num_query_groups // ranks,)] * 2]
    inputs = tuple(
        bench.drawn(LENGTH, 2, *heads, config.kv_channels, seed=seed) for seed, heads in enumerate(shapes)
    )
    names = ("the queries", "the keys", "the values")
    causal = torch.ones(LENGTH, LENGTH, dtype=torch.bool, device=bench.device).tril()

    def plain(*qkv: torch.Tensor) -> torch.Tensor:
        return module(*qkv, None, attn_mask_type=AttnMaskType.causal)

    yield from _compared(names, inputs, plain, lambda *qkv: _attended(*qkv, causal))
    if not bench.packed:
        return
    row = PackedRow.of(ENDS, bench.device)
    document = torch.bucketize(torch.arange(LENGTH), torch.tensor(ENDS[1:]), right=True).to(bench.device)
    apart = causal & (document[:, None] == document[None, :])
    first = tuple(x[:, 0] for x in inputs)

    def packed(*qkv: torch.Tensor) -> torch.Tensor:
        options = {"attn_mask_type": AttnMaskType.causal, "packed_seq_params": row}
        return module(*qkv, None, **options).view(LENGTH, -1)

    def formula(*qkv: torch.Tensor) -> torch.Tensor:
        return _attended(*(x[:, None] for x in qkv), apart).squeeze(1)

    for result in _compared(names, first, packed, formula):
        yield Compared(f"{result.what} of packed documents", result.found, result.expected)


def _attended(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
    """softmax(q·kᵀ/√d)·v where `seen`: [s, b, heads, d] → [s, b, heads·d]."""
    k, v = (x.repeat_interleave(q.size(2) // k.size(2), 2) for x in (k, v))
    scores = torch.einsum("sbhd,tbhd->bhst", q, k) / math.sqrt(q.size(-1))
    weights = scores.masked_fill(~seen, -math.inf).softmax(-1)
    return torch.einsum("bhst,tbhd->sbhd", weights, v).flatten(2)


# -- the optimizer ------------------------------------------------------------------------------------------


def _adamw(bench: Bench) -> Iterator[Compared]:
    """One step of the class that megatron-core takes here, in fp32 as on master weights."""
    from megatron.core import optimizer

    lr, (beta1, beta2), eps, decay = 0.01, (0.9, 0.95), 1e-8, 0.1
    weight, gradient = bench.drawn(4, WIDTH).float(), bench.drawn(4, WIDTH, seed=1).float()
    param = torch.nn.Parameter(weight.clone())
    param.grad = gradient.clone()
    optimizer.Adam([param], lr=lr, betas=(beta1, beta2), eps=eps, weight_decay=decay).step()
    moment, square = (1 - beta1) * gradient, (1 - beta2) * gradient.square()
    step = (moment / (1 - beta1)) / ((square / (1 - beta2)).sqrt() + eps)
    yield Compared("the update", param - weight, -lr * (step + decay * weight))


CHECKS: dict[str, Callable[[Bench], Iterator[Compared]]] = {
    "norm and linear": _norm,
    "attention": attention,
    "rotary positions": _rotary,
    "SwiGLU": _swiglu,
    "vocabulary cross entropy": _cross_entropy,
    "AdamW": _adamw,
}
