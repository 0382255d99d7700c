"""Dialogues as token ids: what is prompt, what is answer, what was cut."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from conf.errors import InputError
from data_prep.tokenizer import Tokenizer
from elm_megatron.chat.template import Dialogue, Template

Encode = Callable[[str], list[int]]
Decode = Callable[[list[int]], str]
EMPTY = "left out, answer empty after the cut"


@dataclass(frozen=True)
class Example:
    """One dialogue, encoded.

    Attributes:
        ids: int32 [n].
        answer: bool [n], True where the model is to learn the id: responses and the EOS that closes each.
        key: hash of the first prompt, which decides on its split.
    """

    ids: np.ndarray
    answer: np.ndarray
    key: str

    def __len__(self) -> int:
        return len(self.ids)


class Encoder:
    """Turns dialogues into examples, counting what is cut and what is left out.

    Prompts and responses are encoded apart, content only, so that no text can become a special id and no
    search for a marker decides what is learnt.

    Args:
        encode: content-only encoding of a text.
        eos_id: closes each response.
        template: the texts around instructions.
        longest: ids of one example at most.
        begin: ids before the first prompt.
        decode: the text of ids; finds answers of which the cut leaves blanks alone.
    """

    def __init__(
        self,
        encode: Encode,
        eos_id: int,
        template: Template,
        longest: int,
        begin: Iterable[int] = (),
        decode: Decode | None = None,
    ):
        self._encode, self._eos_id, self._template, self._longest = encode, eos_id, template, longest
        self._begin, self._decode = list(begin), decode
        self.counts: Counter[str] = Counter()

    @classmethod
    def of(cls, tokenizer: Tokenizer, template: Template, longest: int) -> Encoder:
        """An encoder with a model's tokenizer.

        Raises:
            InputError: the template has a special token of the model, which would be learnt as ordinary text
                and read as a special id by other programs.
        """
        for token in sorted(tokenizer.specials):
            if any(token in text for text in vars(template).values()):
                raise InputError(
                    f"tune.template: has {token!r}, a special token of the model that is tuned, which would "
                    "be learnt as ordinary text; give a template without special tokens."
                )
        return cls(tokenizer.encode, tokenizer.eos_id, template, longest, tokenizer.begin, tokenizer.decode)

    def __call__(self, dialogue: Dialogue) -> Example | None:
        """The example, cut to the longest length; None when the cut leaves no answer to learn."""
        ids = list(self._begin)
        answer = [False] * len(ids)
        for index, turn in enumerate(dialogue.turns):
            prompt = self._encode(self._template.prompt(dialogue, index))
            response = [*self._encode(turn.response), self._eos_id]
            ids += prompt + response
            answer += [False] * len(prompt) + [True] * len(response)
        self.counts["examples"] += 1
        if len(ids) > self._longest:
            self.counts["truncated"] += 1
            ids, answer = ids[: self._longest], answer[: self._longest]
        if not any(answer[1:]):
            self.counts["left out, prompt too long"] += 1
            return None
        if self._is_empty([n for n, learnt in zip(ids, answer, strict=True) if learnt]):
            self.counts[EMPTY] += 1
            return None
        return Example(np.array(ids, np.int32), np.array(answer, bool), prompt_key(dialogue))

    def _is_empty(self, answer: list[int]) -> bool:
        """Whether an answer says nothing: the ids that close it, or blanks."""
        said = [n for n in answer if n != self._eos_id]
        return not said or (self._decode is not None and not self._decode(said).strip())

    def all(self, dialogues: Iterable[Dialogue]) -> list[Example]:
        """The examples of all dialogues that keep an answer."""
        return [example for dialogue in dialogues if (example := self(dialogue)) is not None]


def prompt_key(dialogue: Dialogue) -> str:
    """Hash of the first instruction, so that the same question is never on both sides of a split."""
    turn = dialogue.turns[0]
    text = "\0".join((dialogue.system, turn.instruction.strip(), turn.context.strip()))
    return hashlib.sha256(text.encode()).hexdigest()


def held_out(keys: list[str], fraction: float) -> list[bool]:
    """Which keys are validation: those whose hash lies below the fraction; at least one key, never all.

    The same key always falls the same way, whatever else is in the data.
    """
    distinct = sorted(set(keys))
    below = {key for key in distinct if int(key[:13], 16) < fraction * 16**13}
    chosen = below or set(distinct[:1])
    if len(chosen) == len(distinct):
        chosen = set(distinct[:-1])
    return [key in chosen for key in keys]
