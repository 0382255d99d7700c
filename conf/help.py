"""What `--help` of a verb shows: its purpose and examples, its choices, and every key with its default."""

from __future__ import annotations

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
    for key, owner, name in typed.keys(schema):
        lines.append(f"  {key}={_value(config, key)}")
        lines.append(
            textwrap.fill(
                meanings(owner).get(name, ""), WIDTH, initial_indent=INDENT, subsequent_indent=INDENT
            )
        )
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


@functools.cache
def meanings(schema: type) -> dict[str, str]:
    """What the keys of a dataclass mean: the "Attributes:" of its docstring and of those it inherits."""
    found: dict[str, str] = {}
    for base in reversed(schema.__mro__):
        _, _, section = inspect.cleandoc(base.__doc__ or "").partition("Attributes:\n")
        for names, meaning in re.findall(r"^ {4}([\w, ]+): (.*(?:\n {5,}.*)*)", section, re.MULTILINE):
            found |= dict.fromkeys(names.split(", "), " ".join(meaning.split()))
    return found
