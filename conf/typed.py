"""Turns a composed configuration into a typed dataclass; the classes of conf/schema/ hold every default.

Every refusal names the key, what it holds and what it takes. The walk is strict: text is never read as a
number and a number never as true or false. It is written here because the sentences are the point of it:
pydantic adds about as much time to `--cfg job` as Hydra takes, and needs as many lines to say its errors so.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import UnionType
from typing import Any

from conf.errors import InputError, join, shown, unknown

WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "text", Path: "a path"}
MISSING = "???"  # OmegaConf's word for a value that must be given


def follows(interpolation: str, alone: object = dataclasses.MISSING) -> Any:
    """A key whose default is made of other keys.

    Args:
        interpolation: what it is in a composed config, as `data/${corpus.name}`.
        alone: what it is in an object made without composing, where there is no other key to follow: the
            value that the interpolation gives for the defaults of all other keys. Absent: it must be given.
    """
    return dataclasses.field(default=alone, metadata={"follows": interpolation})


def defaults(schema: type) -> dict[str, Any]:
    """The default of every key as plain containers: an interpolation where it follows others, `???` where
    it must be given."""
    found: dict[str, Any] = {}
    for item in dataclasses.fields(schema):
        group = group_of(hints(schema)[item.name])
        if "follows" in item.metadata:
            found[item.name] = item.metadata["follows"]
        elif item.default is None:
            found[item.name] = None
        elif group is not None:
            found[item.name] = defaults(group)
        elif item.default is not dataclasses.MISSING:
            found[item.name] = item.default
        elif item.default_factory is not dataclasses.MISSING:
            found[item.name] = item.default_factory()
        else:
            found[item.name] = MISSING
    return found


def build(schema: type, data: object, key: str = "") -> Any:
    """Make a `schema` instance out of nested plain containers.

    Args:
        schema: a dataclass.
        data: what YAML holds at `key`: a mapping whose keys are the dataclass's fields.
        key: dotted name of this level, "" at the root.

    Raises:
        InputError: an unknown or missing key, or a value of another type or outside its range.
    """
    if not isinstance(data, Mapping):
        raise InputError(f"{key}={shown(data)}: must be a group of keys ({', '.join(names(schema))}).")
    for name in data:
        if name not in names(schema):
            raise unknown(join(key, str(name)), names(schema))
    values = {}
    for item in dataclasses.fields(schema):
        if not item.init:
            continue
        if item.name in data:
            values[item.name] = convert(hints(schema)[item.name], data[item.name], join(key, item.name))
        elif item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING:
            raise InputError(f"{join(key, item.name)} is not set and has no default.")
    return schema(**values)


def convert(hint: Any, value: object, key: str) -> object:
    """Check `value` against one type hint and return it, a Path made out of text where the hint says so."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        value = convert(args[0], value, key)
        check_value(hint, value, key)
        return value
    if origin in (typing.Union, UnionType):
        return _convert_union(args, value, key)
    if origin is typing.Literal:
        check_value(hint, value, key)
        return value
    if dataclasses.is_dataclass(hint):
        return build(typing.cast(type, hint), value, key)
    if origin in (list, tuple) or hint in (list, tuple):
        if not isinstance(value, list):
            raise InputError(f"{key}={shown(value)}: must be a list, written {key}=[a,b].")
        item = args[0] if args else object
        return (origin or hint)(convert(item, v, _of_item(item, key, i)) for i, v in enumerate(value))
    if origin is dict or hint is dict:
        if not isinstance(value, Mapping):
            raise InputError(f"{key}={shown(value)}: must be a group of keys.")
        item = args[1] if args else object
        return {str(k): convert(item, v, join(key, str(k))) for k, v in value.items()}
    return _convert_scalar(hint, value, key)


def _of_item(hint: Any, key: str, number: int) -> str:
    """The name of a list's item; that of a word out of a closed list, or of a pattern, is the list's own."""
    return key if typing.get_origin(hint) in (typing.Literal, typing.Annotated) else f"{key}[{number}]"


def _convert_union(args: tuple[Any, ...], value: object, key: str) -> object:
    if value is None and type(None) in args:
        return None
    choices = [a for a in args if a is not type(None)]
    if len(choices) == 1:
        return convert(choices[0], value, key)
    for choice in choices:
        try:
            found = convert(_without_limits(choice), value, key)
        except InputError:
            continue
        check_value(choice, found, key)
        return found
    raise InputError(f"{key}={shown(value)}: must be {' or '.join(map(_words, choices))}.")


