"""Bring a dev cluster up and down, and break it on purpose: `DevCluster` is what tests and the CLI use."""

from __future__ import annotations

import getpass
import os
import shutil
import signal
import socket
import subprocess
from contextlib import AbstractContextManager
from pathlib import Path

from conf.errors import InputError
from data_prep import files
from slurm.devcluster import processes, second_site, texts
from slurm.devcluster.layout import Layout

PROGRAMS = ("munged", "mariadbd", "mariadb-install-db", "slurmdbd", "slurmctld", "slurmd", "sacctmgr")
LOCK_SECONDS = 600.0  # another `up` or `down` of the same cluster takes less
PACKAGES = "slurm-wlm slurmdbd munge mariadb-server"


class DevCluster:
    """A private Slurm in one folder.

    Args:
        root: folder of the cluster, as `slurm.devcluster.layout.folder_of` gives it or any other.
    """

    def __init__(self, root: Path):
        self.root = root.absolute()

    @property
    def layout(self) -> Layout:
        """The plan of the last `up`; raises InputError when there was none."""
        return Layout.load(self.root)

    @property
    def environment(self) -> dict[str, str]:
        """The caller's environment without another Slurm's variables, pointed at this cluster."""
        kept = {
            k: v for k, v in os.environ.items() if not k.startswith(("SLURM", "SBATCH", "SQUEUE", "SACCT"))
        }
        return kept | {"SLURM_CONF": str(self.layout.slurm_conf)}

    def command(self, *argv: str, check: bool = True, **options: object) -> subprocess.CompletedProcess[str]:
        """Run one Slurm client command against this cluster and return its text output."""
        result = subprocess.run(
            argv, env=self.environment, capture_output=True, text=True, timeout=60, **options
        )
        if check and result.returncode != 0:
            raise RuntimeError(f"{' '.join(argv)}: exit {result.returncode}: {result.stderr.strip()}")
        return result

    # ---- up and down

    def up(self, nodes: int = 4, kill_wait: int = 10, beside: Path | None = None) -> Layout:
        """Start everything and return when every node is idle; a running cluster is left as it is.

        Accounting and logs of an earlier `up` in the same folder are kept. Takes about 10 s on two cores.

        Args:
            nodes: how many.
            kill_wait: seconds from SIGTERM to SIGKILL.
            beside: folder of a running cluster, whose munge and accounting a second one uses. The second one
                is another kind of site; see `slurm.devcluster.second_site`.
        """
        for program in PROGRAMS:
            find_program(program)
        self.root.mkdir(parents=True, exist_ok=True, mode=0o755)
        with self._lock():
            if self.running():
                return self._same(nodes)
            self._end_processes()
            layout = Layout.plan(self.root, nodes, kill_wait, beside)
            try:
                self._write(layout)
                self._start_all(layout)
            except BaseException:
                self._end_processes()
                raise
        return layout

    def down(self, purge: bool = False) -> None:
        """End every job and daemon of the cluster; with `purge`, remove its folder too."""
        if not self.root.is_dir():
            raise InputError(f"no dev cluster in {self.root}")
        with self._lock():
            if self.running():
                # Before the daemons: a job's step daemon outlives its slurmd.
                self._cancel_all()
            self._end_processes()
            if purge:
                if (self.root / "cluster.json").exists():
                    shutil.rmtree(self.layout.socket_folder, ignore_errors=True)
                shutil.rmtree(self.root)

    def settle(self, seconds: float = 30) -> None:
        """Cancel every job; return when none is left and every node is idle: a clean start for the next."""

        def empty() -> bool:
            # A controller that is busy or has just started may have refused to cancel.
            listed = self.command("squeue", "-h", "-o", "%A", check=False)
            if listed.returncode == 0 and not listed.stdout.strip():
                return True
            self._cancel_all()
            return False

        if empty() and self._idle_nodes() == self.layout.nodes:
            return
        self.command("scontrol", "update", "nodename=ALL", "state=RESUME", check=False)
        if not processes.wait_until(empty, seconds, 0.5):
            raise InputError(f"not every job could be cancelled:\n{self.command('squeue').stdout}")
        if not processes.wait_until(lambda: self._idle_nodes() == self.layout.nodes, seconds, 0.2):
            raise InputError(f"not every node became idle:\n{self.command('sinfo', '-N', '-l').stdout}")

    def running(self) -> bool:
        """Whether the controller runs."""
        return processes.recorded(self.root / "pids" / "slurmctld.pid") is not None

    def status(self) -> dict[str, int | None]:
        """Pid of every daemon by name, None for one that does not run."""
        layout = self.layout
        own = [] if layout.beside else ["munged", "mariadbd", "slurmdbd"]
        names = [*own, "slurmctld", *(f"slurmd-{n}" for n in layout.node_names)]
        found = {name: processes.recorded(layout.pids / f"{name}.pid") for name in names}
        return {name: process.pid if process else None for name, process in found.items()}

    # ---- single daemons, for tests that break things

    def stop(self, daemon: str) -> None:
        """End one daemon, `slurmctld`, `slurmdbd` or `slurmd-n3` for example, and leave the jobs alone."""
        process = processes.recorded(self.layout.pids / f"{daemon}.pid")
        if process:
            processes.stop([process])

    def start(self, daemon: str) -> None:
        """Start one daemon that was stopped or killed, and wait until it answers."""
        layout = self.layout
        if processes.recorded(layout.pids / f"{daemon}.pid"):
            return
        self._spawn(layout, daemon, self._argv(layout, daemon))
        port = self._port(layout, daemon)
        if not processes.wait_until(lambda: answers(layout.address, port), 30):
            raise InputError(f"{daemon} does not answer; see {self._log(layout, daemon)}")

    def kill_node(self, node: str) -> None:
        """Kill a node as a power cut would: its slurmd, step daemons and tasks, all with SIGKILL."""
        layout = self.layout
        doomed = processes.with_environment(
            {"ELM_DEVCLUSTER": str(layout.root), "ELM_DEVCLUSTER_NODE": node}
        ) + processes.with_environment({"SLURM_CONF": str(layout.slurm_conf), "SLURMD_NODENAME": node})
        for process in doomed:
            process.signal(signal.SIGKILL)
        processes.stop(doomed)

    # ---- how it is done

    def _lock(self) -> AbstractContextManager[int]:
        return files.locked(self.root / "lock", LOCK_SECONDS)

    def _same(self, nodes: int) -> Layout:
        layout = self.layout
        if layout.nodes != nodes:
            raise InputError(
                f"--nodes: found {nodes}, but the cluster in {self.root} runs with {layout.nodes}: down first"
            )
        return layout

    def _write(self, layout: Layout) -> None:
        for name in ("state", "run", "logs", "pids", "devices"):
            (layout.root / name).mkdir(exist_ok=True, mode=0o755)
        layout.socket_folder.mkdir(exist_ok=True, mode=0o755)
        (layout.socket_folder / "spool").mkdir(exist_ok=True, mode=0o755)
        if layout.socket_folder.stat().st_uid != os.geteuid():
            raise InputError(f"{layout.socket_folder} belongs to another user")
        for number in range(texts.GPUS_PER_NODE):
            device = layout.root / "devices" / f"gpu{number}"
            if not device.is_symlink():
                device.symlink_to("/dev/null")
        layout.save()
        (layout.root / "gres.conf").write_text(texts.gres_conf(layout), encoding="utf-8")
        if layout.beside:
            layout.slurm_conf.write_text(second_site.slurm_conf(layout), encoding="utf-8")
            return
        if not layout.munge_key.exists():
            files.write(layout.munge_key, os.urandom(64).hex(), 0o600)
        files.write(layout.root / "slurmdbd.conf", texts.slurmdbd_conf(layout), 0o600)
        files.write(layout.root / "init.sql", texts.init_sql(layout), 0o600)
        (layout.root / "my.cnf").write_text(texts.my_cnf(layout), encoding="utf-8")
        layout.slurm_conf.write_text(texts.slurm_conf(layout), encoding="utf-8")

    def _start_all(self, layout: Layout) -> None:
        if not layout.beside:
            self._spawn(layout, "munged", self._argv(layout, "munged"))
            self._prepare_database(layout)
            for daemon in ("mariadbd", "slurmdbd"):
                self.start(daemon)
        self._prepare_accounting(second_site.CLUSTER_NAME if layout.beside else texts.CLUSTER_NAME)
        self.start("slurmctld")
        for node in layout.node_names:
            self._spawn(layout, f"slurmd-{node}", self._argv(layout, f"slurmd-{node}"))
        if not processes.wait_until(lambda: self._idle_nodes() == layout.nodes, 60, 0.25):
            raise InputError(f"only {self._idle_nodes()} of {layout.nodes} nodes came up; see {layout.logs}")

    def _prepare_database(self, layout: Layout) -> None:
        if (layout.root / "database" / "mysql").is_dir():
            return
        log = layout.logs / "mariadb-install-db.log"
        with log.open("w", encoding="utf-8") as output:
            result = subprocess.run(
                [
                    find_program("mariadb-install-db"),
                    f"--defaults-file={layout.root}/my.cnf",
                    "--auth-root-authentication-method=socket",
                    "--skip-test-db",
                ],
                env=texts.daemon_environment(layout),
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        if result.returncode != 0:
            shutil.rmtree(layout.root / "database", ignore_errors=True)
            raise InputError(f"mariadb-install-db failed; see {log}")

    def _prepare_accounting(self, name: str) -> None:
        """Set up one account with an association for the calling user, and no limits."""
        user, here = getpass.getuser(), f"Cluster={name}"
        known = self.command("sacctmgr", "-nP", "show", "cluster", "format=cluster").stdout.split()
        if name in known:
            return
        for words in (
            ("cluster", name),
            *([("qos", second_site.QOS)] if self.layout.beside else []),
            ("account", texts.ACCOUNT, here, "Description=dev", "Organization=elm"),
            ("user", user, f"Account={texts.ACCOUNT}", here, "AdminLevel=Admin"),
        ):
            self.command("sacctmgr", "-i", "add", *words)
        # root has an association with an account of its own from the start.
        default = f"DefaultAccount={texts.ACCOUNT}"
        self.command("sacctmgr", "-i", "modify", "user", user, "where", here, "set", default)

    def _idle_nodes(self) -> int:
        result = self.command("sinfo", "-h", "-N", "-p", self._partitions()[0], "-o", "%T", check=False)
        return result.stdout.split().count("idle")

    def _partitions(self) -> tuple[str, ...]:
        return second_site.PARTITIONS if self.layout.beside else texts.PARTITIONS

    def _argv(self, layout: Layout, daemon: str) -> list[str]:
        root = layout.root
        if daemon == "munged":
            return [
                find_program("munged"),
                "--foreground",
                "--force",
                "--num-threads=10",
                f"--socket={layout.munge_socket}",
                f"--key-file={layout.munge_key}",
                f"--pid-file={root}/run/munged.pid",
                f"--seed-file={root}/run/munged.seed",
                f"--log-file={layout.logs}/munged.log",
            ]
        if daemon == "mariadbd":
            return [find_program("mariadbd"), f"--defaults-file={root}/my.cnf"]
        if daemon.startswith("slurmd-"):
            return [find_program("slurmd"), "-D", "-N", daemon.removeprefix("slurmd-")]
        return [find_program(daemon), "-D"]

    def _spawn(self, layout: Layout, daemon: str, argv: list[str]) -> None:
        environment = texts.daemon_environment(layout)
        if daemon.startswith("slurmd-"):
            environment["ELM_DEVCLUSTER_NODE"] = daemon.removeprefix("slurmd-")
        processes.start(argv, environment, self._log(layout, daemon), layout.pids / f"{daemon}.pid")

    @staticmethod
    def _log(layout: Layout, daemon: str) -> Path:
        return (
            layout.logs / f"{daemon}.log"
            if not daemon.startswith("slurmd-")
            else layout.logs / f"{daemon}.out"
        )

    @staticmethod
    def _port(layout: Layout, daemon: str) -> int:
        if daemon.startswith("slurmd-"):
            return layout.node_ports[layout.node_names.index(daemon.removeprefix("slurmd-"))]
        ports = {
            "mariadbd": layout.database_port,
            "slurmdbd": layout.accounting_port,
            "slurmctld": layout.controller_port,
        }
        if daemon not in ports:
            raise InputError(f"daemon: found {daemon!r}; allowed are {', '.join(ports)} and slurmd-<node>")
        return ports[daemon]

    def _cancel_all(self) -> None:
        """Cancel every job, and kill the tasks at once instead of after `KillWait`."""
        for partition in self._partitions():
            self.command("scancel", f"--partition={partition}", check=False)
        for task in self._tasks():
            task.signal(signal.SIGKILL)

    def _tasks(self) -> list[processes.Process]:
        """The tasks of every job. A shell of the user that only exported SLURM_CONF is not one."""
        return processes.with_environment({"SLURM_CONF": str(self.root / "slurm.conf")}, "SLURM_JOB_ID")

    def _end_processes(self) -> None:
        """End daemons in the order in which they need each other, then whatever a crash left behind."""
        pids = self.root / "pids"
        nodes = [p for f in sorted(pids.glob("slurmd-*.pid")) if (p := processes.recorded(f))]
        processes.stop(nodes)
        for daemon in ("slurmctld", "slurmdbd", "mariadbd", "munged"):
            if process := processes.recorded(pids / f"{daemon}.pid"):
                processes.stop([process], grace=20)
        strays = processes.with_environment({"ELM_DEVCLUSTER": str(self.root)})
        processes.stop(strays + self._tasks(), grace=1)
        for file in pids.glob("*.pid"):
            file.unlink()


def find_program(name: str) -> str:
    """The path of a daemon, which Debian keeps in /usr/sbin; raises InputError naming the packages."""
    path = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/local/sbin:/usr/sbin:/sbin")
    if path is None:
        raise InputError(f"{name} is not installed; on Debian: apt-get install {PACKAGES}")
    return path


def answers(address: str, port: int) -> bool:
    """Whether something accepts TCP connections there."""
    try:
        with socket.create_connection((address, port), timeout=1):
            return True
    except OSError:
        return False
