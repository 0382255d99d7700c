"""Text from an exported model, in this process: python launch/generate.py source=<export>

Prompts are encoded with SentencePiece, as the training data were: `</s>` written in a prompt is text.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import torch
from transformers import AutoModelForCausalLM
from transformers.generation.streamers import BaseStreamer
from transformers.utils import logging

from data_prep.errors import InputError
from data_prep.tokenizer import Tokenizer
from elm_megatron.hf.config import GenerateConfig
from elm_megatron.hf.source import require_hf_folder
from elm_megatron.tune.template import Dialogue, Template, Turn


class Generator:
    """A loaded model and its tokenizer.

    Args:
        folder: a Hugging Face folder made by export.
        device: where to compute; a GPU when there is one.
    """

    def __init__(self, folder: Path, device: str | None = None):
        logging.set_verbosity_error()
        logging.disable_progress_bar()
        self.device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        self.tokenizer = Tokenizer.load(folder)
        dtype = torch.float32 if self.device == "cpu" else "auto"
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval().to(self.device)

    def ids(self, prompt: str, chat_turn: bool) -> list[int]:
        """The ids a prompt becomes; an empty one starts where a document starts."""
        if chat_turn:
            prompt = Template.load("alpaca").prompt(Dialogue((Turn(prompt, "", ""),)), 0)
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
        InputError: the source is no exported model, or a prompt is unreadable or too long.
    """
    generator = Generator(require_hf_folder(config.source))
    for prompt in read_prompts(config.prompts):
        print(prompt, end="", flush=True)
        generator.complete(prompt, config, show=sys.stdout)
        print("\n", flush=True)
