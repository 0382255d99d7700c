"""The layout, `parallel.*`: how one model is cut over ranks, and how many ranks there are."""

from __future__ import annotations

import math
from dataclasses import dataclass

from conf import typed
from conf.errors import divisors, require
from conf.limits import Count
from conf.schema.model import VOCAB_MULTIPLE, ModelConfig
from conf.schema.run import Command


@dataclass
class ParallelConfig:
    """How one model is cut over ranks; dp is what remains of the world.

    Attributes:
        tp: ranks that share each layer's matrices (tensor parallel).
        pp: ranks that hold a part of the layers each (pipeline parallel).
        vpp: parts of the layers on each of those ranks (interleaved pipeline).
        cp: ranks that hold a part of each sequence each (context parallel).
        sp: whether the norms are split along the sequence over the tp ranks (sequence parallel).
        auto: the planner chooses tp and pp for the model and the cluster, and says why.
    """

    tp: Count = 1
    pp: Count = 1
    vpp: Count = 1
    cp: Count = 1
    sp: bool = False
    auto: bool = False

    @property
    def model_ranks(self) -> int:
        """Ranks that hold one copy of the model: tp · pp · cp."""
        return self.tp * self.pp * self.cp

    @property
    def sequence_unit(self) -> int:
        """What train.seq_length must be a multiple of: cp takes 2·cp chunks, sp splits them over tp."""
        return (2 * self.cp if self.cp > 1 else 1) * (self.tp if self.sp else 1)

    def check(self, model: ModelConfig, world_size: int) -> None:
        """Refuse a layout that does not fit the model or the world."""
        typed.check(self, "parallel")
        heads, groups, layers = model.num_attention_heads, model.num_query_groups, model.num_layers
        require(
            heads % self.tp == 0,
            f"parallel.tp={self.tp} does not divide model.num_attention_heads={heads}; "
            f"allowed are {divisors(heads)}.",
        )
        require(
            groups % self.tp == 0,
            f"parallel.tp={self.tp} does not divide model.num_query_groups={groups}; "
            f"allowed are {divisors(groups)}.",
        )
        require(
            model.ffn_hidden_size % self.tp == 0,
            f"parallel.tp={self.tp} does not divide model.ffn_hidden_size={model.ffn_hidden_size}.",
        )
        vocabulary = model.padded_vocab_size
        allowed = divisors(math.gcd(groups, vocabulary))
        require(
            vocabulary % self.tp == 0,
            f"parallel.tp={self.tp} does not divide the padded vocabulary of {vocabulary} "
            f"(model.vocab_size={model.vocab_size} rounded up to a multiple of {VOCAB_MULTIPLE}); of the "
            f"divisors of model.num_query_groups={groups} allowed are {allowed}.",
        )
        require(
            layers % (self.pp * self.vpp) == 0,
            f"parallel.pp·vpp={self.pp * self.vpp} does not divide model.num_layers={layers}; "
            f"allowed are {divisors(layers)}.",
        )
        require(
            self.vpp == 1 or self.pp > 1, f"parallel.vpp={self.vpp} needs parallel.pp of at least 2, found 1."
        )
        require(not self.sp or self.tp > 1, "parallel.sp=true needs parallel.tp of at least 2, found 1.")
        require(
            world_size % self.model_ranks == 0,
            f"parallel.tp·pp·cp={self.model_ranks} does not divide the {world_size} ranks of the cluster "
            "(cluster.nodes × cluster.tasks_per_node).",
        )


class Ranks(Command):
    """A verb that trains: its layout and its cluster give the ranks it has."""

    model: ModelConfig
    parallel: ParallelConfig

    @property
    def world_size(self) -> int:
        """Ranks of the whole job."""
        return self.cluster.nodes * (self.cluster.tasks_per_node or self._default_tasks_per_node())

    def _default_tasks_per_node(self) -> int:
        if self.cluster.gpus_per_node:
            return self.cluster.gpus_per_node
        return -(-self.parallel.model_ranks // self.cluster.nodes)

    @property
    def dp(self) -> int:
        """Data-parallel copies of the model."""
        return self.world_size // self.parallel.model_ranks

    def check(self) -> None:
        """Refuse a model that cannot be, or a layout that does not fit it or the cluster."""
        super().check()
        self.cluster.check_gpus()
        self.model.check()
        self.parallel.check(self.model, self.world_size)
