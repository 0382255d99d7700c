"""From the messages of a request to the token ids that a model was tuned with.

As in `launch/generate.py`: prompts are pieces of text and explicit ids, so that no text can become a special
id. A server's own chat template reads `</s>` in a question as the end of the text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from conf.errors import InputError
from data_prep.tokenizer import Tokenizer
from elm_megatron.chat.template import Dialogue, Template, Turn
from elm_megatron.sources.source import resolve
from elm_megatron.sources.tokenizer_files import chat_template


@dataclass(frozen=True)
class Prompts:
    """Makes prompts for one model.

    Attributes:
        tokenizer: the one it was trained with.
        template: the texts around instructions; None for a model from elsewhere with a template of its own,
            which its engine applies.
    """

    tokenizer: Tokenizer
    template: Template | None

    @classmethod
    def of(cls, source: str) -> Prompts | None:
        """The prompts of a source; None where it has no SentencePiece tokenizer: its engine knows."""
        try:
            found = resolve(source).tokenizer
            tokenizer = found.load()
        except InputError:
            return None
        foreign = not found.tuned and found.manifest is None and chat_template(found.folder) is not None
        return cls(tokenizer, None if foreign else Template.load(found.template))

    def text(self, prompt: str) -> list[int]:
        """The ids of a text that is to be continued; an empty one starts where a document starts."""
        return [*self.tokenizer.begin, *self.tokenizer.encode(prompt)] or [self.tokenizer.eos_id]

    def chat(self, messages: object) -> list[int]:
        """The ids of a conversation, up to where the model answers.

        Raises:
            InputError: the messages are not a system message, if any, and then user and assistant in turn.
        """
        assert self.template is not None
        dialogue = dialogue_of(messages)
        ids = list(self.tokenizer.begin)
        for index, turn in enumerate(dialogue.turns):
            ids += self.tokenizer.encode(self.template.prompt(dialogue, index))
            if index < len(dialogue.turns) - 1:
                ids += [*self.tokenizer.encode(turn.response), self.tokenizer.eos_id]
        return ids


def dialogue_of(messages: object) -> Dialogue:
    """The dialogue of a request's messages; its last turn has no response yet.

    Raises:
        InputError: they are no dialogue that ends with a question.
    """
    if not isinstance(messages, Sequence) or isinstance(messages, str) or not messages:
        raise InputError("messages: must be a list with at least one message.")
    said = [_said(one) for one in messages]
    system = said.pop(0)[1] if said[0][0] == "system" else ""
    roles = [role for role, _ in said]
    if roles[::2] != ["user"] * len(roles[::2]) or roles[1::2] != ["assistant"] * len(roles[1::2]):
        raise InputError("messages: user and assistant must take turns, after one system message at most.")
    if len(roles) % 2 == 0:
        raise InputError("messages: the last one must be of the user.")
    texts = [text for _, text in said] + [""]
    return Dialogue(tuple(Turn(texts[n], "", texts[n + 1]) for n in range(0, len(said), 2)), system)


def _said(message: object) -> tuple[str, str]:
    """Role and text of one message; a list of parts is their texts, joined.

    Raises:
        InputError: it has no text.
    """
    if isinstance(message, Mapping):
        role, content = message.get("role"), message.get("content")
        if isinstance(content, list):
            content = _joined(content)
        if isinstance(role, str) and isinstance(content, str):
            return ("system" if role == "developer" else role), content
    raise InputError("messages: each needs a `role` and a `content` that is text.")


def _joined(parts: Sequence[Any]) -> str | None:
    texts = [one.get("text") if isinstance(one, Mapping) else None for one in parts]
    return "\n".join(texts) if texts and all(isinstance(text, str) for text in texts) else None  # type: ignore[arg-type]
