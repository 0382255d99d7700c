"""Text is UTF-8 whatever the locale is: files and what programs print are read with an encoding by name."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("conf", "data_prep", "elm_megatron", "slurm", "launch")
PROGRAMS = ("run", "Popen", "check_output", "check_call", "call")
TEXT_METHODS = ("read_text", "write_text")
NO_FILES = ("os", "gzip", "zipfile", "webbrowser", "pdfium", "services")  # their open() has no encoding


def without_encoding(tree: ast.AST) -> Iterator[int]:
    """Lines of calls that would take the encoding of the locale."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        given = {keyword.arg: keyword.value for keyword in node.keywords}
        if "encoding" in given or None in given:  # **options may hold it
            continue
        name, owner = _called(node.func)
        positional = 1 if name == "read_text" else 2 if name == "write_text" else 99
        opens = name in ("open", "fdopen") and owner not in NO_FILES and _is_text(node, given, owner)
        reads = name in TEXT_METHODS and len(node.args) < positional
        if opens or reads or (name in PROGRAMS and {"text", "universal_newlines"} & given.keys()):
            yield node.lineno


def _called(function: ast.expr) -> tuple[str, str]:
    """Name of what is called, and of what it belongs to."""
    if isinstance(function, ast.Attribute):
        return function.attr, function.value.id if isinstance(function.value, ast.Name) else "an expression"
    return (function.id, "") if isinstance(function, ast.Name) else ("", "")


def _is_text(node: ast.Call, given: dict[str | None, ast.expr], owner: str) -> bool:
    """Whether open() is for text: by its mode, the first argument of a path's, the second of the built-in."""
    at = 1 if owner in ("", "os") else 0
    mode = given.get("mode", node.args[at] if len(node.args) > at else None)
    if isinstance(mode, ast.Constant) and isinstance(mode.value, str):
        return "b" not in mode.value and set(mode.value) <= set("rwax+t")
    return mode is None and (owner == "" or not node.args)


@pytest.mark.parametrize("package", PACKAGES)
def test_files_and_programs_are_read_and_written_as_utf8_by_name(package: str) -> None:
    found = [
        f"{path.relative_to(ROOT)}:{line}"
        for path in sorted((ROOT / package).rglob("*.py"))
        for line in without_encoding(ast.parse(path.read_text(encoding="utf-8")))
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("code", "wrong"),
    [
        ("path.read_text()", True),
        ("path.read_text('utf-8')", False),
        ("path.write_text(x, encoding='utf-8')", False),
        ("open(p)", True),
        ("open(p, 'rb')", False),
        ("path.open('a')", True),
        ("path.open('wb')", False),
        ("subprocess.run(c, text=True)", True),
        ("subprocess.run(c, encoding='utf-8')", False),
    ],
)
def test_the_search_can_fail(code: str, wrong: bool) -> None:
    assert bool(list(without_encoding(ast.parse(code)))) is wrong
