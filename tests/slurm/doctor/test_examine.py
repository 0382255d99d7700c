"""Doctor's lines, with and without a Slurm to ask."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from conf.schema.cluster import ClusterConfig, SiteConfig
from slurm.devcluster.cluster import DevCluster
from slurm.doctor import examine as doctor
from slurm.doctor import live_slurm as doctor_slurm
from slurm.doctor.finding import OK, PROBLEM, WARNING, Finding
from slurm.doctor.site_traits import traits


def levels(findings: list[Finding]) -> dict[str, str]:
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
    assert doctor.apex(ClusterConfig())[0].level == WARNING
    sys.modules.pop("apex", None)
    (tmp_path / "apex/optimizers").mkdir()
    (tmp_path / "apex/optimizers/__init__.py").touch()
    assert doctor.apex(ClusterConfig())[0].level == OK
    sys.modules.pop("apex", None)


def test_a_machine_without_slurm_gets_sentences_not_tracebacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    monkeypatch.setattr(doctor, "gpus", lambda cluster: [])
    found = doctor.examine(ClusterConfig(executor="slurm", container="/nowhere.sif"))
    assert levels(found)["Slurm"] == levels(found)["container"] == PROBLEM
    assert any("not on PATH" in item.found for item in found)
    assert found[-1].todo == "run this on a login node of local" and doctor.show(found) == 1


def test_a_controller_that_does_not_answer_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "gpus", lambda cluster: [])
    last = doctor.examine(ClusterConfig(executor="slurm", slurm_conf=str(tmp_path / "none")))[-1]
    assert last.level == PROBLEM and "slurm.devcluster up" in last.todo


@pytest.mark.parametrize(
    ("gres", "count"),
    [
        ("gpu:h100:4(S:0-1)", 4),
        ("gpu:4", 4),
        ("gpu:nvidia_a100-sxm4-80gb:4(S:0-1)", 4),
        ("gpu:a100-40:2,gpu:a100-80:2,nvme:1", 4),
        ("(null)", 0),
    ],
)
def test_the_gpus_of_a_node_are_counted_whatever_their_type_is_called(
    gres: str, count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sinfo = tmp_path / "sinfo"
    sinfo.write_text(f"#!/bin/sh\necho '64|737280|{gres}'\n")
    sinfo.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    (found,) = doctor_slurm._nodes(ClusterConfig(executor="slurm", site=SiteConfig(gpus=4)))
    assert found.found == f"4, nodes have {count}"


@pytest.mark.slurm
def test_against_a_live_system(devcluster: DevCluster) -> None:
    site = SiteConfig(cores=16, memory_gb=15, gpus=4, max_time="1-00:00:00")
    right = ClusterConfig(executor="slurm", partition="low", account="elm", mpi="pmi2", site=site)
    assert doctor_slurm.controller(right)[0].level == OK
    found = levels([line for check in doctor_slurm.CHECKS for line in check(right)])
    assert PROBLEM not in found.values() and found["partition low"] == found["account"] == OK
    wrong = ClusterConfig(
        executor="slurm",
        partition="low",
        cpu_partition="gone",
        mpi="openmpi",
        site=SiteConfig(cores=64, memory_gb=15, gpus=4, max_time="5-00:00:00"),
    )
    wrong.account = "nobodys"
    found = levels([line for check in doctor_slurm.CHECKS for line in check(wrong)])
    assert found["MPI"] == found["partition gone"] == found["cluster.site.cores"] == PROBLEM
    assert found["cluster.account"] == PROBLEM
    assert found["cluster.site.max_time"] == WARNING and found["cluster.site.memory_gb"] == OK


def test_the_traits_of_a_site_are_named_with_what_is_done_about_them(other_site: DevCluster) -> None:
    conf = str(other_site.layout.slurm_conf)
    cluster = ClusterConfig(
        name="two", executor="slurm", slurm_conf=conf, partition="cancel", signal_seconds=60
    )
    told = {item.what: item.found for item in traits(cluster)}
    assert "successor" in told["JobRequeue"] and "CANCEL" in told["preemption"]
    assert "MaxTime 1-00:00:00" in told["time limit"] and "keeps none" in told["comments"]
    cluster.partition, cluster.signal_seconds = "short", 300
    (late,) = [item for item in traits(cluster) if item.what == "time limit"]
    assert late.level == WARNING and "00:05:00" in late.found
    cluster.partition = "suspend"
    assert any("SUSPEND" in item.found and item.level == WARNING for item in traits(cluster))
