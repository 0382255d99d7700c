"""Works that opt out: the list in all its spellings, what a build leaves out, what is counted."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from conf.errors import InputError
from data_prep import opt_out
from data_prep.build import finished
from data_prep.job import Preprocess
from data_prep.manifest import FileInfo, Manifest
from data_prep.plan import make_plan
from data_prep.spellings import Index
from data_prep.verify import verify
from data_prep.works import rights
from tests.data_prep.conftest import SAMPLE, settings
from tests.data_prep.oai_server import Server
from tests.data_prep.test_harvest import corpus_of, fetch, records, repository
from tests.data_prep.test_page_harvest import config_of as pages_config
from tests.data_prep.test_page_harvest import pages

BANK = "09-central-bank-words"


PURE = "pure:oai:pure.eur.nl:publications/0a1b2c3d-0000-4000-8000-abcdefabcdef"
NAMES_OF_PURE = ["https://doi.org/10.1016/S0014-2921(98)00058-5", "https://hdl.handle.net/1765/4711"]


def index() -> Index:
    page = "https://thesis.eur.nl/pub/57233"
    found = Index()
    found.add("thesis:57233", [f"{page}/Smith.pdf", page], True)
    found.add(PURE, NAMES_OF_PURE, True)
    found.add("repub:oai:repub.eur.nl:815", ["https://repub.eur.nl/pub/815/paper.pdf"], True)
    found.add("Map/Café-Ünïcode")
    found.add("57")
    return found


@pytest.mark.parametrize(
    ("entry", "identifier"),
    [
        ("thesis:57233", "thesis:57233"),
        ("  THESIS:57233 ", "thesis:57233"),
        ("57233", "thesis:57233"),
        ("https://thesis.eur.nl/pub/57233", "thesis:57233"),
        ("HTTP://www.Thesis.EUR.nl:80/pub/57233/#abstract", "thesis:57233"),
        ("thesis.eur.nl/pub/57233/", "thesis:57233"),
        ("<https://thesis.eur.nl/pub/57233/smith.PDF>.", "thesis:57233"),
        ("https://thesis.eur.nl/pub/57233/other-name.pdf", "thesis:57233"),
        ("oai:thesis.eur.nl:57233", "thesis:57233"),
        ("doi:10.1016/s0014-2921(98)00058-5", PURE),
        ("https://dx.doi.org/10.1016%2FS0014-2921%2898%2900058-5", PURE),
        ("(DOI 10.1016/S0014-2921(98)00058-5).", PURE),
        ("hdl:1765/4711", PURE),
        ("1765/4711", PURE),
        ("http://hdl.handle.net/1765/4711", PURE),
        ("https://repository.example.org/handle/1765/4711", PURE),
        ("oai:pure.eur.nl:publications/0A1B2C3D-0000-4000-8000-ABCDEFABCDEF", PURE),
        ("https://pure.eur.nl/en/publications/0a1b2c3d-0000-4000-8000-abcdefabcdef", PURE),
        ("https://repub.eur.nl/pub/815", "repub:oai:repub.eur.nl:815"),
        ("map/cafe\u0301-u\u0308ni\u0308code.txt", "Map/Café-Ünïcode"),
        ("./Map\\Café-Ünïcode.pdf", "Map/Café-Ünïcode"),
        ("57.txt", "57"),
        ("“57”", "57"),
    ],
)
def test_every_common_spelling_names_its_work(entry: str, identifier: str) -> None:
    assert index().find(entry) == {identifier}


@pytest.mark.parametrize(
    "entry",
    ["https://thesis.eur.nl/pub", "https://thesis.eur.nl/", "thesis", "5723", "https://thesis.eur.nl/pub/57234",
     "10.1016/S0014-2921(98)00058", "1765/471", "", "pub", "https://other.nl/pub/57233"],
)  # fmt: skip
def test_what_is_no_name_of_a_work_matches_none(entry: str) -> None:
    assert index().find(entry) == set()


def test_an_entry_that_could_mean_several_works_means_none() -> None:
    found = Index()
    found.add("a:12", [], True)
    found.add("b:12", [], True)
    assert found.find("12") == set() and found.several("12") == {"a:12", "b:12"}


def entries_of(path: Path, data: bytes) -> list[tuple[str, ...]]:
    path.write_bytes(data)
    return [entry.forms for entry in opt_out.read(str(path))]


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.txt", b"\xef\xbb\xbf# who said no\r\n\r\none\r\n  two # by mail, May\r\n\r\n"),
        ("a.txt", "one\rtwo".encode("utf-16")),
        ("a", b"one\ntwo"),
        ("a.csv", b'\xef\xbb\xbfname;Work ID;reason\r\nAn Author;one;"no,\nnever"\r\nB;two;\r\n'),
        ("a.csv", b"id,title\none,a title of 57\n\n# note\ntwo,x\n"),
        ("a.csv", b"sep=;\r\nurl;naam\r\none;x\r\ntwo;y\r\n"),
        ("a.tsv", b"one\tcaf\xe9\ntwo\t\n"),
        ("a.txt", b"one;An Author\ntwo;Another\n"),
    ],
)
def test_lists_as_people_save_them(tmp_path: Path, name: str, data: bytes) -> None:
    found = entries_of(tmp_path / name, data)
    assert [{"one", "two"} & set(forms) for forms in found] == [{"one"}, {"two"}]


def test_a_spreadsheet_is_a_list(tmp_path: Path) -> None:
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    for row in (
        ["Naam", "Adres", "Datum"],
        ["An Author", "https://thesis.eur.nl/pub/57233", None],
        [None, 57, 1.5],
    ):
        book.active.append(row)
    second = book.create_sheet()
    for row in (["Objections of 2026"], [], ["Titel", "Handle"], ["57", "1765/4711"]):
        second.append(row)
    book.save(tmp_path / "no.xlsx")
    found = opt_out.match(opt_out.read(str(tmp_path / "no.xlsx")), index())
    assert sorted(found.works) == sorted(["57", PURE, "thesis:57233"])
    assert [entry.text for entry, _ in found.unmatched] == ["Objections of 2026"]


@pytest.mark.parametrize(
    ("name", "data", "says"),
    [
        ("missing", None, "cannot be read"),
        ("a.txt", b"one\0two", "holds NUL bytes"),
        ("a.xlsx", b"PK\x03\x04 no workbook", "cannot be read as a spreadsheet"),
    ],
)
def test_a_list_that_cannot_be_read_is_one_sentence(
    tmp_path: Path, name: str, data: bytes | None, says: str
) -> None:
    if data is not None:
        (tmp_path / name).write_bytes(data)
    for run in (Preprocess(settings(tmp_path / "data", corpus__opt_out=str(tmp_path / name))), None):
        if run is not None:
            with pytest.raises(InputError, match=rf"corpus\.opt_out=.*{says}"):
                run()
    assert not (tmp_path / "data").exists()


def test_a_list_of_many_lines_is_matched_by_keys_and_said_in_two_lines() -> None:
    found = Index()
    for number in range(100, 3_000):
        found.add(f"thesis:{number}", [f"https://thesis.eur.nl/pub/{number}/a.pdf"], True)
    text = "\n".join(f"https://thesis.eur.nl/pub/{number}" for number in range(100, 5_000))
    result = opt_out.match(opt_out._of_lines(text), found)
    assert len(result.works) == 2_900 and len(result.unmatched) == 2_000
    said = list(result.lines())
    assert len(said) == 2 and "and 1995 more" in said[1] and len(said[1]) < 1000


def built(tmp_path: Path, **changes):
    corpus = Path(shutil.copytree(SAMPLE, tmp_path / "raw"))
    config = settings(tmp_path / "data" / "sample", corpus__path=str(corpus), **changes)
    Preprocess(config)()
    return config, corpus


def test_an_opted_out_work_and_its_copies_leave_the_dataset_and_are_counted(tmp_path: Path, capsys) -> None:
    config, corpus = built(tmp_path, corpus__rights_basis="agreement 12")
    first = Manifest.load(config.data_dir())
    assert first.rights == {
        "licence": {"unknown": 15}, "access": {"unknown": 15}, "rights_basis": {"agreement 12": 15},
        "opt_out": {"unknown": 15},
    }  # fmt: skip
    words = (corpus / f"{BANK}.txt").read_text().split(" ")
    words[100::200] = ["changed"] * len(words[100::200])
    (corpus / "upload-2.txt").write_text(" ".join(words))
    (tmp_path / "no.txt").write_text(f"{BANK.upper()}.TXT\nnobody's work\n")
    config.corpus.opt_out = str(tmp_path / "no.txt")
    Preprocess(config)()
    manifest = Manifest.load(config.data_dir())
    assert manifest.works == {"in": 16, "out": 14, "dropped": {"opt_out": 1, "opt_out_copy": 1}}
    assert manifest.opt_out == {"no": 14, "list": 1, "copy of an opted-out work": 1}
    assert verify(config.data_dir()) == []
    dropped = pq.read_table(config.data_dir() / "dropped.parquet").to_pylist()
    assert {(row["id"], row["reason"]) for row in dropped} == {
        (BANK, "opt_out"),
        ("upload-2", "opt_out_copy"),
    }
    said = capsys.readouterr().err
    assert '"nobody\'s work" in line 2' in said and "entries 2, matched 1, works left out 1" in said
    assert (corpus / f"{BANK}.txt").exists()  # a take-down deletes, an opt-out does not
    entries = {entry["id"]: entry for entry in opt_out.read_record(config.data_dir())}
    assert entries[BANK]["manifests"] == [first.sha256] and entries["upload-2"]["manifests"] == []
    assert "nobody's work\tmatches no work" in (config.data_dir() / opt_out.LIST).read_text()
    report = (config.data_dir() / "report.html").read_text()
    assert "agreement 12" in report and "opt_out_copy" in report and "<h2>Rights" in report
    config.corpus.opt_out = None
    Preprocess(config)()
    assert Manifest.load(config.data_dir()).works["out"] == 15  # the near duplicate is one again


def test_a_list_decides_by_the_works_it_leaves_out_and_by_nothing_else(tmp_path: Path) -> None:
    config, _ = built(tmp_path)
    key = make_plan(config, config.data_dir()).key
    for text in ("", "# nobody\n", "nobody's work\n"):
        (tmp_path / "no.txt").write_text(text)
        config.corpus.opt_out = str(tmp_path / "no.txt")
        assert make_plan(config, config.data_dir()).key == key and finished(config) is not None
    keys = set()
    for text in (f"{BANK}\n", f"# again\n\n{BANK}.txt\nnobody\n"):
        (tmp_path / "no.txt").write_text(text)
        keys.add(make_plan(config, config.data_dir()).key)
    assert len(keys) == 1 and key not in keys and finished(config) is None


def test_a_dataset_made_before_these_columns_is_read_as_unknown(tmp_path: Path) -> None:
    config, _ = built(tmp_path)
    folder = config.data_dir()
    values = json.loads((folder / "manifest.json").read_text())
    for name in ("access", "rights_basis", "opt_out"):
        del values[name]
    table = pq.read_table(folder / "documents.parquet").drop_columns(["access", "rights_basis", "opt_out"])
    pq.write_table(table, folder / "documents.parquet")
    values["files"]["documents.parquet"] = vars(FileInfo.of(folder / "documents.parquet"))
    (folder / "manifest.json").write_text(json.dumps(values))
    manifest = Manifest.load(folder)
    assert manifest.rights["opt_out"] == manifest.rights["access"] == {"unknown": 15}
    assert set(rights(folder)) == {("unknown",) * 4}
    assert verify(folder) == [] and finished(config) is not None


def test_a_build_that_was_begun_before_this_column_goes_on(tmp_path: Path, monkeypatch) -> None:
    from data_prep import build

    corpus = Path(shutil.copytree(SAMPLE, tmp_path / "raw"))
    config = settings(tmp_path / "data", corpus__path=str(corpus), preprocess__chunk_mb=0.02)
    whole = build.merge_parts
    monkeypatch.setattr(build, "merge_parts", lambda *a: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        Preprocess(config)()
    monkeypatch.setattr(build, "merge_parts", whole)
    for path in (tmp_path / "data").glob(".build-*/parts/*"):
        if path.suffix == ".json":
            path.write_text(json.dumps({"dropped": json.loads(path.read_text())["dropped"]}))
        else:
            pq.write_table(pq.read_table(path).drop_columns(["opt_out"]), path)
    Preprocess(config)()
    assert Manifest.load(config.data_dir()).opt_out == {"unknown": 15}
    table = pq.read_table(tmp_path / "data" / "documents.parquet")
    assert set(table["opt_out"].to_pylist()) == {"unknown"}


def test_a_harvest_asks_for_no_work_on_the_list_and_heals(tmp_path: Path) -> None:
    (tmp_path / "no.txt").write_text("oai:test:2\nhdl:1765/5\n")
    with Server(repo := repository(7)) as server:
        repo.entries[5].addresses = (f"{server.address}/files/5.txt", "https://hdl.handle.net/1765/5")
        config = corpus_of(tmp_path, server)
        config.corpus.opt_out = str(tmp_path / "no.txt")
        assert fetch(config) == {"kept": 5, "opt_out": 2}
        assert "/files/2.txt" not in repo.log and "/files/5.txt" not in repo.log
        kept = records(tmp_path)["test:oai:test:1"]
        assert kept["robots"] == "allowed" and kept["addresses"] == [f"{server.address}/files/1.txt"]
        config.corpus.opt_out = None
        assert fetch(config) == {"kept": 2}


def test_robots_txt_is_an_opt_out_of_files_that_are_harvested_over_oai(tmp_path: Path) -> None:
    with Server(repo := repository(7)) as server:
        repo.files["/robots.txt"] = (
            "text/plain",
            b"User-agent: *\nDisallow: /files/*1.txt$\nDisallow: /oai\n",
        )
        config = corpus_of(tmp_path, server)
        config.tokenizer.vocab_size = 400
        Preprocess(config)()
        manifest = Manifest.load(config.data_dir())
        assert manifest.works["dropped"]["robots_txt"] == 1 and manifest.opt_out == {"no": 6, "robots.txt": 1}
        assert "/files/1.txt" not in repo.log
        config.corpus.harvest.sources[0].robots = False
        assert fetch(config) == {"unchanged": 6, "kept": 1} and "/files/1.txt" in repo.log


def test_a_page_on_the_list_is_not_asked_for(tmp_path: Path) -> None:
    with Server(repo := pages([1, 2, 3])) as server:
        (tmp_path / "no.txt").write_text(f"{server.address}/pub/2\n")
        config = pages_config(tmp_path, server, last_id=3)
        config.corpus.opt_out = str(tmp_path / "no.txt")
        assert fetch(config) == {"kept": 2, "opt_out": 1}
        assert "/pub/2/work.txt" not in repo.log


def test_a_damaged_dataset_is_built_again_and_its_works_count_as_held(tmp_path: Path) -> None:
    config, _ = built(tmp_path)
    (config.data_dir() / "documents.parquet").write_bytes(b"PAR1")
    (config.data_dir() / "manifest.json").write_text("{")
    (tmp_path / "no.txt").write_text(f"{BANK}\n" + "x" * 300_000 + "\n")
    config.corpus.opt_out = str(tmp_path / "no.txt")
    Preprocess(config)()
    (entry,) = opt_out.read_record(config.data_dir())
    assert entry["id"] == BANK and len(entry["manifests"]) == 1 and verify(config.data_dir()) == []
