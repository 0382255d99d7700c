"""Verify, take-down and the report."""

import html
import html.parser
import itertools
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from conf.errors import InputError
from data_prep.job import Preprocess
from data_prep.lock import held
from data_prep.manifest import Manifest
from data_prep.takedown import take_down
from data_prep.verify import verify
from data_prep.works import works
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


class Stop(BaseException):
    """Stands for the end of the process."""


def stop_at(patch, count):
    """Let the process end instead of moving or deleting a file for the `count`th time."""
    calls = itertools.count(1)

    def stopping(real):
        def instead(path, *args, **options):
            if next(calls) == count:
                raise Stop
            return real(path, *args, **options)

        return instead

    for name in ("replace", "unlink"):
        patch.setattr(Path, name, stopping(getattr(Path, name)))


def test_a_take_down_that_is_killed_anywhere_goes_on(tmp_path, monkeypatch):
    whole, at = tmp_path / "whole", tmp_path / "at"
    shutil.copytree(SAMPLE, whole / "raw")
    config = settings(at / "data" / "sample", corpus__path=str(at / "raw"), runs_dir=str(at / "runs"))
    whole.rename(at)
    Preprocess(config)()
    run = at / "runs" / "pretrain"
    run.mkdir(parents=True)
    (run / "run.json").write_text(Manifest.load(config.data_dir()).sha256)
    at.rename(whole)
    config.remove = "09-central-bank-words"
    raw = at / "raw" / f"{config.remove}.txt"

    def names():
        return pq.read_table(config.data_dir() / "documents.parquet")["id"].to_pylist()

    for count in range(1, 100):
        shutil.copytree(whole, at)
        with monkeypatch.context() as patch:
            stop_at(patch, count)
            try:
                take_down(config)
                killed = False
            except Stop:
                killed = True
        if killed and config.remove not in names():
            assert Manifest.load(config.data_dir()).stale, count  # no moment takes it for whole
        removal = take_down(config)
        assert (removal.datasets, removal.derived) == ([config.data_dir()], [run]), count
        assert not raw.exists() and Manifest.load(config.data_dir()).stale, count
        Manifest.load(config.data_dir()).check_files()
        assert config.remove not in names()
        stones = (at / "raw" / "tombstones.jsonl").read_text().splitlines()
        assert len(stones) == len(set(stones)) <= 2, count
        if not killed:
            break
        shutil.rmtree(at)
    assert count > 6
    config.remove = None
    Preprocess(config)()
    assert Manifest.load(config.data_dir()).works == {"in": 14, "out": 14, "dropped": {}}
    config.remove = "09-central-bank-words"
    assert take_down(config).datasets == []  # what was built since does not hold it


@pytest.mark.parametrize(
    "name", ["a&b", "c#d", "e;f", "g$h", "i<j>k", "l=m", "n o", "p'q", 'r"s', "file:x", "[t]"]
)
def test_a_take_down_of_any_id_by_a_file_and_by_number(tmp_path, name):
    corpus = Path(shutil.copytree(SAMPLE, tmp_path / "raw"))
    (corpus / "09-central-bank-words.txt").rename(corpus / f"{name}.txt")
    config = settings(tmp_path / "data" / "sample", corpus__path=str(corpus))
    Preprocess(config)()
    report = (config.data_dir() / "report.html").read_text()
    number = next(number for number, identifier, _ in works(config.data_dir(), []) if identifier == name)
    assert f"<tr><td>{number}<td>{html.escape(name)}" in report
    if len(name) % 2:
        config.remove = f"number:{number}"
    else:
        (tmp_path / "ids.txt").write_text(f"{name}\n\n01-port-transition\r\n")
        config.remove = f"file:{tmp_path / 'ids.txt'}"
    Preprocess(config)()
    assert not (corpus / f"{name}.txt").exists()
    assert (corpus / "01-port-transition.txt").exists() == config.remove.startswith("number")
    assert name not in [identifier for _, identifier, _ in works(config.data_dir(), [])]
    config.remove = "number:1"
    with pytest.raises(InputError, match=r"remove=number:1: .*taken down since the report was made"):
        Preprocess(config)()


