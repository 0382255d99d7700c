"""A run's settings as the time model needs them: its device, its shape, its layout. Torch-free."""

from __future__ import annotations

from conf.errors import InputError
from conf.schema.model import ModelConfig
from conf.schema.pretrain import PretrainConfig
from elm_megatron.planner.devices import Device, device, nearest
from elm_megatron.planner.performance import Layout, Shape

NODE_NETWORK_GB = 25.0  # GB/s of a node, where the site's YAML does not say


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
        micro_batch=train.micro_batch_size,
        global_batch=train.global_batch_size,
        length=train.seq_length,
        tp=parallel.tp,
        pp=parallel.pp,
        vpp=parallel.vpp,
        cp=parallel.cp,
        recompute=train.recompute,
        network_gb=network,
    )
