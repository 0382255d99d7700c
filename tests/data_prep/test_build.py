"""The whole stage on small corpora: what comes out, what is refused, how it goes on when interrupted."""

import errno
import fcntl
import json
import shutil
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sentencepiece

from conf.errors import InputError
from data_prep import binarize, build, finish, lock
from data_prep.comm import SingleProcess
from data_prep.documents import SCHEMA
from data_prep.indexed import read_index
from data_prep.job import Preprocess
from data_prep.manifest import Manifest
from data_prep.progress import Progress
from data_prep.settings import deciding
from data_prep.tokenizer import Tokenizer
from data_prep.train_tokenizer import LINE_BYTES, lines, training_texts
from data_prep.verify import verify
from tests.data_prep.conftest import SAMPLE, sample_words, settings, write_corpus


def make(config) -> Manifest:
    Preprocess(config)()
    return Manifest.load(config.data_dir())


def hashes(manifest):
    return {name: info.sha256 for name, info in ((path.name, info) for path, info in manifest.all_files())}


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    return make(settings(tmp_path_factory.mktemp("data") / "sample"))


def test_the_sample_is_whole_and_accounted_for(sample):
    sample.check_files()
    assert sample.works == {"in": 15, "out": 15, "dropped": {}}
    assert sample.blocks["in"] == sample.blocks["out"] + sum(sample.blocks["dropped"].values())
    assert sample.blocks["dropped"]["short"] > 0
    assert sample.documents == 15 and sample.splits["valid"].documents >= 1
    assert sample.dtype == "uint16" and sample.tokenizer.vocab_size == 512
    assert 20_000 < sample.tokens < 40_000


def test_index_and_ids(sample):
    tokenizer = Tokenizer.load(sample.folder)
    rows = pq.read_table(sample.folder / "documents.parquet").to_pylist()
    for name, split in sample.splits.items():
        index = read_index(sample.prefix(name).with_suffix(".idx"))
        ids = np.fromfile(sample.prefix(name).with_suffix(".bin"), sample.dtype)
        assert (sample.folder / f"{split.prefix}.idx").stat().st_size == 42 + 20 * split.documents
        assert len(ids) == split.tokens == index.lengths.sum()
        texts = [row["text"] for row in rows if row["split"] == name]
        for text, start, length in zip(texts, index.pointers // 2, index.lengths, strict=True):
            document = ids[start : start + length]
            assert document[-1] == tokenizer.eos_id and tokenizer.bos_id not in document
            assert tokenizer.decode(document) == text
        shares = np.bincount(ids) / len(ids)
        shares = shares[shares > 0]
        assert split.unigram_entropy == pytest.approx(-(shares * np.log(shares)).sum())
    assert not any("\\n" in row["text"] for row in rows)


def test_megatron_opens_it(sample):
    dataset = pytest.importorskip("megatron.core.datasets.indexed_dataset")
    tokenizer = Tokenizer.load(sample.folder)
    rows = pq.read_table(sample.folder / "documents.parquet").to_pylist()
    for name, split in sample.splits.items():
        opened = dataset.IndexedDataset(str(sample.prefix(name)))
        texts = [row["text"] for row in rows if row["split"] == name]
        assert len(opened) == split.documents == len(texts)
        assert [tokenizer.decode(opened[number]) for number in range(len(opened))] == texts


def test_a_finished_build_is_not_redone_and_a_changed_one_is(sample, capsys):
    before = {path: path.stat().st_mtime_ns for path in sample.folder.iterdir()}
    config = settings(sample.folder, preprocess__chunk_mb=3)
    Preprocess(config)()
    assert "nothing to do" in capsys.readouterr().err
    assert before == {path: path.stat().st_mtime_ns for path in sample.folder.iterdir()}
    changed = settings(sample.folder.with_name("other"), clean__min_block_tokens=40)
    assert make(changed).key != sample.key


def test_the_folder_is_private(sample):
    assert sample.folder.stat().st_mode & 0o077 == 0
    assert all(path.stat().st_mode & 0o077 == 0 for path in sample.folder.iterdir())
    assert not list(sample.folder.glob(".*"))


def test_two_works_are_cut_for_validation(tmp_path):
    corpus = tmp_path / "two"
    corpus.mkdir()
    for path in sorted(SAMPLE.glob("*.txt"))[:2]:
        shutil.copy(path, corpus)
    (corpus / "notes.md").write_text("no work")
    manifest = make(settings(tmp_path / "d", corpus__path=str(corpus), tokenizer__vocab_size=400))
    assert manifest.splits["train"].documents == manifest.splits["valid"].documents == 2
    share = manifest.splits["valid"].tokens / manifest.tokens
    assert 0.05 < share < 0.15
    assert manifest.notes == ["1 .md file(s) ignored: not a work"]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "does not exist"),
        ({}, "holds no work"),
        ({"a.md": b"x"}, "holds no work"),
        ({"a.txt": b"caf\xe9"}, "not UTF-8"),
        ({"a.txt": b"nul \x00 byte"}, "NUL bytes"),
        ({"a.txt": b"too short"}, "none of the 1 works is left.*no_block_left 1"),
        ({"a.txt": b""}, "none of the 1 works is left.*empty 1"),
        (
            {"a.txt": (SAMPLE / "01-port-transition.txt").read_bytes()},
            "tokenizer.vocab_size=9000 is too large",
        ),
    ],
)
def test_wrong_input_is_one_sentence_and_leaves_nothing(tmp_path, content, says):
    corpus = tmp_path / "corpus"
    if content is not None:
        corpus.mkdir()
        for name, data in content.items():
            (corpus / name).write_bytes(data)
    config = settings(tmp_path / "made" / "data", corpus__path=str(corpus), tokenizer__vocab_size=9000)
    with pytest.raises(InputError, match=says) as caught:
        Preprocess(config)()
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "made").exists()


