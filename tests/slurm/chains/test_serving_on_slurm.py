"""A server on a real Slurm: reached by the printed command, handed over without a gap, stopped when idle."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import httpx2 as httpx
import pytest

from elm_megatron.serve.engines import free_port
from slurm.devcluster.cluster import DevCluster
from tests.elm_megatron.serve.tiny_gguf import export_run
from tests.slurm.accounting import final_states

ROOT = Path(__file__).resolve().parents[3]
pytestmark = pytest.mark.slurm


def wait_for(what: str, condition: Callable[[], object], seconds: float = 120) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, f"waited {seconds} s in vain for {what}"
        time.sleep(0.2)


def test_a_served_model_changes_its_job_without_a_failed_request(
    devcluster: DevCluster, tmp_path: Path
) -> None:
    pytest.importorskip("xllamacpp", reason="needs the xllamacpp package")
    export_run(tmp_path / "runs" / "one")
    conf = devcluster.layout.slurm_conf
    keys = ["cluster=dev", f"cluster.slurm_conf={conf}", "cluster.time=10", "idle_minutes=0.2"]
    launched = subprocess.run(
        [sys.executable, str(ROOT / "launch" / "serve.py"), "source=one", "run.name=served", *keys],
        cwd=tmp_path, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert launched.returncode == 0, launched.stderr
    run = tmp_path / "runs" / "served"
    printed = re.search(r"python (-m elm_megatron\.serve\.connect .*?)  ", launched.stdout)
    assert printed and "ssh -N -L" in launched.stdout
    port = free_port()
    command = [sys.executable, *shlex.split(printed[1]), "--port", str(port)]
    way = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def status() -> dict:
        path = run / "serving.json"
        return json.loads(path.read_text()) if path.exists() else {}

    failed: list[str] = []
    answered: list[str] = []
    over = threading.Event()

    def ask() -> None:
        headers = {"authorization": f"Bearer {(run / 'serve.key').read_text().strip()}"}
        body = {"messages": [{"role": "user", "content": "abc"}], "max_tokens": 8}
        while not over.is_set():
            answer = httpx.post(
                f"http://127.0.0.1:{port}/v1/chat/completions", json=body, headers=headers, timeout=90
            )
            (answered if answer.status_code == 200 else failed).append(answer.text)

    askers = [threading.Thread(target=ask) for _ in range(3)]
    try:
        wait_for("the server", lambda: status().get("state") == "serving")
        first = status()["job"]
        for one in askers:
            one.start()
        wait_for("answers", lambda: len(answered) > 5)
        command = [sys.executable, "-m", "slurm.tracker", "list", "--json"]
        listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        (shown,) = [job for job in json.loads(listed.stdout)["jobs"] if str(job["job_id"]) == first]
        assert shown["requests"] is not None and shown["idle"] is not None
        devcluster.command("scancel", "--signal=USR2", first)
        wait_for("the successor", lambda: status().get("job") not in (None, first))
        seen = len(answered)
        wait_for("answers of the successor", lambda: len(answered) > seen + 10)
        assert not failed
    finally:
        over.set()
        for one in askers:
            if one.is_alive():
                one.join()
        way.terminate()
    second = status()["job"]
    assert json.loads((run / "run.json").read_text())["job_ids"] == [first, second]
    wait_for("the idle stop", lambda: status()["state"] == "stopped", seconds=72)
    assert "nobody asked" in status()["why"]
    assert [final_states(devcluster, job) for job in (first, second)] == [["COMPLETED"]] * 2
    assert json.loads((run / "run.json").read_text())["state"] == "done"
