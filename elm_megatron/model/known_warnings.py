"""Warnings of libraries that say nothing to a user, hidden by their words.

All others are shown: one of megatron-core's told of wrong gradients in Transformer Engine's cross entropy.
`elm_megatron/__init__.py` hides them before any module imports megatron-core.
"""

from __future__ import annotations

import logging
import warnings

MESSAGES = (
    r"Transformer Engine and Apex are not installed",
    r"Apex is not installed",
    r"The following imports from `dynamic_context\.py`",
    r"\s*The 'megatron\.core\.transformer\.custom_layers\.transformer_engine'",
    r"full scope is deprecated",
    r"WARNING: there is no optimizer on RANK",  # a frozen stage of an adapter's base
    r"torch\.distributed\._all_gather_base is a private function",
    r"torch\.distributed\._reduce_scatter_base is a private function",
    r"No device id is provided via `init_process_group`",
)
ADVICE = (
    "megatron.core.models.gpt.gpt_model",
    "megatron.core.transformer.transformer_layer",
    "torch.utils.cpp_extension",
)


def hide() -> None:
    """Hide the messages above, and no other.

    megatron-core says on every rank that optional kernels are missing; `doctor` says it once. It warns about
    our own MLP class, 0.19 advises another class than GPTModel, and torch says where a CUDA toolkit has no
    GPU.
    """
    for message in MESSAGES:
        warnings.filterwarnings("ignore", message=message)
    for name in ADVICE:
        logging.getLogger(name).setLevel(logging.ERROR)
