"""A Transformer Engine that cannot be imported: commands that do not need it work, and the reason is kept."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from conf.schema.cluster import ClusterConfig
from slurm.doctor import examine

ROOT = Path(__file__).resolve().parents[3]
FAULTS = {
    "no driver": ("", "raise OSError('libcuda.so.1: cannot open shared object file')"),
    "core alone": ("from transformer_engine import pytorch", "raise FileNotFoundError('no torch extension')"),
    "another torch": ("from . import pytorch", "raise RuntimeError('undefined symbol: _ZN2at4cuda')"),
    "a module missing": ("", "import transformer_engine_torch_of_another_version"),
}
REASONS = {
    "no driver": "OSError: libcuda.so.1",
    "core alone": "FileNotFoundError: no torch extension",
    "another torch": "RuntimeError: undefined symbol",
    "a module missing": "ModuleNotFoundError: No module named",
}
HEAVY = (  # what each verb's job loads in a rank
    "elm_megatron.engine.train",
    "elm_megatron.engine.preflight",
    "elm_megatron.tune.sft",
    "elm_megatron.tune.dpo",
    "elm_megatron.tune.preflight",
    "elm_megatron.hf.export",
    "elm_megatron.hf.import_hf",
    "elm_megatron.evaluate.evaluate",
    "elm_megatron.evaluate.generate",
    "elm_megatron.model.kernels",
)


def faulty(folder: Path, fault: str) -> dict[str, str]:
    """The environment of a machine whose Transformer Engine has this fault."""
    package = folder / "transformer_engine" / "pytorch"
    package.mkdir(parents=True)
    for path, text in zip((package.parent, package), FAULTS[fault], strict=True):
        (path / "__init__.py").write_text(f"__version__ = '2.18.0'\n{text}\n")
    return {**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{ROOT}"}


def run(code: str, env: dict[str, str]) -> str:
    """What a process of its own prints."""
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("fault", ["no driver", "core alone"])
def test_every_verb_can_be_imported_beside_it(fault: str, tmp_path: Path) -> None:
    """And megatron-core takes none of it, not even the half that could be imported."""
    code = f"import importlib; [importlib.import_module(name) for name in {HEAVY}];"
    code += "from megatron.core.models.gpt import gpt_layer_specs as specs; print(specs.HAVE_TE)"
    assert run(code, faulty(tmp_path, fault)).strip() == "False"


@pytest.mark.parametrize("fault", FAULTS)
def test_the_reason_is_kept(fault: str, tmp_path: Path) -> None:
    code = "from elm_megatron.model import te_import as t; t.main(); t.main()"
    said = run(code, faulty(tmp_path, fault)).splitlines()
    first, again = map(json.loads, said)
    assert first == again and not first["usable"]
    assert first["version"] == "2.18.0" and first["failure"].startswith(REASONS[fault])


def test_one_that_works_is_taken() -> None:
    env = {**os.environ, "PYTHONPATH": f"{ROOT / 'tests' / 'stand_ins'}{os.pathsep}{ROOT}"}
    found = json.loads(run("from elm_megatron.model import te_import; te_import.main()", env))
    assert found["usable"] and found["failure"] is None


def test_doctor_says_it_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for key, value in faulty(tmp_path, "no driver").items():
        monkeypatch.setenv(key, value)
    monkeypatch.syspath_prepend(tmp_path)
    (line,) = examine.transformer_engine(ClusterConfig(device="gpu"))
    assert line.level == "warning"
    assert line.found == "2.18.0 cannot be imported: OSError: libcuda.so.1: cannot open shared object file"
    assert "--no-build-isolation" in line.todo and "2.20.2" in line.todo


def test_doctor_tells_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The torch extension is built from source; in isolation pip would build it for the newest torch."""
    monkeypatch.setattr(examine.util, "find_spec", lambda name: None)
    (line,) = examine.transformer_engine(ClusterConfig(device="gpu"))
    assert line.found == "absent" and "pip install --no-build-isolation" in line.todo
    assert examine.transformer_engine(ClusterConfig(device="cpu")) == []