def _without_limits(hint: Any) -> Any:
    """A type without the range or pattern that an Annotated one adds."""
    return typing.get_args(hint)[0] if typing.get_origin(hint) is typing.Annotated else hint


def _words(hint: Any) -> str:
    """One of several types that a key takes, in words."""
    if typing.get_origin(hint) is typing.Literal:
        return " or ".join(shown(one) for one in typing.get_args(hint))
    bare = _without_limits(hint)
    return WORDS.get(bare, "a list" if typing.get_origin(bare) is list else str(bare))


def _convert_scalar(hint: Any, value: object, key: str) -> object:
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


def check(config: Any, key: str = "") -> None:
    """Refuse a value that is outside its range, its pattern or its closed list, in a config of any depth.

    Args:
        config: an instance of a dataclass, whose values have the right types.
        key: its dotted name.

    Raises:
        InputError: naming the first such key.
    """
    for item in dataclasses.fields(config):
        check_value(hints(type(config))[item.name], getattr(config, item.name), join(key, item.name))


def check_value(hint: Any, value: Any, key: str) -> None:
    """Refuse one value of the right type that its hint does not allow."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(value):
        check(value, key)
    elif origin is typing.Annotated:
        for limit in args[1:]:
            if said := limit.refusal(value):
                raise InputError(f"{key}{said}.")
    elif origin is typing.Literal and value not in args:
        raise InputError(f"{key}={shown(value)}: allowed are {', '.join(shown(a) for a in args)}.")
    elif origin in (typing.Union, UnionType) and value is not None:
        choices = [choice for choice in args if choice is not type(None)]
        if len(choices) == 1:
            check_value(choices[0], value, key)
        else:
            _convert_union(args, value, key)
    elif origin in (list, tuple) and isinstance(value, list | tuple):
        for number, one in enumerate(value):
            check_value(args[0], one, _of_item(args[0], key, number))


def is_quoted(hint: Any) -> bool:
    """Whether a YAML file must write the value in quotes."""
    limits = [*getattr(hint, "__metadata__", ()), *typing.get_args(hint)]
    return any(getattr(one, "quoted", False) or is_quoted(one) for one in limits)


@functools.cache
def hints(schema: type) -> dict[str, Any]:
    """The type hint of each key of a dataclass."""
    return typing.get_type_hints(schema, include_extras=True)


@functools.cache
def names(schema: type) -> tuple[str, ...]:
    """The keys a dataclass takes, in the order they are declared."""
    return tuple(item.name for item in dataclasses.fields(schema) if item.init)


def lookup(schema: type, key: str) -> Any:
    """The type hint at a dotted key.

    Raises:
        InputError: no such key; the sentence holds the nearest one and all that are at that level.
    """
    hint: Any = schema
    parts = key.split(".")
    for depth, part in enumerate(parts):
        if typing.get_origin(hint) is dict:
            hint = typing.get_args(hint)[1]  # any name may stand here
            continue
        inner = group_of(hint)
        if inner is None:
            raise InputError(f"{key}: {'.'.join(parts[:depth])} is a single value and has no key {part!r}.")
        if part not in names(inner):
            raise unknown(".".join(parts[: depth + 1]), names(inner))
        hint = hints(inner)[part]
    return hint


def keys(schema: type, prefix: str = "") -> Iterator[tuple[str, type, str]]:
    """Every key that a schema takes: dotted, with the dataclass that declares it and its name there.

    A group that is null by default counts as one key.
    """
    null = {item.name for item in dataclasses.fields(schema) if item.default is None}
    for name in names(schema):
        group = group_of(hints(schema)[name])
        if group is None or name in null:
            yield join(prefix, name), schema, name
        else:
            yield from keys(group, join(prefix, name))


def group_of(hint: Any) -> type | None:
    """The dataclass whose keys a type hint stands for, or None where it stands for one value."""
    if typing.get_origin(hint) in (dict, list, tuple):
        return None  # a value, whatever it holds
    for choice in (hint, *typing.get_args(hint)):
        if isinstance(choice, type) and dataclasses.is_dataclass(choice):
            return choice
    return None