def test_a_vocabulary_that_fits_no_corpus_is_refused_before_anything_is_cleaned(tmp_path, monkeypatch):
    monkeypatch.setattr(build, "make_parts", None)  # never called
    config = settings(tmp_path / "made" / "data", tokenizer__vocab_size=90_000)
    with pytest.raises(InputError, match=r"tokenizer\.vocab_size=90000 is too large .* at most \d+ pieces"):
        Preprocess(config)()
    assert not (tmp_path / "made").exists()


def test_another_vocabulary_finds_the_cleaned_works(tmp_path, monkeypatch):
    config = settings(tmp_path / "data", tokenizer__vocab_size=22_000)  # below the bound, above what fits
    with pytest.raises(InputError, match=r"tokenizer\.vocab_size=22000 is too large"):
        Preprocess(config)()
    config.tokenizer.vocab_size = 512
    with monkeypatch.context() as patch:
        patch.setattr(build, "make_parts", None)
        manifest = make(config)
    assert verify(manifest.folder) == [] and not list(config.data_dir().glob(".*"))
    assert hashes(manifest) == hashes(make(settings(tmp_path / "new")))


def test_a_given_tokenizer_is_taken_as_it_is(sample, tmp_path):
    """The datasets of a blend share one. Its bytes count, not its place; without one keys are as before."""
    corpus = write_corpus(tmp_path / "corpus", 6, 800)
    config = settings(
        tmp_path / "d",
        corpus__path=str(corpus),
        tokenizer__vocab_size=512,
        tokenizer__model=str(sample.folder),
    )
    manifest = make(config)
    assert manifest.tokenizer == sample.tokenizer
    assert (manifest.folder / "tokenizer.json").read_bytes() == (
        sample.folder / "tokenizer.json"
    ).read_bytes()
    assert verify(manifest.folder) == []
    model = tmp_path / "elsewhere.model"
    shutil.copy(sample.folder / "tokenizer.model", model)
    config.tokenizer.model = str(model)
    assert build.finished(config).key == manifest.key
    config.tokenizer.model = None
    assert build.finished(config) is None
    assert "model" not in deciding(config)["tokenizer"]


