"""A run's settings as the time model needs them: its device, its shape, its layout. Torch-free."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, TypeVar

from conf.errors import InputError
from conf.schema.model import ModelConfig
from conf.schema.pretrain import PretrainConfig
from conf.schema.train import TrainConfig
from conf.schema.tune import FinetuneConfig
from elm_megatron.planner.devices import Device, device, nearest
from elm_megatron.planner.performance import Layout, Shape

NODE_NETWORK_GB = 25.0  # GB/s of a node, where the site's YAML does not say
Trained = TypeVar("Trained", PretrainConfig, FinetuneConfig)


def loop_key(config: PretrainConfig | FinetuneConfig) -> str:
    """The group of a verb's loop, "train" or "tune"."""
    return "tune" if isinstance(config, FinetuneConfig) else "train"


def loop_of(config: PretrainConfig | FinetuneConfig) -> TrainConfig:
    """A verb's loop."""
    return getattr(config, loop_key(config))


def with_loop(config: Trained, **changes: Any) -> Trained:
    """A verb's settings with other values in its loop."""
    return replace(config, **{loop_key(config): replace(loop_of(config), **changes)})


def device_of(config: PretrainConfig) -> Device:
    """The device of the cluster's site.

    Raises:
        InputError: the site says neither its model nor its peak.
    """
    site = config.cluster.site
    if site.gpu_model:
        return device(site.gpu_model)
    if config.cluster.device == "cpu" or not (site.peak_tflops and site.gpu_memory_gb):
        raise InputError(
            f"cluster={config.cluster.name}: its YAML names no GPU (site.gpu_model, or site.peak_tflops and "
            "site.gpu_memory_gb), so that no time can be predicted."
        )
    return nearest(site.peak_tflops, site.gpu_memory_gb)


def shape_of(model: ModelConfig) -> Shape:
    """A model's sizes as the time model needs them."""
    return Shape(
        model.hidden_size,
        model.ffn_hidden_size,
        model.num_layers,
        model.num_attention_heads,
        model.num_query_groups,
        model.padded_vocab_size,
    )


def layout_of(config: PretrainConfig) -> Layout:
    """A run's layout as the time model needs it."""
    parallel, train, cluster = config.parallel, config.train, config.cluster
    per_node = config.world_size // cluster.nodes
    network = cluster.site.network_gb or NODE_NETWORK_GB
    return Layout(
        gpus=config.world_size,
        gpus_per_node=per_node,
        micro_batch=train.least_micro_batch,
        global_batch=train.global_batch_size,
        length=train.seq_length,
        tp=parallel.tp,
        pp=parallel.pp,
        vpp=parallel.vpp,
        cp=parallel.cp,
        recompute=train.recompute,
        network_gb=network,
    )
