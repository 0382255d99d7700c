"""What the whole suite shares: a private Slurm, started once when the first test asks for it."""

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path

import pytest

from slurm.devcluster.cluster import PROGRAMS, DevCluster, find_program
from slurm.devcluster.layout import folder_of

FOREIGN_CONFIGS = ("/etc/slurm/slurm.conf", "/etc/slurm-llnl/slurm.conf", "/usr/local/etc/slurm.conf")
SLURMCTLD_PORT = 6817


def room(item: pytest.Item) -> str:
    """The room of a test: the folder below tests/ it is in."""
    return item.path.relative_to(Path(__file__).parent).parts[0]


@cache
def why_no_slurm() -> str | None:
    """Why the Slurm tests cannot run on this machine, or None when they can."""
    if os.geteuid() != 0:
        return "the private Slurm is started as root only"
    for config in filter(None, (os.environ.get("SLURM_CONF"), *FOREIGN_CONFIGS)):
        if Path(config).exists():
            return f"this machine has a Slurm of its own: {config}"
    with socket.socket() as probe:
        probe.settimeout(1)
        if probe.connect_ex(("127.0.0.1", SLURMCTLD_PORT)) == 0:
            return f"a slurmctld answers on port {SLURMCTLD_PORT}"
    # Finds a cluster without a local slurm.conf, which clients look up in the DNS.
    if shutil.which("scontrol"):
        with suppress(subprocess.TimeoutExpired):  # nobody answers: no Slurm
            ping = subprocess.run(["scontrol", "ping"], capture_output=True, text=True, timeout=60)
            if ping.returncode == 0 and "UP" in ping.stdout:
                return "this machine is a client of a running Slurm"
    try:
        for program in PROGRAMS:
            find_program(program)
    except Exception as error:
        return str(error)
    return None


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test that uses the dev cluster, and skip the marked ones where no Slurm can be started.

    With two workers (tests/run.sh) the Slurm tests, which mostly wait, run beside all others. Each room is
    one group, so that a cluster, a pool of ranks and a dataset are started once.
    """
    for item in items:
        if {"devcluster", "other_site"} & set(getattr(item, "fixturenames", ())):
            item.add_marker("slurm")
        is_slurm = item.get_closest_marker("slurm") is not None
        item.add_marker(pytest.mark.xdist_group("cluster" if is_slurm else room(item)))
        if item.get_closest_marker("slurm") and (reason := why_no_slurm()):
            item.add_marker(pytest.mark.skip(reason=f"Slurm test: {reason}"))


def pytest_collection_finish(session: pytest.Session) -> None:
    """Refuse workers that share groups: each would start a Slurm of its own, of the same name."""
    grouped = all("@" in item.nodeid for item in session.items)
    if getattr(session.config.option, "loadgroup", False) and not grouped:
        raise pytest.UsageError("pytest-xdist does not keep the groups of tests together under this pytest")


@pytest.fixture(scope="session")
def _session_cluster(request: pytest.FixtureRequest) -> Iterator[DevCluster]:
    # tests/run.sh chooses the name so that it can end the cluster even when pytest itself was killed.
    cluster = DevCluster(folder_of(os.environ.get("ELM_TEST_CLUSTER", f"tests-{os.getpid()}")))
    cluster.up(nodes=4)
    yield cluster
    # After a failure the logs stay, for `python -m slurm.devcluster logs --name …`.
    cluster.down(purge=not request.session.testsfailed)


@pytest.fixture
def devcluster(_session_cluster: DevCluster, monkeypatch: pytest.MonkeyPatch) -> Iterator[DevCluster]:
    """A real Slurm of four nodes, the same for the whole session; each test finds and leaves it idle.

    `SLURM_CONF` points at it, so the test may call Slurm's commands and the launchers directly.
    """
    monkeypatch.setenv("SLURM_CONF", str(_session_cluster.layout.slurm_conf))
    yield _session_cluster
    _session_cluster.settle()


@pytest.fixture(scope="session")
def _second_cluster(_session_cluster: DevCluster) -> Iterator[DevCluster]:
    root = _session_cluster.root
    cluster = DevCluster(root.with_name(f"{root.name}-2"))
    cluster.up(nodes=3, beside=root)
    yield cluster
    cluster.down(purge=True)


@pytest.fixture
def other_site(_second_cluster: DevCluster, monkeypatch: pytest.MonkeyPatch) -> Iterator[DevCluster]:
    """Another kind of site, on the same accounting: see `slurm.devcluster.second_site`."""
    monkeypatch.setenv("SLURM_CONF", str(_second_cluster.layout.slurm_conf))
    yield _second_cluster
    _second_cluster.settle()
