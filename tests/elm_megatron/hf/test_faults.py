"""Exports that must not happen: wrong numbers, damaged checkpoints, pickles, and an end at any point."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from conf.errors import InputError
from data_prep.files import sha256
from elm_megatron.checkpoint import manifest as checkpoint_manifest
from elm_megatron.hf.export import open_source
from elm_megatron.hf.job import Export
from elm_megatron.run.folder import RunFolder
from tests.elm_megatron import model_jobs as cases
from tests.elm_megatron.executioner import Executioner
from tests.elm_megatron.rank_pool import RankPool


@pytest.fixture
def run(made: Callable[[str], cases.Made], tmp_path: Path) -> Path:
    """A copy of a trained run, to be damaged."""
    shutil.copytree(made("gqa").run, tmp_path / "run")
    return tmp_path / "run"


def files(folder: Path) -> set[str]:
    """What lies in a run folder apart from its own files."""
    return {path.name for path in folder.iterdir()} - {"run.json", "logs"}


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a model's folder and of the folders in it."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("fault", cases.WRONG)
def test_gate_refuses(fault: str, run: Path, ranks: RankPool, tmp_path: Path):
    """A swap, a NaN, a thousandth, a wrong setting: the export fails and leaves nothing."""
    config = cases.export_config(tmp_path / "export", run)
    (said,) = ranks.run(1, cases.export_with_fault, config=config, fault=fault)
    assert "the exported file's logits differ from Megatron's" in said
    assert files(tmp_path / "export") == set()


def test_killed_at_any_point(run: Path, ranks: RankPool, executioner: Executioner, tmp_path: Path):
    """kill -9 leaves either no model or the earlier one, whole; the next export succeeds and cleans up."""
    config = cases.export_config(tmp_path / "export", run)
    target = RunFolder(config.run.dir)
    points = ["tensor-0", "tensor-7", "tensor-38", "finish", "tokenizer", "gate", "card", "replace"]
    for point in points:
        assert executioner.do(Export(config), point) == 9
        assert not (target.path / "model").exists()
    ranks.run(1, cases.export, config=config)
    assert files(target.path) == {"model"}
    first = contents(target.path / "model")
    config.dtype = "bf16"
    for point in points:
        assert executioner.do(Export(config), point) == 9
        assert contents(target.path / "model") == first
    # The two folders have changed names, and the earlier one is still there under a hidden name.
    assert executioner.do(Export(config), "rename-0") == 9
    assert contents(target.path / "model").keys() == first.keys()
    assert json.loads((target.path / "model" / "config.json").read_text())["dtype"] == "bfloat16"
    ranks.run(1, cases.export, config=config)
    assert files(target.path) == {"model"}
    assert json.loads((target.path / "model" / "config.json").read_text())["dtype"] == "bfloat16"


def test_same_export_is_found(made: Callable[[str], cases.Made], ranks: RankPool):
    """The same command again leaves the folder alone; a file of another size makes it anew."""
    one = made("gqa")
    config = cases.export_config(one.hf.parent, one.run, shard_gb=0.0004)
    before = (one.hf / "config.json").stat().st_mtime_ns
    ranks.run(1, cases.export, config=config)
    assert (one.hf / "config.json").stat().st_mtime_ns == before


def refusal(run: Path, tmp_path: Path, **changes: object) -> str:
    """The sentence a source is refused with, before anything is written."""
    with pytest.raises(InputError) as error:
        open_source(cases.export_config(tmp_path / "export", run, **changes))
    assert files(tmp_path / "export") == set()
    assert str(error.value).endswith(".")
    return str(error.value)


def shard(run: Path) -> Path:
    """A file of the newest checkpoint."""
    return run / "checkpoints" / "step-00000003" / "rank-00001-0.safetensors"


def test_damaged_checkpoints(run: Path, tmp_path: Path):
    """One flipped byte, a short file, a missing file, a missing step."""
    path = shard(run)
    good = path.read_bytes()
    path.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    assert "sha256 differs" in refusal(run, tmp_path)
    path.write_bytes(good[:-1])
    assert f"{len(good) - 1} bytes" in refusal(run, tmp_path)
    path.unlink()
    assert "rank-00001-0.safetensors: missing" in refusal(run, tmp_path)
    assert "step 9" in refusal(run, tmp_path, step=9)


def test_pickles_do_not_run(run: Path, ranks: RankPool, tmp_path: Path):
    """A pickle beside the files is never opened; one in a file's place, hashes forged, is refused."""
    marker = tmp_path / "ran"
    pickle = f"cos\nsystem\n(S'touch {marker}'\ntR.".encode()
    for name in ("common.pt", ".metadata", "rank-00000.pt"):
        (shard(run).parent / name).write_bytes(pickle)
    ranks.run(1, cases.export, config=cases.export_config(tmp_path / "good", run))
    path = shard(run)
    path.write_bytes(pickle)
    manifest = json.loads((path.parent / "manifest.json").read_text())
    manifest["files"][path.name].update(bytes=len(pickle), sha256=sha256(path))
    checkpoint_manifest.write(path.parent, manifest)
    source = open_source(cases.export_config(tmp_path / "export", run))
    with pytest.raises(InputError, match="cannot be read"):
        source.weights.part(0)
    assert not marker.exists()


def test_another_dataset(run: Path, corpus: Path, tmp_path: Path):
    """A dataset built anew since training is not passed off as the one the model has read."""
    other = tmp_path / "other"
    shutil.copytree(corpus, other)
    manifest = json.loads((other / "manifest.json").read_text())
    manifest["notes"] = ["built again"]
    (other / "manifest.json").write_text(json.dumps(manifest))
    from conf.schema.hf import DatasetChoice

    said = refusal(run, tmp_path, data=DatasetChoice(str(other)))
    assert "is not the dataset run was trained on" in said
