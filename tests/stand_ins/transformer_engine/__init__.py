"""A stand-in for NVIDIA's Transformer Engine, which needs a GPU to be useful: names and shapes, no kernels.

It lets megatron-core define its Transformer Engine layer spec on a machine without one, so that the spec's
parameter names and shapes can be compared with the torch spec's. Nothing here computes.
"""

from transformer_engine import pytorch

__version__ = "2.2.0"
__all__ = ["pytorch"]


class common:
    """fp8 recipes, never used."""

    class recipe:
        """Names alone."""

        class DelayedScaling:
            """Not used."""
