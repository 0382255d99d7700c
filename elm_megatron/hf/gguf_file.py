"""A model as one GGUF file for llama.cpp, written tensor by tensor and passed through the same gate.

llama.cpp rotates neighbouring channels (2i, 2i + 1) where Hugging Face rotates i and i + d/2, so rows of q
and k are reordered. Norms stay f32 in every type. The tokenizer goes in as SentencePiece pieces with scores.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch

from conf.errors import InputError
from conf.schema.hf import ExportConfig
from conf.schema.model import ModelConfig
from data_prep.files import sha256
from data_prep.tokenizer import MODEL_FILE, Tokenizer
from elm_megatron.chat.jinja_template import jinja
from elm_megatron.chat.template import Template
from elm_megatron.hf import gate
from elm_megatron.hf.written import Written
from elm_megatron.model import hf_config, hf_names
from elm_megatron.model.hf_names import Part
from elm_megatron.sources.places import GGUF_FILE
from elm_megatron.sources.source import ModelSource
from elm_megatron.sources.tokenizer_files import AddedToken, TokenizerSource, added_tokens, chat_template
from elm_megatron.sources.weights import hf_tensors

DEFAULT_DTYPE = {"fp32": "f32", "bf16": "f16", "fp16": "f16"}
TYPES = {
    "f32": gguf.GGMLQuantizationType.F32,
    "f16": gguf.GGMLQuantizationType.F16,
    "q8_0": gguf.GGMLQuantizationType.Q8_0,
}
FILE_TYPES = {
    "f32": gguf.LlamaFileType.ALL_F32,
    "f16": gguf.LlamaFileType.MOSTLY_F16,
    "q8_0": gguf.LlamaFileType.MOSTLY_Q8_0,
}
BLOCK = 32  # numbers that share a scale in q8_0
LAYER = {
    "attention_norm": "attn_norm",
    "q": "attn_q",
    "k": "attn_k",
    "v": "attn_v",
    "out": "attn_output",
    "mlp_norm": "ffn_norm",
    "gate": "ffn_gate",
    "up": "ffn_up",
    "fc2": "ffn_down",
}
ENDS = {
    hf_names.EMBEDDING: "token_embd.weight",
    hf_names.NORM: "output_norm.weight",
    hf_names.HEAD: "output.weight",
}


def part_names(model: ModelConfig, part: Part) -> dict[str, tuple[str, int]]:
    """{Hugging Face's name: (GGUF's name, heads whose rows are reordered or 0)} of a part."""
    hf = hf_names.hf_shapes(model, part)
    if part in ENDS:
        return dict.fromkeys(hf, (ENDS[part], 0))
    heads = {"q": model.num_attention_heads, "k": model.num_query_groups}
    return {
        name: (f"blk.{part}.{LAYER[key]}.weight", heads.get(key, 0))
        for key, name in zip(hf_names.HF_LAYER, hf, strict=True)
    }


def interleave(tensor: np.ndarray, heads: int) -> np.ndarray:
    """Rows [heads, 2, d/2] → [heads, d/2, 2]: what llama.cpp wants of q and k."""
    return tensor.reshape(heads, 2, -1, tensor.shape[-1]).swapaxes(1, 2).reshape(tensor.shape)


def deinterleave(tensor: np.ndarray, heads: int) -> np.ndarray:
    """The inverse of `interleave`."""
    return tensor.reshape(heads, -1, 2, tensor.shape[-1]).swapaxes(1, 2).reshape(tensor.shape)


def rounding(dtype: str) -> gate.Rounding | None:
    """What storing in a type does to a tensor's numbers; None for f32."""
    if dtype == "f32":
        return None

    def rounded(name: str, tensor: torch.Tensor) -> torch.Tensor:
        if tensor.dim() == 1:
            return tensor
        stored = _stored(tensor.float().numpy(), dtype)
        return torch.from_numpy(gguf.dequantize(stored, TYPES[dtype]))

    return rounded


def _stored(tensor: np.ndarray, dtype: str) -> np.ndarray:
    """fp32 numbers as they are written: fp32, fp16, or blocks of q8_0 as bytes."""
    if tensor.ndim == 1 or dtype == "f32":
        return np.ascontiguousarray(tensor, dtype=np.float32)
    if dtype == "f16":
        return tensor.astype(np.float16)
    return gguf.quantize(np.ascontiguousarray(tensor), TYPES["q8_0"])


def write(config: ExportConfig, source: ModelSource, path: Path) -> Written:
    """Write a model's GGUF file.

    Raises:
        InputError: the model has no SentencePiece tokenizer, or its sizes do not fit q8_0.
    """
    dtype = config.dtype or DEFAULT_DTYPE[source.dtype]
    weights, tokenizer = source.weights, source.tokenizer
    model = weights.model
    _check(model, dtype, tokenizer)
    writer = gguf.GGUFWriter(path, "llama")
    _add_settings(writer, model, dtype, source.folder.name)
    _add_tokenizer(writer, tokenizer, model.vocab_size)
    for part in hf_names.parts(model):
        for name, shape in hf_names.hf_shapes(model, part).items():
            _add_tensor_info(writer, part_names(model, part)[name][0], shape, dtype)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    parts = hf_names.parts(model)
    order = {name: entry for part in parts for name, entry in part_names(model, part).items()}
    for name, tensor in hf_tensors(weights):
        numbers, heads = tensor.float().numpy(), order[name][1]
        writer.write_tensor_data(_stored(interleave(numbers, heads) if heads else numbers, dtype))
    writer.close()
    files = {GGUF_FILE: {"bytes": path.stat().st_size, "sha256": sha256(path)}}
    settings = hf_config.config_json(model, tokenizer.info, "fp32")
    return Written(dtype, files, rounding(dtype), GgufWeights(path, model), settings)


