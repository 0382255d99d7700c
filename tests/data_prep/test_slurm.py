"""The build as the ranks of one Slurm step."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from data_prep.config import to_mapping
from data_prep.job import Preprocess
from data_prep.manifest import Manifest
from tests.data_prep.conftest import settings, write_corpus

ROOT = Path(__file__).resolve().parents[2]


def test_four_nodes_under_srun_give_the_same_bytes(devcluster, tmp_path):
    corpus = write_corpus(tmp_path / "corpus", works=25, words=2_400)
    one = settings(tmp_path / "one", corpus__path=str(corpus), preprocess__chunk_mb=0.04)
    Preprocess(one)()
    four = settings(tmp_path / "four", corpus__path=str(corpus), preprocess__chunk_mb=0.04)
    path = tmp_path / "settings.json"
    path.write_text(json.dumps(to_mapping(four)))
    command = [
        "srun",
        "-N4",
        "-n4",
        "--mpi=pmi2",
        sys.executable,
        "-m",
        "data_prep.job",
        "--ranks",
        "4",
        str(path),
    ]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    assert {path.name: info for path, info in Manifest.load(four.data_dir()).all_files()} == {
        path.name: info for path, info in Manifest.load(one.data_dir()).all_files()
    }


def test_the_launcher_submits_four_ranks(devcluster, tmp_path):
    corpus = write_corpus(tmp_path / "corpus", works=25, words=2_400)
    launch = [sys.executable, str(ROOT / "launch/preprocess.py"), f"corpus.path={corpus}"]
    launch += ["preprocess.chunk_mb=0.04"]
    here = [*launch, "data.dir=data/here", "run.name=here"]
    there = [*launch, "data.dir=data/there", "run.name=there", "preprocess.ranks=4", "cluster=dev"]
    there += ["cluster.nodes=4", f"cluster.slurm_conf={os.environ['SLURM_CONF']}"]
    for command in (here, there):
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    record, until = tmp_path / "runs/there/run.json", time.monotonic() + 120
    while (state := json.loads(record.read_text())["state"]) != "done":
        assert state in ("submitted", "running") and time.monotonic() < until, record.read_text()
        time.sleep(0.2)
    files = {name: Manifest.load(tmp_path / "data" / name).all_files() for name in ("here", "there")}
    assert [(path.name, info) for path, info in files["here"]] == [
        (path.name, info) for path, info in files["there"]
    ]
    again = subprocess.run(there, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert again.returncode == 0 and "queued" not in again.stdout, again.stdout + again.stderr
