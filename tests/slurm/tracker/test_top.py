"""The live view, driven key by key, and its plain fallback."""

from __future__ import annotations

import asyncio
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from slurm.devcluster import processes
from slurm.tracker import watch
from slurm.tracker.listing import Filters
from slurm.tracker.rates import Rates

top = pytest.importorskip("slurm.tracker.top", reason="textual is not installed")

NO_RATES = Rates(Path("/nowhere"))


@pytest.fixture
def queue(fake_slurm, rows):
    """Three jobs, and scancel and scontrol that only write down how they are called."""
    fake_slurm.answer(
        [
            rows(1, State="RUNNING", Reason="None", Name="alpha", STDOUT=str(fake_slurm.folder / "log")),
            rows(2, Name="\x1b[31mbeta", Reason="JobHeldUser", PriorityLong="0"),
            rows(3, Name="gamma", JobArrayID="3_[4-9%2]", ArrayJobID="3", ArrayTaskID="4-9%2"),
        ]
    )
    (fake_slurm.folder / "log").write_text("[bold]epoch 1[/bold]\n")
    for name in ("scancel", "scontrol"):
        script = fake_slurm.folder / name
        script.write_text(f'#!/bin/sh\necho {name} "$@" >> {fake_slurm.folder}/changes\n')
        script.chmod(0o755)
    return fake_slurm


def drive(steps: Callable[[object, object], Awaitable[None]]) -> None:
    async def session() -> None:
        app = top.QueueTop(Filters(), NO_RATES)
        async with app.run_test(size=(140, 30)) as pilot:
            await until(pilot, lambda: app.picture is not None and app.query_one(top.DataTable).row_count)
            await steps(app, pilot)

    asyncio.run(session())


async def until(pilot, condition: Callable[[], object]) -> None:
    for _ in range(200):
        if condition():
            return
        await pilot.pause(0.05)
    raise AssertionError("it does not happen")


def column(app, name: str) -> list[str]:
    table = app.query_one(top.DataTable)
    return [str(cell) for cell in table.get_column(name)]


def changes(queue) -> list[str]:
    file = queue.folder / "changes"
    return file.read_text().splitlines() if file.exists() else []


def test_sort_and_filter(queue) -> None:
    async def steps(app, pilot) -> None:
        assert column(app, "NAME") == ["alpha", "gamma", "\\x1b[31mbeta"]
        await pilot.press("s", "s")
        assert column(app, "NAME") == ["\\x1b[31mbeta", "alpha", "gamma"]
        await pilot.press("r")
        assert column(app, "NAME") == ["gamma", "alpha", "\\x1b[31mbeta"]
        await pilot.press("slash", *"gam", "enter")
        await until(pilot, lambda: column(app, "NAME") == ["gamma"])
        await pilot.press("escape")
        await until(pilot, lambda: len(column(app, "NAME")) == 3)

    drive(steps)


def test_figures_are_sorted_by_value(queue, rows) -> None:
    spans = {1: "9:00", 2: "1-00:00:00", 3: "10:00"}
    queue.answer([rows(n, State="RUNNING", Name=str(n), TimeUsed=used) for n, used in spans.items()])

    async def steps(app, pilot) -> None:
        await pilot.press(*"s" * (1 + list(app.cells).index("ELAPSED/LIMIT")))
        assert column(app, "NAME") == ["1", "3", "2"]

    drive(steps)


def test_a_quick_typist_changes_nothing(queue) -> None:
    async def steps(app, pilot) -> None:
        from textual.events import Key

        for key, character in (("slash", "/"), ("c", "c"), ("y", "y")):
            app.post_message(Key(key, character))
        await pilot.pause(0.5)
        assert not isinstance(app.screen, top.Question)

    drive(steps)
    assert changes(queue) == []


def test_details_and_log(queue) -> None:
    async def steps(app, pilot) -> None:
        await pilot.press("down", "down", "enter")
        await until(pilot, lambda: isinstance(app.screen, top.Reading))
        assert "Its owner anna holds it." in app.screen.text
        await pilot.press("escape")
        await until(pilot, lambda: not isinstance(app.screen, top.Reading))
        await pilot.press("up", "up", "l")
        await until(pilot, lambda: isinstance(app.screen, top.Reading))
        assert "[bold]epoch 1[/bold]" in app.screen.text

    drive(steps)


