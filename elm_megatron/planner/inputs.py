"""A run's settings as the time model needs them: its device, its shape, its layout. Torch-free."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any, TypeVar

from conf.errors import InputError
from conf.schema.cluster import ClusterConfig
from conf.schema.model import ModelConfig
from conf.schema.pretrain import PretrainConfig
from conf.schema.train import TrainConfig
from conf.schema.tune import FinetuneConfig
from elm_megatron.planner.devices import Device, device, nearest
from elm_megatron.planner.performance import Layout, Shape

CPU_PRODUCTS = 0.85  # `performance.GEMM`, which `site.mfu` has in it
# One core of the machine that the tests ran on: TFLOP/s of bf16 and of fp32 products, GB/s of memory, and
# GB/s between two ranks over gloo.
MEASURED_CORE = (0.19, 0.075, 6.0, 1.0)
CPU_WATTS = 280 / 64  # of a core: AMD's data sheet of the EPYC 7H12
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


def sheet_of(cluster: ClusterConfig) -> Device:
    """The GPU of a cluster's site: its data sheet, with what the site's YAML says on top.

    Raises:
        InputError: the site says neither its model nor its peak and memory.
    """
    site = cluster.site
    if site.gpu_model:
        sheet = device(site.gpu_model)
    elif site.peak_tflops and site.gpu_memory_gb:
        sheet = nearest(site.peak_tflops, site.gpu_memory_gb)
    else:
        raise InputError(
            f"cluster={cluster.name}: its YAML names no GPU (site.gpu_model, or site.peak_tflops and "
            "site.gpu_memory_gb), so that no time can be predicted."
        )
    said = {"memory_gb": site.gpu_memory_gb, "watts": site.gpu_watts, "bandwidth_gb": site.gpu_bandwidth_gb}
    return replace(sheet, **{name: value for name, value in said.items() if value})


def device_of(config: PretrainConfig) -> Device:
    """The device of a run as the time model sees it.

    In fp32 an element has twice the bytes, which is half the bandwidth. fp8 is counted as bf16.

    Raises:
        InputError: the cluster's site does not say what it has.
    """
    cluster = config.cluster
    sheet = _cores(config) if cluster.device == "cpu" else sheet_of(cluster)
    if config.train.precision != "fp32":
        return sheet
    halved = {name: getattr(sheet, name) / 2 for name in ("bandwidth_gb", "link_gb")}
    return replace(sheet, peak_tflops=sheet.fp32_tflops, **halved)


def _cores(config: PretrainConfig) -> Device:
    """A rank's share of a CPU node, as a device.

    On this machine it is what `MEASURED_CORE` says, times its cores. On other CPU nodes the utilisation of
    the site's YAML (`site.mfu`) stands for what the model of GPU kernels does not know.

    Raises:
        InputError: the site does not say what its CPU nodes have.
    """
    cluster, site = config.cluster, config.cluster.site
    ranks = config.world_size / cluster.nodes
    if cluster.executor == "local" and not site.peak_tflops:
        cores = os.cpu_count() or 1
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
        bf16, fp32, bandwidth, link = MEASURED_CORE
        part = cores / ranks
        return Device(
            "a rank on this machine", memory / ranks, bf16 * part, fp32 * part, bandwidth * part, link,
            CPU_WATTS * part, CPU_WATTS * part / 4,
        )  # fmt: skip
    if site.gpus or not site.peak_tflops or not site.memory_gb:
        why = (
            "site.peak_tflops is that of a GPU, and this is cluster.device=cpu"
            if site.gpus and site.peak_tflops
            else "its YAML names no GPU (site.gpu_model, or site.peak_tflops and site.gpu_memory_gb), nor a "
            "CPU node (site.peak_tflops and site.memory_gb)"
        )
        raise InputError(f"cluster={cluster.name}: {why}, so that no time can be predicted.")
    cores = _cores_of_node(cluster, round(ranks))
    part = (min(1.0, cores / site.cores) if site.cores else 1.0) / ranks  # of the node, for one rank
    peak = site.peak_tflops * part
    bandwidth = (site.gpu_bandwidth_gb or MEASURED_CORE[2] * (site.cores or cores)) * part
    watts = CPU_WATTS * cores / ranks
    # fp32 products have half the speed of bf16's on CPUs with units for both.
    return Device(
        "a rank of a CPU node", site.memory_gb / ranks, peak, peak / 2, bandwidth,
        site.network_gb or NODE_NETWORK_GB, watts, watts / 4, site.mfu / CPU_PRODUCTS,
    )  # fmt: skip


def _cores_of_node(cluster: ClusterConfig, per_node: int) -> int:
    """Cores of a node that its ranks have together; Slurm gives a rank one where nothing else is asked."""
    if cluster.executor == "local":
        return os.cpu_count() or 1
    if cluster.exclusive and cluster.site.cores:
        return cluster.site.cores
    return per_node * (cluster.cpus_per_task or 1)


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
        cores=_cores_of_node(cluster, per_node) if cluster.device == "cpu" else None,
    )
