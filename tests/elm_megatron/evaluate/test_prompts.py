"""Prompts from files, pipes and a person at a terminal."""

from __future__ import annotations

import io
import os
import pty
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from conf.errors import InputError
from conf.schema.hf import GenerateConfig
from elm_megatron.evaluate import prompts
from tests.elm_megatron import model_jobs as cases

LAUNCHER = Path(__file__).parents[3] / "launch" / "generate.py"


@pytest.fixture(scope="module")
def generator(made: Callable[[str], cases.Made]):
    """A loaded generator."""
    from elm_megatron.evaluate.generate import Generator

    return Generator.of(GenerateConfig(source=str(made("gqa").hf)))


def options(**changes: object) -> GenerateConfig:
    """A checked configuration."""
    return GenerateConfig(**{"source": "x", "max_new_tokens": 5, **changes})


def test_every_line_is_answered(generator, capsys: pytest.CaptureFixture[str]):
    """Prompt and continuation on a line, or below each other with chat; a wrong line is named."""
    lines = ["De haven\r\n", "\n", "a\u2028b {} </s>\n"]
    wanted = [generator.complete(line.rstrip("\r\n"), options()) for line in lines]
    prompts.answer_all(generator, options(), io.StringIO("".join(lines), newline=None))
    out = capsys.readouterr().out
    assert out == "".join(f"{line.rstrip()}{text}\n\n" for line, text in zip(lines, wanted, strict=True))
    prompts.answer_all(generator, options(chat=True), ["hallo\n"])
    assert capsys.readouterr().out.startswith("hallo\n")
    with pytest.raises(InputError, match="standard input, line 2: the prompt has"):
        prompts.answer_all(generator, options(), ["kort\n", "woord " * 600])


def test_files_are_checked_before_the_model_is_loaded(tmp_path: Path):
    """A missing one, and one that is no UTF-8."""
    with pytest.raises(InputError, match="prompts=nowhere: cannot be read"):
        prompts.opened("nowhere")
    (tmp_path / "latin").write_bytes(b"caf\xe9\n")
    with prompts.opened(str(tmp_path / "latin")) as lines, pytest.raises(InputError, match="not UTF-8"):
        prompts.answer_all(None, options(prompts="latin"), lines)


def test_a_dialogue_is_remembered(generator, monkeypatch: pytest.MonkeyPatch):
    """A second turn sees the first as tuning wrote it: answer, end of sequence, `between`, next prompt."""
    typed = iter(["een", "twee", "", "drie", "woord " * 600, "vier"])
    seen: list[list[int]] = []

    def spoken(prompt: str) -> str:
        try:
            return next(typed)
        except StopIteration:
            raise EOFError from None

    def extend(ids: list[int], config: GenerateConfig, show: object) -> list[int]:
        seen.append(ids)
        if len(ids) > 500:
            raise InputError("too long.")
        return [*ids, 7, 8] if len(seen) == 1 else [*ids, 7, 2]  # the first is cut off by max_new_tokens

    monkeypatch.setattr("builtins.input", spoken)
    monkeypatch.setattr(generator, "extend", extend)
    prompts.converse(generator, options(chat=True))
    one, two, three, _, four = seen
    encode, template = generator.tokenizer.encode, generator.template
    assert two == [*one, 7, 8, 2, *encode(f"{template.between}### Instruction:\ntwee\n\n### Response:\n")]
    assert three == encode(f"{template.preamble}### Instruction:\ndrie\n\n### Response:\n")
    assert four[: len(three) + 2] == [*three, 7, 2]  # the one that was too long left nothing behind


class Terminal:
    """A program with a terminal of its own."""

    def __init__(self, command: list[str]):
        self.master, slave = pty.openpty()
        self.process = subprocess.Popen(
            command, stdin=slave, stdout=slave, stderr=slave, start_new_session=True
        )
        os.close(slave)
        self._unseen = b""

    def until(self, text: str, seconds: float = 180.0) -> str:
        """What appears, up to and with `text`; what came in the same read stays for the next call."""
        assert self.shows(text, seconds), self._unseen.decode(errors="replace")
        seen, found, self._unseen = self._unseen.partition(text.encode())
        return (seen + found).decode(errors="replace")

    def shows(self, text: str, seconds: float) -> bool:
        """Whether `text` appears within that time."""
        end = time.monotonic() + seconds
        while text.encode() not in self._unseen:
            if time.monotonic() > end:
                return False
            if select.select([self.master], [], [], 0.5)[0]:
                self._unseen += os.read(self.master, 4096)
        return True

    def type(self, text: str) -> None:
        """Press keys."""
        os.write(self.master, text.encode())


@pytest.fixture
def terminal(made: Callable[[str], cases.Made]) -> Iterator[Terminal]:
    """`launch/generate.py` at a terminal."""
    words = [f"source={made('gqa').hf}", "max_new_tokens=450", "chat=true", "temperature=2", "top_p=1"]
    # As a person's shell starts it: at the front of its terminal, and not deaf to Ctrl-C, which a suite that
    # runs in the background is, with all it starts.
    command = [sys.executable, "-c", SESSION, sys.executable, str(LAUNCHER), *words]
    found = Terminal(command)
    yield found
    if found.process.poll() is None:
        found.process.kill()
    os.close(found.master)


SESSION = """
import fcntl, os, signal, sys, termios
signal.signal(signal.SIGINT, signal.SIG_DFL)
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""


def test_at_a_terminal(terminal: Terminal):
    """Letters of every kind, Ctrl-C ends an answer and not the conversation, Ctrl-D ends that."""
    terminal.until("> ")
    terminal.type("Één 🌍 {} </s> {instruction}\n")
    assert "Één 🌍 {} </s> {instruction}" in terminal.until("\n")
    terminal.until("a")
    terminal.type("\x03")
    assert "Traceback" not in terminal.until(" …\r\n")
    terminal.until("> ")
    terminal.type("\n")
    terminal.until("> ")
    terminal.type("\x04")
    assert terminal.process.wait(60) == 0


def test_ctrl_c_at_the_prompt_leaves(terminal: Terminal):
    """With the status of every interrupted command."""
    terminal.until("> ")
    terminal.type("\x03")
    # Python's input() forgets a Ctrl-C that comes between its prompt and its waiting. A person presses again.
    if not terminal.shows("Interrupted.", seconds=10):
        terminal.type("\x03")
    terminal.until("Interrupted.")
    assert terminal.process.wait(60) == 130
