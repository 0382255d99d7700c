"""What a command line may hold: flags, keys and values, checked before Hydra sees any of it."""

from __future__ import annotations

import argparse
import itertools
import re
import typing
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Override
from hydra.errors import HydraException

from conf import typed
from conf.errors import InputError, shown
from conf.names import CONF
from conf.removed import REMOVED

# Shell lines and variables of a job: whoever may write conf/ decides on them.
FILE_ONLY = ("cluster.setup", "cluster.env", "cluster.executor", "cluster.name", "cluster.site")

# What no value of this suite needs, and what a shell, sbatch, YAML or OmegaConf would act upon.
FORBIDDEN = (
    (re.compile(r"[\x00-\x1f\x7f\u0085\u2028\u2029]"), "a control character or a newline"),
    (re.compile(r"\$\{"), "an interpolation (${...}), which only the files in conf/ may use"),
    (re.compile(r"[$`;#\\|&<>]"), "one of the characters $ ` ; # \\ | & < >"),
    (re.compile(r"!!|[=,\[{]\s*['\"]?!"), "a YAML tag"),
    (re.compile(r"_(target|partial|args|recursive|convert)_"), "a word with which Hydra would call code"),
)

# Groups whose choice is the model's name; one without a file has the defaults of its class.
NAMED_AFTER_MODELS = ("train", "tune")


class Flags(argparse.ArgumentParser):
    """The flags of every verb; what is not a flag is an override."""

    def __init__(self) -> None:
        super().__init__(add_help=False, allow_abbrev=False)
        self.add_argument("overrides", nargs="*")
        self.add_argument("--help", "-h", action="store_true")
        self.add_argument("--cfg", "-c", choices=["job"])
        self.add_argument("--multirun", "-m", action="store_true")
        self.add_argument("--resolve", action="store_true")  # of Hydra's; here everything is resolved
        for flag in ("path", "name", "dir"):
            self.add_argument(f"--config-{flag}")

    def error(self, message: str) -> NoReturn:
        """Refuse in one sentence."""
        raise InputError(f"{message}: write key=value, or one of --help, --cfg job, -m.")


def flags(argv: Sequence[str]) -> argparse.Namespace:
    """Flags and overrides of a command line; flags may be between overrides.

    Raises:
        InputError: an unknown flag, or one that would load foreign files.
    """
    arguments = Flags().parse_intermixed_args(list(argv))
    for flag in ("config_path", "config_name", "config_dir"):
        if getattr(arguments, flag):
            name = flag.replace("_", "-")
            raise InputError(f"--{name} is not used here: configurations live in {CONF.name}/.")
    return arguments


def check(overrides: Sequence[str], schema: type, sweep: bool) -> list[str]:
    """Refuse what may not come from a command line, and unknown keys.

    Args:
        overrides: as typed.
        schema: of the verb.
        sweep: whether a key may have several values.

    Returns:
        The overrides for Hydra. A key of the schema is set whether conf/ mentions it or not (`++key=`).

    Raises:
        InputError: naming the override.
    """
    overrides = [composed(text) for text in overrides]
    for text in overrides:
        check_text(text)
    result = []
    for text, override in zip(overrides, parse(overrides), strict=True):
        key = override.key_or_group
        if key.split(".")[0].split("/")[0] == "hydra":
            raise InputError(f"override {text}: Hydra's own settings are fixed; use -m for a sweep.")
        if (CONF / key).is_dir():
            check_choice(key, override)
            result.append(text)
        else:
            check_key(text, override, schema)
            result.append(f"++{as_typed(text, override, schema).lstrip('+')}")
        if override.is_sweep_override() and not sweep:
            raise InputError(
                f"{key} holds several values: add -m for a sweep, or write {key}=[a,b] for a list."
            )
    return result


def composed(text: str) -> str:
    """An override with its accents in one normal form (NFC), quoted as Hydra's grammar wants them.

    A value that names a file in another form stays as it is.
    """
    key, equals, value = text.partition("=")
    if value.isascii():
        return text
    if not Path(value).exists():
        value = unicodedata.normalize("NFC", value)
    return key + equals + (value if re.search(r"['\"\[\]{}(),]", value) else f"'{value}'")


