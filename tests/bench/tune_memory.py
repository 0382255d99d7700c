"""Peak memory of tuning an adapter, ours and PEFT's, on the same model and batches.

    python tests/bench/tune_memory.py [--hidden 512 --layers 8 --vocab 8192 --rows 8 --length 256 --steps 3]

Each side runs in a process of its own on one thread; what counts is the largest resident set after the
imports, less what the imports hold. The base is counted in both.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

SETTINGS = {"r": 64, "alpha": 128, "targets": ["q_proj", "v_proj"]}


def status(key: str) -> int:
    """A field of this process's memory status, bytes."""
    found = re.search(rf"{key}:\s*(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    return int(found[1]) * 1024


def reset_peak() -> int:
    """Forget the peak so far; the resident bytes now."""
    Path("/proc/self/clear_refs").write_text("5")
    return status("VmRSS")


def make_base(folder: Path, args: argparse.Namespace) -> None:
    """A Llama with random weights as a Hugging Face folder."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=args.vocab,
        hidden_size=args.hidden,
        intermediate_size=args.hidden * 8 // 3 // 16 * 16,
        num_hidden_layers=args.layers,
        num_attention_heads=8,
        num_key_value_heads=8,
        max_position_embeddings=args.length,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=3,
    )
    LlamaForCausalLM(config).save_pretrained(folder)


def batch(args: argparse.Namespace) -> tuple:
    """ids [rows, length + 1] and which of them are answers."""
    import torch

    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(4, args.vocab, (args.rows, args.length + 1), generator=generator)
    answer = torch.zeros_like(ids, dtype=torch.bool)
    answer[:, args.length // 3 :] = True
    return ids, answer


def ours(folder: Path, args: argparse.Namespace) -> int:
    """Peak bytes of the trainer's own model, loss and optimizer."""
    from elm_megatron.model import device as devices

    device = devices.prepare("cpu", 0)
    import numpy as np
    import torch

    from conf.schema.parallel import ParallelConfig
    from conf.schema.tune import TuneConfig
    from elm_megatron.chat.examples import Example
    from elm_megatron.engine import distributed
    from elm_megatron.engine.train import Trainer
    from elm_megatron.model import hf_config
    from elm_megatron.run.world import World
    from elm_megatron.sources.base import Base
    from elm_megatron.sources.source import ModelSource
    from elm_megatron.sources.weights import FolderWeights
    from elm_megatron.tune.rows import Rows
    from elm_megatron.tune.sft import Sft
    from tests.elm_megatron.tune.configs import finetune_config

    torch.set_num_threads(1)
    ids, answer = batch(args)
    examples = [Example(i.numpy().astype(np.int32), a.numpy(), "") for i, a in zip(ids, answer, strict=True)]
    model = hf_config.model_config(folder, "bench")

    class Data:
        """Rows in place of instruction files."""

        train = valid = Rows(examples, args.length, args.rows, 1, 3)
        counts, sha256 = {}, ""

        def summary(self) -> str:
            return f"{len(self.train)} rows"

    class Bench(Sft):
        def open_base(self) -> None:
            self.source = ModelSource(str(folder), folder, None)
            self.base = Base(self.source, FolderWeights(folder), None)

        def read_corpus(self, tokenizer: object) -> Data:
            return Data()

    tune = {**SETTINGS, "alpha": 128.0, "steps": args.steps, "seq_length": args.length, "dropout": 0.05}
    tune |= {"global_batch_size": args.rows, "micro_batch_size": args.rows}
    config = finetune_config(folder.parent / "run", folder)
    config.model, config.tune = model, TuneConfig(epochs=None, **tune)
    world = World.single(folder.parent)
    distributed.join(world, device, ParallelConfig())
    distributed.seed_everything(1)
    held = reset_peak()
    trainer = Trainer(Bench(config, world, device))
    for _ in range(args.steps):
        trainer.train_step()
    peak = status("VmHWM") - held
    distributed.leave()
    return peak


def theirs(folder: Path, args: argparse.Namespace) -> int:
    """Peak bytes of PEFT on the same base."""
    import peft
    import torch
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(1)
    ids, answer = batch(args)
    labels = ids.masked_fill(~answer, -100)[:, 1:]
    held = reset_peak()
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    lora = peft.LoraConfig(r=64, lora_alpha=128, lora_dropout=0.05, target_modules=SETTINGS["targets"])
    model = peft.get_peft_model(model, lora).train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=2e-5)
    for _ in range(args.steps):
        logits = model(ids[:, :-1]).logits
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1).float(), labels.flatten())
        del logits
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return status("VmHWM") - held


def main() -> None:
    """Measure both and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    sizes = {"hidden": 512, "layers": 8, "vocab": 8192, "rows": 8, "length": 256, "steps": 3}
    for name, default in sizes.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--side", choices=("ours", "theirs"))
    parser.add_argument("--folder", type=Path)
    args = parser.parse_args()
    if args.side:
        print(json.dumps({"ours": ours, "theirs": theirs}[args.side](args.folder, args)))
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "base"
        make_base(folder, args)
        words = [f"--{name}={getattr(args, name)}" for name in sizes]
        peaks = {}
        for side in ("ours", "theirs"):
            command = [sys.executable, __file__, *words, "--side", side, "--folder", str(folder)]
            env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
            out = subprocess.run(command, capture_output=True, text=True, check=True, env=env)
            peaks[side] = int(out.stdout.splitlines()[-1])
    print(json.dumps({**peaks, "ratio": round(peaks["ours"] / peaks["theirs"], 3)}))


if __name__ == "__main__":
    main()
