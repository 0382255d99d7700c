"""From a command line to a checked, typed configuration.

A launcher is a function of its config:

    @main("pretrain", PretrainConfig)
    def launch(config: PretrainConfig) -> int: ...

The classes of conf/schema/ hold the default of every key. Hydra composes conf/<verb>.yaml, which says what
the verb and its choices of model, corpus and cluster change, and the overrides of the command line go on top.
Every point of a sweep (`-m`) is composed and checked before the first is launched, so that a wrong one leaves
nothing behind. Wrong input ends as one sentence on stderr and exit status 2. No torch here.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import hydra
import yaml
from hydra.errors import HydraException, MissingConfigException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import (
    InterpolationResolutionError,
    InterpolationToMissingValueError,
    MissingMandatoryValue,
    OmegaConfBaseException,
)

from conf import help as helping
from conf import overrides, points, resolvers, typed
from conf.errors import InputError
from conf.names import CONF
from conf.plain import as_yaml
from conf.points import Point
from conf.process import guarded

OnSweep = Callable[[str, Sequence[str], Sequence[Point], Sequence[Any], bool], None]

resolvers.register()


def main(
    verb: str, schema: type, on_sweep: OnSweep | None = None
) -> Callable[[Callable[[Any], int | None]], Callable[[], None]]:
    """Make a launcher out of a function of a typed config.

    Args:
        verb: conf/<verb>.yaml is the root.
        schema: dataclass the composed config must fit; its `check()` is called.
        on_sweep: called once before the first point of a sweep, with the verb, the overrides, the points,
            their typed configs, and whether the points are launched; it may refuse them.

    Returns:
        A decorator. The decorated function takes no argument, reads sys.argv and never returns: it exits with
        the function's status (None is 0), 2 for wrong input, 130 after Ctrl-C. The docstring of the module
        that holds the function is the head of --help.
    """

    def decorate(function: Callable[[Any], int | None]) -> Callable[[], None]:
        @functools.wraps(function)
        def command() -> None:
            sys.exit(guarded(lambda: run(verb, schema, function, sys.argv[1:], on_sweep)))

        return command

    return decorate


def run(
    verb: str,
    schema: type,
    function: Callable[[Any], int | None],
    argv: Sequence[str],
    on_sweep: OnSweep | None = None,
) -> int:
    """Compose, check, and call `function` once per point; the exit status of the worst point.

    Raises:
        InputError: wrong flags, keys, values or choices, in any point; nothing was called.
    """
    flags = overrides.flags(argv)
    given = overrides.check(flags.overrides, schema, flags.multirun)
    found = compose(verb, schema, overrides.points(given) if flags.multirun else [given])
    if flags.help:
        print(helping.text(inspect.getmodule(function), schema, found[0].config), end="")
        return 0
    shown = [OmegaConf.to_yaml(point.config) for point in found] if flags.cfg else []
    if any(typed.MISSING in text for text in shown):
        print("---\n".join(shown), end="")  # what must be given shows as ???
        return 0
    is_sweep = flags.multirun and all("run" in point.config for point in found)
    if is_sweep:
        with translated(schema):
            points.name(found)
    configs = [make(schema, point.config) for point in found]
    if is_sweep and on_sweep:
        launched = not flags.cfg and not any(getattr(config, "dry_run", False) for config in configs)
        on_sweep(verb, given, found, configs, launched)
    if flags.cfg:
        print("---\n".join(as_yaml(config) for config in configs), end="")
        return 0
    worst = 0
    for config in configs:
        status = int(function(config) or 0)
        worst = max(worst, status)
        if status > 128:
            break  # interrupted: the points behind it are not wanted either
    return worst


def compose(verb: str, schema: type, each: Sequence[Sequence[str]]) -> list[Point]:
    """The points of a command, each the defaults of the schema with conf/<verb>.yaml and overrides on top.

    Raises:
        InputError: what Hydra refuses.
    """
    found = []
    with (
        translated(schema),
        hydra.initialize_config_dir(config_dir=str(CONF), job_name=verb, version_base="1.3"),
    ):
        for given in each:
            asked = hydra.compose(config_name=verb, overrides=list(given))
            config = OmegaConf.merge(OmegaConf.create(typed.defaults(schema)), asked)
            assert isinstance(config, DictConfig)
            found.append(Point.of(config, given))
            check_quotes(schema, found[-1])
    return found


def check_quotes(schema: type, point: Point) -> None:
    """Refuse a span of time that a YAML file writes without quotes: YAML 1.1 reads 1:00:00 as 3600.

    Raises:
        InputError: naming the key, and the quotes to use.
    """
    for key, owner, name in typed.keys(schema):
        if key in point.own or not typed.is_quoted(typed.hints(owner)[name]):
            continue
        value = OmegaConf.select(point.config, key)
        if isinstance(value, int | float) and not isinstance(value, bool):
            last = key.rpartition(".")[2]
            raise InputError(
                f"{key}={value} is written without quotes in {CONF.name}/, where YAML reads 1:00:00 as the "
                f'number 3600: write {last}: "1:00:00", or {last}: "60" for minutes.'
            )


@contextlib.contextmanager
def translated(schema: type) -> Iterator[None]:
    """Turn the exceptions of Hydra and OmegaConf into InputError."""
    try:
        yield
    except MissingConfigException as error:
        group, _, choice = str(error.missing_cfg_file or "").removesuffix(".yaml").rpartition("/")
        options = ", ".join(error.options or [])
        raise InputError(f"{group}={choice}: no such choice; allowed are {options}.") from error
    except (MissingMandatoryValue, InterpolationToMissingValueError) as error:
        missing = re.search(r"Missing mandatory value: (\S+)", str(error))
        key = missing.group(1) if missing else error.full_key
        raise InputError(f"{key} is not set and has no default: give {key}=….") from error
    except (HydraException, OmegaConfBaseException, yaml.YAMLError) as error:
        raise InputError(first_line(error, schema)) from error


def first_line(error: Exception, schema: type) -> str:
    """One sentence out of a message of several lines."""
    cause = error.__cause__ or error
    key = getattr(cause, "full_key", None)
    if isinstance(key, str) and key and not isinstance(cause, InterpolationResolutionError):
        typed.lookup(schema, key)  # raises the sentence that names the keys there are
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else repr(error)


def make(schema: type, config: DictConfig) -> Any:
    """Resolve a composed config, fit it into `schema` and call its check().

    Raises:
        InputError: one sentence about the first thing that is wrong.
    """
    with translated(schema):
        data = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    result = typed.build(schema, data)
    if hasattr(result, "check"):
        result.check()
    return result
