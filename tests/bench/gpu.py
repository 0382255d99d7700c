"""Evidence of the GPU path in one call: python tests/bench/gpu.py [--small] [--out DIR]

Needs one NVIDIA GPU and no network; takes under nine minutes on an H100. Writes `gpu.json`, `gpu.md` and
profiles.

A  kernels    the self-checks of every kernel, and cross entropies of a real size beside fp32: ratio, cosine,
time B  paths      seven ways to train on the GPU beside the CPU: losses and gradient norms C  large
`model=large` with torch's and Transformer Engine's layers: step time, MFU, memory beside the planner D
lifecycle  save and resume, LoRA with packing, generate, and export from a GPU's checkpoint

Each part runs in a process of its own with a time limit, so that a failure costs no other part. `--small`
runs all of them on the CPU in this process, as the tests do.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT)]
BUDGET_SECONDS = 430  # no variant of `large` starts later
PATHS = ("fp32", "bf16", "recompute", "selective", "z-loss", "documents", "masked")
VARIANTS = ("torch mb4", "te mb4", "te mb16", "te mb4 z-loss", "te mb4 documents", "te mb4 fp8")
SMALL_PATHS, SMALL_VARIANTS = ("documents",), ("torch mb4",)


def part(name: str, argument: str, small: bool, out: Path) -> dict[str, Any]:
    """One part, in this process."""
    from tests.bench.gpu_parts import kernels, large, lifecycle, paths

    if name == "kernels":
        return kernels.measure(small)
    with tempfile.TemporaryDirectory(prefix=f"elm-gpu-{name}-", ignore_cleanup_errors=True) as folder:
        work = Path(folder)
        if name == "paths":
            return paths.measure(argument, SMALL_PATHS if small else PATHS, 2 if small else 10, work)
        if name == "large":
            return large.measure(argument, small, work, out)
        return lifecycle.measure("cpu" if small else "gpu", work)


class Child:
    """A part in a process of its own."""

    def __init__(self, name: str, argument: str, limit: float, out: Path):
        self.label, self.until = f"{name} {argument}".strip(), time.monotonic() + limit
        hidden = {"CUDA_VISIBLE_DEVICES": ""} if argument == "cpu" else {}
        command = [sys.executable, __file__, "--part", name, "--argument", argument, "--out", str(out)]
        errors = (out / f"errors-{self.label.replace(' ', '-')}.txt").open("w")
        env = {**os.environ, "OMP_NUM_THREADS": "4", **hidden}
        self.process = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=errors, text=True)

    def result(self) -> dict[str, Any]:
        """What the part found, or how it failed."""
        try:
            out, _ = self.process.communicate(timeout=max(5.0, self.until - time.monotonic()))
            return json.loads(out.strip().splitlines()[-1])
        except (subprocess.TimeoutExpired, IndexError, ValueError) as error:
            self.process.kill()
            return {"failed": f"{type(error).__name__}; see errors-{self.label.replace(' ', '-')}.txt"}


def everything(out: Path) -> dict[str, Any]:
    """All parts on the GPU, the CPU's share of B beside them."""
    began, found = time.monotonic(), {}
    on_cpu = Child("paths", "cpu", 300, out)
    for name, argument, limit in (("kernels", "", 90), ("paths", "gpu", 150), ("lifecycle", "", 90)):
        child = Child(name, argument, limit, out)
        found[child.label] = child.result()
    for variant in VARIANTS:
        if time.monotonic() - began < BUDGET_SECONDS:
            child = Child("large", variant, 75, out)
            found[child.label] = child.result()
    found["paths cpu"] = on_cpu.result()
    return found


def everything_small(out: Path) -> dict[str, Any]:
    """All parts on the CPU, in this process; `paths` twice, so that they must agree."""
    wanted = [("kernels", ""), ("paths", "cpu"), ("lifecycle", ""), *(("large", v) for v in SMALL_VARIANTS)]
    found = {f"{name} {argument}".strip(): part(name, argument, True, out) for name, argument in wanted}
    return {**found, "paths gpu": found["paths cpu"]}


def markdown(found: dict[str, Any]) -> str:
    """The findings as tables."""
    lines = ["| kernel | provider | checked |", "|---|---|---|"]
    for row in found["kernels"].get("checked", []):
        lines.append(f"| {row['operation']} | {row['provider']} | {'yes' if row['checked'] else 'no'} |")
    lines += ["", "| cross entropy | gradient: ratio | cosine | ms |", "|---|---|---|---|"]
    for name, row in found["kernels"].get("cross entropy", {}).items():
        cells = (
            f"{row[key]:.4g}" if key in row else row.get("failed", "") for key in ("ratio", "cosine", "ms")
        )
        lines.append(f"| {name} | {' | '.join(cells)} |")
    lines += ["", "| path | loss, GPU beside CPU | gradient norm |", "|---|---|---|"]
    for name, row in found["paths gpu"].items():
        other = found["paths cpu"].get(name, {}) if isinstance(row, dict) else {}
        lines.append(f"| {name} | {' | '.join(_apart(row, other, key) for key in ('loss', 'grad_norm'))} |")
    lines += ["", "| large | s a step | tokens/s | MFU | GiB | GiB planned |", "|---|---|---|---|---|---|"]
    for name, row in found.items():
        if name.startswith("large "):
            lines.append(f"| {name.removeprefix('large ')} | {_speed(row)} |")
    lines += ["", "| lifecycle | |", "|---|---|"]
    lines += [f"| {what} | {outcome} |" for what, outcome in found["lifecycle"].items()]
    return "\n".join(lines) + "\n"


def _apart(row: Any, other: dict[str, Any], key: str) -> str:
    if key not in other or key not in row:
        return "failed"
    return f"{max(abs(a - b) / abs(b) for a, b in zip(row[key], other[key], strict=True)):.1e}"


def _speed(row: dict[str, Any]) -> str:
    if "failed" in row:
        return f"{row['failed']} | | | |"
    mfu = "" if row["mfu"] is None else f"{row['mfu']:.1%}"
    speed = f"{row['step_seconds']:.3f} | {row['tokens_per_second']:,.0f} | {mfu}"
    return f"{speed} | {row['memory_gib']:.1f} | {row['planned_gib']:.1f}"


def main() -> None:
    """Run every part, or the one of a child process."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--small", action="store_true", help="on the CPU, tiny sizes")
    parser.add_argument("--out", type=Path, default=Path(os.environ.get("OUT", "gpu-evidence")))
    parser.add_argument("--part", help=argparse.SUPPRESS)
    parser.add_argument("--argument", default="", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    out = chosen.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    if chosen.part:
        try:
            found = part(chosen.part, chosen.argument, False, out)
        except Exception as error:
            traceback.print_exc()
            found = {"failed": f"{type(error).__name__}: {error}"[:300]}
        print("\n" + json.dumps(found))
        return
    found = everything_small(out) if chosen.small else everything(out)
    (out / "gpu.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    (out / "gpu.md").write_text(markdown(found), encoding="utf-8")
    print(markdown(found))


if __name__ == "__main__":
    main()
