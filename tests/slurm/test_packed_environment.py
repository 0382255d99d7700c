"""Ranks that start from a packed environment, on a real Slurm; and what is refused before that."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Iterator
from pathlib import Path

import pytest

from conf.errors import InputError
from conf.schema.cluster import ClusterConfig
from slurm import packed_environment
from slurm.devcluster.cluster import DevCluster
from tests.slurm.jobs.test_attempts_on_slurm import HERE, job_of, losses, undisturbed, wait_state

ON_NODES = Path(f"/tmp/elm-environments-{os.geteuid()}")


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A virtual environment of a few files; its packages are those of the environment of the tests."""
    folder = tmp_path / "small"
    venv.create(folder, symlinks=True)
    site = folder / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"
    (site / "all.pth").write_text(f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n")
    yield folder
    for path in tmp_path.glob("small.packed/*.tar*"):
        shutil.rmtree(ON_NODES / path.name, ignore_errors=True)


def in_small(small: Path, *words: str) -> subprocess.CompletedProcess[str]:
    root = Path(__file__).parents[2]
    env = os.environ | {"PYTHONPATH": f"{root}{os.pathsep}{HERE}"}
    python = str(small / "bin/python")
    return subprocess.run(
        [python, *words], env=env, capture_output=True, text=True, cwd=small.parent, check=False
    )


def submit(small: Path, run: Path) -> subprocess.CompletedProcess[str]:
    keys = ["2", "3", "0.1", "show prefix", "nodes=2", "environment=packed"]
    return in_small(small, str(HERE / "stepping.py"), str(run), *keys)


@pytest.mark.slurm
def test_ranks_start_from_a_copy_on_each_node_and_without_one_from_the_environment(
    devcluster: DevCluster, small: Path, tmp_path: Path
) -> None:
    refused = submit(small, tmp_path / "runs/early")
    assert refused.returncode == 2 and "pack it: python -m slurm.packed_environment" in refused.stderr
    assert not (tmp_path / "runs/early").exists()

    packed = in_small(small, "-m", "slurm.packed_environment")
    (file,) = (tmp_path / "small.packed").iterdir()
    assert packed.returncode == 0 and packed.stdout.startswith(f"{file}: "), packed.stderr
    for name in ("first", "again"):
        assert submit(small, tmp_path / "runs" / name).returncode == 0
        wait_state(tmp_path / "runs" / name, "done")
    for run in (tmp_path / "runs/first", tmp_path / "runs/again"):
        assert losses(run) == undisturbed(3)
        assert [(run / f"prefix-{rank}").read_text() for rank in (0, 1)] == [str(ON_NODES / file.name)] * 2
    assert [path.name for path in ON_NODES.iterdir() if file.name in path.name] == [file.name]

    shutil.rmtree(ON_NODES / file.name)
    file.write_bytes(b"torn")
    run = tmp_path / "runs/torn"
    assert submit(small, run).returncode == 0
    wait_state(run, "done")
    assert (run / "prefix-0").read_text() == str(small)
    errors = (run / f"logs/{job_of(run)}_0_log.err").read_text()
    assert "the packed environment is not on every node; ranks start from" in errors


def test_the_name_follows_what_is_installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(packed_environment, "folder", lambda: tmp_path)
    name = packed_environment._name()
    (tmp_path / f"{name}.tar").touch()
    assert packed_environment.find() == packed_environment.pack() == tmp_path / f"{name}.tar"
    before = packed_environment.lock()
    monkeypatch.setattr(packed_environment, "lock", lambda: before + "\nnew==1.0")
    with pytest.raises(InputError, match="has changed since it was packed"):
        packed_environment.find()


def test_it_is_for_sbatch_and_for_no_container() -> None:
    with pytest.raises(InputError, match=r"cluster\.environment='packed': must be bare with cluster=local"):
        ClusterConfig(environment="packed").check()
    with pytest.raises(InputError, match="must be bare with a container"):
        ClusterConfig(executor="slurm", environment="packed", container="/x.sif").check()
