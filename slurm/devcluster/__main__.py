"""A real Slurm on this machine: `python -m slurm.devcluster up|down|status|logs`.

    python -m slurm.devcluster up --nodes 4
    export SLURM_CONF=$PWD/build/devcluster/dev/slurm.conf
    srun -N4 hostname
    python -m slurm.devcluster down

One slurmctld, one slurmd per node, slurmdbd with a MariaDB of its own, and munge with a key of its own. All
files are in `build/devcluster/<name>/` of the checkout; `cluster=dev` reads `slurm.conf` there (name `dev`),
and `cluster.slurm_conf=FILE` names another. Several clusters run side by side under different `--name`s.

Each node has 16 cores, 16 GB and 4 GPUs that do not exist. Partition `low` is the default one; a job in
`high` preempts it by requeue, and one in `grace` with twenty seconds' notice. Accounting enforces
associations, limits and QOS, so `sacctmgr` can set any limit. Nothing listens outside loopback where the
host's own name is a loopback address; `status` says so otherwise.
Needs Debian's packages slurm-wlm, slurmdbd, munge and mariadb-server, whose own services stay stopped.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from conf.errors import InputError
from slurm.devcluster.cluster import DevCluster
from slurm.devcluster.layout import DEFAULT_NAME, folder_of


def main() -> None:
    """Run one subcommand; wrong input ends with one sentence and exit status 2."""
    arguments = _parse(sys.argv[1:])
    try:
        cluster = DevCluster(arguments.dir or folder_of(arguments.name))
        sys.exit(
            {"up": _up, "down": _down, "status": _status, "logs": _logs}[arguments.command](
                cluster, arguments
            )
        )
    except InputError as error:
        print(error, file=sys.stderr)
        sys.exit(2)


def _parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m slurm.devcluster", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for name, text in (
        ("up", "start the cluster and wait until every node is idle"),
        ("down", "end its jobs and daemons"),
        ("status", "show the daemons; exit status 1 when one is missing"),
        ("logs", "show the last lines of every log"),
    ):
        command = commands.add_parser(name, help=text)
        command.add_argument("--name", default=DEFAULT_NAME, help="which cluster (default: %(default)s)")
        command.add_argument("--dir", type=Path, help="its folder, instead of build/devcluster/<name>")
        if name == "up":
            command.add_argument("--nodes", type=int, default=4)
            command.add_argument(
                "--kill-wait", type=int, default=10, help="seconds from SIGTERM to SIGKILL (default: 10)"
            )
            command.add_argument(
                "--beside", help="another kind of site, on the accounting of the running cluster of that name"
            )
        if name == "down":
            command.add_argument("--purge", action="store_true", help="remove the folder with its accounting")
        if name == "logs":
            command.add_argument("--lines", type=int, default=20)
    return parser.parse_args(argv)


def _up(cluster: DevCluster, arguments: argparse.Namespace) -> int:
    beside = folder_of(arguments.beside) if arguments.beside else None
    layout = cluster.up(arguments.nodes, arguments.kill_wait, beside)
    print(f"{layout.nodes} nodes are idle; to use them in this shell:")
    print(f"export SLURM_CONF={layout.slurm_conf}")
    return 0


def _down(cluster: DevCluster, arguments: argparse.Namespace) -> int:
    cluster.down(arguments.purge)
    print(f"{cluster.root}: down")
    return 0


def _status(cluster: DevCluster, arguments: argparse.Namespace) -> int:
    layout = cluster.layout
    daemons = cluster.status()
    for name, pid in daemons.items():
        print(f"{name:12} {pid or 'not running'}")
    if not layout.loopback_only:
        print("the host's name is no loopback address: the Slurm daemons listen on every interface")
    if daemons["slurmctld"]:
        print(cluster.command("sinfo", check=False).stdout, end="")
    print(f"SLURM_CONF={layout.slurm_conf}")
    return 0 if all(daemons.values()) else 1


def _logs(cluster: DevCluster, arguments: argparse.Namespace) -> int:
    for file in sorted(cluster.layout.logs.iterdir()):
        print(f"==> {file} <==")
        lines = file.read_text(errors="replace", encoding="utf-8").splitlines()
        print(*lines[-arguments.lines :] if arguments.lines > 0 else [], sep="\n", end="\n\n")
    return 0


if __name__ == "__main__":
    # A pipe closed by `head` is no error of ours.
    try:
        main()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
