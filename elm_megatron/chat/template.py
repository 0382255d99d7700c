"""Prompts from template files: where an instruction stands, and what stands around it."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import yaml

from conf.errors import InputError
from data_prep import files

FOLDER = Path(__file__).parent / "templates"
SLOT = re.compile(r"\{(instruction|input|system)\}")
SLOTS = {"system": {"system"}, "turn": {"instruction"}, "turn_with_input": {"instruction", "input"}}  # by key


@dataclass(frozen=True)
class Turn:
    """One instruction with its answer; `context` is what Alpaca's files call input."""

    instruction: str
    context: str
    response: str


@dataclass(frozen=True)
class Dialogue:
    """Turns in order, and a system message or an empty text."""

    turns: tuple[Turn, ...]
    system: str = ""


@dataclass(frozen=True)
class Preference:
    """Two answers to one prompt, the better one first; agreement is the share of raters behind it."""

    prompt: str
    chosen: str
    rejected: str
    agreement: float = 1.0


@dataclass(frozen=True)
class Template:
    """The texts around an instruction; see templates/alpaca.yaml for each."""

    preamble: str
    preamble_with_input: str
    system: str
    turn: str
    turn_with_input: str
    between: str

    @classmethod
    def load(cls, name: str) -> Template:
        """Read a template by its name in templates/, or by its path.

        Raises:
            InputError: there is none, a key is missing or unknown, or a text has a slot that nothing fills.
        """
        known = FOLDER / f"{name}.yaml"
        path = known if known.is_file() else Path(name).expanduser()
        if not path.is_file():
            names = ", ".join(sorted(p.stem for p in FOLDER.glob("*.yaml")))
            raise InputError(f"tune.template={name}: no such file; allowed are {names}, or a path.")
        try:
            values = yaml.safe_load(path.read_text(encoding="utf-8-sig"))
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise InputError(f"{path}: not readable as YAML ({str(error).splitlines()[0]}).") from error
        keys = {field.name for field in fields(cls)}
        found = set(values) if isinstance(values, dict) else set()
        if found != keys or not all(isinstance(v, str) for v in values.values()):
            raise InputError(f"{path}: must hold the texts {', '.join(sorted(keys))} and nothing else.")
        for key, text in values.items():
            allowed = SLOTS.get(key, set())
            for slot in set(SLOT.findall(text)) - allowed:
                told = ", ".join(f"{{{name}}}" for name in sorted(allowed)) or "none"
                raise InputError(f"{path}: {key} has the slot {{{slot}}}; allowed are {told}.")
        if "{instruction}" not in values["turn"] or "{instruction}" not in values["turn_with_input"]:
            raise InputError(f"{path}: turn and turn_with_input must hold {{instruction}}.")
        return cls(**values)

    def save(self, path: Path) -> None:
        """Write it as a template file."""
        files.write(path, yaml.safe_dump(asdict(self), allow_unicode=True, sort_keys=False))

    def prompt(self, dialogue: Dialogue, index: int) -> str:
        """The text before the response of turn number `index`, from the end of the response before it.

        What is filled in is data: it is never searched for slots again.

        Raises:
            InputError: the dialogue has a system message or a context, and the template no place for it.
        """
        turn = dialogue.turns[index]
        if index:
            opening = self.between
        elif dialogue.system:
            opening = _fill(self.system, {"system": dialogue.system}, "system")
        else:
            opening = self.preamble_with_input if turn.context else self.preamble
        body, needed = (self.turn_with_input, "input") if turn.context else (self.turn, "instruction")
        return opening + _fill(body, {"instruction": turn.instruction, "input": turn.context}, needed)


def _fill(text: str, values: dict[str, str], needed: str) -> str:
    if f"{{{needed}}}" not in text:
        raise InputError(
            f"tune.template: no place for the data's {needed} {values[needed][:40]!r} in {text!r}."
        )
    return SLOT.sub(lambda match: values[match[1]], text)
