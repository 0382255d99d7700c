"""README, CONTRIBUTING and the other pages: their commands compose, their links and files exist."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = [*sorted(ROOT.glob("*.md")), ROOT / "tests" / "README.md", ROOT / "slurm" / "README.md"]
README = (ROOT / "README.md").read_text(encoding="utf-8")
LAUNCHES = sorted(set(re.findall(r"python (launch/\w+\.py[^\n`|#]*)", README)))
PLAIN = ("launch/sweep.py", "launch/report.py")  # they take arguments, not overrides, or read a run at once


def words(command: str) -> list[str]:
    """A command of the README as arguments; a placeholder such as <run> becomes a name."""
    filled = re.sub(r"<[^<>]*>", "placeholder", command.split(" → ")[0]).replace("…", "placeholder")
    return shlex.split(filled)


def test_the_readme_shows_commands() -> None:
    assert len(LAUNCHES) > 20


@pytest.mark.parametrize("command", [one for one in LAUNCHES if not one.startswith(PLAIN)])
def test_commands_compose(command: str, tmp_path: Path) -> None:
    launcher, *keys = words(command)
    if "cluster=placeholder" in keys:
        keys[keys.index("cluster=placeholder")] = "cluster=snellius"
    done = subprocess.run(
        [sys.executable, str(ROOT / launcher), *keys, "--cfg", "job"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        encoding="utf-8",
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", text):
        assert target.startswith("https://") or (page.parent / target).exists(), target


def test_files_that_are_named_exist() -> None:
    for page in (ROOT / "README.md", ROOT / "CONTRIBUTING.md"):
        text = page.read_text(encoding="utf-8")
        for name in re.findall(r"`((?:\w+/)+[\w.]+\.(?:py|yaml|sh|def|md))`", text):
            roots = (ROOT, ROOT / "elm_megatron", ROOT / "slurm")
            assert any((root / name).exists() for root in roots), (page.name, name)


def test_tests_that_are_named_exist() -> None:
    known = "\n".join(path.read_text(encoding="utf-8") for path in ROOT.glob("tests/**/test_*.py"))
    text = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    for name in re.findall(r"`(test_\w+)`", text):
        assert f"def {name}(" in known, name
