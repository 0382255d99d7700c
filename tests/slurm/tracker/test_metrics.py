"""The metrics have bounded labels and are Prometheus text."""

from __future__ import annotations

import re
import urllib.request
from http.server import ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from slurm.tracker import metrics
from slurm.tracker.__main__ import main


def test_labels_are_bounded(fake_slurm, rows) -> None:
    fake_slurm.answer([rows(n, Partition=f"p{n % 80:02d}", UserName=f"u{n}") for n in range(1, 400)])
    text, failure = metrics.text()
    assert failure is None
    partitions = set(re.findall(r'partition="([^"]+)"', text))
    assert len(partitions) == metrics.MOST_PARTITIONS + 1
    assert "other" in partitions
    assert not re.search(r"job|user", " ".join(re.findall(r"\{([^}]*)\}", text)))
    counted = re.findall(r"^elm_queue_jobs\{.*\} ([\d.]+)$", text, re.M)
    assert sum(map(float, counted)) == 399


def test_the_text_is_prometheus_text(fake_slurm, rows) -> None:
    fake_slurm.answer([rows(1, Partition='a"b\\c'), rows(2, State="RUNNING")])
    text, _ = metrics.text()
    value = r"[0-9.e+-]+"
    label = r'[a-z_]+="(?:[^"\\\n]|\\.)*"'
    for line in text.splitlines():
        assert re.fullmatch(
            rf"# (HELP|TYPE) elm_queue_\w+ .+|elm_queue_\w+({{{label}(,{label})*}})? {value}", line
        )
    assert r'partition="a\"b\\c"' in text


def test_a_textfile_appears_whole(fake_slurm, rows, tmp_path: Path, monkeypatch) -> None:
    fake_slurm.answer([rows(1)])
    monkeypatch.setattr("sys.argv", ["elm-queue", "metrics", "--textfile", str(tmp_path / "elm.prom")])
    with pytest.raises(SystemExit):
        main()
    assert [file.name for file in tmp_path.glob("*elm.prom*")] == ["elm.prom"]
    assert (tmp_path / "elm.prom").stat().st_mode & 0o777 == 0o644


def test_the_port_is_on_loopback_and_serves_one_path(fake_slurm, rows) -> None:
    fake_slurm.answer([rows(1)])
    server = ThreadingHTTPServer(("127.0.0.1", 0), metrics.handler())
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        base = f"http://127.0.0.1:{server.server_port}"
        with urllib.request.urlopen(f"{base}/metrics") as answer:
            assert answer.headers["Content-Type"].startswith("text/plain; version=")
            assert b"elm_queue_up 1" in answer.read()
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(f"{base}/etc/passwd")
    finally:
        server.shutdown()
        server.server_close()
