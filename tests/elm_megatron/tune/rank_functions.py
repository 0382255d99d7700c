"""What the rank processes run in the tests of tuning: module-level functions, so that they can be sent."""

from __future__ import annotations

from typing import Any

from conf.schema.hf import ExportConfig
from conf.schema.pretrain import PretrainConfig
from conf.schema.tune import FinetuneConfig, TuneConfig
from elm_megatron.engine.job import Train
from elm_megatron.hf.job import Export
from elm_megatron.run.world import World
from elm_megatron.tune.tasks import tuning


def pretrain(world: World, config: PretrainConfig) -> str:
    """Make a base."""
    return Train(config)(world)


def export(world: World, config: ExportConfig) -> str:
    """Make a Hugging Face folder."""
    return Export(config)(world)


def finetune(world: World, config: FinetuneConfig) -> str:
    """Tune to the end."""
    return Train(config, tuning)(world)


def finetune_to_refusal(world: World, config: FinetuneConfig) -> str:
    """Tune; the sentence of the refusal it ends in."""
    from conf.errors import InputError
    from elm_megatron.engine import distributed

    try:
        return Train(config, tuning)(world)
    except InputError as error:
        return str(error)
    finally:
        distributed.leave()


def logits(world: World, config: FinetuneConfig, adapter: str | None, tokens: list[list[int]]) -> Any:
    """Logits of our model with an adapter of a PEFT folder, or its own fresh one: numpy [b, s, vocab]."""
    import torch

    def work(trainer: Any) -> Any:
        from elm_megatron.sources import adapters
        from elm_megatron.sources.source import locate_adapter
        from elm_megatron.tune import lora

        if adapter:
            found = adapters.read(locate_adapter(adapter), config.model)
            lora.load([chunk.module for chunk in trainer.chunks], found.megatron_tensors())
        ids = torch.tensor(tokens)
        with torch.no_grad():
            out = trainer.chunks[0](ids, torch.arange(ids.shape[1]).expand_as(ids), None)
        return out[..., : config.model.vocab_size].float().numpy()

    return with_trainer(world, config, work)


def losses(world: World, config: FinetuneConfig, batches: list[Any]) -> list[Any]:
    """Per-token losses of our model on micro-batches: numpy [b, s] each."""
    import torch

    def work(trainer: Any) -> list[Any]:
        model, found = trainer.chunks[0], []
        with torch.no_grad():
            for batch in batches:
                out = model(
                    batch.tokens,
                    batch.position_ids,
                    None,
                    labels=batch.labels,
                    packed_seq_params=batch.packed,
                )
                found.append(out.float().numpy())
        return found

    return with_trainer(world, config, work)


def held_bytes(world: World, config: FinetuneConfig) -> dict[str, int]:
    """Bytes of a tuned rank after one step, by what they are for."""

    def work(trainer: Any) -> dict[str, int]:
        trainer.train_step()
        params = [p for chunk in trainer.chunks for p in chunk.parameters()]
        frozen = [p for p in params if not p.requires_grad]
        trained = [p for p in params if p.requires_grad]
        buffers = [b for chunk in trainer.chunks for b in chunk.buffers]
        moments = [
            m
            for p in trained
            if (part := trainer.optimizer.owned_part(p))
            for m in trainer.optimizer.moments(part).values()
        ]
        inner = trainer.optimizer._dense.optimizer
        held = sum(v.numel() for state in inner.state.values() for v in state.values() if v.dim() > 0)
        return {
            "frozen": sum(p.numel() for p in frozen),
            "trained": sum(p.numel() for p in trained),
            "frozen gradients": sum(
                p.grad is not None or getattr(p, "main_grad", None) is not None for p in frozen
            ),
            "gradient elements": sum(b.grad_data.numel() for b in buffers),
            "moment elements": sum(m.numel() for m in moments),
            "optimizer state elements": held,
        }

    return with_trainer(world, config, work)


def with_trainer(world: World, config: FinetuneConfig, work: Any) -> Any:
    """Build a trainer in a world and do something with it."""
    from elm_megatron.model import device as devices

    device = devices.prepare("cpu", world.local_rank)
    from elm_megatron.engine import distributed
    from elm_megatron.engine.train import Trainer

    distributed.join(world, device, config.parallel)
    try:
        distributed.seed_everything(config.tune.seed)
        return work(Trainer(tuning(config)(config, world, device)))
    finally:
        distributed.leave()


def count_on_meta(world: World, model: Any, tune: TuneConfig) -> int:
    """Trainable parameters of a model built without memory, in a process of its own."""
    import subprocess
    import sys

    code = (
        "import sys, pickle; from elm_megatron.model import device; device.pretend();"
        "from elm_megatron.tune.preflight import trainable_parameters;"
        "print(trainable_parameters(*pickle.loads(bytes.fromhex(sys.argv[1]))))"
    )
    import pickle

    argument = pickle.dumps((model, tune)).hex()
    out = subprocess.run([sys.executable, "-c", code, argument], capture_output=True, text=True, check=True)
    return int(out.stdout)
