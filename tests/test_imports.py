"""The house keeps its order: who imports whom, and what is loaded when.

    python -m tests.test_imports      prints the matrix of rooms

The graph is read from the sources (`ast`), imports inside functions and under TYPE_CHECKING included, so that
nothing is hidden from it. A new folder needs a place in `ORDER`.
"""

from __future__ import annotations

import ast
import functools
import itertools
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

# From low to high. A room imports from its own level or from lower ones, and no two rooms import each other.
ORDER: tuple[tuple[str, ...], ...] = (
    ("conf",),
    ("data_prep",),
    ("elm_megatron", "elm_megatron.run", "elm_megatron.model"),
    ("elm_megatron.checkpoint",),
    ("elm_megatron.sources", "elm_megatron.engine", "elm_megatron.planner"),
    ("elm_megatron.bundle",),
    (
        "elm_megatron.chat",
        "elm_megatron.card",
        "elm_megatron.hf",
        "elm_megatron.evaluate",
        "elm_megatron.serve",
        "elm_megatron.trace",
    ),
    ("elm_megatron.tune", "elm_megatron.community"),
    ("slurm", "slurm.devcluster", "slurm.tracker", "slurm.jobs"),
    ("slurm.chains",),
    ("slurm.doctor",),
    ("launch",),
)
LEVEL = {room: number for number, rooms in enumerate(ORDER) for room in rooms}
PACKAGES = ("conf", "data_prep", "elm_megatron", "slurm", "launch")

SETTINGS = ("hydra", "omegaconf", "antlr4")  # imported in conf/ alone
TORCH = ("torch", "megatron", "transformer_engine", "transformers", "safetensors", "peft", "apex")
TORCH_FREE = (
    "slurm",
    "launch",
    "conf",
    "elm_megatron.run",
    "elm_megatron.community",
    "elm_megatron.planner",
    "elm_megatron.serve",
    "elm_megatron.trace",
)
TUNE_USERS = ("launch", "elm_megatron.tune", "slurm.chains")  # nobody else imports elm_megatron.tune

# Libraries that take long to load, or that only an extra brings: these, and modules of ours that load one of
# them, may be imported inside a function.
HEAVY = (
    *TORCH,
    "gguf",
    "kitoken",
    "lm_eval",
    "lxml",
    "matplotlib",
    "mpi4py",
    "protego",
    "pyarrow",
    "pynvml",
    "pypdfium2",
)
HEAVY += ("sentencepiece", "tensorboard", "textual", "tokenizers", "wandb", "xllamacpp", "openpyxl", "ftfy")
HEAVY += (
    "spacy",
    "gliner",
    "python_calamine",
    "prometheus_client",
    "euroeval",
    "datasets",
    "mcp",
    "psutil",
    "uvicorn",
    "pydivsufsort",
)
# Other imports inside functions, each with its reason.
LATE = {
    "slurm.tracker.__main__": "elm-queue list is asked all the time: a command loads what it shows, no more",
    "slurm.tracker.commands": "numpy, textual and prometheus_client load for the commands that need them",
    "elm_megatron.evaluate.prompts → readline": "importing it changes how input() reads from the terminal",
}

# What the rooms still break. Must be empty in the end: mend one, then take its line out.
KNOWN: set[str] = set()


@dataclass(frozen=True)
class Import:
    """One import: the module that holds it, what it names, and whether it runs when the module is loaded."""

    module: str
    name: str
    at_load: bool
    in_function: bool


@functools.cache
def modules() -> dict[str, Path]:
    """Path of each module of the packages, by dotted name."""
    files = (path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py")))
    return {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in files}


@functools.cache
def imports() -> tuple[Import, ...]:
    """Every import of every module."""
    found: list[Import] = []
    for module, path in modules().items():
        _collect(module, ast.parse(path.read_text(encoding="utf-8")), True, False, found)
    return tuple(found)


def _collect(module: str, node: ast.AST, at_load: bool, in_function: bool, found: list[Import]) -> None:
    for child in ast.iter_child_nodes(node):
        function = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        typing_only = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test)
        if isinstance(child, ast.Import | ast.ImportFrom):
            found += [Import(module, name, at_load, in_function) for name in _names(module, child)]
        else:
            loads = at_load and not function and not typing_only
            _collect(module, child, loads, in_function or function, found)


def _names(module: str, node: ast.Import | ast.ImportFrom) -> list[str]:
    if isinstance(node, ast.Import):
        names = [item.name for item in node.names]
        # A launcher is a script: a bare name may be its neighbour.
        beside = [f"{module.rpartition('.')[0]}.{name}" for name in names]
        return [other if other in modules() else name for name, other in zip(names, beside, strict=True)]
    base = node.module or ""
    if node.level:  # relative: counted from the package that holds the module
        base = ".".join([*module.split(".")[: -node.level], *([base] if base else [])])
    full = [f"{base}.{item.name}" for item in node.names]
    return [name if name in modules() else base for name in full]


def room(module: str) -> str:
    """The room of a module: its package, inside elm_megatron and slurm the folder in it."""
    parts = module.split(".")
    deep = parts[0] in ("elm_megatron", "slurm") and len(parts) > 2
    return ".".join(parts[:2]) if deep else parts[0]


def own(found: Iterable[Import]) -> Iterator[Import]:
    """Those that name a module of ours."""
    return (item for item in found if item.name in modules())


