"""Whether the libraries that a verb needs are installed, asked before anything is queued."""

from __future__ import annotations

import sys
from dataclasses import replace
from importlib import util
from typing import Any

from conf.errors import InputError
from conf.schema.cluster import ClusterConfig
from conf.schema.hf import TASKS, EvalConfig

# The extras of setup.cfg that a verb needs, and libraries that stand for each.
NEEDS = {
    "preprocess": ("data",),
    "pretrain": ("train",),
    "finetune": ("train",),
    "export": ("train", "hf"),
    "import_hf": ("train", "hf"),
    "eval": ("hf",),
    "compare": ("hf",),
    "serve": ("community", "data"),
    "community": ("community",),
}
LIBRARIES = {
    "data": ("sentencepiece", "tokenizers", "pyarrow"),
    "train": ("torch", "megatron.core", "safetensors"),
    "hf": ("transformers", "safetensors"),
    "eval": ("lm_eval",),
    "community": ("starlette", "uvicorn", "httpx2", "sqlalchemy", "alembic", "authlib"),
    "llamacpp": ("xllamacpp",),
    "vllm": ("vllm",),
}


def check(verb: str, config: Any) -> None:
    """Refuse a verb whose libraries are missing; those of a container cannot be looked at from here.

    Raises:
        InputError: naming the library and the command that installs it.
    """
    cluster: ClusterConfig | None = getattr(config, "cluster", None)
    if cluster is not None and cluster.container:
        return
    wanted = [*NEEDS.get(verb, ()), *(["eval"] if getattr(config, "tasks", None) else [])]
    wanted += [config.engine] if verb == "serve" else []
    for extra in wanted:
        for library in LIBRARIES[extra]:
            if not is_installed(library):
                raise InputError(
                    f"{verb} needs {library}, which is not installed: "
                    f"pip install -c constraints.txt -e .[{extra}]."
                )


def is_installed(library: str) -> bool:
    """Whether a library can be found; it is not imported."""
    try:
        return util.find_spec(library) is not None
    except ModuleNotFoundError:  # its parent is missing
        return False


def measurable(config: EvalConfig) -> EvalConfig:
    """A default evaluation without its tasks where lm-eval is missing, which is said; any other as it is."""
    default = list(config.tasks) == list(TASKS) and config.split is not None
    if config.cluster.container or not default or is_installed("lm_eval"):
        return config
    print(
        "eval measures perplexity alone: its tasks need lm-eval, which is not installed "
        "(pip install -c constraints.txt -e .[eval]).",
        file=sys.stderr,
    )
    return replace(config, tasks=[])
