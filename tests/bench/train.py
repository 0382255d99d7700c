"""Training speed beside its peers, in one run: python tests/bench/train.py [--rounds 7] [--steps 2]

Contenders train the same model (hidden 512, ffn 1280, 4 layers, 4 heads, vocabulary 32,000) on the same batch
(8 × 256 tokens) with AdamW and clipping on two threads, taking turns; medians of the rounds and their spread
(first to third quartile) are printed, with ratios. litgpt takes part where it can be imported. MFU is against
a ceiling measured on this model's own matrix products, in the same turns. What tp=2 could gain at most is
shown by the same training with its all-reduces left out.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SIZES = {"hidden": 512, "ffn": 1280, "layers": 4, "heads": 4, "vocab": 32_000}
BATCH, SEQ = 8, 256
CONTENDERS = {  # name: (kind, precision, ranks, threads of a rank)
    "ours fp32": ("ours", "fp32", 1, 2),
    "huggingface fp32": ("huggingface", "fp32", 1, 2),
    "litgpt fp32": ("litgpt", "fp32", 1, 2),
    "ours fp32 tp=2": ("ours", "fp32", 2, 1),
    "unreduced fp32 tp=2": ("unreduced", "fp32", 2, 1),
    "ceiling fp32": ("ceiling", "fp32", 1, 2),
    "ceiling fp32 tp=2": ("ceiling", "fp32", 2, 1),
    "ours bf16": ("ours", "bf16", 1, 2),
    "huggingface bf16": ("huggingface", "bf16", 1, 2),
    "ours bf16 tp=2": ("ours", "bf16", 2, 1),
    "unreduced bf16 tp=2": ("unreduced", "bf16", 2, 1),
    "ceiling bf16": ("ceiling", "bf16", 1, 2),
    "ceiling bf16 tp=2": ("ceiling", "bf16", 2, 1),
}
RATIOS = [  # (name, peer, target)
    ("ours fp32", "huggingface fp32", 1.10),
    ("ours fp32", "litgpt fp32", 1.05),
    ("ours bf16", "huggingface bf16", 1.20),
    ("ours fp32 tp=2", "ours fp32", 1.05),
    ("ours bf16 tp=2", "ours bf16", 1.25),
    ("ours bf16 tp=2", "huggingface bf16", 1.20 * 1.25),
    ("unreduced fp32 tp=2", "ours fp32", None),
    ("unreduced bf16 tp=2", "ours bf16", None),
    ("ceiling fp32 tp=2", "ceiling fp32", None),
    ("ceiling bf16 tp=2", "ceiling bf16", None),
]


def flops_per_token() -> float:
    """6 per matmul weight + causal attention, as `ModelConfig.flops_per_token`."""
    s = SIZES
    weights = s["layers"] * (4 * s["hidden"] ** 2 + 3 * s["hidden"] * s["ffn"]) + s["hidden"] * s["vocab"]
    return 6.0 * weights + 6 * s["layers"] * s["hidden"] * SEQ


# -- contenders: each returns a function that makes one update ------------------------------------------


def ours(precision: str, rank: int, ranks: int, folder: Path) -> Callable[[], None]:
    """This suite's trainer, data loading and agreement of ranks included."""
    sys.path.insert(0, str(ROOT))
    from conf.schema.model import ModelConfig
    from conf.schema.parallel import ParallelConfig
    from elm_megatron.model import device as devices
    from elm_megatron.run.world import World
    from tests.elm_megatron.configs import pretrain_config

    device = devices.prepare("cpu", rank)
    from elm_megatron.engine import distributed
    from elm_megatron.engine.pretraining import Pretraining
    from elm_megatron.engine.train import Trainer

    model = ModelConfig(
        "bench",
        SIZES["hidden"],
        SIZES["ffn"],
        SIZES["layers"],
        SIZES["heads"],
        SIZES["heads"],
        SEQ,
        SIZES["vocab"],
    )
    config = pretrain_config(
        folder / "run",
        folder.parent / "data",
        ranks,
        model,
        tp=ranks,
        precision=precision,
        global_batch_size=BATCH,
        micro_batch_size=BATCH,
        seq_length=SEQ,
        steps=10_000,
    )
    world = World(rank, ranks, rank, 0, 1, f"bench-{precision}-{ranks}", 0, "127.0.0.1", folder)
    distributed.join(world, device, ParallelConfig(tp=ranks))
    distributed.seed_everything(1)
    trainer = Trainer(Pretraining(config, world, device))
    return lambda: trainer.train_step() and None


