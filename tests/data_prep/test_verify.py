"""Verify, take-down and the report."""

import html.parser
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from data_prep.errors import InputError
from data_prep.job import Preprocess
from data_prep.lock import held
from data_prep.manifest import Manifest
from data_prep.takedown import take_down
from data_prep.verify import verify
from tests.data_prep.conftest import SAMPLE, settings


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    config = settings(tmp_path_factory.mktemp("data") / "sample")
    Preprocess(config)()
    return config.data_dir()


@pytest.fixture
def dataset(built, tmp_path):
    return Path(shutil.copytree(built, tmp_path / "sample"))


def test_a_whole_dataset_has_no_problems(built):
    assert verify(built) == []
    done = subprocess.run(
        [sys.executable, "-m", "data_prep.verify", str(built)], capture_output=True, text=True
    )
    assert done.returncode == 0 and "is whole" in done.stdout


@pytest.mark.parametrize(
    ("name", "byte"),
    [("sample-train.bin", 20_001), ("sample-train.bin", 0), ("sample-train.idx", 9), ("sample-train.idx", 40),
     ("sample-train.idx", 120), ("sample-train.idx", 300), ("sample-valid.bin", 7), ("tokenizer.json", 5000)],
)  # fmt: skip
def test_one_wrong_byte_is_named(dataset, name, byte):
    path = dataset / name
    data = bytearray(path.read_bytes())
    data[byte] ^= 0x01
    path.write_bytes(data)
    problems = verify(dataset)
    assert f"{path}: byte {byte} is wrong" in problems
    assert all(name in problem for problem in problems)


@pytest.mark.parametrize("name", ["tokenizer.model", "documents.parquet", "dropped.parquet"])
def test_a_damaged_file_without_a_copy_is_named(dataset, name):
    data = bytearray((dataset / name).read_bytes())
    data[len(data) // 2] ^= 0xFF
    (dataset / name).write_bytes(data)
    assert any(str(dataset / name) in problem and "sha256" in problem for problem in verify(dataset))


def test_a_truncated_file_is_named_with_its_end(dataset):
    path = dataset / "sample-train.bin"
    with path.open("r+b") as file:
        file.truncate(1000)
    assert any(f"{path}: byte 1000" in problem for problem in verify(dataset))
    with pytest.raises(InputError, match=r"sample-train\.bin has 1000 bytes, but"):
        Manifest.load(dataset).check_files()
    path.unlink()
    assert any("missing" in problem for problem in verify(dataset))


def test_a_foreign_tokenizer_is_noticed(dataset, tmp_path):
    config = settings(tmp_path / "other", tokenizer__vocab_size=600)
    Preprocess(config)()
    shutil.copy(config.data_dir() / "tokenizer.model", dataset)
    assert any("tokenizer.model" in problem for problem in verify(dataset))


def test_no_dataset_is_wrong_input(tmp_path):
    with pytest.raises(InputError, match="there is no dataset"):
        verify(tmp_path)


def test_a_take_down_removes_lists_and_marks(tmp_path):
    corpus = Path(shutil.copytree(SAMPLE, tmp_path / "raw"))
    config = settings(tmp_path / "data" / "sample", corpus__path=str(corpus), runs_dir=str(tmp_path / "runs"))
    Preprocess(config)()
    first = Manifest.load(config.data_dir()).sha256
    other = settings(tmp_path / "data" / "other", corpus__path=str(corpus), corpus__name="other")
    Preprocess(other)()
    run = tmp_path / "runs" / "pretrain"
    (run / "model").mkdir(parents=True)
    (run / "run.json").write_text(json.dumps({"dataset": {"manifest_sha256": first}}))
    (run / "model" / "README.md").write_text(f"lineage: {first}")
    (tmp_path / "runs" / "unrelated").mkdir()
    (tmp_path / "runs" / "unrelated" / "run.json").write_text(json.dumps({"dataset": "0" * 64}))

    config.remove = "09-central-bank-words"
    removal = take_down(config)
    assert removal.datasets == [tmp_path / "data" / "other", tmp_path / "data" / "sample"]
    assert removal.derived == [run, run / "model"]
    assert removal.deleted == [corpus / "09-central-bank-words.txt"] and not removal.deleted[0].exists()
    for folder in removal.datasets:
        assert Manifest.load(folder).stale
        assert any("taken down" in problem for problem in verify(folder))
        Manifest.load(folder).check_files()
    config.remove = None
    shutil.copy(SAMPLE / "09-central-bank-words.txt", corpus / "again.txt")  # the same file by another name
    Preprocess(config)()
    manifest = Manifest.load(config.data_dir())
    assert manifest.works["dropped"] == {"taken_down": 1} and not manifest.stale
    assert verify(config.data_dir()) == []

    config.remove = "09-central-bank-words"
    assert run in take_down(config).derived  # the manifest is another now, the run is still found
    config.remove = "no such work"
    with pytest.raises(InputError, match="no work of that id"):
        take_down(config)


@pytest.mark.parametrize("raw_is_there", [True, False])
def test_a_copy_of_a_work_that_was_taken_down_stays_out(tmp_path, raw_is_there):
    corpus = Path(shutil.copytree(SAMPLE, tmp_path / "raw"))
    original = corpus / "09-central-bank-words.txt"
    words = original.read_text().split(" ")
    words[100::200] = ["changed"] * len(words[100::200])  # one word in two hundred
    (corpus / "upload-2.txt").write_text(" ".join(words))
    config = settings(tmp_path / "data" / "sample", corpus__path=str(corpus))
    Preprocess(config)()
    assert Manifest.load(config.data_dir()).works["dropped"] == {"near_duplicate": 1}
    if not raw_is_there:
        original.unlink()
    config.remove = original.stem
    take_down(config)
    config.remove = None
    Preprocess(config)()
    manifest = Manifest.load(config.data_dir())
    assert manifest.works == {"in": 15, "out": 14, "dropped": {"taken_down_copy": 1}}
    stones = (corpus / "tombstones.jsonl").read_text()
    assert not any(len(word) > 9 and word in stones for word in words)
    config.clean.dedup.taken_down = False
    Preprocess(config)()
    assert Manifest.load(config.data_dir()).works["out"] == 15


def test_a_dataset_that_is_being_built_is_not_taken_apart(tmp_path):
    corpus = Path(shutil.copytree(SAMPLE, tmp_path / "raw"))
    config = settings(tmp_path / "data" / "sample", corpus__path=str(corpus))
    Preprocess(config)()
    config.remove = "09-central-bank-words"
    with held(config.data_dir()), pytest.raises(InputError, match="building this dataset"):
        take_down(config)
    assert (corpus / "09-central-bank-words.txt").exists() and not (corpus / "tombstones.jsonl").exists()
    take_down(config)
    assert not list(config.data_dir().glob(".*"))


def test_the_report_stands_alone_in_light_and_dark(built):
    text = (built / "report.html").read_text()
    assert "prefers-color-scheme: dark" in text and "<svg" in text
    assert "http" not in text.replace("http://www.w3.org", "")
    for expected in (
        "Every work and block accounted for",
        "Year",
        "Language",
        "Source",
        "Length of documents",
    ):
        assert expected in text
    manifest = Manifest.load(built)
    assert f"{manifest.splits['train'].tokens:,}" in text and "short" in text

    class Check(html.parser.HTMLParser):
        tables = 0

        def handle_starttag(self, tag, attrs):
            self.tables += tag == "table"
            assert tag not in ("script", "link", "img", "iframe")

    check = Check()
    check.feed(text)
    assert check.tables >= 6
