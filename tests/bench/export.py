"""Export of `small` and `large` on this machine: python tests/bench/export.py [--model small] [--dtype fp32]

Makes a checkpoint of random weights, exports it in a process of its own, gate included, and prints time, MB/s
and peak resident memory beside the speed at which the same bytes are plainly copied. Each figure is the
median of the rounds, which are interleaved.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from omegaconf import OmegaConf

ROOT = Path(__file__).resolve().parents[2]
EXPORT = """
import json, resource, sys
from pathlib import Path
from conf.schema.pretrain import RunConfig
from conf.schema.hf import ExportConfig
from elm_megatron.hf.job import Export
from elm_megatron.run.folder import RunFolder
from elm_megatron.run.world import World
source, target, dtype, form = sys.argv[1:]
RunFolder(target).create()
Export(ExportConfig(RunConfig("bench", target), source, dtype=dtype, format=form))(World.single(Path(target)))
figures = RunFolder(target).read()["export"]
figures["peak"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
print(json.dumps(figures))
"""


def make_run(folder: Path, size: str) -> None:
    """A run folder with random weights at step 0, and the sample corpus' tokenizer."""
    import torch
    import yaml

    from conf import typed
    from conf.schema.model import ModelConfig
    from conf.schema.preprocess import TokenizerConfig
    from data_prep.manifest import TokenizerInfo
    from data_prep.tokenizer import Tokenizer
    from data_prep.train_tokenizer import to_json, train
    from elm_megatron.checkpoint.shards import Shard, write_file
    from elm_megatron.hf.passages import passages
    from elm_megatron.model import hf_config, hf_names

    values = OmegaConf.to_container(OmegaConf.load(ROOT / "conf" / "model" / f"{size}.yaml"))
    values.pop("defaults")
    model = typed.build(ModelConfig, {**values, "vocab_size": 32000}, "model")
    step, tokenizer = folder / "checkpoints" / "step-00000000", folder / "tokenizer"
    step.mkdir(parents=True)
    tokenizer.mkdir()
    (folder / "config.yaml").write_text(yaml.safe_dump({"model": vars(model), "run": {"name": size}}))
    torch.manual_seed(0)
    files = {}
    for number, part in enumerate(hf_names.parts(model)):
        shards = []
        for name, shape in hf_names.megatron_shapes(model, part).items():
            data = torch.ones(shape) if len(shape) == 1 else torch.randn(shape) * 0.02
            shards.append(Shard.whole(name, data))
        files[f"part-{number}.safetensors"] = write_file(step / f"part-{number}.safetensors", shards)
    (step / "manifest.json").write_text(json.dumps({"schema": 1, "step": 0, "files": files}))
    pieces_model = train(passages().values(), TokenizerConfig(vocab_size=400))
    (tokenizer / "tokenizer.model").write_bytes(pieces_model)
    (tokenizer / "tokenizer.json").write_text(to_json(Tokenizer(pieces_model)))
    settings = hf_config.config_json(model, TokenizerInfo("", 32000, 1, 2, 3), "fp32")
    (tokenizer / "config.json").write_text(json.dumps(settings))


def copy_seconds(source: Path, target: Path) -> float:
    """Time to copy a file or the files of a folder, written through to the disk."""
    files = [source] if source.is_file() else sorted(source.iterdir())
    target.mkdir()
    began = time.perf_counter()
    for file in files:
        shutil.copyfile(file, target / file.name)
        with (target / file.name).open("rb") as copied:
            os.fsync(copied.fileno())
    seconds = time.perf_counter() - began
    shutil.rmtree(target)
    return seconds


def measure(size: str, dtype: str, form: str, rounds: int, scratch: Path) -> None:
    """Print one row per model."""
    run, target = scratch / "run", scratch / "export"
    make_run(run, size)
    writes, gates, copies, peaks = [], [], [], []
    for _ in range(rounds):
        shutil.rmtree(target, ignore_errors=True)
        command = [sys.executable, "-c", EXPORT, str(run), str(target), dtype, form]
        out = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
        figures = json.loads(out.splitlines()[-1])
        writes.append(figures["write_seconds"])
        gates.append(figures["gate_seconds"])
        peaks.append(figures["peak"])
        copies.append(copy_seconds(target / figures["path"], scratch / "copy"))
    size_mb, write, copy = figures["bytes"] / 1e6, statistics.median(writes), statistics.median(copies)
    bound = 1.3 * figures["bytes"] + 1e9
    print(
        f"{size} {form} {dtype}: {size_mb:,.0f} MB; write {write:.1f} s, {size_mb / write:,.0f} MB/s; "
        f"gate {statistics.median(gates):.1f} s, difference {figures['gate']['rounded']:.1e}; "
        f"plain copy {copy:.1f} s, {size_mb / copy:,.0f} MB/s; "
        f"peak memory {max(peaks) / 1e9:.2f} GB, allowed {bound / 1e9:.2f} GB",
        flush=True,
    )
    if max(peaks) > bound:
        raise SystemExit("the export took more memory than allowed")


def main() -> None:
    """Parse the command line and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", nargs="+", default=["small", "large"])
    parser.add_argument("--dtype", default="fp32")
    parser.add_argument("--format", default="hf")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--scratch", default=None, help="folder with room for three times the weights")
    options = parser.parse_args()
    for size in options.model:
        with tempfile.TemporaryDirectory(prefix="elm-export-", dir=options.scratch) as scratch:
            measure(size, options.dtype, options.format, options.rounds, Path(scratch))


if __name__ == "__main__":
    main()
