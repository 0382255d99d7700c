"""Where prompts come from and answers go: a person at a terminal, a file, a pipe."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol, TextIO

from conf.errors import InputError
from conf.schema.hf import GenerateConfig


class Generator(Protocol):
    """What answers prompts; `generate.Generator`, which documents the methods."""

    tokenizer: Any

    def ids(self, prompt: str, chat: bool, before: Sequence[int] = (), turn: int = 0) -> list[int]: ...

    def complete(self, prompt: str, config: GenerateConfig, show: TextIO | None = None) -> str: ...

    def chats(self, config: GenerateConfig) -> bool: ...

    def extend(self, ids: list[int], config: GenerateConfig, show: Any = None) -> list[int]: ...


def opened(path: str | None) -> TextIO:
    """A file of prompts, one a line, or standard input for None.

    Raises:
        InputError: the file cannot be opened.
    """
    if path is None:
        sys.stdin.reconfigure(encoding="utf-8-sig", errors="strict")  # type: ignore[union-attr]
        return sys.stdin
    try:
        return Path(path).expanduser().open(encoding="utf-8-sig")  # a mark in front is no text
    except OSError as error:
        raise InputError(f"prompts={path}: cannot be read ({error.strerror}).") from error


def answer_all(generator: Generator, config: GenerateConfig, lines: Iterable[str]) -> None:
    """Print every prompt with what the model puts behind it, an empty line between two.

    Raises:
        InputError: a prompt is not UTF-8 or too long; those before it are answered.
    """
    where, number = config.prompts or "standard input", 0
    try:
        for line in lines:
            number += 1
            prompt = line.rstrip("\r\n").removeprefix("\ufeff")  # a byte-order mark is no text
            print(prompt, end="\n" if generator.chats(config) else "", flush=True)
            generator.complete(prompt, config, show=sys.stdout)
            print("\n", flush=True)
    except UnicodeDecodeError as error:
        raise InputError(f"{where}: not UTF-8 ({error.reason}).") from error
    except InputError as error:
        print(flush=True)
        raise InputError(f"{where}, line {number}: {error}") from error


class _Answer:
    """Standard output for one answer, which takes no more of it after Ctrl-C.

    An exception raised wherever Ctrl-C finds Python may be lost in a library's own code; this one is not.
    """

    def __enter__(self) -> _Answer:
        self._over = False
        self._before = signal.signal(signal.SIGINT, self._end)
        return self

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGINT, self._before)

    def _end(self, *_: object) -> None:
        self._over = True

    def write(self, text: str) -> int:
        if self._over:
            raise KeyboardInterrupt
        return sys.stdout.write(text)

    def flush(self) -> None:
        sys.stdout.flush()


def converse(generator: Generator, config: GenerateConfig) -> None:
    """Ask for prompts until Ctrl-D. Ctrl-C ends an answer, and at the prompt the command.

    A chat model is shown the dialogue so far; an empty line begins a new one.
    """
    import readline  # noqa: F401 - input() edits lines and remembers them

    chat = generator.chats(config)
    print("An empty line begins a new dialogue, Ctrl-D ends." if chat else "Ctrl-D ends.", file=sys.stderr)
    said: list[int] = []
    turns = 0
    while True:
        try:
            prompt = input("> ")
        except EOFError:
            print()
            return
        except UnicodeDecodeError as error:
            print(f"not UTF-8 ({error.reason}).", file=sys.stderr)
            continue
        if chat and not prompt.strip():
            said, turns = [], 0
            continue
        ids = generator.ids(prompt, chat, said, turns)
        if not chat:
            print(prompt, end="", flush=True)
        try:
            with _Answer() as shown:
                all_ids = generator.extend(ids, config, show=shown)
        except InputError as error:
            hint = " An empty line begins a new dialogue." if turns else ""
            print(f"{error}{hint}", file=sys.stderr)
            continue
        except KeyboardInterrupt:
            print(" …\n", flush=True)
            continue  # an answer that was cut off is not part of the dialogue
        print("\n", flush=True)
        if chat:
            eos = generator.tokenizer.eos_id
            said, turns = all_ids if all_ids[-1] == eos else [*all_ids, eos], turns + 1
