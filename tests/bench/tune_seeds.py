"""Does tuning on the published spreadsheet teach anything? SFT and DPO of `tiny` over three seeds.

    python tests/bench/tune_seeds.py <spreadsheet.xlsx> [--source pretrain-tiny-sample]

Run it where runs/ holds the pretrained base. Prints counts and figures, never a text of the spreadsheet.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
COMMON = ["tune.template=dialogue", "tune.log_every=10"]
STAGES = {
    "sft": ["tune.steps=50", "tune.eval_every=50", "tune.save_every=50"],
    "dpo": [
        *("tune.steps=40", "tune.eval_every=40", "tune.save_every=40", "tune.lr=1e-3", "tune.min_lr=1e-4"),
        "dpo.valid_fraction=0.2",
    ],
}


def tune(stage: str, seed: int, source: str, sheet: Path) -> tuple[list[dict], dict]:
    """One run through the launcher; its validations and its counts."""
    run = Path("runs") / f"seeds-{stage}-{seed}"
    words = [f"run.name={run.name}", f"source={source}", f"stage={stage}", f"tune.seed={seed}"]
    words += [f"{stage}.files=['{sheet}']", *COMMON, *STAGES[stage]]
    command = [sys.executable, str(ROOT / "launch" / "finetune.py"), *words]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    rows = [json.loads(line) for line in (run / "valid.jsonl").read_text().splitlines()]
    return rows, json.loads((run / "run.json").read_text())["data_counts"]


def main() -> None:
    """Run both stages for three seeds and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sheet", type=Path)
    parser.add_argument("--source", default="pretrain-tiny-sample")
    args = parser.parse_args()
    for stage in STAGES:
        gains = []
        for seed in (1, 2, 3):
            rows, counts = tune(stage, seed, args.source, args.sheet.resolve())
            first, last = rows[0], rows[-1]
            gain = 1 - last["loss"] / first["loss"] if stage == "sft" else last["margin"] - first["margin"]
            gains.append(gain)
            print(
                stage, seed, f"loss {first['loss']:.4f} -> {last['loss']:.4f}", f"gain {gain:.4f}", flush=True
            )
        print(stage, f"mean {statistics.mean(gains):.4f}, spread {statistics.stdev(gains):.4f}", counts)


if __name__ == "__main__":
    main()
