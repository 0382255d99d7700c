"""What `--help` of a verb shows: its purpose and examples, its choices, and every key with its default."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import re
import textwrap
from collections.abc import Iterator
from types import ModuleType

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from conf import overrides, typed
from conf.errors import join
from conf.names import CONF

WIDTH = 110
INDENT = " " * 6
FLAGS = """flags
  --cfg job   print the configuration and do nothing
  --help      this text; overrides before or after it change the defaults shown, as in model=large --help
  -m          a sweep: one job per combination of the values given as key=a,b,c
"""


def text(launcher: ModuleType | None, schema: type, config: DictConfig) -> str:
    """The help of a verb.

    Args:
        launcher: its module; the docstring is the head.
        schema: its dataclass, whose docstrings say what the keys mean.
        config: as composed, for the defaults.
    """
    head = ((launcher and launcher.__doc__) or schema.__doc__ or "").strip()
    lines = [head, "", FLAGS, *_choices(config), "keys, each with its default"]
    for key, meaning in keys(schema):
        lines.append(f"  {key}={_value(config, key)}")
        lines.append(textwrap.fill(meaning, WIDTH, initial_indent=INDENT, subsequent_indent=INDENT))
    return "\n".join(lines) + "\n"


def _choices(config: DictConfig) -> Iterator[str]:
    """The groups of conf/ that this verb has, with the choices of each."""
    groups = [path.name for path in sorted(CONF.iterdir()) if any(path.glob("*.yaml"))]
    known = [group for group in groups if OmegaConf.is_config(config.get(group))]
    if known:
        yield "choices, each a file in conf/"
        yield from (f"  {group}={'|'.join(overrides.choices(group))}" for group in known)
        yield ""


def _value(config: DictConfig, key: str) -> str:
    """A key's default as YAML writes it: `???` where it must be given, `${…}` where that decides on it."""
    try:
        value = OmegaConf.select(config, key, throw_on_missing=True)
        if OmegaConf.is_config(value):
            value = OmegaConf.to_container(value, resolve=True)
    except OmegaConfBaseException:
        parent, _, name = key.rpartition(".")
        value = OmegaConf.to_container(OmegaConf.select(config, parent) if parent else config)[name]
    text = yaml.safe_dump(value, default_flow_style=True, width=10_000, allow_unicode=True)
    return text.removesuffix("...\n").strip()


def keys(schema: type, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Every key that a schema takes, with its meaning, "" where nobody wrote one."""
    for name in typed.names(schema):
        group = typed.group_of(typed.hints(schema)[name])
        if group is not None and not _is_optional(schema, name):
            yield from keys(group, f"{join(prefix, name)}")
        else:
            yield join(prefix, name), meanings(schema).get(name, "")


def _is_optional(schema: type, name: str) -> bool:
    """Whether a group is null by default, and so shown as one key."""
    return any(item.name == name and item.default is None for item in dataclasses.fields(schema))


@functools.cache
def meanings(schema: type) -> dict[str, str]:
    """What the keys of a dataclass mean: the "Attributes:" of its docstring and of those it inherits."""
    found: dict[str, str] = {}
    for base in reversed(schema.__mro__):
        _, _, section = inspect.cleandoc(base.__doc__ or "").partition("Attributes:\n")
        for names, meaning in re.findall(r"^ {4}([\w, ]+): (.*(?:\n {5,}.*)*)", section, re.MULTILINE):
            found |= dict.fromkeys(names.split(", "), " ".join(meaning.split()))
    return found
