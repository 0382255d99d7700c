"""`elm-queue top`: the queue as a live view in the terminal, with textual.

Keys: s sorts by the next column and r turns the order round, / filters by a part of any cell (Esc shows all),
w or Enter explains the chosen job, l shows the end of its log; c cancels, h holds and u releases it, each
after a question; q leaves.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import ClassVar

from rich.text import Text
from textual import work
from textual.app import App, ComposeResult
from textual.binding import Binding
from textual.containers import Vertical, VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import DataTable, Footer, Input, Label, Static

from slurm.tracker import command, listing, poll, why
from slurm.tracker.actions import job_argument
from slurm.tracker.command import Unreachable
from slurm.tracker.listing import COLUMNS, RUN_COLUMNS, VALUES, Filters, Row
from slurm.tracker.logs import log_tail
from slurm.tracker.poll import Picture
from slurm.tracker.rates import Rates
from slurm.tracker.show import escaped, fitted, quantity
from slurm.tracker.squeue import Job

REFRESH_SECONDS = 5.0
WIDEST = 32

# Columns that are sorted by a value and not by what stands in them.
SORTED_BY_VALUE = {
    "ID": "job_id",
    "NODES": "nodes",
    "GPUS": "gpus",
    "ELAPSED/LIMIT": "elapsed",
    "WAITED": "waited",
    "START": "start",
    "STEP": "step",
    "LOSS": "loss",
    "TOKENS/S": "tokens_per_second",
    "RUN ENDS": "run_ends",
}

# Key → the command that changes a job, and the question before it.
CHANGES = {
    "c": (("scancel",), "Cancel"),
    "h": (("scontrol", "hold"), "Hold"),
    "u": (("scontrol", "release"), "Release"),
}


def show(filters: Filters, rates: Rates) -> None:
    """Run the view until the user leaves it."""
    QueueTop(filters, rates).run()


class Reading(ModalScreen[None]):
    """A page of plain text: an explanation or the end of a log."""

    BINDINGS: ClassVar = [Binding("escape,q,enter", "dismiss", "Back")]

    def __init__(self, text: str):
        super().__init__()
        self.text = text

    def compose(self) -> ComposeResult:
        """The widgets."""
        with VerticalScroll(id="reading"):
            # Text, not markup: brackets in a log are only brackets.
            yield Static(Text(self.text))
        yield Footer()


class Question(ModalScreen[bool]):
    """Ask before a job is changed; only the letter y means yes."""

    BINDINGS: ClassVar = [
        Binding("y", "answer(True)", "Yes"),
        Binding("n,escape,q,enter", "answer(False)", "No"),
    ]

    def __init__(self, text: str):
        super().__init__()
        self.text = text

    def compose(self) -> ComposeResult:
        """The widgets."""
        with Vertical(id="question"):
            yield Label(Text(self.text))
            yield Label("y: yes    any of n, Enter, Esc: no")
        yield Footer()

    def action_answer(self, answer: bool) -> None:
        """Leave with the answer."""
        self.dismiss(answer)


class QueueTop(App[None]):
    """The live view."""

    TITLE = "elm-queue"
    ENABLE_COMMAND_PALETTE = False
    CSS = """
    #mark { height: 1; padding: 0 1; } #mark.stale { background: $error; color: $text; }
    #filter { display: none; }
    #reading, #question { border: round $primary; background: $surface; padding: 1 2; margin: 2 4; }
    #reading { height: 80%; } #question { height: auto; } Reading, Question { align: center middle; }
    """
    BINDINGS: ClassVar = [
        Binding("s", "sort", "Sort"),
        Binding("r", "reverse", "Reverse"),
        Binding("slash", "filter", "Filter"),
        Binding("escape", "show_all", "Show all", show=False),
        Binding("w,enter", "explain", "Why"),
        Binding("l", "log", "Log"),
        *(Binding(key, f"change('{key}')", words) for key, (_, words) in CHANGES.items()),
        Binding("q", "quit", "Quit"),
    ]

    def __init__(self, filters: Filters, rates: Rates):
        super().__init__()
        self.filters = filters
        self.rates = rates
        self.picture: Picture | None = None
        self.rows: list[Row] = []
        self.cells: dict[str, Callable[[Row], str]] = {
            **COLUMNS,
            rates.unit: lambda row: quantity(row.units),
            **RUN_COLUMNS,
        }
        # No column: the list's own order.
        self.sorted_by: str | None = None
        self.reversed = False
        self.wanted = ""

    def compose(self) -> ComposeResult:
        """The widgets."""
        yield Static("asking Slurm …", id="mark")
        yield DataTable(cursor_type="row", zebra_stripes=True)
        yield Input(placeholder="a part of any cell; Enter keeps it, empty shows all", id="filter")
        yield Footer()

    def on_mount(self) -> None:
        """Make the columns and start asking."""
        table = self.query_one(DataTable)
        for name in self.cells:
            table.add_column(name, key=name)
        table.focus()
        self.refresh_queue()
        self.set_interval(REFRESH_SECONDS, self.refresh_queue)

    # ---- reading the queue

    @work(thread=True, exclusive=True, group="poll")
    def refresh_queue(self) -> None:
        """Fetch the picture outside the screen's own thread, since Slurm may take its time."""
        try:
            picture = poll.picture()
        except Unreachable as error:
            self.call_from_thread(self.mark, f"Slurm does not answer: {escaped(str(error))}", True)
            return
        rows = listing.rows(picture, self.filters, self.rates)
        self.call_from_thread(self.take, picture, rows)

    def take(self, picture: Picture, rows: list[Row]) -> None:
        """Show a new picture."""
        self.picture, self.rows = picture, rows
        self.redraw()

    def mark(self, text: str, stale: bool) -> None:
        """Say how old the picture is, in red when it is stale."""
        line = self.query_one("#mark", Static)
        line.update(Text(text))
        line.set_class(stale, "stale")

    def redraw(self) -> None:
        """Draw the rows that pass the filter and keep the cursor on its job."""
        table = self.query_one(DataTable)
        kept = self.chosen()
        shown = []
        for row in self.rows:
            texts = [escaped(cell(row)) for cell in self.cells.values()]
            if self.wanted.lower() in "\t".join(texts).lower():
                shown.append((row, texts))
        if self.sorted_by is not None:
            shown.sort(key=lambda item: self.sort_key(item[0]))
        if self.reversed:
            shown.reverse()
        table.clear()
        for row, texts in shown:
            cells = (Text(fitted(text, WIDEST)) for text in texts)
            table.add_row(*cells, key=str(row.job.job_id))
        if kept and str(kept.job_id) in table.rows:
            table.move_cursor(row=table.get_row_index(str(kept.job_id)))
        if self.picture:
            order = f"  sorted by {self.sorted_by}" if self.sorted_by else ""
            order += "  reversed" if self.reversed else ""
            part = f"  filter {self.wanted!r}" if self.wanted else ""
            self.mark(
                f"{len(shown)} of {len(self.rows)} lines, {listing.mark(self.picture)}{order}{part}",
                self.picture.failure is not None,
            )

    def sort_key(self, row: Row) -> tuple[bool, object]:
        """Figures and times by their value, words by their letters; what is missing stands last."""
        name = "units" if self.sorted_by == self.rates.unit else SORTED_BY_VALUE.get(self.sorted_by)
        value = VALUES[name](row) if name else self.cells[self.sorted_by](row).lower()
        return (value is None, value or 0 if name else value)

    def chosen(self) -> Job | None:
        """The job under the cursor."""
        table = self.query_one(DataTable)
        if not table.row_count:
            return None
        key = table.coordinate_to_cell_key(table.cursor_coordinate).row_key.value
        return next((row.job for row in self.rows if str(row.job.job_id) == key), None)

    # ---- keys

    def action_sort(self) -> None:
        """Sort by the next column."""
        names: list[str | None] = [None, *self.cells]
        self.sorted_by = names[(names.index(self.sorted_by) + 1) % len(names)]
        self.redraw()

    def action_reverse(self) -> None:
        """Turn the order round."""
        self.reversed = not self.reversed
        self.redraw()

    def action_filter(self) -> None:
        """Open the filter box."""
        box = self.query_one("#filter", Input)
        box.display = True
        # At once, unlike `box.focus()`: the next letter of a quick typist must not be taken for a command.
        self.screen.set_focus(box)

    def on_input_changed(self, event: Input.Changed) -> None:
        """Filter while the user types."""
        self.wanted = event.value
        self.redraw()

    def on_input_submitted(self) -> None:
        """Keep the filter and go back to the table."""
        self.query_one("#filter", Input).display = False
        self.screen.set_focus(self.query_one(DataTable))

    def action_show_all(self) -> None:
        """Drop the filter."""
        box = self.query_one("#filter", Input)
        box.value = ""
        self.on_input_submitted()

    def on_data_table_row_selected(self) -> None:
        """Explain the job of the chosen row."""
        self.action_explain()

    def action_explain(self) -> None:
        """Explain the chosen job."""
        if (job := self.chosen()) and self.picture:
            self.explain(job, self.picture)

    @work(thread=True, exclusive=True, group="explain")
    def explain(self, job: Job, picture: Picture) -> None:
        """Explain a job outside the screen's own thread."""
        text = why.text(job, why.explain(job, picture))
        self.call_from_thread(self.push_screen, Reading(text))

    def action_log(self) -> None:
        """Show the end of the chosen job's log."""
        if job := self.chosen():
            self.push_screen(Reading(log_tail(job)))

    def action_change(self, key: str) -> None:
        """Ask before a job is changed."""
        job = self.chosen()
        if job is None:
            return
        argv, verb = CHANGES[key]
        if key != "c" and not job.pending:
            self.notify(f"{job.shown_id} runs already; only waiting jobs are held and released")
            return
        tasks = f" with {job.tasks} waiting tasks" if job.tasks > 1 else ""
        question = f"{verb} job {job.shown_id}{tasks} ({escaped(fitted(job.name, WIDEST))}, {job.user})?"
        self.push_screen(Question(question), partial(self.change, job, argv))

    @work(thread=True)
    def change(self, job: Job, argv: tuple[str, ...], answer: bool | None) -> None:
        """Run the command after a yes, and say what came of it."""
        if not answer:
            return
        line = [*argv, job_argument(job)]
        try:
            command.run(line)
        except Unreachable as error:
            self.call_from_thread(self.notify, escaped(str(error)), severity="error", markup=False)
            return
        self.call_from_thread(self.notify, f"{' '.join(line)}: done; the list follows within half a minute")