@pytest.mark.parametrize("no", ["n", "escape", "enter", "q"])
def test_nothing_changes_without_a_yes(queue, no: str) -> None:
    async def steps(app, pilot) -> None:
        await pilot.press("c")
        await until(pilot, lambda: isinstance(app.screen, top.Question))
        assert app.screen.text == "Cancel job 1 (alpha, anna)?"
        await pilot.press(no)
        await until(pilot, lambda: not isinstance(app.screen, top.Question))
        await pilot.pause(0.3)

    drive(steps)
    assert changes(queue) == []


def test_a_yes_changes_the_chosen_job(queue) -> None:
    async def steps(app, pilot) -> None:
        await pilot.press("h")
        await pilot.pause()
        assert not isinstance(app.screen, top.Question), "a running job is not held"
        await pilot.press("c", "y")
        await until(pilot, lambda: len(changes(queue)) == 1)
        await pilot.press("down", "h")
        await until(pilot, lambda: isinstance(app.screen, top.Question))
        assert app.screen.text == "Hold job 3_[4-9%2] with 6 waiting tasks (gamma, anna)?"
        await pilot.press("y")
        await until(pilot, lambda: len(changes(queue)) == 2)

    drive(steps)
    assert changes(queue) == ["scancel 1", "scontrol hold 3_[4-9]"]


def test_a_stale_picture_is_marked(queue) -> None:
    async def steps(app, pilot) -> None:
        queue.stop()
        app.refresh_queue()
        await until(pilot, lambda: app.query_one("#mark").has_class("stale"))
        assert len(column(app, "NAME")) == 3

    drive(steps)


@pytest.mark.skipif(shutil.which("tmux") is None, reason="no tmux on this machine")
def test_in_a_real_terminal(queue, tmp_path: Path) -> None:
    def tmux(*words: str) -> str:
        argv = ["tmux", "-S", str(tmp_path / "tmux"), "-f", "/dev/null", *words]
        return subprocess.run(argv, capture_output=True, text=True, check=True, timeout=30).stdout

    def press(key: str) -> None:
        tmux("send-keys", "-t", "top", key)

    def shows(*wanted: str) -> None:
        def there() -> bool:
            screens.append(tmux("capture-pane", "-p", "-t", "top"))
            return all(words in screens[-1] for words in wanted)

        screens: list[str] = []
        assert processes.wait_until(there, 40, 0.2), screens[-1]

    kept = [f"{name}={os.environ[name]}" for name in ("PATH", "ELM_QUEUE_CACHE", "ELM_QUEUE_MAX_AGE")]
    line = shlex.join(["env", *kept, sys.executable, "-m", "slurm.tracker", "top"])
    tmux("new-session", "-d", "-s", "top", "-x", "140", "-y", "30", f"{line}; echo left with $?; sleep 60")
    try:
        shows("alpha", "gamma", "\\x1b[31mbeta")
        press("Enter")
        shows("It does not wait: it is running")
        press("q")
        press("l")
        shows("[bold]epoch 1[/bold]")
        press("q")
        press("c")
        shows("Cancel job 1 (alpha, anna)?")
        press("y")
        assert processes.wait_until(lambda: changes(queue) == ["scancel 1"], 30, 0.2)
        tmux("resize-window", "-t", "top", "-x", "70", "-y", "12")
        shows("alpha")
        press("q")
        shows("left with 0")
    finally:
        tmux("kill-server")


def test_the_plain_view_fits_the_screen(queue, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setenv("LINES", "5")
    lines = watch.frame(Filters(), NO_RATES).split("\n")
    assert len(lines) == 4
    assert lines[0].startswith("as of")
    assert lines[-1] == "… and 2 more lines"
    assert all(len(line) <= 60 for line in lines)
    queue.stop()
    assert watch.frame(Filters(), NO_RATES).startswith("STALE")
