"""Ranks find rank 0 by any of its addresses, and say within a minute which of them failed how."""

from __future__ import annotations

import socket
import time
from pathlib import Path

import pytest

from elm_megatron.run import meeting


def test_an_address_that_cannot_be_resolved_is_passed_over(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        meeting.publish(tmp_path / "place", ["no-such-host.invalid", "192.0.2.1", "127.0.0.1"], port)
        begin = time.monotonic()
        assert meeting.reach(tmp_path / "place") == ("127.0.0.1", port)
        assert time.monotonic() - begin < meeting.REACH_SECONDS / 2


def test_what_each_address_said_is_told(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    meeting.publish(tmp_path / "place", ["no-such-host.invalid", "127.0.0.1"], port)
    with pytest.raises(
        meeting.Unreachable, match=r"no-such-host\.invalid \(.+\), 127\.0\.0\.1 \(Connection refused\)"
    ):
        meeting.reach(tmp_path / "place", seconds=2)


def test_a_rank_0_that_publishes_nothing_is_named(tmp_path: Path) -> None:
    with pytest.raises(TimeoutError, match="did not publish"):
        meeting.reach(tmp_path / "place", wait=0.1)
