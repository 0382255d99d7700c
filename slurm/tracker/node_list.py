"""`elm-queue nodes`: each node with its state, what is free and the reason; reservations and maintenance."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from slurm.tracker.nodes import Node
from slurm.tracker.reservations import Reservation
from slurm.tracker.show import escaped, moment, table


def chosen(nodes: Sequence[Node], partition: str, closed: bool) -> list[Node]:
    """The nodes of a partition ("" for all), or those of them that take no jobs."""
    return [
        node
        for node in nodes
        if (not partition or set(partition.split(",")) & set(node.partitions))
        and not (closed and node.available)
    ]


def text(nodes: Sequence[Node], reservations: Sequence[Reservation], now: float) -> str:
    """A table of the nodes, and a line for each reservation."""
    columns = {
        "NODE": [node.name for node in nodes],
        "STATE": [node.state for node in nodes],
        "CORES FREE": [f"{node.free['cpus']}/{node.cpus}" for node in nodes],
        "GPUS FREE": [f"{node.free['gpus']}/{node.gpus}" for node in nodes],
        "MEMORY FREE": [f"{node.free['memory'] // 1024}/{node.memory // 1024} GiB" for node in nodes],
        "PARTITIONS": [",".join(node.partitions) for node in nodes],
        "REASON": [node.reason for node in nodes],
    }
    lines = [table(columns)] if nodes else ["no node fits"]
    for one in reservations:
        kind = "maintenance" if one.maintenance else "reservation"
        when = "now" if one.start <= now else f"from {moment(one.start)}"
        users = one.users or one.accounts
        who = "" if one.maintenance or not users else f", for {users}"
        lines.append(
            escaped(f"{kind} {one.name}: {one.nodes or 'no nodes'}, {when} to {moment(one.end)}{who}")
        )
    return "\n".join(lines)


def json_text(nodes: Sequence[Node], reservations: Sequence[Reservation]) -> str:
    """The same as JSON: times in UTC epoch seconds, memory in MiB."""
    rows: list[dict[str, Any]] = [
        {
            "node": node.name,
            "state": node.state,
            "available": node.available,
            "partitions": list(node.partitions),
            "cores": node.cpus,
            "gpus": node.gpus,
            "memory_mib": node.memory,
            "free": node.free,
            "reason": node.reason,
        }
        for node in nodes
    ]
    coming = [
        {
            "name": one.name,
            "maintenance": one.maintenance,
            "nodes": one.nodes,
            "start": one.start,
            "end": one.end,
            "state": one.state,
            "users": one.users,
            "accounts": one.accounts,
        }
        for one in reservations
    ]
    return json.dumps({"nodes": rows, "reservations": coming}, ensure_ascii=False)
