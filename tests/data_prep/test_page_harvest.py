"""Pages by number against a real HTTP server on loopback: robots.txt, access, gaps, going on."""

from __future__ import annotations

from pathlib import Path

import pytest

from conf.errors import InputError
from data_prep.job import Preprocess
from data_prep.manifest import Manifest
from data_prep.works import works
from tests.data_prep.oai_server import Repository, Server
from tests.data_prep.test_harvest import TEXTS, corpus_of, fetch, records


def a_page(number: int, rights: str = "Open access", **more: str) -> tuple[str, bytes]:
    meta = {"citation_title": f"Thesis {number}", "citation_date": "2019", "dc.rights": rights}
    meta |= {"citation_pdf_url": f"/pub/{number}/work.txt", "citation_language": "en", **more}
    head = "".join(f'<meta name="{name}" content="{value}">' for name, value in meta.items() if value)
    return "text/html", f"<html><head>{head}</head></html>".encode()


def pages(numbers: list[int]) -> Repository:
    repo = Repository()
    for number in numbers:
        repo.files[f"/pub/{number}"] = a_page(number)
        repo.files[f"/pub/{number}/work.txt"] = ("text/plain", TEXTS[number])
    return repo


def config_of(tmp_path: Path, server: Server, **source):
    config = corpus_of(tmp_path, server)
    config.corpus.harvest.sources[0].url = f"{server.address}/pub/<id>"
    config.corpus.harvest.sources[0].kind = "pages"
    for key, value in {"last_id": 12, **source}.items():
        setattr(config.corpus.harvest.sources[0], key, value)
    return config


@pytest.fixture(autouse=True)
def fast(monkeypatch):
    """One request a second is kept by the harvest; the tests let the clock go faster."""
    monkeypatch.setattr("data_prep.oai_harvest.PAGES_PER_SECOND", 1000.0)


def test_pages_are_fetched_with_rights_and_not_asked_for_again(tmp_path: Path) -> None:
    with Server(repo := pages([1, 2, 5])) as server:
        config = config_of(tmp_path, server, rights_basis="students' consent")
        repo.files["/pub/2"] = a_page(2, "closed access")
        assert fetch(config) == {"kept": 2, "closed_access": 1}
        assert repo.log[0] == "/robots.txt"
        kept = records(tmp_path)["test:1"]
        assert kept["title"] == "Thesis 1" and kept["year"] == 2019 and kept["access"] == "open access"
        assert kept["rights_basis"] == "students' consent" and kept["url"].endswith("/pub/1/work.txt")
        repo.log.clear()
        repo.files["/pub/7"], repo.files["/pub/7/work.txt"] = a_page(7), ("text/plain", TEXTS[7])
        assert fetch(config) == {"kept": 1} and "/pub/1" not in repo.log


def test_robots_txt_is_respected(tmp_path: Path) -> None:
    with Server(repo := pages([1, 2, 3])) as server:
        rules = b"User-agent: *\nDisallow: /pub/2\nDisallow: /pub/3/\n"
        repo.files["/robots.txt"] = ("text/plain", rules)
        assert fetch(config_of(tmp_path, server, last_id=3)) == {"kept": 1, "robots_txt": 2}
        assert "/pub/2" not in repo.log and "/pub/3/work.txt" not in repo.log


def test_a_gap_ends_the_pages_where_no_last_number_is_known(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("data_prep.page_harvest.GAP", 5)
    with Server(repo := pages([1, 4, 12])) as server:
        assert fetch(config_of(tmp_path, server, last_id=None)) == {"kept": 2}
        assert "/pub/9" in repo.log and "/pub/10" not in repo.log


@pytest.mark.parametrize("mood", ["no page with status 200", "forbidden", "robots.txt forbids everything"])
def test_pages_of_no_works_end_too(mood: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("data_prep.page_harvest.GAP", 5)
    with Server(repo := pages([1, 4])) as server:
        config = config_of(tmp_path, server, last_id=None)
        repo.files["/robots.txt"] = ("text/plain", b"")
        if mood == "no page with status 200":
            repo.missing = 200
            assert fetch(config) == {"kept": 2, "no_metadata": 7}
            assert {key: value["status"] for key, value in records(tmp_path).items()} == {
                "test:1": "kept", "test:2": "rejected", "test:3": "rejected", "test:4": "kept"
            }  # fmt: skip
            return
        repo.missing = 403 if mood == "forbidden" else 404
        if mood != "forbidden":
            repo.files["/robots.txt"] = ("text/plain", b"\xef\xbb\xbfUser-agent: *\nDisallow: /\n")
        reason = "http_403" if mood == "forbidden" else "robots_txt"
        with pytest.raises(InputError, match=rf"test, 5 pages one after another cannot be used \({reason}\)"):
            fetch(config)
        assert mood == "forbidden" or repo.log == ["/robots.txt"]


def test_a_file_that_fails_or_a_page_that_cannot_be_read_stops_no_others(tmp_path: Path) -> None:
    with Server(repo := pages([1, 2, 3])) as server:
        config = config_of(tmp_path, server, last_id=3)
        config.corpus.harvest.retries = 0
        repo.broken.add("/pub/1/work.txt")
        repo.files["/pub/2"] = ("text/html", b"<html><![unknown[ x ]]></html>")
        assert fetch(config) == {"unreachable": 1, "bad_address": 1, "kept": 1}
        repo.broken.clear()
        assert fetch(config) == {"kept": 1} and records(tmp_path)["test:1"]["status"] == "kept"


def test_access_and_rights_basis_are_columns(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    with Server(pages([1, 2, 3, 4])) as server:
        config = config_of(tmp_path, server, last_id=4, rights_basis="agreement 12")
        config.tokenizer.vocab_size = 400
        Preprocess(config)()
    folder = Manifest.load(config.data_dir()).folder
    table = pq.read_table(folder / "documents.parquet", columns=["access", "rights_basis"])
    assert table["access"].to_pylist() == ["open access"] * 4
    assert set(table["rights_basis"].to_pylist()) == {"agreement 12"} and len(list(works(folder, []))) == 4


def test_a_source_of_pages_without_a_number_in_its_address_is_refused(tmp_path: Path) -> None:
    with Server(pages([1])) as server:
        config = config_of(tmp_path, server)
        config.corpus.harvest.sources[0].url = f"{server.address}/pub"
        with pytest.raises(InputError, match=r"sources\[0\]\.url=.*must have <id>"):
            config.check()
