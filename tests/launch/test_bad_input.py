"""Wrong input through the real commands: one sentence, a status that is not zero, and nothing left behind."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]


def command(verb: str, folder: Path, *keys: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / f"launch/{verb}.py"), *keys], cwd=folder, capture_output=True, text=True
    )


def refused(done: subprocess.CompletedProcess[str], *words: str) -> None:
    assert done.returncode == 2, (done.stdout, done.stderr)
    assert done.stderr.count("\n") == 1 and "Traceback" not in done.stderr + done.stdout
    for word in words:
        assert word in done.stderr


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dataset")
    done = command("preprocess", folder)
    assert done.returncode == 0, done.stderr
    shutil.rmtree(folder / "runs")
    return folder


def test_missing_corpus(tmp_path: Path) -> None:
    refused(command("preprocess", tmp_path, "corpus.path=nowhere"), "corpus.path=nowhere")
    assert files(tmp_path) == []


def test_empty_corpus(tmp_path: Path) -> None:
    (tmp_path / "works").mkdir()
    refused(command("preprocess", tmp_path, "corpus.path=works"), "works")
    assert files(tmp_path) == ["works"]


def test_a_file_that_is_not_utf8(tmp_path: Path) -> None:
    (tmp_path / "works").mkdir()
    (tmp_path / "works/one.txt").write_bytes(b"word " * 100 + b"\xff\xfe")
    refused(command("preprocess", tmp_path, "corpus.path=works"), "one.txt", "UTF-8")
    assert files(tmp_path) == ["works", "works/one.txt"]


def test_a_dataset_that_is_not_there(tmp_path: Path) -> None:
    refused(command("pretrain", tmp_path), "python launch/preprocess.py corpus=sample")
    refused(command("pretrain", tmp_path, "corpus.path=works"), "preprocess.py corpus.path=works")
    assert files(tmp_path) == []


def test_a_dataset_shorter_than_a_sequence(dataset: Path) -> None:
    before = files(dataset)
    keys = ["train.seq_length=60000", "model.max_position_embeddings=60000"]
    refused(command("pretrain", dataset, *keys), "fewer than one sequence of train.seq_length=60000")
    assert files(dataset) == before


def test_a_damaged_dataset(dataset: Path, tmp_path: Path) -> None:
    shutil.copytree(dataset / "data", tmp_path / "data")
    binary = tmp_path / "data/sample/sample-train.bin"
    binary.write_bytes(binary.read_bytes()[:-2])
    refused(command("pretrain", tmp_path), "sample-train.bin", "bytes")
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("key", "words"),
    [("parallel.tp=3", "1, 2, 4"), ("train.stepz=3", "train.steps?"), ("train.steps=x", "whole")],
)
def test_keys(dataset: Path, key: str, words: str) -> None:
    before = files(dataset)
    refused(command("pretrain", dataset, key), words)
    assert files(dataset) == before


def test_a_run_folder_of_another_run(dataset: Path, tmp_path: Path) -> None:
    shutil.copytree(dataset / "data", tmp_path / "data")
    run = tmp_path / "runs/mine"
    run.mkdir(parents=True)
    shown = command("pretrain", tmp_path, "--cfg", "job", "run.name=mine").stdout
    (run / "config.yaml").write_text(yaml.safe_dump(yaml.safe_load(shown)))
    (run / "run.json").write_text('{"schema": 1, "state": "failed"}')
    before = files(tmp_path)
    refused(
        command("pretrain", tmp_path, "run.name=mine", "train.seq_length=64"), "train.seq_length=64", "128"
    )
    assert files(tmp_path) == before


@pytest.mark.parametrize("text", [b"", b"a: [", b"a: \xff", b"[1]"])
def test_a_run_whose_config_cannot_be_read(dataset: Path, text: bytes) -> None:
    run = dataset / "runs/mine"
    run.mkdir(parents=True)
    try:
        (run / "run.json").write_text('{"schema": 1, "state": "failed"}')
        (run / "config.yaml").write_bytes(text)
        refused(command("pretrain", dataset, "run.name=mine"), "runs/mine/config.yaml")
        (run / "run.json").write_text("[1]")
        refused(command("pretrain", dataset, "run.name=mine"), "runs/mine/run.json")
    finally:
        shutil.rmtree(dataset / "runs")


def test_an_output_folder_that_cannot_be_written(dataset: Path, tmp_path: Path) -> None:
    """A file in the way: permissions alone do not stop root, who may run these tests."""
    (tmp_path / "file").touch()
    for verb, keys in (("pretrain", []), ("preprocess", ["data.dir=file/data"])):
        keys = [*keys, f"run.dir={tmp_path}/file/run"]
        refused(command(verb, dataset if verb == "pretrain" else tmp_path, *keys), "cannot be written")
    assert files(tmp_path) == ["file"]


def test_a_dry_run_of_a_chain_refuses_what_queueing_would(tmp_path: Path) -> None:
    done = command("pipeline", tmp_path, "cluster=dev", "run.name='a b'", "dry_run=true")
    refused(done, "run.name=a b-preprocess: must be letters")
    assert files(tmp_path) == []


def test_a_slurm_that_is_not_there(dataset: Path) -> None:
    """No slurm.conf: said at once, where Slurm's own commands look for it for a minute."""
    before = files(dataset)
    done = command("pretrain", dataset, "cluster=dev", f"cluster.slurm_conf={dataset}/none.conf")
    refused(done, "none.conf: there is no such file", "slurm.devcluster up")
    assert files(dataset) == before


@pytest.mark.skipif(shutil.which("sbatch") is None, reason="there is no sbatch")
def test_a_controller_that_does_not_answer(dataset: Path, tmp_path: Path) -> None:
    conf = tmp_path / "slurm.conf"
    conf.write_text(
        "ClusterName=none\nSlurmctldHost=localhost(127.0.0.1)\nSlurmctldPort=1\nAuthType=auth/none\nMessageTimeout=1\n"
        "NodeName=n1\nPartitionName=low Nodes=ALL\n"
    )
    before = files(dataset)
    done = command("pretrain", dataset, "cluster=dev", f"cluster.slurm_conf={conf}")
    refused(done, "cannot ask Slurm whether a job of", "Unable to contact slurm controller")
    assert files(dataset) == before
