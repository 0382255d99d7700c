"""Pretraining as a Task: samples of a tokenized dataset or of a blend, and the loss of every next token."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from functools import partial
from typing import Any

import numpy as np
import torch
from megatron.core.transformer.transformer_config import TransformerConfig

from conf.errors import InputError
from conf.schema.pretrain import PretrainConfig
from data_prep.manifest import Manifest
from elm_megatron.checkpoint import rank_state
from elm_megatron.checkpoint.load import verified
from elm_megatron.engine import data, distributed
from elm_megatron.engine.goldfish import Goldfish
from elm_megatron.engine.losses import mean_loss, summed_loss
from elm_megatron.engine.samples import Samples
from elm_megatron.engine.task import Task
from elm_megatron.model import initial_weights, llama
from elm_megatron.run.steps import step_folder
from elm_megatron.run.world import World
from elm_megatron.sources.source import beginning


class Pretraining(Task):
    """One rank's part in a pretraining run.

    Attributes:
        manifest: of `data.dir`.
        keep_apart: the EOS at which one document ends and another begins that may not see it; None is off.
        goldfish: which training tokens no loss is taken of; None is none.
    """

    group = "train"

    def __init__(self, config: PretrainConfig, world: World, device: torch.device):
        super().__init__(config, config.train, world, device)
        train = config.train
        self.manifest = Manifest.load(config.data.dir)
        self.train_set = Samples.open(config.data, self.manifest, train.seq_length, train.seed)
        self.valid_sets = data.open_validation(self.manifest, train.seq_length, train.seed, config.data)
        self.goldfish = Goldfish(train.goldfish, train.goldfish_context) if train.goldfish else None
        # Where ranks may hold unlike numbers of the tokens that count, their sums are divided by all of them.
        unlike = config.data.eod_mask_loss or self.goldfish is not None
        self.per_token_loss = unlike or config.parallel.cp > 1
        self.packed = config.data.reset_attention_mask
        self.keep_apart = self.manifest.tokenizer.eos_id if self.packed else None

    def steps_of_epochs(self) -> int:
        """Whole updates; says how many samples are left over."""
        train, tokens = self.settings, self.manifest.splits["train"].tokens
        steps, dropped = data.steps_of_epochs(tokens, train)
        self.log(f"{train.epochs:g} epochs are {steps} steps; {dropped} samples left over are dropped")
        return steps

    def tokens(self, step: int) -> int:
        """Samples have equal lengths."""
        return self.settings.consumed(step) * self.settings.seq_length

    def batches(self, dataset: Any, ids: np.ndarray) -> Iterator[data.Batch]:
        """Micro-batches of whole samples."""
        size = self.settings.micro_batch_size
        goldfish = self.goldfish if dataset is self.train_set else None
        return data.micro_batches(
            dataset, ids, size, self.dp_rank, self.dp, self.device, self.keep_apart, goldfish
        )

    def shape(self, dataset: Any, ids: np.ndarray) -> tuple[int, int]:
        """The same for all; documents that are kept apart are in one long row."""
        rows, length = self.settings.micro_batch_size, self.settings.seq_length
        return (rows, length) if self.keep_apart is None else (1, rows * length)

    def valid_targets(self) -> dict[str, int]:
        """Tokens with a loss, by language."""
        skips = self.config.data.eod_mask_loss
        return {name: data.targets(dataset, skips) for name, dataset in self.valid_sets.items() if name}

    def origin(self, ids: np.ndarray) -> dict[str, list[int]]:
        """The datasets that samples of a blend come from."""
        return {"datasets": self.train_set.part_of(ids).tolist()} if self.config.data.blend else {}

    def modules(self, mcore: TransformerConfig, transformer_engine: bool) -> list[torch.nn.Module]:
        """The model's chunks, their weights drawn from the seed."""
        modules = llama.build(self.config.model, self.config.parallel, mcore, transformer_engine)
        initial_weights.initialize(modules, self.config.model, self.settings.seed)
        return modules

    def begin_with(self, source: str, chunks: list[Any], optimizer: Any) -> None:
        """Put in the weights of an old run, without its optimizer's state.

        Raises:
            InputError: it is of another size, or its tokens have other meanings.
        """
        found = beginning(source, self.manifest.tokenizer.sha256)
        # That run may go on: its newest checkpoint is the same one on every rank.
        folder = distributed.of_first(step_folder(found.run, found.step), self.device)
        old = verified(folder, self.world, self.device)
        reader = old.reader()
        rank_state.restore(chunks, optimizer, reader, 0, moments=False)
        left = set(reader.names()).difference(*distributed.gathered(rank_state.names(chunks)))
        if left:
            raise InputError(
                f"train.init_from={source}: this model has no place for {len(left)} of its tensors, such as "
                f"{min(left)}; take the model it was trained with."
            )

    def forward_step(self, batches: Iterator[data.Batch], model: torch.nn.Module) -> tuple[torch.Tensor, Any]:
        """The loss of every next token of a micro-batch."""
        batch = next(batches)
        output = model(
            batch.tokens,
            batch.position_ids,
            None,
            labels=batch.labels,
            loss_mask=batch.loss_mask,
            packed_seq_params=batch.packed,
        )
        return output, partial(summed_loss if self.per_token_loss else mean_loss, batch.loss_mask)

    def facts(self, step: int) -> dict[str, Any]:
        """The dataset, and how much of each part of a blend was drawn."""
        facts = {
            "manifest_sha256": self.manifest.sha256,
            "unigram_entropy": self.manifest.splits["valid"].unigram_entropy,
        }
        if self.config.data.blend:
            facts["blend"] = self.train_set.facts(self.settings.consumed(step))
        return facts

    def identity(self) -> dict[str, Any]:
        """The dataset, or all of a blend, and which of its tokens are not learnt."""
        goldfish = {"goldfish": asdict(self.goldfish)} if self.goldfish else {}
        if self.config.data.blend:
            return {"blend": [m.sha256 for m in self.train_set.manifests], **goldfish}
        return {"manifest_sha256": self.manifest.sha256, **goldfish}
