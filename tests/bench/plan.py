"""The time model on CPUs: fitted on two layouts, it predicts three others. Run on a quiet machine.

    python tests/bench/plan.py [--rounds 5] [--steps 6]

One rank and dp=2 are measured and fix two numbers: how fast a core is where a rank has all of them, and where
it has one. tp=2, pp=2 and tp=2·pp=2 are then predicted by elm_megatron/planner/performance.py and measured.
The layouts take turns. Printed are medians of the rounds, and predicted over measured; each is to be within
20%.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from conf import compose  # noqa: E402
from conf.schema.pretrain import PretrainConfig  # noqa: E402
from elm_megatron.planner.inputs import device_of, layout_of, shape_of  # noqa: E402
from elm_megatron.planner.performance import step_time  # noqa: E402
from tests.elm_megatron.small_dataset import make_dataset  # noqa: E402

MODEL = (
    "model=tiny", "model.hidden_size=512", "model.ffn_hidden_size=1280", "model.num_layers=4",
    "model.num_attention_heads=4", "model.vocab_size=32000", "train.seq_length=64",
    "train.global_batch_size=32", "train.micro_batch_size=8", "train.precision=fp32",
)  # fmt: skip
LAYOUTS = {  # ranks, and keys; the first two are fitted
    "one rank": (1, ()),
    "dp2": (2, ()),
    "tp2": (2, ("parallel.tp=2",)),
    "pp2": (2, ("parallel.pp=2",)),
    "tp2 pp2": (4, ("parallel.tp=2", "parallel.pp=2")),
}
FITTED = ("one rank", "dp2")
WITHIN = 0.20
WARM = 2  # steps that do not count


def keys_of(name: str) -> list[str]:
    """A layout's overrides."""
    ranks, keys = LAYOUTS[name]
    return [*MODEL, f"cluster.tasks_per_node={ranks}", *keys]


def measure(name: str, work: Path, data: Path, number: int, steps: int) -> float:
    """Median seconds of a step of one run, made as a person makes it."""
    run = work / f"{name.replace(' ', '-')}-{number}"
    command = [
        sys.executable, str(ROOT / "launch" / "pretrain.py"), *keys_of(name), f"run.dir={run}",
        f"data.dir={data}", f"train.steps={WARM + steps}", "train.warmup_steps=1", "train.log_every=1",
        "train.eval_batches=1", "train.eval_every=1000", "train.save_every=1000",
    ]  # fmt: skip
    subprocess.run(command, cwd=work, check=True, stdout=subprocess.DEVNULL)
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return statistics.median(row["step_seconds"] for row in rows[WARM:])


def predict(name: str) -> float:
    """Seconds of a step by the model alone."""
    found: list[PretrainConfig] = []
    compose.run("pretrain", PretrainConfig, found.append, keys_of(name))
    (config,) = found
    return step_time(shape_of(config.model), layout_of(config), device_of(config)).total


def main() -> int:
    """Measure in turns, fit, predict, compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=6)
    arguments = parser.parse_args()
    taken: dict[str, list[float]] = {name: [] for name in LAYOUTS}
    with tempfile.TemporaryDirectory(prefix="elm-plan-") as folder:
        work = Path(folder)
        data = make_dataset(work / "data", train_tokens=60_000)
        for number in range(arguments.rounds):
            for name, times in taken.items():
                times.append(measure(name, work, data, number, arguments.steps))
    measured = {name: statistics.median(times) for name, times in taken.items()}
    # All cores of a rank, and one core of a rank, are as much slower than the model says.
    whole, single = (measured[name] / predict(name) for name in FITTED)
    worst = 0.0
    print(f"{os.cpu_count()} cores, {arguments.rounds} rounds, load {os.getloadavg()[0]:.1f} at the end")
    print(f"{'layout':10} {'measured, s':>12} {'spread':>14} {'predicted, s':>13} {'error':>7}")
    for name, seconds in measured.items():
        factor = whole if name == FITTED[0] else single
        predicted = factor * predict(name)
        error = predicted / seconds - 1
        spread = f"{min(taken[name]):.3f}–{max(taken[name]):.3f}"
        said = "fitted" if name in FITTED else f"{error:+.0%}"
        print(f"{name:10} {seconds:12.3f} {spread:>14} {predicted:13.3f} {said:>7}")
        worst = max(worst, 0.0 if name in FITTED else abs(error))
    print(f"worst {worst:.0%}, to be within {WITHIN:.0%}")
    return int(worst > WITHIN)


if __name__ == "__main__":
    sys.exit(main())
