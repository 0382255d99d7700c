"""Tell a person how a run goes: `notify=[mail,webhook]` on a Slurm job.

    python -m slurm.tracker.notify RUN STATE   what the batch script calls
    elm-queue notify [RUNS]                 for cron on a login node: it calls `pending`

`mail` is Slurm's own mail (cluster.mail_user, cluster.mail_type). `webhook` posts a small JSON object to the
one address in `~/.config/elm-suite/webhook`, a file of the owner alone: an address may hold a secret, so that
it is written into no run. The body names the run and its state; it has no text of exceptions, paths or
settings. A message that cannot be sent never ends a run: it stays in the run folder, and `elm-queue notify`
sends it later. That command also finds stalled runs, which nobody else can tell of: by webhook and by mail.
"""

from __future__ import annotations

import argparse
import contextlib
import getpass
import json
import os
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from conf.errors import InputError
from data_prep import files
from elm_megatron.run.folder import RunFolder
from slurm.tracker import command

ADDRESS = Path("~/.config/elm-suite/webhook")
MAIL_TYPES = "BEGIN,REQUEUE,FAIL,END,INVALID_DEPEND"
TIMEOUT_SECONDS = 5.0
STALLED_SECONDS = 1800.0
FOLDER = "notices"  # in the run folder: messages that could not be sent
LOOPBACK = ("127.0.0.1", "localhost", "::1")


def address() -> str:
    """The one address that messages go to.

    Raises:
        InputError: there is none, or it is not https.
    """
    path = ADDRESS.expanduser()
    try:
        found = path.read_text(encoding="utf-8").strip()
    except OSError:
        raise InputError(f"notify=[webhook]: write the address into {path}, readable by you alone.") from None
    parts = urlsplit(found)
    if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in LOOPBACK):
        raise InputError(f"notify=[webhook]: the address in {path} must begin with https://.")
    return found


def message(run: RunFolder, state: str) -> dict[str, Any]:
    """What is told of a run."""
    record = run.read()
    rows = run.read_metrics() if run.metrics.exists() else []
    return {
        "run": run.path.name,
        "state": state,
        "job": str((record.get("job_ids") or [None])[-1]),
        "cluster": record.get("cluster"),
        "step": rows[-1].get("step") if rows else record.get("step"),
        "steps": record.get("steps"),
        "time": round(time.time()),
    }


def tell(run: RunFolder, state: str | None = None) -> bool:
    """Send how a run goes, by default the state in run.json; returns whether it was sent at once."""
    told = message(run, state or str(run.read().get("state")))
    if _post(told):
        return True
    _leave(run.path / FOLDER, told)
    return False


@dataclass
class Pass:
    """What one pass over a folder of runs did.

    Attributes:
        sent: messages that were sent, as "run: state".
        left: messages that stay in run folders, the same way.
        stalled: names of runs that are found to be stalled, in this pass for the first time.
    """

    sent: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    stalled: list[str] = field(default_factory=list)


def pending(runs: Path) -> Pass:
    """Send what was left in this user's run folders, and tell of stalled runs, of each once.

    After the first message that cannot be sent no other is tried: the address would be as silent for them.

    Args:
        runs: the folder that has the run folders; two passes over it never run beside each other.
    """
    done = Pass()
    with contextlib.suppress(files.Taken), files.locked(runs):
        for path in sorted(runs.glob("*/run.json")):
            with contextlib.suppress(OSError, InputError):  # one that cannot be read keeps no other back
                if path.stat().st_uid == os.geteuid():
                    _tend(RunFolder(path.parent), done)
    return done


def _tend(run: RunFolder, done: Pass) -> None:
    """One run's part of a pass."""
    folder = run.path / FOLDER
    marker, channels = folder / "stalled", run.read().get("notify", ["webhook"])  # runs of before
    if not is_stalled(run):
        marker.unlink(missing_ok=True)
    elif channels and not marker.exists():
        folder.mkdir(mode=0o700, exist_ok=True)
        marker.touch()
        done.stalled.append(run.path.name)
        if "webhook" in channels:
            _leave(folder, message(run, "stalled"))
        if "mail" in channels:
            _mail(run)
    for notice in sorted(folder.glob("*.json")):
        told = json.loads(notice.read_text(encoding="utf-8"))
        if not done.left and _post(told):
            notice.unlink()
            done.sent.append(f"{run.path.name}: {told['state']}")
        else:
            done.left.append(f"{run.path.name}: {told['state']}")


def _leave(folder: Path, told: dict[str, Any]) -> None:
    folder.mkdir(mode=0o700, exist_ok=True)
    files.write(folder / f"{told['time']}-{told['state']}.json", json.dumps(told))


def is_stalled(run: RunFolder, seconds: float = STALLED_SECONDS) -> bool:
    """Whether a run that says it is running has logged nothing for a long time.

    That is half an hour, or five times what it took from one logged step to the next where that is longer.
    Before the first step, the time counts from the start of the attempt.
    """
    record = run.read()
    if record.get("state") != "running":
        return False
    rows = run.read_metrics()[-2:]
    times = [float(row["time"]) for row in rows if "time" in row]
    usual = times[1] - times[0] if len(times) == 2 else 0.0
    last = run.metrics.stat().st_mtime if run.metrics.exists() else 0.0
    last = max(last, float(record.get("updated", 0.0)))
    return time.time() - last > max(seconds, 5 * usual)


def _mail(run: RunFolder) -> None:
    """Mail that a run is stalled, with the program that Slurm mails with: `MailProg -s SUBJECT ADDRESS`."""
    told = run.read()
    address = told.get("mail_user") or getpass.getuser()
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        shown = subprocess.run(
            ["scontrol", "show", "config"],
            env=command.environment(),
            capture_output=True,
            timeout=30,
        )
        found = re.search(rb"MailProg\s*=\s*(\S+)", shown.stdout)
        program = found[1].decode() if found else "mail"
        subject = f"{run.path.name}: stalled, nothing was logged for a long time"
        subprocess.run([program, "-s", subject, address], input=b"", timeout=60, check=False)


def _post(told: dict[str, Any]) -> bool:
    try:
        request = urllib.request.Request(
            address(), json.dumps(told).encode(), {"Content-Type": "application/json"}, method="POST"
        )
        with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as answer:
            return 200 <= answer.status < 300
    except (InputError, OSError, ValueError):  # no network on this node, or none that leads there
        return False


def main() -> int:
    """Read the command line; the exit status is 0 whatever becomes of a message from a job."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--pending", type=Path, metavar="RUNS", help="the same as elm-queue notify RUNS")
    parser.add_argument("run", type=Path, nargs="?")
    parser.add_argument("state", nargs="?", help="by default the one in run.json")
    given = parser.parse_args()
    if given.pending:
        return int(bool(pending(given.pending).left))
    if given.run:
        tell(RunFolder(given.run), given.state)
    return 0


if __name__ == "__main__":
    sys.exit(main())
