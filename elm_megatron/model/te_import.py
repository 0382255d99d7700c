"""Transformer Engine behind a guard: an installation that cannot be imported counts as none.

megatron-core imports Transformer Engine wherever it finds it, and expects an ImportError where that
fails. Wheels of 2.17 and 2.18 link the driver's library and raise OSError on a node without a driver.
The core library without the torch extension raises FileNotFoundError. Either would end every command on
a login or CPU node. The guard turns such a failure into an ImportError, for all of the package at once,
and keeps the reason.

`elm_megatron/__init__.py` installs it: the package is imported before any module of it imports megatron-core.
Torch-free until Transformer Engine itself is imported.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import json
import sys
from collections.abc import Sequence
from importlib import metadata
from types import ModuleType
from typing import Any

NAME = "transformer_engine"


class _Loader(importlib.abc.Loader):
    """Loads the package and its torch extension, or nothing of it."""

    def __init__(self, loader: Any):
        self._loader = loader

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        try:
            self._loader.exec_module(module)
            importlib.import_module(f"{NAME}.pytorch")
        except Exception as error:
            _Guard.failure = f"{type(error).__name__}: {' '.join(str(error).split())}"
            _Guard.version = getattr(module, "__version__", None)
            for name in [name for name in sys.modules if name.startswith(f"{NAME}.")]:
                del sys.modules[name]
            raise ImportError(f"{NAME} cannot be imported: {_Guard.failure}", name=NAME) from error


class _Guard(importlib.abc.MetaPathFinder):
    """Finds the package as the other finders do, and gives it the loader above."""

    failure: str | None = None
    version: str | None = None  # of the package that could not be imported, where it says so

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name != NAME:
            return None
        if self.failure:
            raise ModuleNotFoundError(f"{NAME} cannot be imported: {self.failure}", name=NAME)
        for finder in sys.meta_path:
            spec = None if finder is self else finder.find_spec(name, path, target)
            if spec is not None:
                if spec.loader is not None:
                    spec.loader = _Loader(spec.loader)
                return spec
        return None


def install() -> None:
    """Put the guard before Python's own finders, once."""
    if not any(isinstance(finder, _Guard) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Guard())


def version() -> str | None:
    """The version that is installed, whether it can be imported or not; None for none."""
    said = getattr(sys.modules.get(NAME), "__version__", _Guard.version)
    if said:
        return said
    for name in ("transformer_engine", "transformer-engine", "transformer_engine_torch"):
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return None


def usable() -> bool:
    """Whether Transformer Engine can be imported here; the first call imports it."""
    try:
        importlib.import_module(NAME)
    except ImportError:
        return False
    return True


def failure() -> str | None:
    """Why an installation that is here cannot be imported; None where there is none, or where it can."""
    return None if usable() else _Guard.failure


def main() -> None:
    """Print what is here as JSON, for `launch/doctor.py`, which holds no torch."""
    reason = failure()
    print(json.dumps({"version": version(), "usable": usable(), "failure": reason}))