def unreduced(*arguments: object) -> Callable[[], None]:
    """`ours`, whose ranks never add up what they computed: wrong numbers, all-reduces for nothing."""
    import torch

    step, all_reduce = ours(*arguments), torch.distributed.all_reduce
    largest = 1024  # the norm of the gradients and the agreement of ranks keep their sums

    def left_out(tensor: torch.Tensor, *options: object, **named: object) -> torch.futures.Future | None:
        if tensor.numel() <= largest:
            return all_reduce(tensor, *options, **named)
        done = torch.futures.Future()
        done.set_result(tensor)
        return done if named.get("async_op") else None

    torch.distributed.all_reduce = left_out
    return step


def huggingface(precision: str, *_: object) -> Callable[[], None]:
    """A plain loop over `LlamaForCausalLM`."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=SIZES["vocab"],
        hidden_size=SIZES["hidden"],
        intermediate_size=SIZES["ffn"],
        num_hidden_layers=SIZES["layers"],
        num_attention_heads=SIZES["heads"],
        max_position_embeddings=SEQ,
        use_cache=False,
    )
    model = LlamaForCausalLM(config)
    return _plain_loop(model, lambda ids: model(input_ids=ids, labels=ids).loss, precision)


def litgpt(precision: str, *_: object) -> Callable[[], None]:
    """A plain loop over litgpt's Llama."""
    import torch
    from litgpt.model import GPT, Config

    config = Config(
        block_size=SEQ,
        padded_vocab_size=SIZES["vocab"],
        vocab_size=SIZES["vocab"],
        n_layer=SIZES["layers"],
        n_head=SIZES["heads"],
        n_embd=SIZES["hidden"],
        rotary_percentage=1.0,
        parallel_residual=False,
        bias=False,
        norm_class_name="RMSNorm",
        mlp_class_name="LLaMAMLP",
        intermediate_size=SIZES["ffn"],
    )
    model = GPT(config)

    def loss(ids: torch.Tensor) -> torch.Tensor:
        logits = model(ids)
        return torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())

    return _plain_loop(model, loss, precision)


