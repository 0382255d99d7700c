"""The plain live view: the list again and again, for terminals without textual."""

from __future__ import annotations

import shutil
import time

from slurm.tracker import listing, poll
from slurm.tracker.command import Unreachable
from slurm.tracker.listing import Filters
from slurm.tracker.rates import Rates
from slurm.tracker.show import escaped, fitted

PAUSE_SECONDS = 5
CLEAR = "\033[H\033[2J"


def show(filters: Filters, rates: Rates) -> None:
    """Redraw until Ctrl-C; asks Slurm no more often than any other command does."""
    while True:
        print(CLEAR + frame(filters, rates), flush=True)
        time.sleep(PAUSE_SECONDS)


def frame(filters: Filters, rates: Rates) -> str:
    """One screenful: the picture's age, then as much of the list as fits."""
    try:
        picture = poll.picture()
    except Unreachable as error:
        return f"Slurm does not answer, and there is no earlier picture: {escaped(str(error))}"
    size = shutil.get_terminal_size()
    lines = [listing.mark(picture), *listing.grid(listing.rows(picture, filters, rates), rates).split("\n")]
    hidden = len(lines) - (size.lines - 1)
    if hidden > 0:
        lines = [*lines[: size.lines - 2], f"… and {hidden + 1} more lines"]
    return "\n".join(fitted(line, size.columns) for line in lines)