@pytest.mark.parametrize(
    ("remove", "says"),
    [
        ("number:99", r"remove=number:99: must be a number of the report of .*, 1 to 15"),
        ("number:x", r"remove=number:x: must be a number"),
        ("file:/nowhere/ids", r"remove=file:/nowhere/ids: .* cannot be read \(No such file"),
        ("file:/dev/null", r"has no id"),
    ],
)
def test_a_take_down_of_nothing_is_refused(built, remove, says):
    config = settings(built, remove=remove)
    with pytest.raises(InputError, match=says):
        Preprocess(config)()


def test_a_take_down_passes_over_what_is_no_dataset(tmp_path):
    corpus = Path(shutil.copytree(SAMPLE, tmp_path / "raw"))
    config = settings(tmp_path / "data" / "sample", corpus__path=str(corpus))
    Preprocess(config)()
    for name in ("website", "half"):
        (tmp_path / "data" / name).mkdir()
    (tmp_path / "data" / "website" / "manifest.json").write_text('{"name": "my web app"}')
    shutil.copy(config.data_dir() / "manifest.json", tmp_path / "data" / "half")
    shutil.copytree(config.data_dir(), tmp_path / "data" / "damaged")
    (tmp_path / "data" / "damaged" / "documents.parquet").write_bytes(b"PAR1")
    config.remove = "no such work"
    with pytest.raises(InputError, match=r"no work of that id.*not searched: .*website"):
        take_down(config)
    config.remove = "09-central-bank-words"
    removal = take_down(config)
    assert removal.datasets == [config.data_dir()] and len(removal.deleted) == 1
    said = [line for line in removal.lines() if line.startswith("not searched")]
    assert [name for line in said for name in ("damaged", "half", "website") if f"/{name}" in line] == [
        "damaged",
        "half",
        "website",
    ]


def test_a_take_down_drops_the_text_of_a_half_made_build(tmp_path):
    corpus = Path(shutil.copytree(SAMPLE, tmp_path / "raw"))
    config = settings(tmp_path / "data" / "sample", corpus__path=str(corpus))
    (config.data_dir() / ".build-0" / "parts").mkdir(parents=True)
    config.remove = "09-central-bank-words"
    take_down(config)
    assert [path.name for path in config.data_dir().iterdir()] == ["tombstones.jsonl"]


def test_a_take_down_waits_for_no_harvest_and_not_for_itself(tmp_path):
    corpus = Path(shutil.copytree(SAMPLE, tmp_path / "raw"))
    config = settings(corpus, corpus__path=str(corpus))  # works and dataset in one folder
    Preprocess(config)()
    config.remove = "09-central-bank-words"
    with held(corpus), pytest.raises(InputError, match=f"another process is working in {corpus} now"):
        take_down(config)
    assert take_down(config).datasets == [corpus]
    assert not list(corpus.glob(".*"))


@pytest.mark.parametrize(
    "line",
    ['{"id": "a", ', '["a"]', '"a"', "{}", '{"id": 1}', '{"id": "a", "minhash": "zz"}', "\xff",
     '{"id": "a", "minhash": "00"}', '{"id": "a", "sha256": 1}', '{"id": "a", "manifests": "b"}'],
)  # fmt: skip
def test_a_damaged_tombstone_is_never_passed_over(tmp_path, line):
    corpus = Path(shutil.copytree(SAMPLE, tmp_path / "raw"))
    (corpus / "tombstones.jsonl").write_bytes(b'{"id": "b"}\n\n' + line.encode("latin-1") + b"\n")
    config = settings(tmp_path / "data", corpus__path=str(corpus))
    with pytest.raises(InputError, match=r"raw/tombstones\.jsonl: line 3 is no tombstone"):
        Preprocess(config)()
    config.remove = "09-central-bank-words"
    with pytest.raises(InputError, match=r"raw/tombstones\.jsonl: line 3 is no tombstone"):
        take_down(config)
    assert len(list(corpus.glob("*.txt"))) == 15 and not config.data_dir().exists()


def test_a_dataset_that_is_being_built_is_not_taken_apart(tmp_path):
    corpus = Path(shutil.copytree(SAMPLE, tmp_path / "raw"))
    config = settings(tmp_path / "data" / "sample", corpus__path=str(corpus))
    Preprocess(config)()
    config.remove = "09-central-bank-words"
    with held(config.data_dir()), pytest.raises(InputError, match="another process is working"):
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
