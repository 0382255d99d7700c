"""The words that conf/*.yaml may use in ${word:…}; compose.py registers them once."""

from __future__ import annotations

from omegaconf import DictConfig, OmegaConf

from conf import names


def checkout() -> str:
    """The folder of this checkout."""
    return str(names.CONF.parent)


def by_stage(sft: float, dpo: float, *, _root_: DictConfig, _parent_: DictConfig) -> float:
    """One of two numbers in conf/tune/: preferences want a lower rate than answers.

    A chain has both stages, and the settings of the second in the group `dpo_tune`.
    """
    return dpo if OmegaConf.select(_root_, "stage") == "dpo" or _parent_._key() == "dpo_tune" else sft


def register() -> None:
    """Make the resolvers known to OmegaConf."""
    for function in (
        checkout,
        by_stage,
        names.folder_name,
        names.licence_of,
        names.joined_names,
        names.tuning_run_name,
    ):
        OmegaConf.register_new_resolver(function.__name__, function, replace=True)
