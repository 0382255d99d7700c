"""Does tuning on the published spreadsheet teach anything? SFT and DPO of a model over three seeds.

    python tests/bench/tune_seeds.py <spreadsheet.xlsx> [--source pretrain-tiny-sample] [key=value …]

Run it where runs/ holds the pretrained base. Settings are those of conf/tune; further keys go to every run.
Prints counts and figures, never a text of the spreadsheet; exit status 1 when a stage teaches too little:
SFT must lower the validation loss by 5% with every seed, DPO must raise the margin on pairs held out
beyond the spread of the seeds.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SEEDS = (1, 2, 3)
HELD_OUT = {"sft": 0.1, "dpo": 0.2}


def tune(stage: str, seed: int, source: str, sheet: Path, more: list[str]) -> tuple[list[dict], dict]:
    """One run through the launcher; its validations and its counts."""
    run = Path("runs") / f"seeds-{stage}-{seed}"
    words = [f"run.name={run.name}", f"source={source}", f"stage={stage}", f"tune.seed={seed}"]
    words += [f"{stage}.files=['{sheet}']", f"{stage}.valid_fraction={HELD_OUT[stage]}", *more]
    command = [sys.executable, str(ROOT / "launch" / "finetune.py"), *words]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    rows = [json.loads(line) for line in (run / "valid.jsonl").read_text().splitlines()]
    return rows, json.loads((run / "run.json").read_text())["data_counts"]


def learns(stage: str, gains: list[float]) -> bool:
    """Whether the gains are what was promised of the stage."""
    if stage == "sft":
        return min(gains) >= 0.05
    return min(gains) > statistics.stdev(gains)


def main() -> int:
    """Run both stages for three seeds and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sheet", type=Path)
    parser.add_argument("--source", default="pretrain-tiny-sample")
    parser.add_argument("more", nargs="*")
    args = parser.parse_args()
    good = True
    for stage in HELD_OUT:
        gains = []
        for seed in SEEDS:
            rows, counts = tune(stage, seed, args.source, args.sheet.resolve(), args.more)
            first, last = rows[0], rows[-1]
            gain = 1 - last["loss"] / first["loss"] if stage == "sft" else last["margin"] - first["margin"]
            gains.append(gain)
            losses = " ".join(f"{row['loss']:.4f}" for row in rows)
            print(f"{stage} seed {seed}: loss {losses}, gain {gain:.4f}", flush=True)
        good &= learns(stage, gains)
        mean, spread = statistics.mean(gains), statistics.stdev(gains)
        print(
            f"{stage}: gain {mean:.4f}, spread {spread:.4f}, {'ok' if learns(stage, gains) else 'too little'}"
        )
        print(f"{stage}: {counts}", flush=True)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
