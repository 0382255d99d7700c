"""The index finds what a plain search finds, in shards of any size, and nothing of works that are gone."""

from __future__ import annotations

import dataclasses
import json
import random
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from conf.errors import InputError
from data_prep import files, tombstones
from data_prep.manifest import FileInfo, Manifest, Split, TokenizerInfo
from elm_megatron.trace import index as indexes
from elm_megatron.trace.index import Index, Outdated, build, without_gone
from tests.elm_megatron.small_dataset import write_index

EOS = 2


def ids_dataset(folder: Path, works: list[list[int]], dtype: str = "uint16", vocab: int = 1000) -> Manifest:
    """A dataset of token ids without a tokenizer; each work is closed by EOS."""
    folder.mkdir(parents=True)
    splits = {}
    for name, documents in (("train", works), ("valid", [[5, 6]])):
        ids = np.array([i for document in documents for i in [*document, EOS]], dtype)
        (folder / f"t-{name}.bin").write_bytes(ids.tobytes())
        lengths = np.array([len(document) + 1 for document in documents], np.int32)
        write_index(folder / f"t-{name}.idx", lengths, np.dtype(dtype).itemsize)
        infos = [FileInfo.of(folder / f"t-{name}.{kind}") for kind in ("bin", "idx")]
        splits[name] = Split(f"t-{name}", len(documents), len(ids), ids.nbytes, 1.0, *infos)
    rows = [
        {"id": f"w{n}", "title": f"Title {n}", "split": "train", "sha256": f"{n:064}"}
        for n in range(len(works))
    ]
    rows.insert(1, {"id": "held-out", "title": "Held out", "split": "valid", "sha256": "f" * 64})
    nothing: list[dict] = [{}, {}, {}, {}, {}]
    info = TokenizerInfo("0" * 64, vocab, 1, EOS, 3)
    manifest = Manifest(
        "t", "k", dtype, info, splits, {}, {"in": 1, "out": 1, "dropped": {}}, *nothing, [], {}
    )
    return rewritten(dataclasses.replace(manifest, folder=folder), rows)


def rewritten(manifest: Manifest, rows: list[dict], stale: str = "") -> Manifest:
    """The dataset with other rows in documents.parquet."""
    path = manifest.folder / "documents.parquet"
    pq.write_table(pa.Table.from_pylist(rows), path)
    named = dataclasses.replace(manifest, files={path.name: FileInfo.of(path)}, stale=stale)
    files.write(manifest.folder / "manifest.json", named.dumps())
    return Manifest.load(manifest.folder)


def opened(manifest: Manifest, folder: Path | None = None) -> Index:
    """A new index of a dataset."""
    folder = folder or manifest.folder / "trace"
    build(folder, manifest, lambda done, total: None)
    return Index.open(folder, manifest)


def plain_spans(answer: list[int], works: list[list[int]], least: int) -> list[tuple[int, int]]:
    """By trying every work at every place."""
    length = [0] * len(answer)
    for start in range(len(answer)):
        for work in works:
            for place in range(len(work)):
                n = 0
                while (
                    start + n < len(answer) and place + n < len(work) and answer[start + n] == work[place + n]
                ):
                    n += 1
                length[start] = max(length[start], n)
    spans = [(i, i + n) for i, n in enumerate(length) if n >= least]
    return [(i, j) for i, j in spans if not any(a <= i and j <= b and (a, b) != (i, j) for a, b in spans)]


def holders(passage: list[int], works: list[list[int]]) -> tuple[list[str], int]:
    """The ids of the works that hold a passage, and how often it is in them."""
    counts = [
        sum(work[place : place + len(passage)] == passage for place in range(len(work) - len(passage) + 1))
        for work in works
    ]
    return [f"w{n}" for n, count in enumerate(counts) if count], sum(counts)


def invented(rng: random.Random, count: int) -> tuple[list[list[int]], list[list[int]]]:
    """Works of a few tokens that often repeat, and answers that are partly cut out of them."""
    top = rng.choice([4, 9, 300])
    works = [[rng.randint(3, 3 + top) for _ in range(rng.randint(0, 90))] for _ in range(12)]
    works += [list(works[0]), works[1][5:] + works[2], [7] * 40]
    answers: list[list[int]] = [[], [7], [7] * 60]
    while len(answers) < count:
        answer: list[int] = []
        for _ in range(rng.randint(1, 4)):
            work = rng.choice(works)
            start = rng.randint(0, max(0, len(work) - 1))
            answer += work[start : start + rng.randint(0, 70)]
            answer += [rng.randint(3, 3 + top) for _ in range(rng.randint(0, 5))]
        answers.append(answer)
    return works, answers