def as_typed(text: str, override: Override, schema: type) -> str:
    """An override whose key holds a text, quoted where Hydra would read another number: 1e5, 1_000."""
    value, hint = override.value(), typed.lookup(schema, override.key_or_group)
    kinds = set(typing.get_args(hint) or (hint,))
    key, _, raw = text.partition("=")
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if is_number and str in kinds and kinds.isdisjoint((int, float)) and str(value) != raw.strip():
        return f"{key}='{raw.strip()}'"
    return text


def parse(overrides: Sequence[str]) -> list[Override]:
    """Overrides by Hydra's grammar.

    Raises:
        InputError: one that it cannot read.
    """
    parsed = []
    for text in overrides:
        try:
            parsed += OverridesParser.create().parse_overrides([text])
        except HydraException as error:
            raise InputError(unreadable(text)) from error
    return parsed


def points(overrides: Sequence[str]) -> list[list[str]]:
    """The overrides of each point of a sweep, in Hydra's order: the last key varies first."""
    values: list[list[str]] = []
    for override in parse(overrides):
        key = override.get_key_element()
        if override.is_sweep_override():
            values.append([f"{key}={value}" for value in override.sweep_string_iterator()])
        else:
            values.append([f"{key}={override.get_value_element_as_str()}"])
    return [list(point) for point in itertools.product(*values)]


def check_text(text: str) -> None:
    """Refuse an override that holds what a shell, sbatch, YAML or OmegaConf would act upon."""
    # Features of nodes are joined by & and |; the pattern of the key allows no more than that.
    searched = re.sub("[&|]", "", text) if text.startswith("cluster.constraint=") else text
    for pattern, what in FORBIDDEN:
        if pattern.search(searched):
            raise InputError(f"override {shown(text)} holds {what}.")


def check_choice(group: str, override: Override) -> None:
    """Refuse a choice that has no file in conf/<group>/; with -m, each of the choices."""
    value: Any = override.value()
    options = choices(group)
    for choice in value.list if isinstance(value, ChoiceSweep) else [value]:
        text = str(getattr(choice, "text", choice))  # a quoted value is an object with its text
        if text not in options:
            raise InputError(f"{group}={shown(text)}: no such choice; allowed are {', '.join(options)}.")


def choices(group: str) -> list[str]:
    """What a group of conf/ offers."""
    folders = [group, "model"] if group in NAMED_AFTER_MODELS else [group]
    return sorted({path.stem for folder in folders for path in (CONF / folder).glob("*.yaml")})


def check_key(text: str, override: Override, schema: type) -> None:
    """Refuse a key that is unknown, removed, a group, or not for the command line, and an empty range."""
    key = override.key_or_group
    if key.startswith(FILE_ONLY):
        raise InputError(f"override {text}: {key} is set only by the files in {CONF.name}/.")
    if override.is_delete():
        raise InputError(f"override {text}: nothing is deleted here; set {key}=null.")
    if override.is_range_sweep():
        check_range(text, override)
    if key in REMOVED:
        raise InputError(f"{key} is no longer a key: {REMOVED[key]}.")
    hint = typed.lookup(schema, key)
    if typed.group_of(hint) or isinstance(override.value(), dict):
        raise InputError(f"{text}: {key} is a group of keys, set one of them as {key}.<key>=<value>.")


def check_range(text: str, override: Override) -> None:
    """Refuse a range without any value: a sweep over it has no points."""
    try:
        empty = next(override.sweep_iterator(), None) is None
    except (ValueError, HydraException):  # a step of 0
        empty = True
    if empty:
        raise InputError(
            f"override {text}: this sweep has no points; range(1,4) gives 1,2,3, range(3,0,-1) gives 3,2,1."
        )


def unreadable(text: str) -> str:
    """The sentence for an override that Hydra's grammar cannot read."""
    key, equals, _ = text.partition("=")
    if not equals:
        return f"cannot read {shown(text)}: write key=value."
    return (
        f"cannot read the value of {shown(key)}: a value with spaces, commas, brackets or '=' needs "
        f"quotes inside quotes, as in {shown(key)}=\"'a b'\"."
    )
