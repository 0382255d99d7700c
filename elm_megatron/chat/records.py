"""Records of other people's chat data as dialogues and preferences.

    Alpaca      instruction, input, output; history [[question, answer], …]; system
    chats       messages or conversations: [{role, content}, …]
    ShareGPT    the same with {from, value}; system
    preferences prompt, chosen, rejected

What a record says in keys that have no place in a dialogue (tools, images) is refused by name, never dropped.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import date, datetime, time
from typing import Any

from elm_megatron.chat.template import Dialogue, Preference, Turn

# What each form calls the speakers.
SPEAKERS = {
    "system": "system",
    "user": "user",
    "human": "user",
    "prompter": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "model": "assistant",
}
FORMS = (("role", "content"), ("from", "value"))
LISTS = ("messages", "conversations", "conversation")
NO_OUTPUT = ("<nooutput>", "<no output>")
NOTHING = ("nan", "<noinput>", "<no input>", "noinput", "no input")  # how files spell an empty field
NO_PLACE = ("tools", "tool_calls", "functions", "function_call", "images", "image", "audios", "videos")
NO_PLACE_IN_MESSAGE = ("reasoning_content", "reasoning", "thinking")
NO_PLACE_IN_PREFERENCE = ("system", "history", "messages")
ALPACA_OR_CHAT = "is neither Alpaca's (instruction, input, output) nor a chat (messages of role and content)"


INDENT = re.compile(r"(?:[ \t]*\n)*([ \t]+)(?=\S)")


class Unknown(Exception):
    """A record of no known form; the end of a sentence that begins with its number."""


def text(value: Any) -> str | None:
    """A value as text: numbers and dates as people write them, nothing as ""; None for what is no text.

    Dates are ISO 8601. A byte-order mark is no text.
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, str):
        found = value.strip().strip("\ufeff").strip()
        indent = INDENT.match(value)  # of a text whose next line has it too, as code
        if indent and f"\n{indent[1]}" in found:
            found = indent[1] + found
        return "" if found.casefold() == "nan" else found
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    if isinstance(value, datetime) and value.time() == time():
        value = value.date()
    if isinstance(value, int | float):
        return str(value)
    return value.isoformat() if isinstance(value, date | datetime | time) else None


def dialogue(record: Any) -> Dialogue | str:
    """A record as a dialogue, or the reason to skip it.

    Raises:
        Unknown: it is of no known form, or says something that a dialogue has no place for.
    """
    if not isinstance(record, Mapping):
        raise Unknown(ALPACA_OR_CHAT)
    _refuse_no_place(record)
    system = _text(record, "system")
    lists = [record[key] for key in LISTS if record.get(key) is not None]
    if lists:
        return _chat(next(filter(None, lists), lists[0]), system)
    if "instruction" not in record or "output" not in record:
        raise Unknown(ALPACA_OR_CHAT)
    instruction, context, response = (_text(record, key) for key in ("instruction", "input", "output"))
    if context.casefold() in NOTHING:
        context = ""
    turns = _history(record.get("history"))
    if isinstance(turns, str):
        return turns
    if not instruction:
        return "no instruction"
    if not response or response.casefold() in NO_OUTPUT:
        return "no response"
    return Dialogue((*turns, Turn(instruction, context, response)), system)


def _only_text(value: Any) -> str | None:
    """As `text`; None also for numbers and dates, which in records are a sign of other data."""
    absent = value is None or (isinstance(value, float) and math.isnan(value))
    return text(value) if absent or isinstance(value, str) else None


def _text(record: Mapping[str, Any], key: str) -> str:
    found = _only_text(record.get(key))
    if found is None:
        raise Unknown(f"{ALPACA_OR_CHAT}; {key!r} is no text")
    return found


def _refuse_no_place(record: Mapping[str, Any], more: tuple[str, ...] = ()) -> None:
    for key in (*NO_PLACE, *more):
        if record.get(key) not in (None, "", [], {}, "[]"):
            raise Unknown(f"has {key!r}, which a dialogue of texts has no place for")


def _history(history: Any) -> list[Turn] | str:
    """Alpaca's earlier turns: pairs of question and answer."""
    turns = []
    if history is None or text(history) == "":
        return turns
    for pair in history if isinstance(history, list | tuple) else [history]:
        if not isinstance(pair, list | tuple) or len(pair) != 2 or None in map(_only_text, pair):
            raise Unknown("has a 'history' that is not a list of [question, answer]")
        question, answer = (text(one) or "" for one in pair)
        if not (question and answer):
            return "an empty message"
        turns.append(Turn(question, "", answer))
    return turns


def _chat(messages: Any, system: str) -> Dialogue | str:
    """An optional system message, then user and assistant in turn."""
    if not isinstance(messages, list) or not all(isinstance(message, Mapping) for message in messages):
        raise Unknown(ALPACA_OR_CHAT)
    said = [_message(message) for message in messages]
    if said and said[0][0] == "system":
        first = said.pop(0)[1]
        if system and first and first != system:
            raise Unknown("has two system messages")
        system = first or system
    if said and said[-1][0] == "user":
        said.pop()  # a question nobody answered yet
    if not said:
        return "no response"
    if [role for role, _ in said] != ["user", "assistant"] * (len(said) // 2):
        return "user and assistant do not take turns"
    if not all(words for _, words in said):
        return "an empty message"
    pairs = zip(said[::2], said[1::2], strict=True)
    return Dialogue(tuple(Turn(question, "", answer) for (_, question), (_, answer) in pairs), system)


def _message(message: Mapping[str, Any]) -> tuple[str, str]:
    """(speaker, text) of a message in either form."""
    _refuse_no_place(message, NO_PLACE_IN_MESSAGE)
    if message.get("weight") not in (None, 1):  # a message that is not to be learnt
        raise Unknown("has a message with a 'weight' other than 1, which is not supported")
    for who, what in FORMS:
        if message.get(who) is not None and what in message:  # a table has the keys of both forms
            speaker, words = message[who], _only_text(message[what])
            if not isinstance(speaker, str) or speaker.casefold() not in SPEAKERS or words is None:
                break
            return SPEAKERS[speaker.casefold()], words
    raise Unknown(ALPACA_OR_CHAT + f"; a message is {_shape(message)}")


def _shape(message: Mapping[str, Any]) -> str:
    """What a refusal says of a message: its keys and its speaker, never its text."""
    speaker = message.get("role", message.get("from"))
    known = f" of {speaker!r}" if isinstance(speaker, str) and len(speaker) < 20 else ""
    return f"{', '.join(sorted(map(str, message)))[:80] or 'empty'}{known}"


def preference(record: Any) -> Preference | str:
    """A record as a preference, or the reason to skip it.

    Raises:
        Unknown: it does not hold three texts.
    """
    keys = ("prompt", "chosen", "rejected")
    texts = [_only_text(record.get(key)) for key in keys] if isinstance(record, Mapping) else [None]
    if None in texts or not all(key in record for key in keys):
        raise Unknown("must hold the texts prompt, chosen and rejected")
    for key in NO_PLACE_IN_PREFERENCE:
        if record.get(key):
            raise Unknown(f"has {key!r}, which a preference has no place for")
    prompt, chosen, rejected = texts
    if not (prompt and chosen and rejected):
        return "an empty text"
    if chosen == rejected:
        return "both answers alike"
    return Preference(prompt, chosen, rejected)