def _plain_loop(model: object, loss: Callable, precision: str) -> Callable[[], None]:
    import torch

    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.1, betas=(0.9, 0.95))
    generator = torch.Generator().manual_seed(0)

    def step() -> None:
        ids = torch.randint(0, SIZES["vocab"], (BATCH, SEQ), generator=generator)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bf16"):
            value = loss(ids)
        value.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def ceiling(precision: str, _: int, ranks: int, *__: object) -> Callable[[], None]:
    """The matrix products of one update and nothing else: forward, and both halves of backward.

    Of several ranks each has its part of the weights, split as tensor parallelism does.
    """
    import torch

    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    h, f, v, n = SIZES["hidden"], SIZES["ffn"], SIZES["vocab"], BATCH * SEQ
    layer = [(h, 3 * h // ranks), (h // ranks, h), (h, 2 * f // ranks), (f // ranks, h)]
    shapes = layer * SIZES["layers"] + [(h, v // ranks)]
    inputs = {k: torch.randn(n, k).to(dtype) for k in {size for pair in shapes for size in pair}}
    weights = [torch.randn(b, a).to(dtype) for a, b in shapes]

    def step() -> None:
        for (a, b), weight in zip(shapes, weights, strict=True):
            torch.mm(inputs[a], weight.t())
            torch.mm(inputs[b], weight)
            torch.mm(inputs[b].t(), inputs[a])

    return step


# -- turns --------------------------------------------------------------------------------------------


def serve(kind: str, precision: str, rank: int, ranks: int, threads: int, folder: Path) -> None:
    """A contender's process: for each line `n` on stdin, make n updates and print the seconds."""
    import resource

    import torch

    torch.set_num_threads(threads)
    kinds = {f.__name__: f for f in (ours, unreduced, huggingface, litgpt, ceiling)}
    step = kinds[kind](precision, rank, ranks, folder)
    step()
    print("ready", flush=True)
    for line in sys.stdin:
        began = time.perf_counter()
        for _ in range(int(line)):
            step()
        seconds = time.perf_counter() - began
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        print(json.dumps({"seconds": seconds, "peak_bytes": peak}), flush=True)


class Contender:
    """One contender's processes, asleep between their turns."""

    def __init__(self, name: str, folder: Path):
        kind, precision, ranks, threads = CONTENDERS[name]
        env = {**os.environ, "OMP_NUM_THREADS": str(threads)}
        own = folder / name.replace(" ", "-")
        own.mkdir()
        self.processes = []
        for rank in range(ranks):
            command = [
                sys.executable,
                __file__,
                "--serve",
                kind,
                precision,
                str(rank),
                str(ranks),
                str(threads),
            ]
            self.processes.append(
                subprocess.Popen(
                    [*command, str(own)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                    text=True,
                    env=env,
                )
            )
        self.alive = all(self._answer(p) == "ready" for p in self.processes)

    @staticmethod
    def _answer(process: subprocess.Popen) -> str:
        while (line := process.stdout.readline()) and not line.startswith(("ready", "{")):
            pass
        return line.strip()

    def turn(self, steps: int) -> dict:
        """Make `steps` updates; the slowest rank's answer, with the peaks of all ranks added."""
        for process in self.processes:
            process.stdin.write(f"{steps}\n")
            process.stdin.flush()
        answers = [json.loads(self._answer(process)) for process in self.processes]
        return {
            "seconds": max(a["seconds"] for a in answers),
            "peak_bytes": sum(a["peak_bytes"] for a in answers),
        }

    def end(self) -> None:
        """Close stdin, which ends the processes."""
        for process in self.processes:
            process.stdin.close()
            process.wait()


def main() -> None:
    """Let the contenders take turns and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--only", help="contenders whose name holds this text")
    options = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    from tests.elm_megatron.small_dataset import make_dataset

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        make_dataset(folder / "data", 400_000, 4_000)
        names = [name for name in CONTENDERS if not options.only or options.only in name]
        contenders = {name: Contender(name, folder) for name in names}
        missing = [name for name, contender in contenders.items() if not contender.alive]
        for name in missing:
            print(f"{name}: could not start, left out")
            contenders.pop(name).end()
        results: dict[str, list[dict]] = {name: [] for name in contenders}
        for _ in range(options.rounds):
            for name, contender in contenders.items():
                results[name].append(contender.turn(options.steps))
        for contender in contenders.values():
            contender.end()
    show(results, options.steps)


def show(results: dict[str, list[dict]], steps: int) -> None:
    """Print medians, spreads, MFU and ratios."""
    tokens = BATCH * SEQ * steps
    speed = {n: sorted(tokens / r["seconds"] for r in rounds) for n, rounds in results.items()}
    median = {name: statistics.median(values) for name, values in speed.items()}
    print(f"{'contender':<20}{'tokens/s':>10}{'quartiles':>18}{'MFU':>7}{'peak MB':>9}")
    for name, values in speed.items():
        low, _, high = statistics.quantiles(values, n=4)
        roof = median.get(f"ceiling {'bf16' if 'bf16' in name else 'fp32'}")
        matmul = 6.0 * (flops_per_token() - 6 * SIZES["layers"] * SIZES["hidden"] * SEQ) / 6.0
        share = median[name] * flops_per_token() / (roof * matmul) if roof else float("nan")
        peak = max(r["peak_bytes"] for r in results[name]) / 1e6
        print(f"{name:<20}{median[name]:>10,.0f}{low:>9,.0f}–{high:<8,.0f}{share:>7.0%}{peak:>9,.0f}")
    for name, peer, target in RATIOS:
        if name in median and peer in median:
            aim = f" (target {target:g})" if target else ""
            print(f"{name} / {peer}: {median[name] / median[peer]:.2f}{aim}")


if __name__ == "__main__":
    if len(sys.argv) > 1 and sys.argv[1] == "--serve":
        kind, precision, rank, ranks, threads, folder = sys.argv[2:]
        serve(kind, precision, int(rank), int(ranks), int(threads), Path(folder))
    else:
        main()
