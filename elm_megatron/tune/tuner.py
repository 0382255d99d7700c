"""Supervised tuning of an adapter: the Trainer's loop on instruction data, with a frozen base.

Checkpoints hold the adapter and its optimizer's state; the base is read from the source each time.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache, partial
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from megatron.core import parallel_state
from megatron.core.transformer.transformer_config import TransformerConfig

from conf.errors import InputError
from conf.schema.model import ModelConfig
from conf.schema.tune import TuneConfig
from elm_megatron.chat.template import Template
from elm_megatron.checkpoint.manifest import Checkpoint
from elm_megatron.engine import distributed
from elm_megatron.engine.train import Trainer
from elm_megatron.hf import adapters
from elm_megatron.model import llama
from elm_megatron.run.steps import step_folder
from elm_megatron.run.world import Outcome
from elm_megatron.sources import adapters as reading
from elm_megatron.sources.base import Base
from elm_megatron.sources.places import ADAPTER_CONFIG, ADAPTER_FOLDER
from elm_megatron.sources.source import base_for, locate_adapter
from elm_megatron.tune import lora
from elm_megatron.tune.corpus import SftData
from elm_megatron.tune.rows import Batch, Rows


class Tuner(Trainer):
    """One rank of a supervised tuning run; its config is a FinetuneConfig."""

    saved = staticmethod(lora.is_adapter)
    settings: TuneConfig

    # -- what is trained --------------------------------------------------------------------------------

    def _settings(self) -> TuneConfig:
        return self.config.tune

    def _open_data(self) -> None:
        self.source = base_for(self.config.source, self.run)
        self.base = Base.open(self.source)
        self.corpus = self._read_corpus()
        self.train_set, self.valid_sets = self.corpus.train, {"": self.corpus.valid}
        if self.world.rank == 0:
            print(self.corpus.summary(), flush=True)

    def _read_corpus(self) -> Any:
        return SftData.read(self.config, self.base.tokenizer)

    def _steps_of_epochs(self) -> int:
        samples = int(self.settings.epochs * len(self.train_set))
        steps, dropped = divmod(samples, self.settings.global_batch_size)
        if steps == 0:
            raise InputError(
                f"tune.global_batch_size={self.settings.global_batch_size}: {self.settings.epochs:g} epochs "
                f"hold {samples} rows, fewer than one batch."
            )
        if self.world.rank == 0:
            print(f"{self.settings.epochs:g} epochs are {steps} steps; {dropped} rows left over are dropped")
            if steps <= self.settings.warmup_steps:
                print(
                    f"note: the rate never reaches tune.lr={self.settings.lr:g}, for "
                    f"tune.warmup_steps={self.settings.warmup_steps} outlast the {steps} steps"
                )
        return steps

    def _modules(self, mcore: TransformerConfig) -> list[torch.nn.Module]:
        # The torch layers also on a GPU: Transformer Engine fuses the norm into the layer whose input an
        # adapter needs.
        modules = llama.build(self.config.model, self.config.parallel, mcore, transformer_engine=False)
        lora.attach(modules, self.settings)
        for module in modules:
            _hide_padded_vocabulary(module, self.config.model)
        self.fingerprint = self.base.load_into(modules)
        lora.initialize(modules, self.settings.seed)
        self._warm_start(modules)
        return modules

    def _warm_start(self, modules: list[torch.nn.Module]) -> None:
        folder = self.settings.init_from or self.source.adapter
        if folder is None:
            return
        adapter = reading.read(locate_adapter(str(folder)), self.config.model)
        adapter.require_fits(self.settings, self.fingerprint)
        lora.load(modules, adapter.megatron_tensors())

    def _begin_with(self, name: str) -> None:
        """`_warm_start` did this already, before the optimizer took its copies."""

    # -- data -------------------------------------------------------------------------------------------

    def _origin(self, ids: np.ndarray) -> dict[str, list[int]]:
        return {}

    def _batches(self, dataset: Rows, ids: np.ndarray) -> Iterator[Any]:
        size = self.settings.micro_batch_size
        return dataset.micro_batches(ids, size, self.dp_rank, self.dp, self.device)

    def _shape(self, dataset: Rows, ids: np.ndarray) -> tuple[int, int]:
        rows, width = self.settings.micro_batch_size, dataset.width(ids)
        return (1, rows * width) if dataset.packing else (rows, width)

    @lru_cache(maxsize=4)  # noqa: B019 - one object per run
    def _tokens(self, step: int) -> int:
        """Tokens of examples the model has seen after `step` updates, padding not counted."""
        if step <= 0:
            return 0
        batch = self.settings.global_batch_size
        if step == self.step:  # the usual case: one batch beyond the last
            last = self.train_set.ids((step - 1) * batch, batch)
            return self._tokens(step - 1) + int(self.train_set.sizes[last].sum())
        return int(self.train_set.sizes[self.train_set.ids(0, step * batch)].sum())

    def _row(self, *figures: float) -> dict[str, Any]:
        """Without an MFU: the frozen weights take no gradient, so the usual count would be wrong."""
        return {**super()._row(*figures), "flops_per_second": None, "mfu": None}

    def train_step(self) -> tuple[dict[str, Any], Any]:
        """One update. Dropout is a function of seed, step and rank, so that a resumed run repeats it."""
        if self.settings.dropout > 0:
            stage = parallel_state.get_pipeline_model_parallel_rank()
            mixed = [self.settings.seed, self.step, self.dp_rank, stage]
            distributed.seed_everything(int(np.random.SeedSequence(mixed).generate_state(1)[0]))
        return super().train_step()

    def _forward_step(self, batches: Iterator[Batch], model: torch.nn.Module) -> tuple[torch.Tensor, Any]:
        batch = next(batches)
        output = model(
            batch.tokens, batch.position_ids, None, labels=batch.labels, packed_seq_params=batch.packed
        )
        return output, partial(_answer_loss, batch)

    # -- identity, saving, leaving ----------------------------------------------------------------------

    def _facts(self) -> dict[str, Any]:
        return {
            "manifest_sha256": self.source.manifest_sha256,
            "base": str(self.source.stored.folder),
            "base_step": self.base.weights.step,
            "base_fingerprint": self.fingerprint.plain,
            "data_sha256": self.corpus.sha256,
            "data_counts": self.corpus.counts,
            "trainable_parameters": self.settings.trainable_parameters(self.config.model),
        }

    def _identity(self) -> dict[str, Any]:
        return {
            "base_fingerprint": self.fingerprint.plain,
            "data_sha256": self.corpus.sha256,
            "lora": adapters.lora_facts(self.settings),
        }

    def _after_evaluation(self) -> None:
        """Early stop: keep the best adapter, and end when `patience` validations brought no better one."""
        if self.settings.patience is None:
            return
        verdict = torch.zeros(2, device=self.device)
        if self.metrics:
            losses = [row["loss"] for row in self.run.read_metrics(self.run.valid)]
            best = losses.index(min(losses))
            verdict[0], verdict[1] = best == len(losses) - 1, len(losses) - 1 - best >= self.settings.patience
        dist.broadcast(verdict, src=0)
        is_best, enough = verdict.bool().tolist()
        if is_best:
            self.save({"tokens": self._tokens(self.step), "loss": self.valid_loss}, blocking=True)
            self._write_adapter()
        if enough and self.step < self.steps:
            if self.world.rank == 0:
                print(f"stopped early: the validation loss was best {self.settings.patience} validations ago")
            self.steps = self.step

    def _write_adapter(self) -> None:
        """Put the adapter of the newest checkpoint into the run's PEFT folder; every rank calls it."""
        self.saver.wait()
        dist.barrier()
        if self.world.rank == 0:
            checkpoint = Checkpoint.open(step_folder(self.run, self.step))
            facts = {
                "source": str(self.source.stored.folder),
                "stage": self.config.stage,
                "step": checkpoint.step,
            }
            facts["base_step"] = self.base.weights.step
            facts["base_fingerprint"] = self.fingerprint.plain
            facts["base_fingerprints"] = self.fingerprint.all
            facts["manifest_sha256"] = self.source.manifest_sha256
            facts["template"] = self.settings.template
            adapter = adapters.of_checkpoint(checkpoint.reader(), self.settings)
            template = Template.load(self.settings.template)
            adapters.write(self.run.path / ADAPTER_FOLDER, adapter, facts, template)
        dist.barrier()  # nobody asks whether it is there before it is

    def _finish(self, asked: Any, seconds: float) -> Outcome:
        written = (self.run.path / ADAPTER_FOLDER / ADAPTER_CONFIG).exists()
        if self.step == self.steps and not (self.settings.patience and written):
            self._write_adapter()
        return super()._finish(asked, seconds)


def _hide_padded_vocabulary(module: llama.Llama, model: ModelConfig) -> None:
    """Give the rows that pad the vocabulary no share in the softmax; the exported model has none."""
    share = model.padded_vocab_size // parallel_state.get_tensor_model_parallel_world_size()
    real = model.vocab_size - share * parallel_state.get_tensor_model_parallel_rank()
    module.real_vocabulary = min(max(0, real), share)


def _answer_loss(batch: Batch, losses: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """This micro-batch's share of the mean loss over the global batch's answers, and (Σ loss, Σ tokens).

    megatron-core divides by the micro-batches and averages over data-parallel ranks, which `share` undoes:
    how a batch is cut must not change what is learnt.

    Args:
        losses: nats [b, s].
    """
    total = (losses.float() * batch.weights).sum()
    return total * batch.share / batch.answers, torch.stack([total.detach(), batch.weights.sum()])