@functools.cache
def loaded(module: str) -> frozenset[str]:
    """Top names of all libraries that come in when a module is imported."""
    seen, todo, libraries = {module}, [module], set()
    by_module = defaultdict(list)
    for item in imports():
        if item.at_load:
            by_module[item.module].append(item.name)
    while todo:
        for name in by_module[todo.pop()]:
            if name not in modules():
                libraries.add(name.split(".")[0])
            elif name not in seen:
                seen.add(name)
                todo.append(name)
    return frozenset(libraries)


def circles(arrows: Iterable[tuple[str, str]]) -> list[list[str]]:
    """Groups that import each other, each sorted (Tarjan's strongly connected components)."""
    graph = defaultdict(set)
    for one, other in arrows:
        if one != other:
            graph[one].add(other)
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in sorted(graph[node]):
            if other not in index:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], index[other])
        if low[node] == index[node]:
            group = [stack.pop()]
            while group[-1] != node:
                group.append(stack.pop())
            if len(group) > 1:
                found.append(sorted(group))

    for node in sorted(graph):
        if node not in index:
            visit(node)
    return found


def violations() -> Iterator[str]:
    """Every breach of the order, one line each."""
    arrows = {(item.module, item.name) for item in own(imports())}
    for group in circles(arrows):
        yield f"circle of files: {' ↔ '.join(group)}"
    rooms = {(room(one), room(other)) for one, other in arrows}
    for group in circles(pair for pair in rooms if len({LEVEL.get(name) for name in pair}) == 1):
        yield f"circle of rooms: {' ↔ '.join(group)}"  # across levels one of its arrows points upward
    for one, other in arrows:
        if LEVEL.get(room(one), -1) < LEVEL.get(room(other), -1):
            yield f"upward: {one} → {other}"
        if other.startswith("elm_megatron.tune.") and not one.startswith(TUNE_USERS):
            yield f"tune is not for everybody: {one} → {other}"
    for name in {room(module) for module in modules()} - LEVEL.keys():
        yield f"room without a place in ORDER: {name}"
    for item in imports():
        top = item.name.split(".")[0]
        if top in SETTINGS and not item.module.startswith("conf."):
            yield f"Hydra outside conf: {item.module} → {top}"
        if item.in_function and not may_be_late(item):
            yield f"late: {item.module} → {item.name}"
    for module in modules():
        if module.startswith(TORCH_FREE) and (heavy := loaded(module).intersection(TORCH)):
            yield f"torch at import: {module} → {min(heavy)}"


def may_be_late(item: Import) -> bool:
    """Whether an import may be inside a function."""
    if item.module in LATE or f"{item.module} → {item.name}" in LATE:
        return True
    libraries = loaded(item.name) if item.name in modules() else {item.name.split(".")[0]}
    return not libraries.isdisjoint(HEAVY)


def test_the_order_of_the_rooms() -> None:
    found = set(violations())
    new, mended = sorted(found - KNOWN), sorted(KNOWN - found)
    assert not new, "\n".join(["new:", *new])
    assert not mended, "\n".join(["mended, take it out of KNOWN:", *mended])


def test_the_reasons_for_late_imports_are_needed() -> None:
    late = {f"{item.module} → {item.name}" for item in imports() if item.in_function}
    late |= {item.module for item in imports() if item.in_function}
    assert LATE.keys() <= late


def test_the_root_of_elm_megatron_is_empty() -> None:
    assert [path.name for path in (ROOT / "elm_megatron").glob("*.py")] == ["__init__.py"]


# The guard of Transformer Engine's import must be in place before any module imports megatron-core.
NOT_EMPTY = {"elm_megatron.__init__": ["elm_megatron.model.known_warnings", "elm_megatron.model.te_import"]}


def test_packages_import_nothing() -> None:
    packages = {name: path for name, path in modules().items() if name.endswith(".__init__")}
    filled = [name for name, path in packages.items() if path.read_text(encoding="utf-8").strip()]
    assert packages and filled == list(NOT_EMPTY)
    for name, allowed in NOT_EMPTY.items():
        assert [item.name for item in imports() if item.module == name] == allowed
        assert loaded(name) <= sys.stdlib_module_names | {"__future__"}


def test_no_launcher_has_the_name_of_a_library() -> None:
    """A script's own folder comes first on Python's path."""
    libraries = {item.name.split(".")[0] for item in imports()} | sys.stdlib_module_names
    taken = (libraries | {"queue", "signal", "evaluate"}) - set(PACKAGES)
    assert [path.name for path in (ROOT / "launch").glob("*.py") if path.stem in taken] == []


def test_a_circle_is_found() -> None:
    assert circles([("a", "b"), ("b", "c"), ("c", "a"), ("c", "d"), ("d", "d")]) == [["a", "b", "c"]]


def matrix() -> str:
    """Imports between rooms: rows import from columns, in the order of the house."""
    names = [name for name in LEVEL if any(room(module) == name for module in modules())]
    counts: dict[tuple[str, str], int] = defaultdict(int)
    for item in own(imports()):
        counts[room(item.module), room(item.name)] += 1
    lines = [" " * 24 + "".join(f"{number:5}" for number in range(len(names)))]
    for number, name in enumerate(names):
        cells = (counts[name, other] for other in names)
        lines.append(f"{number:2} {name:21}" + "".join(f"{count or '·':>5}" for count in cells))
    return "\n".join(lines)


def main() -> None:
    """Print the matrix and what breaks the order."""
    print(matrix())
    print("\n".join(itertools.chain(["", "breaches:"], sorted(violations()))))


if __name__ == "__main__":
    main()