@pytest.mark.parametrize(
    ("seed", "dtype", "shard"), [(1, "uint16", 1 << 20), (2, "uint16", 200), (3, "int32", 500)]
)
def test_spans_are_those_of_a_plain_search(
    seed: int, dtype: str, shard: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """210 answers in all, over repeating works in one shard or many: spans, works and counts are equal."""
    monkeypatch.setattr(indexes, "SHARD_BYTES", shard)
    rng = random.Random(seed)
    works, answers = invented(rng, 70)
    if dtype == "int32":  # tokens beyond two bytes
        works, answers = ([[i * 70_001 for i in row] for row in rows] for rows in (works, answers))
    index = opened(ids_dataset(tmp_path / "data", works, dtype, 1 << 25))
    assert len(index.shards) == 1 or shard < 1000
    found = 0
    for answer in answers:
        spans = index.spans(np.array(answer, np.int64), 8)
        assert spans == plain_spans(answer, works, 8)
        for start, stop in spans:
            named, times = index.works_of(np.array(answer[start:stop]))
            assert ([work.id for work in named], times) == holders(answer[start:stop], works)
            found += 1
    assert found > 50


def test_no_span_goes_over_the_border_of_two_works(tmp_path: Path) -> None:
    """Neither in an answer that joins two works, nor in one that has the end of a document itself."""
    works = [list(range(10, 22)), list(range(30, 42))]
    index = opened(ids_dataset(tmp_path / "data", works))
    assert index.spans(np.array([*works[0], *works[1]]), 8) == [(0, 12), (12, 24)]
    assert index.spans(np.array([*works[0], EOS, *works[1]]), 8) == [(0, 12), (13, 25)]
    assert index.spans(np.array([*works[0][5:], *works[1][:7]]), 8) == []


def test_bytes_a_token(tmp_path: Path) -> None:
    works = [list(np.random.default_rng(n).integers(3, 900, 500)) for n in range(8)]
    manifest = ids_dataset(tmp_path / "data", works)
    index = opened(manifest)
    size = sum(path.stat().st_size for path in index.folder.iterdir() if path.suffix == ".bin")
    assert size == 4 * manifest.splits["train"].tokens + 8 * len(works)
    text = (index.folder / "index.json").read_text()
    assert "Title" not in text and '"w0"' not in text  # ids and titles are in the dataset alone


def test_a_work_that_is_taken_down_leaves_the_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its row or its tombstone is enough; the others keep their spans, and the `.bin` is the old one."""
    monkeypatch.setattr(indexes, "SHARD_BYTES", 100)
    works = [[10 + n * 20 + i for i in range(15)] for n in range(5)] + [[30, 31, *range(100, 115)]]
    manifest = ids_dataset(tmp_path / "data", works)
    index = opened(manifest)
    rows = pq.read_table(manifest.folder / "documents.parquet").to_pylist()
    manifest = rewritten(manifest, [row for row in rows if row["id"] != "w1"], "a work was taken down")
    tombstones.add(manifest.folder, [{"id": "w3", "sha256": None}, {"id": "other", "sha256": f"{4:064}"}])
    index = Index.open(index.folder, manifest)
    assert index.gone == [1, 3, 4] and not index.is_current
    without_gone(index, lambda done, total: None)
    index = Index.open(index.folder, manifest)
    assert index.is_current
    for number, work in enumerate(works):
        expected = [] if number in index.gone else [(0, len(work))]
        assert index.spans(np.array(work), 8) == expected
    assert sum(len(shard.order) for shard in index.shards) == sum(len(works[n]) + 1 for n in (0, 2, 5))
    assert [path.name for path in manifest.folder.glob(".trace*")] == []


def test_an_index_of_another_build_is_outdated(tmp_path: Path) -> None:
    works = [[10 + n * 20 + i for i in range(15)] for n in range(5)]
    index = opened(ids_dataset(tmp_path / "data", works))
    again = ids_dataset(tmp_path / "again", works[1:])
    with pytest.raises(Outdated, match="is not of the dataset"):
        Index.open(index.folder, again)
    (index.folder / "suffixes-0000.bin").write_bytes(b"1234")
    with pytest.raises(Outdated, match="has another size"):
        Index.open(index.folder, index.manifest)
    (index.folder / "index.json").write_text("[1]")
    with pytest.raises(Outdated, match="is no index"):
        Index.open(index.folder, index.manifest)
    with pytest.raises(Outdated):
        Index.open(tmp_path / "nothing", index.manifest)


def test_a_build_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = ids_dataset(tmp_path / "data", [list(range(10, 30))])
    left = manifest.folder / ".trace.1.tmp"
    left.mkdir()  # of a command that was killed
    with (
        files.locked(manifest.folder),
        pytest.raises(InputError, match="another process is making this index"),
    ):
        opened(manifest)
    monkeypatch.setattr(indexes, "sort", lambda ids, path: path.write_bytes(b"") / 0)
    with pytest.raises(ZeroDivisionError):
        opened(manifest)
    assert sorted(path.name for path in manifest.folder.iterdir() if "trace" in path.name) == []
    rows = pq.read_table(manifest.folder / "documents.parquet").to_pylist()
    monkeypatch.undo()
    with pytest.raises(InputError, match="a work was taken down; build it again"):
        opened(rewritten(manifest, rows[1:], "a work was taken down"))
    with (manifest.folder / "t-train.bin").open("r+b") as file:
        file.write(b"xx")
    with pytest.raises(InputError, match="its sha256 is not the manifest's"):
        opened(rewritten(manifest, rows))
    assert json.loads((manifest.folder / "manifest.json").read_text())
