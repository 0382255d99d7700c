"""Facts of datasets that are old, damaged or large."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from conf.schema.institution import Institution
from data_prep.bundle import write
from data_prep.bundle.facts import Facts
from data_prep.manifest import Manifest
from tests.bench.bundle import make_large
from tests.data_prep.bundle import planted
from tests.elm_megatron.small_dataset import make_dataset


def test_an_old_dataset_reads_as_unknown() -> None:
    facts = Facts(Manifest.load(planted.FIXTURE))
    assert facts.groups["access"]["unknown"].works == facts.manifest.works["out"]
    assert facts.groups["language"]["nl"].tokens and facts.built is None and facts.acquired is None
    assert sum(group.tokens or 0 for group in facts.groups["language"].values()) == facts.manifest.tokens


@pytest.mark.parametrize("damage", ["gone", "garbage", "fewer rows", "no index"])
def test_a_damaged_dataset_has_no_tokens_by_group(tmp_path: Path, damage: str) -> None:
    folder = tmp_path / "sample"
    shutil.copytree(planted.FIXTURE, folder)
    path = folder / "documents.parquet"
    if damage == "gone":
        path.unlink()
    elif damage == "garbage":
        path.write_bytes(b"PAR1 no parquet")
    elif damage == "fewer rows":
        pq.write_table(pq.read_table(path).slice(0, 3), path)
    else:
        (folder / "sample-train.idx").write_bytes(b"short")
    facts = Facts(Manifest.load(folder))
    assert {group.tokens for group in facts.groups["language"].values()} == {None}
    assert len(write.write(folder, Institution())) == 4


def test_a_dataset_without_settings_has_documents(tmp_path: Path) -> None:
    folder = make_dataset(tmp_path / "small", languages=["nl", "en", None])  # type: ignore[list-item]
    assert len(write.write(folder, Institution())) == 4
    (folder / "lineage.jsonl").write_text("no json\n", encoding="utf-8")
    assert Facts(Manifest.load(folder)).builds == []


def test_a_column_that_is_new_is_counted_by_the_manifest(tmp_path: Path) -> None:
    values = planted.rich(json.loads((planted.FIXTURE / "manifest.json").read_text(encoding="utf-8")))
    folder = planted.dataset(tmp_path / "new", values, ["2026-01-01"])
    facts = Facts(Manifest.load(folder))
    assert facts.groups["rights_basis"]["public task"].works == 9
    assert facts.groups["opt_out"]["list"].works == 7 and facts.dropped("robots_txt") > 0


def test_many_works_are_read_without_their_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_large(tmp_path / "large", works=2000)
    asked: list[str] = []
    read = pq.read_table

    def spy(path: Path, columns: list[str]) -> pa.Table:
        asked.extend(columns)
        return read(path, columns=columns)

    monkeypatch.setattr(pq, "read_table", spy)
    facts = Facts(Manifest.load(folder))
    assert len(write.documents(facts.manifest, Institution())) == 4
    assert sum(group.tokens or 0 for group in facts.groups["source"].values()) == facts.manifest.tokens
    assert "text" not in asked and "year" in asked
