"""The build as the ranks of one Slurm step."""

import json
import subprocess
import sys
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
