"""Evaluation as a job: a small picklable object, torch-free until a rank calls it."""

from __future__ import annotations

from dataclasses import dataclass

from conf.schema.compare import CompareConfig
from conf.schema.hf import EvalConfig
from elm_megatron.hf.job import require_one
from elm_megatron.run.world import Outcome, World


@dataclass(frozen=True)
class Eval:
    """Measures the models `config` names, as the only rank of its world."""

    config: EvalConfig

    def __call__(self, world: World) -> Outcome:
        """Write the evaluation.

        Raises:
            InputError: a model, the dataset or a task is missing.
        """
        require_one(world, "eval")
        from elm_megatron.evaluate.evaluate import evaluate

        evaluate(self.config)
        return "done"


@dataclass(frozen=True)
class Compare:
    """Compares the two models `config` names, as the only rank of its world."""

    config: CompareConfig

    def __call__(self, world: World) -> Outcome:
        """Write the comparison.

        Raises:
            InputError: a model is missing, or no pair is held out.
        """
        require_one(world, "compare")
        from elm_megatron.evaluate.compare import compare

        compare(self.config)
        return "done"
