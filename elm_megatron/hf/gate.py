"""The check that runs at every export: Megatron's own layers against transformers', on real text.

Both sides walk through the model block by block in fp32, so that never more than one block of each is in
memory: Megatron with the checkpoint's weights rounded as the export rounds them, transformers with the
weights of the file just written. Their logits must agree within `LIMIT`. Megatron with the weights as they
were trained goes along, to say what the rounding costs.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import torch
from megatron.core.models.gpt import GPTModel
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaDecoderLayer, LlamaRMSNorm, LlamaRotaryEmbedding

from conf.schema.model import ModelConfig
from conf.schema.parallel import ParallelConfig
from elm_megatron.hf.passages import passages
from elm_megatron.model import hf_names, llama, sharding
from elm_megatron.model.hf_names import Part
from elm_megatron.sources import tokenizer_files
from elm_megatron.sources.weights import Weights

LIMIT = 1e-4
ROWS = 4096  # of the output head at a time
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
        if part == hf_names.EMBEDDING:
            embedding = self.gpt.embedding.word_embeddings
            self.hidden = self._with(embedding, tensors, tokens).float().transpose(0, 1).contiguous()
            return None
        tensors = {name: tensor.float() for name, tensor in tensors.items()}
        if part == hf_names.NORM:
            self.hidden = self._with(self.gpt.decoder.final_layernorm, tensors, self.hidden)
        elif part == hf_names.HEAD:
            return self._with(self.gpt.output_layer, tensors, self.hidden)[0]
        else:
            self._load_layer(part, tensors)
            rope = self.gpt.rotary_pos_emb(tokens.shape[1])
            self.hidden = self.gpt.decoder.layers[0](
                hidden_states=self.hidden, attention_mask=None, rotary_pos_emb=rope
            )[0]
        return None

    def _load_layer(self, part: Part, tensors: dict[str, torch.Tensor]) -> None:
        for param, shards in sharding.sharded_tensors(self.gpt):
            name = sharding.location(shards[0]).name
            if name.startswith("decoder.layers."):
                param.data = tensors[f"{name.removesuffix('.0')}.{part}"]

    @staticmethod
    def _with(module: torch.nn.Module, tensors: dict[str, torch.Tensor], x: torch.Tensor) -> Any:
        """Call a module with the one tensor of its part as its weight, and let go of it."""
        (module.weight.data,) = tensors.values()
        out = module(x)
        module.weight.data = torch.empty(0)
        return out


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
        if part == hf_names.EMBEDDING:
            self.hidden = torch.nn.functional.embedding(tokens, tensors[hf_names.HF_EMBEDDING]).float()
            return None
        tensors = {name: tensor.float() for name, tensor in tensors.items()}
        if part == hf_names.NORM:
            self.norm.weight.data = tensors[hf_names.HF_NORM]
            self.hidden = self.norm(self.hidden)
        elif part == hf_names.HEAD:
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
    for part in hf_names.parts(model):
        if part == hf_names.HEAD:
            break
        tensors = weights.part(part)
        for side in filter(None, (rounded, trained)):
            side.run(part, tensors, tokens)
        del tensors
        hf.run(part, exported.hf_part(part), tokens)
    # A tied head computes with the embedding's weight.
    stored = hf_names.EMBEDDING if model.tie_embeddings else hf_names.HEAD
    (ours,), (theirs,) = weights.part(stored).values(), exported.hf_part(stored).values()
    largest = torch.zeros(2)
    for start in range(0, model.vocab_size, ROWS):
        stop = min(start + ROWS, model.vocab_size)
        expected = hf.run(hf_names.HEAD, {hf_names.HF_HEAD: theirs[start:stop]}, tokens)
        rows = {hf_names.MEGATRON_HEAD: ours[start:stop]}
        logits = [side.run(hf_names.HEAD, rows, tokens) for side in (rounded, trained or rounded)]
        found = torch.stack([(x - expected).abs().max() for x in logits])
        largest = torch.maximum(largest, found)  # NaN stays NaN
    return Difference(largest[0].item(), largest[1].item(), tokens.numel())


def check(
    weights: Weights, tokenizer: Path, rounding: Rounding | None, exported: Exported, config: dict[str, Any]
) -> tuple[Difference, float]:
    """Compare a written file with Megatron on real text; returns the differences and the seconds it took.

    Args:
        weights: what was exported.
        tokenizer: the folder of its tokenizer.
        rounding: what the export's dtype does to a Megatron tensor; None when it keeps fp32.
        exported: the file just written.
        config: its config.json.

    Raises:
        GateError: they differ.
    """
    began = time.perf_counter()
    difference = compare(weights, rounding, exported, config, _tokens(tokenizer, weights.model))
    require_equal(difference)
    return difference, time.perf_counter() - began


def _tokens(tokenizer: Path, model: ModelConfig) -> torch.Tensor:
    """Dutch and English text as int64 [2, s]."""
    length = min(LENGTH, model.max_position_embeddings)
    encode = tokenizer_files.encoder(tokenizer)
    rows = [encode(text)[:length] for text in passages().values()]
    return torch.tensor([row[: min(map(len, rows))] for row in rows])


def round_to(dtype: torch.dtype) -> Rounding:
    """What storing in a type does to a tensor's numbers."""

    def rounded(name: str, tensor: torch.Tensor) -> torch.Tensor:
        return tensor.to(dtype)

    return rounded


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
