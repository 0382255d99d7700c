"""Tell a person how a run goes: `notify=[mail,webhook]` on a Slurm job.

    python -m slurm.jobs.notify RUN STATE        what the batch script calls
    python -m slurm.jobs.notify --pending RUNS   for cron on a login node

`mail` is Slurm's own mail (cluster.mail_user, cluster.mail_type). `webhook` posts a small JSON object to the
one address in `~/.config/elm-suite/webhook`, a file of the owner alone: an address may hold a secret, so that
it is written into no run. The body names the run and its state; it has no text of exceptions, paths or
settings. A message that cannot be sent never ends a run: it stays in the run folder, and `--pending` sends it
later. `--pending` also tells of stalled runs.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from conf.errors import InputError
from data_prep import files
from elm_megatron.run.folder import RunFolder

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
    folder = run.path / FOLDER
    folder.mkdir(mode=0o700, exist_ok=True)
    files.write(folder / f"{told['time']}-{told['state']}.json", json.dumps(told))
    return False


def pending(runs: Path) -> int:
    """Send what was left in the run folders, and tell of stalled runs once; returns how many stay left."""
    left = 0
    for record in sorted(runs.glob("*/run.json")):
        run = RunFolder(record.parent)
        folder = run.path / FOLDER
        if is_stalled(run) and not (folder / "stalled").exists():
            folder.mkdir(mode=0o700, exist_ok=True)
            (folder / "stalled").touch()
            tell(run, "stalled")
        for notice in sorted(folder.glob("*.json")):
            if _post(json.loads(notice.read_text(encoding="utf-8"))):
                notice.unlink()
            else:
                left += 1
    return left


def is_stalled(run: RunFolder, seconds: float = STALLED_SECONDS) -> bool:
    """Whether a run that says it is running has logged nothing for a long time."""
    record = run.read()
    if record.get("state") != "running" or not run.metrics.exists():
        return False
    last = max(run.metrics.stat().st_mtime, float(record.get("updated", 0.0)))
    return time.time() - last > seconds


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
    parser.add_argument("--pending", type=Path, metavar="RUNS", help="send what was left below this folder")
    parser.add_argument("run", type=Path, nargs="?")
    parser.add_argument("state", nargs="?", help="by default the one in run.json")
    given = parser.parse_args()
    if given.pending:
        left = pending(given.pending)
        if left:
            print(f"{left} messages could not be sent; they stay in the run folders.", file=sys.stderr)
        return int(left > 0)
    if given.run:
        tell(RunFolder(given.run), given.state)
    return 0


if __name__ == "__main__":
    sys.exit(main())
