"""From a command line to a checked, typed configuration: the one place that talks to Hydra.

A launcher is a function of its config:

    @main("pretrain", PretrainConfig)
    def launch(config: PretrainConfig) -> int: ...

Hydra composes conf/<verb>.yaml with the groups and overrides of the command line. Every point of a sweep
(`-m`) is composed and checked before the first is launched, so that a wrong one leaves nothing behind. Wrong
input ends as one sentence on stderr and exit status 2; Hydra's own messages are rewritten to that form.
No torch here.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import hydra
import yaml
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Override
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import (
    InterpolationResolutionError,
    InterpolationToMissingValueError,
    MissingMandatoryValue,
    OmegaConfBaseException,
)

from conf import points, resolvers, typed
from conf.errors import InputError
from conf.names import CONF
from conf.points import Point
from conf.schema.parallel import Ranks

OnSweep = Callable[[str, Sequence[str], Sequence[Point], Sequence[Any], bool], None]
EXIT_INPUT = 2
EXIT_INTERRUPTED = 130
EXIT_PIPE = 141  # as a shell reports SIGPIPE

# Hydra keeps no folder, no log and no working directory of its own: a run's files belong to its run folder.
HYDRA_SETTINGS = (
    "hydra.run.dir=.",
    "hydra.output_subdir=null",
    "hydra.job.chdir=false",
    "hydra/job_logging=disabled",
    "hydra/hydra_logging=disabled",
    "hydra/launcher=basic",
)

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


resolvers.register()


def main(
    verb: str, schema: type, on_sweep: OnSweep | None = None
) -> Callable[[Callable[[Any], int | None]], Callable[[], None]]:
    """Make a launcher out of a function of a typed config.

    Args:
        verb: conf/<verb>.yaml is the root.
        schema: dataclass the composed config must fit; its `check()`, where it has one, is called.
        on_sweep: called once before the first point of a sweep, with the verb, the overrides, the points,
            their typed configs, and whether the points are launched; it may refuse them.

    Returns:
        A decorator. The decorated function takes no argument, reads sys.argv and never returns: it exits with
        the function's status (None is 0), 2 for wrong input, 130 after Ctrl-C.
    """

    def decorate(function: Callable[[Any], int | None]) -> Callable[[], None]:
        @functools.wraps(function)
        def command() -> None:
            sys.exit(guarded(lambda: run(verb, schema, function, sys.argv[1:], on_sweep)))

        return command

    return decorate


def guarded(function: Callable[[], int | None]) -> int:
    """Call `function` under this suite's rules for umask and exit status; returns that status."""
    os.umask(0o077)  # data and runs are private
    try:
        status = function() or 0
        sys.stdout.flush()
        return status
    except InputError as error:
        print(" ".join(str(error).split()), file=sys.stderr)
        return EXIT_INPUT
    except BrokenPipeError:  # `| head` has seen enough; nothing more can be printed, at exit neither
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_PIPE
    except OSError as error:
        if error.filename is None:
            raise
        print(f"{error.filename}: {error.strerror}.", file=sys.stderr)
        return EXIT_INPUT
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        return EXIT_INTERRUPTED


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
    args = parse_flags(argv)
    if args.help or args.hydra_help or args.info or args.shell_completion or args.cfg in ("hydra", "all"):
        _hydra(verb, lambda config: None, argv)
        return 0
    overrides = check_overrides(args.overrides, schema)
    found: list[Point] = []

    def collect(config: DictConfig) -> None:
        found.append(Point.of(config, HydraConfig.get().overrides.task))

    with translated(schema), tempfile.TemporaryDirectory(prefix="elm-hydra-") as scratch:
        mode = ["--multirun", f"hydra.sweep.dir={scratch}"] if args.multirun else []
        _hydra(verb, collect, [*mode, *overrides])
    unset = [point.config for point in found if args.cfg and "???" in OmegaConf.to_yaml(point.config)]
    if unset:
        print(OmegaConf.to_yaml(unset[0]), end="")  # as it stands: what is missing shows as ???
        return 0
    is_sweep = args.multirun and all("run" in point.config for point in found)
    if is_sweep:
        with translated(schema):
            points.name(found)
    configs = [make(schema, point.config) for point in found]
    if is_sweep and on_sweep:
        launched = not args.cfg and not any(getattr(config, "dry_run", False) for config in configs)
        on_sweep(verb, overrides, found, configs, launched)
    if args.cfg:
        print("---\n".join(as_yaml(config) for config in configs), end="")
        return 0
    worst = 0
    for config in configs:
        status = int(function(config) or 0)
        worst = max(worst, status)
        if status > 128:
            break  # interrupted: the points behind it are not wanted either
    return worst


def parse_flags(argv: Sequence[str]) -> Any:
    """Hydra's own flags, its usage text replaced by a sentence; those that load foreign files are refused."""
    parser = get_args_parser()

    def refuse(message: str) -> None:
        raise InputError(f"{message}: write key=value, or one of --help, --cfg job, -m.")

    parser.error = refuse  # type: ignore[assignment, method-assign]
    args = parser.parse_intermixed_args(list(argv))  # flags may stand between overrides
    for flag in ("config_path", "config_name", "config_dir", "experimental_rerun"):
        if getattr(args, flag):
            name = flag.replace("_", "-")
            raise InputError(f"--{name} is not used here: configurations live in {CONF.name}/.")
    return args