@pytest.mark.parametrize(
    ("content", "vocab_size", "says"),
    [
        (None, 512, r"tokenizer\.model=.*is no file\."),
        (b"no model", 512, r"tokenizer\.model=.*is not a SentencePiece model\."),
        ("sample", 400, r"tokenizer\.vocab_size=400: .* has 512 pieces; set tokenizer\.vocab_size=512\."),
        ("no end", 300, r"tokenizer\.model=.*has no piece that ends a document"),
    ],
)
def test_a_given_tokenizer_that_cannot_serve_is_refused(sample, tmp_path, content, vocab_size, says):
    model = tmp_path / "given.model"
    if content == "no end":
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(sample_words()), model_prefix=str(tmp_path / "given"),
            vocab_size=vocab_size, eos_id=-1, minloglevel=3,
        )  # fmt: skip
    elif content is not None:
        model.write_bytes(
            (sample.folder / "tokenizer.model").read_bytes() if content == "sample" else content
        )
    config = settings(tmp_path / "made" / "d", tokenizer__vocab_size=vocab_size, tokenizer__model=str(model))
    with pytest.raises(InputError, match=says):
        Preprocess(config)()
    assert not (tmp_path / "made").exists()


def test_a_folder_that_cannot_be_written_is_refused_at_once(tmp_path, monkeypatch):
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(InputError, match=r"data\.dir=.*is a file"):
        Preprocess(settings(blocked / "data"))()

    def refuse(self, *args, **kwargs):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(Path, "touch", refuse)
    with pytest.raises(InputError, match=r"data\.dir=.*cannot be written \(Read-only file system\)"):
        Preprocess(settings(tmp_path / "data"))()
    assert not (tmp_path / "data").exists()


def test_wrong_input_leaves_the_old_dataset_as_it_was(tmp_path):
    corpus = shutil.copytree(SAMPLE, tmp_path / "corpus")
    config = settings(tmp_path / "d", corpus__path=str(corpus))
    before = hashes(make(config))
    (corpus / "bad.txt").write_bytes(b"\xff")
    with pytest.raises(InputError):
        Preprocess(config)()
    assert hashes(Manifest.load(config.data_dir())) == before
    Manifest.load(config.data_dir()).check_files()


def test_a_second_builder_is_turned_away(tmp_path):
    config = settings(tmp_path / "d")
    with lock.held(config.data_dir()), pytest.raises(InputError, match="another process"):
        Preprocess(config)()
    make(config)


def test_a_file_system_without_locks_is_not_taken_for_another_builder(tmp_path, monkeypatch):
    def refuse(handle, operation):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", refuse)  # as on Lustre that is mounted without flock
    config = settings(tmp_path / "made" / "data")
    with pytest.raises(InputError, match=r"made/data.*has no locks \(Function not implemented\).*with flock"):
        Preprocess(config)()
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("seed", range(3))
def test_the_tokenizer_has_text_where_no_whole_work_fits_its_sample(tmp_path, seed):
    rows = [(f"work-{number}", "train", "een zin van woorden. " * 75_000) for number in range(3)]
    columns = dict(zip(("id", "split", "text"), zip(*rows, strict=True), strict=True))
    blank = {name: [None] * len(rows) for name in SCHEMA.names if name not in columns}
    pq.write_table(pa.table(columns | blank, SCHEMA), tmp_path / "documents.parquet")
    config = settings(tmp_path, tokenizer__sample_mb=1, tokenizer__seed=seed)
    assert [len(text) for text in training_texts(tmp_path / "documents.parquet", config.tokenizer)] == [10**6]
    config.tokenizer.sample_mb = 200
    assert len(list(training_texts(tmp_path / "documents.parquet", config.tokenizer))) == 3


def test_a_line_of_megabytes_is_cut_for_the_tokenizer_in_linear_time():
    text = "één woord " * 500_000
    start = time.process_time()
    pieces = list(lines([text, "x" * 9000, "\n \n", "é" * 1999, "é" * 2001]))
    assert time.process_time() - start < 2  # a hundredth is usual, copying the rest each time takes many
    assert "".join(pieces) == text + "x" * 9000 + "é" * 4000
    assert max(len(piece.encode()) for piece in pieces) <= LINE_BYTES
    assert [len(piece) for piece in pieces[-4:]] == [4000, 1999, 1000, 1001]


