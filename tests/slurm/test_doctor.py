"""Doctor's lines, with and without a Slurm to ask."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from elm_megatron.cluster import ClusterConfig, SiteConfig
from slurm import doctor
from slurm.devcluster.cluster import DevCluster


def levels(findings: list[doctor.Finding]) -> dict[str, str]:
    return {item.what: item.level for item in findings}


def test_pins_follow_the_python_version() -> None:
    text = '# note\na==1\nb==2 ; python_version < "3"\nb==3 ; python_version >= "3"\n'
    assert doctor._pins(text) == {"a": "1", "b": "3"}


def test_an_impostor_called_apex_is_told_from_nvidias(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "apex").mkdir()
    (tmp_path / "apex/__init__.py").touch()
    assert doctor.apex(ClusterConfig())[0].level == doctor.WARNING
    sys.modules.pop("apex", None)
    (tmp_path / "apex/optimizers").mkdir()
    (tmp_path / "apex/optimizers/__init__.py").touch()
    assert doctor.apex(ClusterConfig())[0].level == doctor.OK
    sys.modules.pop("apex", None)


def test_a_machine_without_slurm_gets_sentences_not_tracebacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    monkeypatch.setattr(doctor, "gpus", lambda cluster: [])
    found = doctor.examine(ClusterConfig(executor="slurm", container="/nowhere.sif"))
    assert levels(found)["partitions"] == levels(found)["container"] == doctor.PROBLEM
    assert any("not on PATH" in item.found for item in found)
    assert doctor.show(found) == 1


@pytest.mark.slurm
def test_against_a_live_system(devcluster: DevCluster) -> None:
    site = SiteConfig(cores=16, memory_gb=15, gpus=4, max_time="1-00:00:00")
    right = ClusterConfig(executor="slurm", partition="low", mpi="pmi2", site=site)
    found = levels([*doctor.mpi(right), *doctor.partitions(right), *doctor.accounting(right)])
    assert doctor.PROBLEM not in found.values() and found["partition low"] == doctor.OK
    wrong = ClusterConfig(
        executor="slurm",
        partition="low",
        cpu_partition="gone",
        mpi="openmpi",
        site=SiteConfig(cores=64, memory_gb=15, gpus=4, max_time="5-00:00:00"),
    )
    found = levels([*doctor.mpi(wrong), *doctor.partitions(wrong)])
    assert found["MPI"] == found["partition gone"] == found["cluster.site.cores"] == doctor.PROBLEM
    assert found["cluster.site.max_time"] == doctor.WARNING and found["cluster.site.memory_gb"] == doctor.OK
