"""The architecture, `model.*`: sizes, and what follows from them."""

from __future__ import annotations

from dataclasses import dataclass

from conf import typed
from conf.errors import divisors, require
from conf.limits import Count, NotNegative, Positive

VOCAB_MULTIPLE = 128  # independent of tp, so that every layout holds the same padded vocabulary


@dataclass
class ModelConfig:
    """Architecture, Llama-2 style (RMSNorm, SwiGLU, rotary positions, no biases).

    Attributes:
        name: of the size; part of the default run.name.
        hidden_size: channels of the residual stream.
        ffn_hidden_size: channels inside the MLP.
        num_layers: transformer layers.
        num_attention_heads: heads that ask.
        num_query_groups: heads of keys and values, each shared by equally many that ask.
        max_position_embeddings: the longest sequence in tokens.
        vocab_size: token ids; the weights hold it rounded up to a multiple of 128.
        rope_theta: base of the rotary positions.
        norm_eps: added to the mean square in RMSNorm.
        tie_embeddings: whether the output head is the embedding.
        init_std: standard deviation of the weights at the start.
    """

    name: str
    hidden_size: Count
    ffn_hidden_size: Count
    num_layers: Count
    num_attention_heads: Count
    num_query_groups: int = typed.follows("${model.num_attention_heads}")
    max_position_embeddings: Count
    vocab_size: Count = typed.follows("${tokenizer.vocab_size}")
    rope_theta: Positive = 10000.0
    norm_eps: Positive = 1e-5
    tie_embeddings: bool = False
    init_std: NotNegative = 0.02

    @property
    def head_dim(self) -> int:
        """Channels per attention head."""
        return self.hidden_size // self.num_attention_heads

    @property
    def padded_vocab_size(self) -> int:
        """The vocabulary rounded up to a multiple of 128."""
        return -(-self.vocab_size // VOCAB_MULTIPLE) * VOCAB_MULTIPLE

    def parameters(self) -> int:
        """All weights: embedding, layers with two norms each, final norm, and the output head unless tied."""
        norms = (2 * self.num_layers + 1) * self.hidden_size
        embedding = 0 if self.tie_embeddings else self.hidden_size * self.padded_vocab_size
        return self.matmul_parameters() + embedding + norms

    def matmul_parameters(self) -> int:
        """Weights that take part in a matrix product per token: all linear layers and the output head."""
        attention = (
            self.hidden_size * self.head_dim * (2 * self.num_attention_heads + 2 * self.num_query_groups)
        )
        mlp = 3 * self.hidden_size * self.ffn_hidden_size
        return self.num_layers * (attention + mlp) + self.hidden_size * self.padded_vocab_size

    def flops_per_token(self, seq_length: int) -> float:
        """FLOPs of forward and backward per token: 6 per matmul weight + causal attention.

        The attention term counts QK^T and AV, 2 FLOPs a multiply-add, three passes, half of the square
        (PaLM, appendix B, with the causal half).
        """
        attention = 6 * self.num_layers * self.num_attention_heads * self.head_dim * seq_length
        return 6.0 * self.matmul_parameters() + attention

    def check(self) -> None:
        """Refuse sizes that do not fit each other."""
        typed.check(self, "model")
        heads, groups = self.num_attention_heads, self.num_query_groups
        require(
            self.hidden_size % heads == 0,
            f"model.num_attention_heads={heads} does not divide model.hidden_size={self.hidden_size}.",
        )
        require(
            self.head_dim % 2 == 0, f"model.hidden_size/num_attention_heads={self.head_dim}: must be even."
        )
        require(
            groups > 0 and heads % groups == 0,
            f"model.num_query_groups={groups}: must divide model.num_attention_heads={heads}, "
            f"allowed are {divisors(heads)}.",
        )