class Stop(BaseException):
    """Stands for the end of the process."""


@pytest.mark.parametrize("after", ["make_parts", "merge_parts", "train", "round", "torn", "idx", "commit"])
def test_an_interrupted_build_goes_on_to_the_same_bytes(tmp_path, monkeypatch, after):
    corpus = write_corpus(tmp_path / "corpus", works=12, words=1_600)  # 120 kB: five chunks
    whole = hashes(make(settings(tmp_path / "whole", corpus__path=str(corpus), preprocess__chunk_mb=0.03)))
    config = settings(tmp_path / "broken", corpus__path=str(corpus), preprocess__chunk_mb=0.03)
    config.corpus.name = "sample"

    def stop(*args):
        raise Stop

    with monkeypatch.context() as patch:
        if after == "round":
            patch.setattr(binarize, "append_journal", stop)  # written, but not journalled
        elif after == "torn":
            real = binarize.append_journal

            def tear(path, done, sums):
                real(path, done, sums)
                path.write_text(path.read_text()[:-30])
                raise Stop

            patch.setattr(binarize, "append_journal", tear)
        elif after == "idx":
            patch.setattr(finish, "write_report", stop)
        else:
            names = {
                "make_parts": "merge_parts",
                "merge_parts": "train",
                "train": "binarize",
                "commit": "commit",
            }
            patch.setattr(build, names[after], stop)
        with pytest.raises(Stop):
            build.build(config, SingleProcess(), Progress(False))
    if after == "commit":  # half of the files moved
        work = next(config.data_dir().glob(".build-*"))
        (work / "train.bin").replace(config.data_dir() / "sample-train.bin")
        monkeypatch.setattr(build, "_documents", stop)  # the rest needs no stage again
    manifest = build.build(config, SingleProcess(), Progress(False))
    assert hashes(manifest) == whole
    assert not list(config.data_dir().glob(".*"))


def test_bytes_lost_after_the_journal_was_written_are_made_again(tmp_path):
    corpus = write_corpus(tmp_path / "corpus", works=12, words=1_600)
    whole = make(settings(tmp_path / "whole", corpus__path=str(corpus), preprocess__chunk_mb=0.03))
    folder = tmp_path / "again"
    folder.mkdir()
    shutil.copy(whole.folder / "documents.parquet", folder)
    tokenizer = Tokenizer.load(whole.folder)
    binarize.binarize(folder, tokenizer, SingleProcess(), lambda done, total: None)
    entries = [json.loads(line) for line in (folder / "rounds.jsonl").read_text().splitlines()]
    assert len(entries) > 1
    first = entries[0]["tokens"]["train"] * 2
    with (folder / "train.bin").open("r+b") as file:
        file.seek(first + 10)
        file.write(b"\xff\xff")
    done = binarize.resume(folder, 2)
    assert done.groups == entries[0]["groups"]
    binarize.binarize(folder, tokenizer, SingleProcess(), lambda done, total: None)
    assert (folder / "train.bin").read_bytes() == (whole.folder / "sample-train.bin").read_bytes()


def test_real_works_are_redacted_and_their_line_breaks_real(tmp_path, elm_sample):
    import re

    manifest = make(settings(tmp_path / "d", corpus__path=str(elm_sample), corpus__name="elm-sample"))
    assert manifest.languages == {"en": 2} and manifest.redactions["student number"] >= 1
    assert manifest.redactions["name"] >= 1 and manifest.redactions["e-mail"] >= 1
    raw = " ".join(path.read_text() for path in elm_sample.glob("*.txt"))
    private = re.findall(r"Student (?:name|number): (.*?)\\n", raw) + re.findall(r"[\w.]+@[\w.]+", raw)
    everything = "".join(pq.read_table(manifest.folder / "documents.parquet")["text"].to_pylist())
    everything += (manifest.folder / "report.html").read_text() + (
        manifest.folder / "manifest.json"
    ).read_text()
    assert len(private) >= 3 and not any(value in everything for value in private)
    assert "\\n" not in everything.replace((manifest.folder / "manifest.json").read_text(), "")
