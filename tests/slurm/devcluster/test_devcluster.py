"""The dev cluster is a Slurm like a site's: nodes, fake GPUs, accounting, preemption; it leaves nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from conf.errors import InputError
from slurm.devcluster import processes, texts
from slurm.devcluster.cluster import DevCluster, answers
from slurm.devcluster.layout import Layout, folder_of, free_ports
from tests.slurm.accounting import states


def submit(cluster: DevCluster, *options: str, script: str, folder: Path) -> str:
    """Submit a shell line and return its job id."""
    output = f"--output={folder}/%j.out"
    return cluster.command("sbatch", "--parsable", output, *options, f"--wrap={script}").stdout.strip()


def wait_for(cluster: DevCluster, job: str, wanted: list[str], seconds: float = 60) -> None:
    held = processes.wait_until(lambda: states(cluster, job) == wanted, seconds, 0.2)
    assert held, f"job {job}: {states(cluster, job)} instead of {wanted}"


def test_a_job_on_four_nodes_gets_gpus_and_is_accounted(devcluster: DevCluster, tmp_path: Path) -> None:
    job = submit(
        devcluster,
        "--nodes=4",
        "--ntasks-per-node=1",
        "--gpus-per-node=2",
        "--comment=elm:/somewhere",
        script="srun bash -c 'echo $SLURMD_NODENAME $CUDA_VISIBLE_DEVICES'",
        folder=tmp_path,
    )
    wait_for(devcluster, job, ["COMPLETED"])
    lines = sorted((tmp_path / f"{job}.out").read_text().splitlines())
    assert lines == ["n1 0,1", "n2 0,1", "n3 0,1", "n4 0,1"]
    row = devcluster.command("sacct", "-XnP", "-j", job, "--format=Account,NNodes,AllocTRES,Comment").stdout
    account, nodes, tres, comment = row.strip().split("|")
    assert (account, nodes, comment) == (texts.ACCOUNT, "4", "elm:/somewhere")
    assert "gres/gpu=8" in tres.split(",")


def test_a_high_job_requeues_a_low_one_under_the_same_id(devcluster: DevCluster, tmp_path: Path) -> None:
    script = f"echo $SLURM_RESTART_COUNT >> {tmp_path}/attempts; sleep $((SLURM_RESTART_COUNT ? 0 : 60))"
    low = submit(devcluster, "--nodes=4", "--exclusive", script=script, folder=tmp_path)
    assert processes.wait_until((tmp_path / "attempts").exists, 20)
    high = submit(devcluster, "--partition=high", "--nodes=1", "--exclusive", script="true", folder=tmp_path)
    wait_for(devcluster, high, ["COMPLETED"])
    wait_for(devcluster, low, ["PREEMPTED", "COMPLETED"])
    assert (tmp_path / "attempts").read_text().split() == ["1"], "the first attempt has no restart count"


@pytest.mark.slow
def test_a_killed_node_requeues_its_job_and_comes_back(devcluster: DevCluster, tmp_path: Path) -> None:
    script = "sleep $((SLURM_RESTART_COUNT ? 0 : 300))"
    job = submit(devcluster, "--nodelist=n3", script=script, folder=tmp_path)
    wait_for(devcluster, job, ["RUNNING"])
    devcluster.kill_node("n3")
    assert devcluster.status()["slurmd-n3"] is None
    assert not processes.with_environment({"SLURM_JOB_ID": job})
    wait_for(devcluster, job, ["NODE_FAIL", "PENDING"])
    devcluster.start("slurmd-n3")
    wait_for(devcluster, job, ["NODE_FAIL", "COMPLETED"])


def test_limits_can_be_set_and_are_enforced(devcluster: DevCluster, tmp_path: Path) -> None:
    change = ("sacctmgr", "-i", "modify", "account", texts.ACCOUNT, "set")
    devcluster.command(*change, "GrpTRES=node=1")
    try:
        job = submit(devcluster, "--nodes=2", script="true", folder=tmp_path)
        found = ("squeue", "-h", "-j", job, "-o", "%r")
        assert processes.wait_until(lambda: "AssocGrpNodeLimit" in devcluster.command(*found).stdout, 15)
    finally:
        devcluster.command(*change, "GrpTRES=node=-1")


@pytest.mark.slurm
def test_down_leaves_no_process_and_no_port(tmp_path: Path) -> None:
    # A folder too deep for a unix socket's path is a folder like any other.
    cluster = DevCluster(tmp_path / ("deep" * 20))
    cli = [sys.executable, "-m", "slurm.devcluster"]
    up = subprocess.run([*cli, "up", "--nodes=1", f"--dir={cluster.root}"], capture_output=True, text=True)
    assert up.returncode == 0, up.stderr
    assert f"SLURM_CONF={cluster.layout.slurm_conf}" in up.stdout
    layout = cluster.layout
    pids = list(cluster.status().values())
    assert None not in pids
    try:
        assert subprocess.run([*cli, "status", f"--dir={cluster.root}"], capture_output=True).returncode == 0
        job = submit(cluster, script="trap '' TERM; sleep 1000", folder=tmp_path)
        wait_for(cluster, job, ["RUNNING"])
        # Slurm says RUNNING before it has started the script.
        own = {"SLURM_JOB_ID": job, "SLURM_CONF": str(layout.slurm_conf)}
        assert processes.wait_until(lambda: bool(processes.with_environment(own)), 30)
    finally:
        down = subprocess.run(
            [*cli, "down", "--purge", f"--dir={cluster.root}"], capture_output=True, text=True
        )
    assert down.returncode == 0, down.stderr
    assert not processes.with_environment({"ELM_DEVCLUSTER": str(layout.root)})
    assert not processes.with_environment({"SLURM_CONF": str(layout.slurm_conf)}, "SLURM_JOB_ID")
    assert not any(processes.Process.of(pid) for pid in pids)
    assert not answers("127.0.0.1", layout.database_port)
    assert not answers(layout.address, layout.controller_port)
    assert not cluster.root.exists()
    assert not layout.socket_folder.exists()


def test_only_the_owner_reads_passwords(devcluster: DevCluster) -> None:
    for name in ("slurmdbd.conf", "munge.key", "cluster.json", "init.sql"):
        assert (devcluster.root / name).stat().st_mode & 0o077 == 0, name


@pytest.mark.parametrize("name", ["", "../up", "a b", "x" * 41])
def test_a_name_that_is_no_folder_name_is_refused(name: str) -> None:
    with pytest.raises(InputError, match="--name"):
        folder_of(name)


def test_a_size_outside_the_allowed_one_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--nodes: found 0; allowed is 1 to 64"):
        Layout.plan(tmp_path, nodes=0, kill_wait=10)


def test_ports_are_distinct() -> None:
    assert len(set(free_ports(40))) == 40


def test_a_pid_used_again_is_not_ours(tmp_path: Path) -> None:
    sleeper = subprocess.Popen(["sleep", "60"])
    try:
        process = processes.Process.of(sleeper.pid)
        (tmp_path / "pid").write_text(f"{process.pid} {process.started + 1}\n")
        assert processes.recorded(tmp_path / "pid") is None
        (tmp_path / "pid").write_text(f"{process.pid} {process.started}\n")
        assert processes.recorded(tmp_path / "pid") == process
        processes.stop([process])
        assert processes.recorded(tmp_path / "pid") is None
    finally:
        sleeper.kill()
        sleeper.wait()
