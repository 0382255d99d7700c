"""Reservations as `scontrol show reservation` writes them: who has which nodes, and maintenance to come."""

from __future__ import annotations

from dataclasses import dataclass

from slurm.tracker import command
from slurm.tracker.fields import epoch, host_names, pairs, word


@dataclass(frozen=True)
class Reservation:
    """One reservation.

    Attributes:
        name: its name.
        start: UTC epoch seconds.
        end: UTC epoch seconds.
        nodes: as Slurm writes them, `n[1-4]`.
        flags: Slurm's words, as MAINT.
        state: ACTIVE or INACTIVE.
        users: who may use it, "" when it is for accounts.
        accounts: the accounts that may use it.
    """

    name: str
    start: int
    end: int
    nodes: str
    flags: frozenset[str]
    state: str
    users: str
    accounts: str

    @property
    def maintenance(self) -> bool:
        """Whether it keeps nodes free for a maintenance."""
        return "MAINT" in self.flags

    @property
    def names(self) -> frozenset[str]:
        """Its nodes by name."""
        return frozenset(host_names(self.nodes))


def read() -> list[Reservation]:
    """Every reservation, the earliest first.

    Raises:
        Unreachable: scontrol does not answer.
    """
    return parse(command.run(["scontrol", "show", "reservation", "--oneliner"]))


def parse(text: str) -> list[Reservation]:
    """The reservations in scontrol's text; a line without a name and times is left out."""
    found = []
    for line in text.splitlines():
        values = pairs(line)
        start, end = epoch(values.get("StartTime", "")), epoch(values.get("EndTime", ""))
        if "ReservationName" not in values or start is None or end is None:
            continue
        found.append(
            Reservation(
                name=values["ReservationName"],
                start=start,
                end=end,
                nodes=word(values.get("Nodes", "")),
                flags=frozenset(values.get("Flags", "").split(",")) - {""},
                state=values.get("State", ""),
                users=word(values.get("Users", "")),
                accounts=word(values.get("Accounts", "")),
            )
        )
    return sorted(found, key=lambda one: (one.start, one.name))
