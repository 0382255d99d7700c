"""Text from a run or an exported model, in this process: python launch/generate.py source=<run|export>

Prompts are encoded with SentencePiece, as the training data were: `</s>` written in a prompt is text.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TextIO

import torch
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM
from transformers.generation.streamers import BaseStreamer
from transformers.utils import logging

from conf.errors import InputError
from conf.schema.hf import GenerateConfig
from data_prep.tokenizer import Tokenizer
from elm_megatron.chat.template import Dialogue, Template, Turn
from elm_megatron.evaluate import prompts
from elm_megatron.model import device as devices
from elm_megatron.model import hf_config
from elm_megatron.sources.source import ModelSource, resolve
from elm_megatron.sources.tokenizer_files import TokenizerSource
from elm_megatron.sources.weights import hf_tensors


class Generator:
    """A loaded model and its tokenizer.

    Args:
        model: under transformers.
        tokenizer: the one it was trained with.
        source: what is known of that tokenizer, and of the prompts the model was tuned with.
    """

    def __init__(self, model: torch.nn.Module, tokenizer: Tokenizer, source: TokenizerSource):
        self.device = devices.named(devices.best())
        self.model, self.tokenizer = model.eval().to(self.device), tokenizer
        self.template, self.tuned = Template.load(source.template), source.tuned

    @classmethod
    def of(cls, config: GenerateConfig) -> Generator:
        """Load what `source` and `adapter` name.

        Raises:
            InputError: there is no such model, or the adapter does not belong to it.
        """
        source = resolve(config.source, adapter=config.adapter)
        return cls(load(source, devices.named(devices.best())), source.tokenizer.load(), source.tokenizer)

    def ids(self, prompt: str, chat: bool, before: Sequence[int] = (), turn: int = 0) -> list[int]:
        """The ids a prompt becomes; an empty one starts where a document starts.

        Args:
            chat: put it into the template.
            before: the ids of the dialogue so far.
            turn: how many turns that dialogue has.
        """
        if chat:
            turns = (*[Turn("", "", "")] * turn, Turn(prompt, "", ""))
            prompt = self.template.prompt(Dialogue(turns), turn)
        return [*(before or self.tokenizer.begin), *self.tokenizer.encode(prompt)] or [self.tokenizer.eos_id]

    def complete(self, prompt: str, config: GenerateConfig, show: TextIO | None = None) -> str:
        """The continuation of one prompt, or with `chat` its answer.

        Args:
            show: where to print it while it grows.

        Raises:
            InputError: the prompt is as long as the longest sequence the model knows.
        """
        ids = self.ids(prompt, self.chats(config))
        return self._text(ids, self.extend(ids, config, show))

    def chats(self, config: GenerateConfig) -> bool:
        """Whether prompts are put into the template; a model that was tuned with one expects it."""
        return self.tuned if config.chat is None else config.chat

    def extend(self, ids: list[int], config: GenerateConfig, show: TextIO | None = None) -> list[int]:
        """The ids with what the model puts behind them, up to the end of the text or max_new_tokens.

        Raises:
            InputError: there are as many as the longest sequence the model knows.
        """
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
        return out[0].tolist()

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


def load(source: ModelSource, device: torch.device, dtype: torch.dtype | None = None) -> torch.nn.Module:
    """A source's model under transformers.

    An exported folder is read by transformers; a run, or anything with an adapter, part by part from its own
    weights, in fp32, the adapter merged.

    Args:
        source: the model.
        device: what it will compute on.
        dtype: of an exported folder's weights; None is its own type or, for a CPU, fp32.

    Raises:
        InputError: it cannot be read, or the adapter does not belong to it.
    """
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    if source.run is None and source.merged is None:
        on_gpu = devices.is_gpu(device)
        return _of_folder(source, dtype or ("auto" if on_gpu else torch.float32))
    return _in_memory(source)


def _of_folder(source: ModelSource, dtype: torch.dtype | str) -> torch.nn.Module:
    try:
        return AutoModelForCausalLM.from_pretrained(source.folder, dtype=dtype, local_files_only=True)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{source.folder}: transformers cannot load it ({reason}).") from error


def _in_memory(source: ModelSource) -> torch.nn.Module:
    """A Llama under transformers with a source's weights, fp32."""
    shape = hf_config.config_json(source.model, source.tokenizer.info, "fp32")
    model = LlamaForCausalLM(LlamaConfig(**{k: v for k, v in shape.items() if k != "torch_dtype"})).float()
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for name, tensor in hf_tensors(source.weights):
            parameters[name].copy_(tensor)
    return model


def generate(config: GenerateConfig) -> None:
    """Answer a person at a terminal, or print each prompt of a file or a pipe with its continuation.

    Raises:
        InputError: the source is no model, or a prompt is unreadable or too long.
    """
    at_terminal = config.prompts is None and sys.stdin.isatty() and sys.stdout.isatty()
    given = None if at_terminal else prompts.opened(config.prompts)  # before the model is loaded
    generator = Generator.of(config)
    if given is None:
        prompts.converse(generator, config)
        return
    with given:
        prompts.answer_all(generator, config, given)