def _check(model: ModelConfig, dtype: str, tokenizer: TokenizerSource) -> None:
    if not (tokenizer.folder / MODEL_FILE).is_file():
        raise InputError(f"format=gguf: {tokenizer.folder} holds no {MODEL_FILE}, which llama.cpp needs.")
    for key in ("hidden_size", "ffn_hidden_size"):
        if dtype == "q8_0" and getattr(model, key) % BLOCK:
            raise InputError(f"dtype=q8_0: model.{key}={getattr(model, key)} is not a multiple of {BLOCK}.")


def _add_settings(writer: gguf.GGUFWriter, model: ModelConfig, dtype: str, name: str) -> None:
    writer.add_name(name)
    writer.add_file_type(FILE_TYPES[dtype])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_vocab_size(model.vocab_size)
    writer.add_context_length(model.max_position_embeddings)
    writer.add_embedding_length(model.hidden_size)
    writer.add_block_count(model.num_layers)
    writer.add_feed_forward_length(model.ffn_hidden_size)
    writer.add_head_count(model.num_attention_heads)
    writer.add_head_count_kv(model.num_query_groups)
    writer.add_rope_dimension_count(model.head_dim)
    writer.add_rope_freq_base(model.rope_theta)
    writer.add_layer_norm_rms_eps(model.norm_eps)


def _add_tokenizer(writer: gguf.GGUFWriter, source: TokenizerSource, vocab_size: int) -> None:
    """SentencePiece's pieces and the tokens added to them.

    llama.cpp wants a token for each row of the embedding, also for unused ones.
    """
    processor = Tokenizer.load(source.folder).processor
    ids, more = range(processor.vocab_size()), range(processor.vocab_size(), vocab_size)
    added = added_tokens(source.folder)
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    pieces = [processor.id_to_piece(i).encode() for i in ids]
    writer.add_token_list([*pieces, *(_added_text(added.get(i), i) for i in more)])
    writer.add_token_scores([*(processor.get_score(i) for i in ids), *(0.0 for _ in more)])
    kinds = [_token_type(processor, i) for i in ids]
    writer.add_token_types([*kinds, *(_added_type(added.get(i)) for i in more)])
    writer.add_unk_token_id(processor.unk_id())
    for add, value in (
        (writer.add_bos_token_id, source.info.bos_id),
        (writer.add_eos_token_id, source.info.eos_id),
        (writer.add_pad_token_id, source.info.pad_id),
    ):
        if value is not None:
            add(value)
    writer.add_add_bos_token(source.adds_bos)
    writer.add_add_eos_token(False)
    writer.add_add_space_prefix(True)
    own = None if source.tuned or source.manifest is not None else chat_template(source.folder)
    writer.add_chat_template(own or jinja(Template.load(source.template), eos=True))


def _added_text(token: AddedToken | None, index: int) -> bytes:
    return (token.text if token else f"[PAD{index}]").encode()


def _added_type(token: AddedToken | None) -> gguf.TokenType:
    if token is None:
        return gguf.TokenType.UNUSED
    return gguf.TokenType.CONTROL if token.special else gguf.TokenType.USER_DEFINED


def _token_type(processor: Any, index: int) -> gguf.TokenType:
    if processor.is_unknown(index):
        return gguf.TokenType.UNKNOWN
    if processor.is_control(index):
        return gguf.TokenType.CONTROL
    return gguf.TokenType.BYTE if processor.is_byte(index) else gguf.TokenType.NORMAL


def _add_tensor_info(writer: gguf.GGUFWriter, name: str, shape: tuple[int, ...], dtype: str) -> None:
    kind = TYPES["f32"] if len(shape) == 1 else TYPES[dtype]
    block, size = gguf.GGML_QUANT_SIZES[kind]
    count = int(np.prod(shape)) // block * size
    writer.add_tensor_info(name, shape, np.dtype(np.float32), count, raw_dtype=kind)


class GgufWeights:
    """A GGUF file's tensors under Hugging Face's names, each read into memory of its own, for the gate."""

    def __init__(self, path: Path, model: ModelConfig):
        self.path, self.model = path, model
        reader = gguf.GGUFReader(path)
        self._places = {
            t.name: (t.tensor_type, int(t.data_offset), int(t.n_bytes), tuple(int(n) for n in t.shape[::-1]))
            for t in reader.tensors
        }

    def hf_part(self, part: Part) -> dict[str, torch.Tensor]:
        """Hugging Face's tensors of a part, fp32."""
        return dict(self._read(part))

    def _read(self, part: Part) -> Iterator[tuple[str, torch.Tensor]]:
        for hf, (name, heads) in part_names(self.model, part).items():
            kind, offset, size, shape = self._places[name]
            raw = np.fromfile(self.path, dtype=np.uint8, count=size, offset=offset)
            if kind == TYPES["q8_0"]:
                numbers = gguf.dequantize(raw.reshape(shape[0], -1), kind).reshape(shape)
            else:
                stored = np.float32 if kind == TYPES["f32"] else np.float16
                numbers = raw.view(stored).reshape(shape).astype(np.float32)
            yield (
                hf,
                torch.from_numpy(np.ascontiguousarray(deinterleave(numbers, heads) if heads else numbers)),
            )