def check_overrides(overrides: Sequence[str], schema: type) -> list[str]:
    """Refuse what may not come from a command line, and unknown keys, before Hydra sees any of it.

    Returns:
        The overrides for Hydra. A key that the schema knows and conf/ does not mention is added (`++key=`).
    """
    parsed = []
    for text in overrides:
        # Features of nodes are joined by & and |; the pattern of the key allows no more than that.
        searched = re.sub("[&|]", "", text) if text.startswith("cluster.constraint=") else text
        for pattern, what in FORBIDDEN:
            if pattern.search(searched):
                raise InputError(f"override {typed.shown(text)!s} holds {what}.")
        try:
            parsed += OverridesParser.create().parse_overrides([text])
        except HydraException as error:
            raise InputError(unreadable(text)) from error
    result = []
    for text, override in zip(overrides, parsed, strict=True):
        key = override.key_or_group
        if key.split(".")[0].split("/")[0] == "hydra":
            raise InputError(f"override {text}: Hydra's own settings are fixed; use -m for a sweep.")
        if (CONF / key).is_dir():
            check_choice(key, override)
            result.append(text)
            continue
        if key.startswith(FILE_ONLY):
            raise InputError(f"override {text}: {key} is set only by the files in {CONF.name}/.")
        if override.is_delete():
            raise InputError(f"override {text}: nothing is deleted here; set {key}=null.")
        if override.is_range_sweep():
            check_range(text, override)
        hint = typed.lookup(schema, key)
        if typed.is_group(hint) or isinstance(override.value(), dict):
            raise InputError(f"{text}: {key} is a group of keys, set one of them as {key}.<key>=<value>.")
        result.append(f"++{text.lstrip('+')}")
    return result


def check_choice(group: str, override: Override) -> None:
    """Refuse a choice that has no file in conf/<group>/; with -m, each of the choices."""
    value = override.value()
    options = sorted(path.stem for path in (CONF / group).glob("*.yaml"))
    for choice in value.list if isinstance(value, ChoiceSweep) else [value]:
        text = str(getattr(choice, "text", choice))  # a quoted value is an object with its text
        if text not in options:
            allowed = ", ".join(options)
            raise InputError(f"{group}={typed.shown(text)}: no such choice; allowed are {allowed}.")


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
        return f"cannot read {typed.shown(text)!s}: write key=value."
    return (
        f"cannot read the value of {typed.shown(key)!s}: a value with spaces, commas, brackets or '=' needs "
        f"quotes inside quotes, as in {typed.shown(key)!s}=\"'a b'\"."
    )


def _hydra(verb: str, function: Callable[[DictConfig], None], argv: Sequence[str]) -> None:
    """Run hydra.main on argv. Its exceptions pass through instead of being printed (HYDRA_FULL_ERROR)."""
    before = sys.argv, os.environ.get("HYDRA_FULL_ERROR")
    sys.argv = [sys.argv[0], *argv, *HYDRA_SETTINGS]
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        hydra.main(version_base="1.3", config_path=str(CONF), config_name=verb)(function)()
    finally:
        sys.argv = before[0]
        os.environ.pop("HYDRA_FULL_ERROR")
        if before[1] is not None:
            os.environ["HYDRA_FULL_ERROR"] = before[1]


@contextlib.contextmanager
def translated(schema: type) -> Iterator[None]:
    """Turn the exceptions of Hydra and OmegaConf into InputError."""
    try:
        yield
    except MissingConfigException as error:
        group, _, choice = str(error.missing_cfg_file or "").removesuffix(".yaml").rpartition("/")
        options = ", ".join(error.options or [])
        raise InputError(f"{group}={choice}: no such choice; allowed are {options}.") from error
    except OverrideParseException as error:
        raise InputError(unreadable(error.override)) from error
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
    ambiguous = re.match(r"Ambiguous value for argument '(.*)'", lines[0]) if lines else None
    if ambiguous:
        key = ambiguous.group(1).partition("=")[0].lstrip("+")
        return f"{key} holds several values: add -m for a sweep, or write {key}=[a,b] for a list."
    return lines[0] if lines else repr(error)


def make(schema: type, config: DictConfig) -> Any:
    """Resolve a composed config, fit it into `schema` and call its check().

    Raises:
        InputError: one sentence about the first thing that is wrong.
    """
    with translated(schema):
        data = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    result = typed.build(schema, data)
    if hasattr(result, "cluster"):
        result.cluster.check()
    if isinstance(result, Ranks):  # what trains; other verbs use no GPU, or one
        result.cluster.check_gpus()
    if hasattr(result, "check"):
        result.check()
    return result


def as_yaml(config: Any) -> str:
    """A typed config as YAML text, every default written out."""
    return yaml.safe_dump(plain(config), sort_keys=False, allow_unicode=True)


def plain(value: Any) -> Any:
    """Dataclasses, tuples and paths as the dicts, lists and text that YAML and JSON hold."""
    if hasattr(value, "__dataclass_fields__"):
        return {name: plain(getattr(value, name)) for name in typed.names(type(value))}
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value
