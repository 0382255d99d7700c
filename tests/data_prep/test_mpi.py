"""Several ranks: the same bytes, and nobody left when one is killed."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from conf.errors import InputError
from data_prep.job import Preprocess, find_mpiexec
from data_prep.manifest import Manifest
from data_prep.settings import to_mapping
from tests.data_prep.conftest import settings, write_corpus

pytest.importorskip("mpi4py")
SMALL = 0.04  # 10^6 bytes a chunk
ROOT = Path(__file__).resolve().parents[2]


def files(folder: Path) -> dict[str, str]:
    manifest = Manifest.load(folder)
    manifest.check_files()
    return {path.name: info.sha256 for path, info in manifest.all_files()}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Works for some ten chunks of `SMALL`."""
    return write_corpus(tmp_path_factory.mktemp("raw") / "sample", works=25, words=2_400)


@pytest.fixture(scope="module")
def alone(tmp_path_factory, corpus):
    config = settings(
        tmp_path_factory.mktemp("one") / "d", corpus__path=str(corpus), preprocess__chunk_mb=SMALL
    )
    Preprocess(config)()
    return files(config.data_dir())


@pytest.mark.parametrize("ranks", [2, 3, 4])
def test_the_bytes_do_not_depend_on_the_number_of_ranks(tmp_path, corpus, alone, ranks):
    config = settings(tmp_path / "d", corpus__path=str(corpus), preprocess__ranks=ranks)
    config.preprocess.chunk_mb = SMALL
    Preprocess(config)()
    assert files(config.data_dir()) == alone


def test_wrong_input_in_one_rank_is_one_sentence(tmp_path):
    corpus = write_corpus(tmp_path / "raw", works=4, words=300)
    (corpus / "zzz.txt").write_bytes(b"\xff\xfa")
    config = settings(tmp_path / "d", corpus__path=str(corpus), preprocess__ranks=2)
    with pytest.raises(InputError, match=r"zzz\.txt cannot be used \(it is not UTF-8 text\)"):
        Preprocess(config)()
    assert not config.data_dir().exists()


def test_a_world_of_the_wrong_size_is_an_error(tmp_path):
    path = tmp_path / "settings.json"
    path.write_text(json.dumps(to_mapping(settings(tmp_path / "d"))))
    command = [sys.executable, "-m", "data_prep.job", "--ranks", "2", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode != 0 and "expected 2 MPI ranks but this world has 1" in done.stderr


def ranks_of(parent: int) -> list[int]:
    """Python processes below a process, by /proc."""
    found, stack = [], [parent]
    while stack:
        pid = stack.pop()
        try:
            children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        stack += map(int, children)
        if b"data_prep.job" in words and b"mpiexec" not in words[0] and b"pmi_proxy" not in words[0]:
            found.append(pid)
    return found


def killed_run(config, tmp_path, moment) -> None:
    """Start two ranks, wait for the moment, kill one with -9; all must end, with another status than 0."""
    path = tmp_path / "settings.json"
    path.write_text(json.dumps(to_mapping(config)))
    command = [find_mpiexec(), "-n", "2", sys.executable, "-m", "data_prep.job", "--ranks", "2", str(path)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not moment(config.data_dir()):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.005)
    ranks = ranks_of(process.pid)
    assert len(ranks) == 2
    os.kill(ranks[1], signal.SIGKILL)
    assert process.wait(timeout=30) != 0
    deadline = time.monotonic() + 10
    while any(Path(f"/proc/{rank}").exists() for rank in ranks):
        assert time.monotonic() < deadline, "a rank outlived the world"
        time.sleep(0.05)


def parts(folder: Path) -> bool:
    return any(folder.glob(".build-*/parts/*.json"))


def documents(folder: Path) -> bool:
    return any(folder.glob(".build-*/account.json"))


def rounds(folder: Path) -> bool:
    return any(path.stat().st_size for path in folder.glob(".build-*/rounds.jsonl"))


@pytest.fixture(scope="module")
def long_corpus(tmp_path_factory):
    """Enough work, in four chunks, to be killed in the midst of every stage."""
    return write_corpus(tmp_path_factory.mktemp("long") / "sample", works=25, words=24_000)


@pytest.fixture(scope="module")
def long_alone(tmp_path_factory, long_corpus):
    config = settings(tmp_path_factory.mktemp("one") / "d", corpus__path=str(long_corpus))
    config.preprocess.chunk_mb = 1.0
    Preprocess(config)()
    return files(config.data_dir())


@pytest.mark.parametrize(
    "moment",
    [parts, pytest.param(documents, marks=pytest.mark.slow), pytest.param(rounds, marks=pytest.mark.slow)],
)
def test_kill_9_of_a_rank_and_the_same_command_again(tmp_path, long_corpus, long_alone, moment):
    config = settings(tmp_path / "d", corpus__path=str(long_corpus), preprocess__ranks=2)
    config.preprocess.chunk_mb = 1.0
    killed_run(config, tmp_path, moment)
    with pytest.raises(InputError):
        Manifest.load(config.data_dir())
    Preprocess(config)()
    assert files(config.data_dir()) == long_alone
