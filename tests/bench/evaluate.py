"""What evaluating every checkpoint costs the training: python tests/bench/evaluate.py [--rounds 5]

The tiny model trains here with and without `eval.every_checkpoint=true`, in pairs that take turns in order;
the machine is the same one, as on a laptop. Shown are the medians of the seconds per step while an evaluation
is under way, beside the same steps of the undisturbed run, of the whole training, and of one evaluation. On
Slurm the evaluations are other jobs, and what is left in the run is one `ls` every five seconds.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
KEYS = ["train.steps=60", "train.save_every=15", "train.eval_every=1000", "parallel.tp=2"]


def rows(run: Path) -> list[dict[str, float]]:
    """The logged steps."""
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


def train(folder: Path, name: str, *keys: str) -> list[dict[str, float]]:
    """Train; returns the logged steps."""
    command = [sys.executable, str(ROOT / "launch/pretrain.py"), *KEYS, f"run.name={name}", *keys]
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
    return rows(folder / "runs" / name)


def evaluated(run: Path) -> list[tuple[float, float]]:
    """When each evaluation began and ended, UTC epoch seconds."""
    found = []
    for path in sorted((run / "evaluations").glob("step-*.json")):
        result = json.loads(path.read_text(encoding="utf-8"))
        found.append((result["time"], result["time"] + result["seconds"]))
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    beside, same_alone, whole, alone, lengths = [], [], [], [], []
    with tempfile.TemporaryDirectory(prefix="elm-bench-") as temporary:
        folder = Path(temporary)
        preprocess = [sys.executable, str(ROOT / "launch/preprocess.py")]
        subprocess.run(preprocess, cwd=folder, check=True, stdout=subprocess.DEVNULL)
        for number in range(rounds):
            pair: dict[str, list[dict[str, float]]] = {}
            names = ["with", "without"] if number % 2 else ["without", "with"]
            for name in names:
                asked = f"eval.every_checkpoint={str(name == 'with').lower()}"
                pair[name] = train(folder, f"{name}-{number}", asked)
            spans = evaluated(folder / "runs" / f"with-{number}")
            lengths += [end - began for began, end in spans]
            steps = [
                at
                for at, row in enumerate(pair["with"])
                if any(began < row["time"] < end for began, end in spans)
            ]
            beside += [pair["with"][at]["step_seconds"] for at in steps]
            same_alone += [pair["without"][at]["step_seconds"] for at in steps]
            for name, sums in (("with", whole), ("without", alone)):
                sums.append(pair[name][-1]["time"] - pair[name][0]["time"])
            print(f"pair {number + 1}: {alone[-1]:.1f} s without, {whole[-1]:.1f} s with", flush=True)
    if beside:
        one, other = statistics.median(beside), statistics.median(same_alone)
        print(f"a step beside an evaluation: {one:.3f} s, undisturbed {other:.3f} s ({one / other - 1:+.1%})")
    one, other = statistics.median(whole), statistics.median(alone)
    print(f"the training: {one:.1f} s with, {other:.1f} s without ({one / other - 1:+.1%})")
    print(f"one evaluation: {statistics.median(lengths):.1f} s, {len(lengths) // rounds} of them a run")


if __name__ == "__main__":
    main()
