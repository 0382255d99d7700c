"""The check that runs at every export: Megatron's own layers against transformers', on real text.

Both sides walk through the model block by block in fp32, so that never more than one block of each is in
memory: Megatron with the checkpoint's weights rounded as the export rounds them, transformers with the
weights of the file just written. Their logits must agree within `LIMIT`. Megatron with the weights as they
were trained goes along, to say what the rounding costs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from megatron.core.models.gpt import GPTModel
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaDecoderLayer, LlamaRMSNorm, LlamaRotaryEmbedding

from elm_megatron.config import ModelConfig, ParallelConfig
from elm_megatron.hf import names
from elm_megatron.hf.names import Part
from elm_megatron.hf.weights import Weights
from elm_megatron.model import llama

LIMIT = 1e-4
LENGTH = 256  # tokens of each text, or the model's longest sequence

Rounding = Callable[[str, torch.Tensor], torch.Tensor]


class GateError(RuntimeError):
    """The exported file does not compute what the trained model computes; nothing was exported."""


class Exported(Protocol):
    """The file just written."""

    def hf_part(self, part: Part) -> dict[str, torch.Tensor]:
        """Hugging Face's tensors of a part."""
        ...


@dataclass(frozen=True)
class Difference:
    """Largest absolute differences of logits.

    Attributes:
        rounded: against Megatron with the weights rounded to the export's dtype.
        trained: against Megatron with the weights as trained.
        tokens: positions compared.
    """

    rounded: float
    trained: float
    tokens: int


class MegatronSide:
    """A one-layer GPTModel whose weights are replaced before each block.

    Needs megatron-core's process groups, of one rank. Hidden states are fp32 [s, b, hidden].
    """

    def __init__(self, model: ModelConfig, rounding: Rounding | None):
        one = replace(model, num_layers=1, vocab_size=1, tie_embeddings=False)
        config = llama.transformer_config(one, ParallelConfig())
        self.model, self.rounding = model, rounding
        self.gpt: GPTModel = llama.build(one, ParallelConfig(), config, transformer_engine=False)[0].eval()
        self.hidden = torch.empty(0)

    def run(self, part: Part, tensors: dict[str, torch.Tensor], tokens: torch.Tensor) -> torch.Tensor | None:
        """Go through one part; the logits [s, b, vocab] after the last, else None."""
        if self.rounding is not None:
            tensors = {name: self.rounding(name, tensor) for name, tensor in tensors.items()}
        tensors = {name: tensor.float() for name, tensor in tensors.items()}
        if part == names.EMBEDDING:
            self._assign(self.gpt.embedding.word_embeddings, tensors[names.MEGATRON_EMBEDDING])
            self.hidden = self.gpt.embedding.word_embeddings(tokens).transpose(0, 1).contiguous()
        elif part == names.NORM:
            self._assign(self.gpt.decoder.final_layernorm, tensors[names.MEGATRON_NORM])
            self.hidden = self.gpt.decoder.final_layernorm(self.hidden)
        elif part == names.HEAD:
            self._assign(self.gpt.output_layer, next(iter(tensors.values())))
            logits = self.gpt.output_layer(self.hidden)[0]
            self._assign(self.gpt.output_layer, torch.empty(0))
            return logits[..., : self.model.vocab_size]
        else:
            self._load_layer(part, tensors)
            rope = self.gpt.rotary_pos_emb(tokens.shape[1])
            self.hidden = self.gpt.decoder.layers[0](
                hidden_states=self.hidden, attention_mask=None, rotary_pos_emb=rope
            )[0]
        return None

    def _load_layer(self, part: Part, tensors: dict[str, torch.Tensor]) -> None:
        for param, shards in llama.sharded_tensors(self.gpt):
            name = llama.box(shards[0])[0]
            if name.startswith("decoder.layers."):
                param.data = tensors[f"{name.removesuffix('.0')}.{part}"]

    @staticmethod
    def _assign(module: torch.nn.Module, weight: torch.Tensor) -> None:
        module.weight.data = weight


class HuggingFaceSide:
    """transformers' Llama layer, its weights replaced before each block; hidden states are [b, s, hidden]."""

    def __init__(self, config: dict[str, Any]):
        self.config = LlamaConfig(**config)
        self.config._attn_implementation = "sdpa"
        with torch.device("meta"):
            self.layer = LlamaDecoderLayer(self.config, layer_idx=0).eval()
        self.rotary = LlamaRotaryEmbedding(self.config)
        self.norm = LlamaRMSNorm(self.config.hidden_size, self.config.rms_norm_eps)
        self.hidden = torch.empty(0)

    def run(self, part: Part, tensors: dict[str, torch.Tensor], tokens: torch.Tensor) -> torch.Tensor | None:
        """Go through one part; the logits [s, b, vocab] after the last, else None."""
        tensors = {name: tensor.float() for name, tensor in tensors.items()}
        if part == names.EMBEDDING:
            self.hidden = torch.nn.functional.embedding(tokens, tensors[names.HF_EMBEDDING])
        elif part == names.NORM:
            self.norm.weight.data = tensors[names.HF_NORM]
            self.hidden = self.norm(self.hidden)
        elif part == names.HEAD:
            return torch.nn.functional.linear(self.hidden, next(iter(tensors.values()))).transpose(0, 1)
        else:
            prefix = f"model.layers.{part}."
            state = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
            self.layer.load_state_dict(state, assign=True)
            positions = torch.arange(tokens.shape[1])[None]
            out = self.layer(
                self.hidden,
                position_ids=positions,
                position_embeddings=self.rotary(self.hidden, positions),
            )
            self.hidden = out[0] if isinstance(out, tuple) else out
        return None


@torch.no_grad()
def compare(
    weights: Weights,
    rounding: Rounding | None,
    exported: Exported,
    config: dict[str, Any],
    tokens: torch.Tensor,
) -> Difference:
    """Both models' logits on the same tokens.

    Args:
        weights: what was exported.
        rounding: what the export's dtype does to a Megatron tensor; None when it keeps fp32.
        exported: the file just written.
        config: its config.json.
        tokens: int64 [b, s].
    """
    model = weights.model
    hf = HuggingFaceSide(config)
    rounded = MegatronSide(model, rounding)
    trained = MegatronSide(model, None) if rounding is not None else None
    steps = [(part, part) for part in names.parts(model)]
    if model.tie_embeddings:
        steps.append((names.HEAD, names.EMBEDDING))  # the head computes with the embedding's weight
    for part, stored in steps:
        tensors = weights.part(stored)
        logits = rounded.run(part, tensors, tokens)
        unrounded = trained.run(part, tensors, tokens) if trained is not None else logits
        del tensors
        theirs = hf.run(part, exported.hf_part(stored), tokens)
    assert logits is not None and unrounded is not None and theirs is not None
    return Difference(
        rounded=(logits - theirs).abs().max().item(),
        trained=(unrounded - theirs).abs().max().item(),
        tokens=tokens.numel(),
    )


def require_equal(difference: Difference) -> None:
    """Refuse an export whose logits differ, or are not numbers.

    Raises:
        GateError: naming the difference and the limit.
    """
    if not difference.rounded <= LIMIT:
        raise GateError(
            f"the exported file's logits differ from Megatron's by {difference.rounded:.3g} over "
            f"{difference.tokens} tokens, allowed is {LIMIT:g}; nothing was exported"
        )
