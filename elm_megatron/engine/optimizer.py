"""AdamW through megatron-core, taken apart so that a bad gradient can be refused before the update.

The only module that looks inside megatron-core's optimizers: where a parameter's master weights and moments
live, and which part of them this rank owns.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from megatron.core.distributed import DistributedDataParallel
from megatron.core.optimizer import OptimizerConfig, get_megatron_optimizer
from megatron.core.optimizer.clip_grads import clip_grad_by_total_norm_fp32
from megatron.core.optimizer.distrib_optimizer import DistributedOptimizer

from conf.schema.train import TrainConfig
from elm_megatron.checkpoint.rank_state import MOMENTS
from elm_megatron.model.llama import DTYPES


@dataclass(frozen=True)
class OwnedPart:
    """The part of one parameter that this rank updates.

    Attributes:
        start, stop: the part as a range of the flattened local parameter.
        main: fp32 master weights, flat [stop - start]; a view of the parameter itself in fp32 runs.
        inner: the tensor the inner optimizer holds; key of its state.
    """

    start: int
    stop: int
    main: torch.Tensor
    inner: torch.Tensor


class Optimizer:
    """AdamW with decoupled weight decay on matrices only.

    Args:
        chunks: this rank's model chunks, wrapped for data parallelism.
        train: rates, betas, clipping.
        distributed: spread its state over the data-parallel ranks.
    """

    def __init__(self, chunks: list[DistributedDataParallel], train: TrainConfig, distributed: bool):
        config = OptimizerConfig(
            optimizer="adam",
            lr=train.lr,
            min_lr=train.min_lr,
            weight_decay=train.weight_decay,
            adam_beta1=train.beta1,
            adam_beta2=train.beta2,
            adam_eps=train.eps,
            clip_grad=train.clip_grad,
            bf16=train.precision != "fp32",
            params_dtype=DTYPES[train.precision],
            use_distributed_optimizer=distributed,
        )
        self.clip_grad = train.clip_grad
        self._mcore = get_megatron_optimizer(config, chunks, use_gloo_process_groups=False)
        (self._dense,) = self._mcore.chained_optimizers  # one: a dense model has no expert parameters
        for group in self.param_groups:
            # megatron-core marks the vectors with a multiple of 0 that only its own scheduler would apply.
            group["weight_decay"] = train.weight_decay * group["wd_mult"]
        if isinstance(self._dense.optimizer, torch.optim.AdamW):
            for group in self.param_groups:
                group["fused"] = True  # one pass over memory; megatron-core leaves torch's default of a dozen

    @property
    def param_groups(self) -> list[dict]:
        """The inner optimizer's parameter groups."""
        return self._mcore.param_groups

    def zero_grad(self) -> None:
        """Forget the gradients of the last step."""
        self._mcore.zero_grad()

    def set_learning_rate(self, lr: float) -> None:
        """Use this rate for the next update."""
        for group in self.param_groups:
            group["lr"] = lr

    def gradient_norm(self) -> float:
        """Move the reduced gradients to the master weights and return their norm over the whole model."""
        if self._mcore.prepare_grads():
            return float("nan")
        norm = self._mcore.get_grad_norm()
        return norm.item() if isinstance(norm, torch.Tensor) else float(norm)

    def update(self, gradient_norm: float) -> None:
        """Clip by the given norm and update the weights."""
        if self.clip_grad > 0.0:
            parameters = self._dense.get_parameters()
            if parameters:
                clip_grad_by_total_norm_fp32(parameters, self.clip_grad, gradient_norm)
        self._mcore.step_with_ready_grads()

    def owned_part(self, param: torch.nn.Parameter) -> OwnedPart | None:
        """Which part of a parameter this rank updates; None when other ranks own all of it."""
        if isinstance(self._dense, DistributedOptimizer):
            if param not in self._dense.model_param_group_index_map:
                return None
            group, order = self._dense.model_param_group_index_map[param]
            inner = self._dense.optimizer.param_groups[group]["params"][order]
            place = self._dense._get_model_param_range_map(param)["param"]
            return OwnedPart(place.start, place.end, inner.data.view(-1), inner)
        inner = getattr(param, "main_param", None)
        inner = param if inner is None else inner
        return OwnedPart(0, param.numel(), inner.data.view(-1), inner)

    def moments(self, part: OwnedPart) -> dict[str, torch.Tensor]:
        """Both moments of a part, flat fp32; empty before the first update."""
        state = self._dense.optimizer.state.get(part.inner, {})
        return {name: state[name].view(-1) for name in MOMENTS if name in state}

    def set_moments(self, part: OwnedPart, moments: dict[str, torch.Tensor], step: int) -> None:
        """Put back both moments of a part as they were after update number `step`."""
        inner, like = self._dense.optimizer, part.inner
        state = {name: value.to(like.device).view_as(like).clone() for name, value in moments.items()}
        if isinstance(inner, torch.optim.AdamW):
            state["step"] = torch.tensor(float(step), dtype=torch.float32, device=like.device)
        inner.state[like] = state

    def set_step(self, step: int) -> None:
        """Fused optimizers count updates per group; torch's counts them per parameter (`set_moments`)."""
        if not isinstance(self._dense.optimizer, torch.optim.AdamW):
            for group in self.param_groups:
                group["step"] = step
