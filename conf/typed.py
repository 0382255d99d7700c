"""Turns a composed configuration into a typed dataclass.

Every refusal names the key, what it holds and what it takes. OmegaConf's own structured configs know neither
`Literal` nor which keys would have been right, so the walk is done here. It is strict: text is never read as
a number and a number never as true or false.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path

from conf.errors import InputError

WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "text", Path: "a path"}


def build(schema: type, data: object, key: str = "") -> object:
    """Make a `schema` instance out of nested plain containers.

    Args:
        schema: a dataclass.
        data: what YAML holds at `key`: a mapping whose keys are the dataclass's fields.
        key: dotted name of this level, "" at the root.

    Raises:
        InputError: an unknown or missing key, or a value of another type.
    """
    if not isinstance(data, Mapping):
        raise InputError(f"{key}={shown(data)}: must be a group of keys ({', '.join(names(schema))}).")
    for name in data:
        if name not in names(schema):
            raise unknown(join(key, str(name)), names(schema))
    hints = typing.get_type_hints(schema)
    values = {}
    for item in dataclasses.fields(schema):
        if not item.init:
            continue
        if item.name in data:
            values[item.name] = convert(hints[item.name], data[item.name], join(key, item.name))
        elif item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING:
            raise InputError(f"{join(key, item.name)} is not set and has no default.")
    return schema(**values)


def convert(hint: object, value: object, key: str) -> object:
    """Check `value` against one type hint and return it, a Path made out of text where the hint says so."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return _convert_union(args, value, key)
    if origin is typing.Literal:
        if value not in args:
            raise InputError(f"{key}={shown(value)}: allowed are {', '.join(shown(a) for a in args)}.")
        return value
    if dataclasses.is_dataclass(hint):
        return build(typing.cast(type, hint), value, key)
    if origin in (list, tuple) or hint in (list, tuple):
        if not isinstance(value, list):
            raise InputError(f"{key}={shown(value)}: must be a list, written {key}=[a,b].")
        item = args[0] if args else object
        return (origin or hint)(convert(item, v, f"{key}[{i}]") for i, v in enumerate(value))
    if origin is dict or hint is dict:
        if not isinstance(value, Mapping):
            raise InputError(f"{key}={shown(value)}: must be a group of keys.")
        item = args[1] if args else object
        return {str(k): convert(item, v, join(key, str(k))) for k, v in value.items()}
    return _convert_scalar(hint, value, key)


def _convert_union(args: tuple[object, ...], value: object, key: str) -> object:
    if value is None and type(None) in args:
        return None
    choices = [a for a in args if a is not type(None)]
    if len(choices) == 1:
        return convert(choices[0], value, key)
    for choice in choices:
        try:
            return convert(choice, value, key)
        except InputError:
            continue
    expected = " or ".join(WORDS.get(typing.cast(type, c), str(c)) for c in choices)
    raise InputError(f"{key}={shown(value)}: must be {expected}.")


def _convert_scalar(hint: object, value: object, key: str) -> object:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if hint is float and number:
        if not math.isfinite(typing.cast(float, value)):
            raise InputError(f"{key}={shown(value)}: must be a finite number.")
        return float(typing.cast(float, value))
    if hint is int and number and float(typing.cast(float, value)).is_integer():
        return int(typing.cast(float, value))  # 1e6 is how people write a million
    if hint is bool and isinstance(value, bool):
        return value
    if hint in (str, Path) and (isinstance(value, str) or number):
        return Path(str(value)) if hint is Path else str(value)  # run.name=7 is a name
    if hint in (object, typing.Any):
        return value
    raise InputError(f"{key}={shown(value)}: must be {WORDS.get(typing.cast(type, hint), hint)}.")


def names(schema: type) -> list[str]:
    """The keys a dataclass takes, in the order they are declared."""
    return [item.name for item in dataclasses.fields(schema) if item.init]


def lookup(schema: type, key: str) -> object:
    """The type hint at a dotted key.

    Raises:
        InputError: no such key; the sentence holds the nearest one and all that stand at that level.
    """
    hint: object = schema
    parts = key.split(".")
    for depth, part in enumerate(parts):
        if typing.get_origin(hint) is dict:
            hint = typing.get_args(hint)[1]  # any name may stand here
            continue
        inner = _dataclass_of(hint)
        if inner is None:
            raise InputError(f"{key}: {'.'.join(parts[:depth])} is a single value and has no key {part!r}.")
        if part not in names(inner):
            raise unknown(".".join(parts[: depth + 1]), names(inner))
        hint = typing.get_type_hints(inner)[part]
    return hint


def is_group(hint: object) -> bool:
    """Whether a type hint stands for a group of keys rather than for one value."""
    return _dataclass_of(hint) is not None


def _dataclass_of(hint: object) -> type | None:
    if typing.get_origin(hint) in (dict, list, tuple):
        return None  # a value, whatever it holds
    for choice in (hint, *typing.get_args(hint)):
        if isinstance(choice, type) and dataclasses.is_dataclass(choice):
            return choice
    return None


def unknown(key: str, allowed: Iterable[str]) -> InputError:
    """The refusal of a key that does not exist, with the nearest name and all the names of its level."""
    parent, _, name = key.rpartition(".")
    allowed = list(allowed)
    near = difflib.get_close_matches(name, allowed, n=1, cutoff=0.6)
    hint = f"did you mean {join(parent, near[0])}? " if near else ""
    level = f" under {parent}" if parent else ""
    return InputError(f"unknown key {key}: {hint}Allowed{level}: {', '.join(allowed)}.")


def join(parent: str, name: str) -> str:
    """Dotted key of `name` under `parent`."""
    return f"{parent}.{name}" if parent else name


def shown(value: object) -> str:
    """A value as YAML writes it, on one line and at most 60 characters long."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    text = value if isinstance(value, str) else repr(value)
    text = text.encode("unicode_escape").decode("ascii") if not text.isprintable() else text
    return text if len(text) <= 60 else text[:57] + "..."
