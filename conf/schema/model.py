"""The architecture, `model.*`: sizes, and what follows from them."""

from __future__ import annotations

from dataclasses import dataclass

from conf.refusal import divisors, require

VOCAB_MULTIPLE = 128  # independent of tp, so that every layout holds the same padded vocabulary


@dataclass
class ModelConfig:
    """Architecture, Llama-2 style (RMSNorm, SwiGLU, rotary positions, no biases)."""

    name: str
    hidden_size: int
    ffn_hidden_size: int
    num_layers: int
    num_attention_heads: int
    num_query_groups: int
    max_position_embeddings: int
    vocab_size: int
    rope_theta: float = 10000.0
    norm_eps: float = 1e-5
    tie_embeddings: bool = False
    init_std: float = 0.02

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
        for key in ("hidden_size", "ffn_hidden_size", "num_layers", "num_attention_heads", "vocab_size"):
            require(getattr(self, key) > 0, f"model.{key}={getattr(self, key)}: must be at least 1.")
        for key in ("rope_theta", "norm_eps"):
            require(getattr(self, key) > 0, f"model.{key}={getattr(self, key)}: must be above 0.")
        require(self.init_std >= 0, f"model.init_std={self.init_std}: must be at least 0.")
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
