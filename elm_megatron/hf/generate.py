"""Text from a run or an exported model, in this process: python launch/generate.py source=<run|export>

Prompts are encoded with SentencePiece, as the training data were: `</s>` written in a prompt is text.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

import torch
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM
from transformers.generation.streamers import BaseStreamer
from transformers.utils import logging

from data_prep.errors import InputError
from data_prep.tokenizer import Tokenizer
from elm_megatron.config import RunConfig
from elm_megatron.hf import adapters, architecture, names, tokenizer_files
from elm_megatron.hf.config import ExportConfig, GenerateConfig
from elm_megatron.hf.source import hf_folder
from elm_megatron.hf.tokenizer_files import TokenizerSource
from elm_megatron.hf.weights import Weights
from elm_megatron.tune.template import Dialogue, Template, Turn


class Generator:
    """A loaded model and its tokenizer.

    Args:
        model: under transformers.
        tokenizer: the one it was trained with.
        template: name or path of the prompt template it was tuned with.
    """

    def __init__(self, model: torch.nn.Module, tokenizer: Tokenizer, template: str):
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.model, self.tokenizer = model.eval().to(self.device), tokenizer
        self.template = Template.load(template)

    @classmethod
    def of(cls, config: GenerateConfig) -> Generator:
        """Load what `source` and `adapter` name.

        An exported folder is read by transformers; a run, or anything with an adapter, part by part from its
        own weights, the adapter merged in fp32.

        Raises:
            InputError: there is no such model, or the adapter does not belong to it.
        """
        logging.set_verbosity_error()
        logging.disable_progress_bar()
        folder = hf_folder(config.source)
        if folder is not None and config.adapter is None:
            dtype = "auto" if torch.cuda.is_available() else torch.float32
            model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
            return cls(model, Tokenizer.load(folder), tokenizer_files.of_folder(folder).template)
        source = _open_quietly(config)
        template = adapters.template_of(config.adapter) if config.adapter else None
        return cls(
            _in_memory(source.weights, source.tokenizer),
            Tokenizer.load(source.tokenizer.folder),
            template or source.tokenizer.template,
        )

    def ids(self, prompt: str, chat_turn: bool) -> list[int]:
        """The ids a prompt becomes; an empty one starts where a document starts."""
        if chat_turn:
            prompt = self.template.prompt(Dialogue((Turn(prompt, "", ""),)), 0)
        return self.tokenizer.encode(prompt) or [self.tokenizer.eos_id]

    def complete(self, prompt: str, config: GenerateConfig, show: TextIO | None = None) -> str:
        """The continuation of one prompt, up to the end of the text or max_new_tokens.

        Args:
            show: where to print it while it grows.

        Raises:
            InputError: the prompt is as long as the longest sequence the model knows.
        """
        ids = self.ids(prompt, config.chat)
        room = self.model.config.max_position_embeddings - len(ids)
        if room < 1:
            raise InputError(
                f"the prompt has {len(ids)} tokens, the model takes fewer than "
                f"{self.model.config.max_position_embeddings}."
            )
        torch.manual_seed(config.seed)
        sampling: dict[str, float | bool] = {"do_sample": config.temperature > 0}
        if config.temperature > 0:
            sampling |= {"temperature": config.temperature, "top_p": config.top_p, "top_k": config.top_k}
        inputs = torch.tensor([ids], device=self.device)
        with torch.inference_mode():
            out = self.model.generate(
                inputs,
                attention_mask=torch.ones_like(inputs),
                max_length=None,
                max_new_tokens=min(config.max_new_tokens, room),
                repetition_penalty=config.repetition_penalty,
                streamer=_Screen(self.tokenizer, ids, show) if show else None,
                **sampling,
            )
        return self._text(ids, out[0].tolist())

    def _text(self, prompt: list[int], all_ids: list[int]) -> str:
        return self.tokenizer.decode(all_ids)[len(self.tokenizer.decode(prompt)) :]


class _Screen(BaseStreamer):
    """Prints a continuation as it grows, holding back bytes that are not yet a whole character."""

    def __init__(self, tokenizer: Tokenizer, prompt: list[int], out: TextIO):
        self.tokenizer, self.out, self.prompt = tokenizer, out, prompt
        self.all: list[int] = []
        self.shown = len(tokenizer.decode(prompt))

    def put(self, value: torch.Tensor) -> None:
        """More ids, int64; the first call brings the prompt."""
        self.all += value.flatten().tolist()
        text = self.tokenizer.decode(self.all)
        if not text.endswith("\ufffd"):
            self._print(text)

    def end(self) -> None:
        """No more ids."""
        self._print(self.tokenizer.decode(self.all))

    def _print(self, text: str) -> None:
        print(text[self.shown :], end="", file=self.out, flush=True)
        self.shown = max(self.shown, len(text))


def _open_quietly(config: GenerateConfig) -> Any:
    """The source as export opens it; megatron-core's notes about missing kernels are kept back."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from elm_megatron.hf.export import open_source
    run = RunConfig("generate", "")
    return open_source(ExportConfig(run=run, source=config.source, adapter=config.adapter))


def _in_memory(weights: Weights, tokenizer: TokenizerSource) -> torch.nn.Module:
    """A Llama under transformers with these weights, fp32."""
    shape = architecture.config_json(weights.model, tokenizer.info, "fp32")
    model = LlamaForCausalLM(LlamaConfig(**{k: v for k, v in shape.items() if k != "torch_dtype"})).float()
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for part in names.parts(weights.model):
            for name, tensor in names.to_hf(weights.model, part, weights.part(part)):
                parameters[name].copy_(tensor)
    return model


def read_prompts(path: str | None) -> Iterator[str]:
    """Prompts, one a line, from a file or from standard input, which is asked for when it is a terminal.

    Raises:
        InputError: the file cannot be read as UTF-8 text.
    """
    if path is not None:
        try:
            text = Path(path).expanduser().read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"prompts={path}: cannot be read ({error}).") from error
        yield from text.splitlines()
        return
    while True:
        if sys.stdin.isatty():
            print("prompt (Ctrl-D ends): ", end="", file=sys.stderr, flush=True)
        line = sys.stdin.readline()
        if not line:
            return
        yield line.rstrip("\n")


def generate(config: GenerateConfig) -> None:
    """Print each prompt with its continuation.

    Raises:
        InputError: the source is no model, or a prompt is unreadable or too long.
    """
    generator = Generator.of(config)
    for prompt in read_prompts(config.prompts):
        print(prompt, end="", flush=True)
        generator.complete(prompt, config, show=sys.stdout)
        print("\n", flush=True)
