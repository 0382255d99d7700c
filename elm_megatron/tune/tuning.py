"""What SFT and DPO share: an adapter on a frozen base, and the run's result in PEFT's format.

Checkpoints hold the adapter and its optimizer's state; the base is read from the source each time.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from megatron.core import parallel_state
from megatron.core.transformer.transformer_config import TransformerConfig

from conf.errors import InputError
from conf.schema.tune import FinetuneConfig, TuneConfig
from data_prep.tokenizer import Tokenizer
from elm_megatron.chat.template import Template
from elm_megatron.checkpoint.manifest import Checkpoint
from elm_megatron.engine import distributed
from elm_megatron.engine.task import Task
from elm_megatron.hf import adapters
from elm_megatron.model import llama
from elm_megatron.run.folder import RunFolder
from elm_megatron.run.steps import step_folder, step_number
from elm_megatron.run.world import World
from elm_megatron.sources import adapters as reading
from elm_megatron.sources.base import Base
from elm_megatron.sources.fingerprint import Fingerprint
from elm_megatron.sources.places import ADAPTER_CONFIG, ADAPTER_FOLDER
from elm_megatron.sources.source import base_for, locate_adapter
from elm_megatron.tune import lora


class Tuning(Task):
    """One rank's part in a tuning run.

    Attributes:
        source: what `source=` names.
        base: its frozen model.
        corpus: the data as it was read, with counts and a hash.
        fingerprint: tells the base's weights from another's; known once the modules are built.
    """

    group = "tune"
    # The torch layers also on a GPU: Transformer Engine fuses the norm into the layer whose input an adapter
    # needs.
    transformer_engine = False
    younger_identity = frozenset({"packing"})
    settings: TuneConfig

    def __init__(self, config: FinetuneConfig, world: World, device: torch.device):
        super().__init__(config, config.tune, world, device)
        self.patience, self.packed = config.tune.patience, config.tune.packing
        self.run = RunFolder(config.run.dir, [world.job_id, world.restart])
        self.open_base()
        self.corpus = self.read_corpus(self.base.tokenizer)
        self.train_set, self.valid_sets = self.corpus.train, {"": self.corpus.valid}
        self.fingerprint: Fingerprint | None = None
        self._counted = (0, 0)  # updates, and the tokens trained on in them
        self.log(self.corpus.summary())

    def open_base(self) -> None:
        """Open what `source=` names; a base that goes on meanwhile is at the same step on every rank."""
        source = base_for(self.config.source, self.run)
        stored = source.stored
        if stored.run is not None and stored.step is None:
            newest = step_number(step_folder(stored.run).name)
            stored = stored.at(distributed.of_first(newest, self.device))
            source = stored if source.base is None else replace(source, base=stored)
        self.source = source
        self.base = Base.open(self.source)

    @abstractmethod
    def read_corpus(self, tokenizer: Tokenizer) -> Any:
        """The data that the configuration names.

        Raises:
            InputError: a file cannot be read, or holds too little.
        """

    # -- length and data ------------------------------------------------------------------------------

    def steps_of_epochs(self) -> int:
        """Whole updates; says how many rows are left over, and whether the warm-up outlasts them."""
        settings = self.settings
        samples = int(settings.epochs * len(self.train_set))
        steps, dropped = divmod(samples, settings.global_batch_size)
        if steps == 0:
            raise InputError(
                f"tune.global_batch_size={settings.global_batch_size}: {settings.epochs:g} epochs "
                f"hold {samples} rows, fewer than one batch."
            )
        self.log(f"{settings.epochs:g} epochs are {steps} steps; {dropped} rows left over are dropped")
        if steps <= settings.warmup_steps:
            self.log(
                f"note: the rate never reaches tune.lr={settings.lr:g}, for "
                f"tune.warmup_steps={settings.warmup_steps} outlast the {steps} steps"
            )
        return steps

    def tokens(self, step: int) -> int:
        """Tokens of examples the model has seen after `step` updates, padding not counted."""
        batch = self.settings.global_batch_size
        known, total = self._counted if self._counted[0] <= step else (0, 0)
        if step > known:
            ids = self.train_set.ids(known * batch, (step - known) * batch)
            total += int(self.train_set.sizes[ids].sum())
        self._counted = (step, total)
        return total

    def batches(self, dataset: Any, ids: np.ndarray) -> Iterator[Any]:
        """Micro-batches of rows."""
        size = self.settings.micro_batch_size
        return dataset.micro_batches(ids, size, self.dp_rank, self.dp, self.device)

    # -- model ----------------------------------------------------------------------------------------

    def modules(self, mcore: TransformerConfig, transformer_engine: bool) -> list[torch.nn.Module]:
        """The base's chunks with an adapter: a fresh one, or that of the source or of `init_from`."""
        modules = llama.build(self.config.model, self.config.parallel, mcore, transformer_engine)
        lora.attach(modules, self.settings)
        self.fingerprint = self.base.load_into(modules)
        lora.initialize(modules, self.settings.seed)
        self._warm_start(modules)
        return modules

    def _warm_start(self, modules: list[torch.nn.Module]) -> None:
        """Before the optimizer takes its copies; so `begin_with` has nothing left to do."""
        folder = self.settings.init_from or self.source.adapter
        if folder is None:
            return
        adapter = reading.read(locate_adapter(str(folder)), self.config.model)
        adapter.require_fits(self.settings, self.fingerprint)
        lora.load(modules, adapter.megatron_tensors())

    def is_saved(self, param: torch.nn.Parameter) -> bool:
        """The adapter's parameters."""
        return lora.is_adapter(param)

    # -- one update -----------------------------------------------------------------------------------

    def before_step(self, step: int) -> None:
        """Dropout is a function of seed, step and rank, so that a resumed run repeats it."""
        if self.settings.dropout > 0:
            stage = parallel_state.get_pipeline_model_parallel_rank()
            mixed = [self.settings.seed, step, self.dp_rank, stage]
            distributed.seed_everything(int(np.random.SeedSequence(mixed).generate_state(1)[0]))

    def adjust_row(self, row: dict[str, Any]) -> dict[str, Any]:
        """Without an MFU: the frozen weights take no gradient, so the usual count would be wrong."""
        return {**row, "flops_per_second": None, "mfu": None}

    # -- records --------------------------------------------------------------------------------------

    def facts(self, step: int) -> dict[str, Any]:
        """The base, the data, and the adapter's size."""
        return {
            "manifest_sha256": self.source.manifest_sha256,
            "base": str(self.source.stored.folder),
            "base_step": self.base.weights.step,
            "base_fingerprint": self.fingerprint.plain,
            "data_sha256": self.corpus.sha256,
            "data_counts": self.corpus.counts,
            "trainable_parameters": self.settings.trainable_parameters(self.config.model),
        }

    def identity(self) -> dict[str, Any]:
        """The base, the data, how rows are made of them, and the adapter's shape."""
        return {
            "base_fingerprint": self.fingerprint.plain,
            "data_sha256": self.corpus.sha256,
            "lora": adapters.lora_facts(self.settings),
            "packing": self.settings.packing,
        }

    def publish(self, step: int) -> None:
        """Put the adapter of a step's checkpoint into the run's PEFT folder."""
        if self.world.rank == 0:
            checkpoint = Checkpoint.open(step_folder(self.run, step))
            facts = {
                "source": str(self.source.stored.folder),
                "stage": self.config.stage,
                "step": checkpoint.step,
                "base_step": self.base.weights.step,
                "base_fingerprint": self.fingerprint.plain,
                "base_fingerprints": self.fingerprint.all,
                "manifest_sha256": self.source.manifest_sha256,
                "template": self.settings.template,
            }
            adapter = reading.of_checkpoint(checkpoint, self.settings.dropout)
            template = Template.load(self.settings.template)
            adapters.write(self.run.path / ADAPTER_FOLDER, adapter, facts, template)
        dist.barrier()  # nobody asks whether it is there before it is

    @property
    def published(self) -> bool:
        """Whether the run's PEFT folder is there."""
        return (self.run.path / ADAPTER_FOLDER / ADAPTER_CONFIG).exists()
