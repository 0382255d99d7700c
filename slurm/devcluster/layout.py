"""Where one dev cluster keeps its files, and which ports it uses."""

from __future__ import annotations

import json
import os
import random
import secrets
import socket
import tempfile
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path

from conf.errors import InputError
from data_prep import files

REPOSITORY = Path(__file__).resolve().parents[2]
DEFAULT_NAME = "dev"

# Below Linux' range of ephemeral ports (32768–60999), so that no outgoing connection takes one of ours.
PORTS = range(15000, 32000)

# sun_path of unix(7) holds 108 bytes with the closing zero; slurmd makes the longest of our sockets.
LONGEST_SOCKET_PATH = 107
LONGEST_SOCKET_NAME = "spool/n64/n64_99999999.4294967294"


def folder_of(name: str) -> Path:
    """The well-known folder of the dev cluster called `name`: `build/devcluster/<name>` of the checkout."""
    if not name or not all(c.isalnum() or c in "-_" for c in name) or len(name) > 40:
        raise InputError(f"--name: found {name!r}; allowed are 1 to 40 letters, digits, '-' and '_'")
    return REPOSITORY / "build" / "devcluster" / name


@dataclass(frozen=True)
class Layout:
    """One dev cluster: its folder, its size, its ports and its address.

    Attributes:
        root: folder with everything the cluster writes.
        nodes: number of nodes; they are called n1, n2, …
        controller_port: slurmctld's TCP port.
        accounting_port: slurmdbd's TCP port.
        database_port: MariaDB's TCP port (always on 127.0.0.1).
        node_ports: one TCP port per slurmd.
        address: IPv4 address every Slurm daemon is reached at.
        loopback_only: false where the host's own name is not a loopback address; see `host_address`.
        database_password: password of the database user `slurm`, new for each `up`.
        kill_wait: seconds between SIGTERM and SIGKILL for a preempted, cancelled or overdue job.
        beside: folder of the cluster whose munge and accounting this one uses; None for one of its own.
    """

    root: Path
    nodes: int
    controller_port: int
    accounting_port: int
    database_port: int
    node_ports: tuple[int, ...]
    address: str
    loopback_only: bool
    database_password: str
    kill_wait: int
    beside: Path | None = None

    @classmethod
    def plan(cls, root: Path, nodes: int, kill_wait: int, beside: Path | None = None) -> Layout:
        """Choose free ports for a cluster of `nodes` nodes in `root`."""
        if not 1 <= nodes <= 64:
            raise InputError(f"--nodes: found {nodes}; allowed is 1 to 64")
        ports = free_ports(nodes + 3)
        address, loopback_only = _host_address()
        host = cls.load(beside) if beside else None
        return cls(
            root=root,
            nodes=nodes,
            controller_port=ports[0],
            accounting_port=host.accounting_port if host else ports[1],
            database_port=host.database_port if host else ports[2],
            node_ports=tuple(ports[3:]),
            address=address,
            loopback_only=loopback_only,
            database_password=secrets.token_hex(16),
            kill_wait=kill_wait,
            beside=beside,
        )

    @classmethod
    def load(cls, root: Path) -> Layout:
        """Read what `save` wrote; raises InputError when there is no cluster in `root`."""
        try:
            values = json.loads((root / "cluster.json").read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise InputError(
                f"no dev cluster in {root}: start one with python -m slurm.devcluster up"
            ) from None
        beside = values.get("beside")
        paths = {"root": root, "beside": Path(beside) if beside else None}
        return cls(**(values | paths | {"node_ports": tuple(values["node_ports"])}))

    def save(self) -> None:
        """Write the layout to `cluster.json` (mode 0600: it holds the database password)."""
        values = asdict(self) | {"root": str(self.root), "beside": self.beside and str(self.beside)}
        files.write(self.root / "cluster.json", json.dumps(values, indent=1) + "\n", 0o600)

    @property
    def slurm_conf(self) -> Path:
        """The file `SLURM_CONF` and `cluster.slurm_conf` must name."""
        return self.root / "slurm.conf"

    @property
    def node_names(self) -> list[str]:
        """n1, n2, …"""
        return [f"n{number}" for number in range(1, self.nodes + 1)]

    @property
    def logs(self) -> Path:
        """The folder of the daemons' logs."""
        return self.root / "logs"

    @property
    def pids(self) -> Path:
        """The folder of the daemons' pid files."""
        return self.root / "pids"

    @property
    def munge_key(self) -> Path:
        """The key of this cluster's munge."""
        return self.root / "munge.key"

    @property
    def socket_folder(self) -> Path:
        """Folder of everything with a unix socket: in `root`, or in /tmp when that path is too long."""
        inside = self.root / "run"
        if len(str(inside / LONGEST_SOCKET_NAME)) <= LONGEST_SOCKET_PATH:
            return inside
        digest = sha256(str(self.root).encode()).hexdigest()[:12]
        return Path(tempfile.gettempdir()) / f"elm-devcluster-{os.geteuid()}-{digest}"

    @property
    def munge_socket(self) -> Path:
        """The socket of this cluster's munge."""
        return Layout.load(self.beside).munge_socket if self.beside else self.socket_folder / "munge.socket"

    @property
    def database_socket(self) -> Path:
        """The socket of this cluster's MariaDB."""
        return self.socket_folder / "mariadb.socket"


def free_ports(count: int) -> list[int]:
    """Return `count` TCP ports that nothing on this machine listens on at this moment."""
    chosen: list[int] = []
    for port in random.sample(PORTS, len(PORTS)):
        with socket.socket() as probe:
            try:
                probe.bind(("", port))
            except OSError:
                continue
        chosen.append(port)
        if len(chosen) == count:
            return chosen
    raise InputError(f"no {count} free TCP ports between {PORTS.start} and {PORTS.stop}")


def _host_address() -> tuple[str, bool]:
    """Return the address for the daemons and whether they can listen on it alone.

    Slurm binds either to every interface or to the address of the host's own name. Where that name is a
    loopback address (Debian's 127.0.1.1, for one) the cluster is invisible from outside. Elsewhere, in most
    containers for example, the daemons have to listen on every interface, and munge's key alone keeps
    strangers out.
    """
    try:
        address = socket.gethostbyname(socket.gethostname())
    except OSError:
        return "127.0.0.1", False
    if address.startswith("127."):
        return address, True
    return "127.0.0.1", False
