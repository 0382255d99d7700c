"""The harvest against a real HTTP server on loopback."""

import json
import os
import subprocess
import sys
import time
from contextlib import suppress
from email.utils import formatdate
from hashlib import sha256
from pathlib import Path

import pyarrow.parquet as pq
import pytest

pytest.importorskip("oaipmh_scythe")

import httpx2

from conf.errors import InputError
from conf.schema.preprocess import HarvestConfig, HarvestSource
from data_prep import lock, raw
from data_prep.dublin_core import describe
from data_prep.harvest import harvest
from data_prep.job import Preprocess
from data_prep.manifest import Manifest
from data_prep.oai import RECORD_START, Answer, _records, mend
from data_prep.settings import to_mapping
from data_prep.takedown import _raw_files
from data_prep.web import Refused, _retry_after
from tests.data_prep.conftest import SAMPLE, settings
from tests.data_prep.oai_server import Entry, Handler, Repository, Server, envelope

ROOT = Path(__file__).resolve().parents[2]
TEXTS = [path.read_bytes() for path in sorted(SAMPLE.glob("*.txt"))]


def repository(count=7, **changes) -> Repository:
    entries = [Entry(f"oai:test:{number}") for number in range(count)]
    files = {f"/files/{number}.txt": ("text/plain", TEXTS[number % len(TEXTS)]) for number in range(count)}
    return Repository(entries, files, **changes)


def corpus_of(tmp_path, server, **changes):
    config = settings(tmp_path / "data", corpus__path=str(tmp_path / "raw"), corpus__quarantine=True)
    source = HarvestSource("test", f"{server.address}/oai", **changes.pop("source", {}))
    values = {"requests_per_second": 1000.0, "timeout_seconds": 2.0, "retries": 2, "max_answer_mb": 1}
    config.corpus.harvest = HarvestConfig(True, [source], **{**values, **changes})
    return config


def fetch(config, tombstones=()):
    return dict(harvest(config.corpus, set(tombstones), lambda text: None))


def records(tmp_path) -> dict:
    lines = (tmp_path / "raw" / "records.jsonl").read_text().splitlines()
    return {entry["id"]: entry for entry in map(json.loads, lines)}


def test_all_pages_are_fetched_with_their_provenance(tmp_path):
    with Server(repo := repository()) as server:
        assert fetch(corpus_of(tmp_path, server)) == {"kept": 7}
    kept = records(tmp_path)["test:oai:test:3"]
    assert kept["title"] == "A thesis" and kept["year"] == 2021 and kept["language"] == "en"
    assert kept["licence"] == "https://creativecommons.org/licenses/by/4.0/" and len(kept["sha256"]) == 64
    assert kept["url"].endswith("/files/3.txt")
    assert (tmp_path / "raw" / kept["file"]).read_bytes() == TEXTS[3]
    assert "Persoon" not in (tmp_path / "raw" / "records.jsonl").read_text()
    assert sum("resumptionToken" in line for line in repo.log) == 2


def test_a_second_harvest_asks_only_for_what_changed(tmp_path):
    with Server(repo := repository()) as server:
        config = corpus_of(tmp_path, server)
        fetch(config)
        repo.log.clear()
        assert fetch(config) == {}
        assert len(repo.log) == 1 and "from=" in repo.log[0]
        repo.entries[1].stamp = repo.entries[2].stamp = "2999-01-01"
        repo.entries[2].deleted = True
        old = records(tmp_path)["test:oai:test:2"]["file"]
        assert fetch(config) == {"kept": 1, "deleted": 1}
    assert not (tmp_path / "raw" / old).exists()
    assert records(tmp_path)["test:oai:test:2"]["reason"] == "deleted_at_source"


def test_set_and_dates_go_to_the_server(tmp_path):
    with Server(repo := repository()) as server:
        repo.entries[0].sets = ("other",)
        config = corpus_of(
            tmp_path, server, source={"set": "other"}, from_date="2020-01-01", until_date="2025-01-01"
        )
        assert fetch(config) == {"kept": 1}
    assert (
        "from=2020-01-01" in repo.log[0] and "until=2025-01-01" in repo.log[0] and "set=other" in repo.log[0]
    )


@pytest.mark.parametrize(
    ("rights", "date", "reason"),
    [
        (("info:eu-repo/semantics/closedAccess",), "2020", "closed_access"),
        (("info:eu-repo/semantics/restrictedAccess",), "2020", "closed_access"),
        (("info:eu-repo/semantics/embargoedAccess",), "2020", "embargo"),
        (("openAccess", "info:eu-repo/date/embargoEnd/2999-01-01"), "2020", "embargo"),
        (("All rights reserved",), "2020", "access_unknown"),
    ],
)
def test_what_is_not_open_is_refused_with_its_reason(tmp_path, rights, date, reason):
    repo = repository(1)
    repo.entries[0].rights, repo.entries[0].date = rights, date
    with Server(repo) as server:
        assert fetch(corpus_of(tmp_path, server)) == {reason: 1}
    assert records(tmp_path)["test:oai:test:0"]["reason"] == reason
    assert not (tmp_path / "raw" / "files").exists()


def test_an_embargo_that_is_over_and_a_server_of_open_works():
    rights = {"rights": ["info:eu-repo/semantics/embargoedAccess", "info:eu-repo/date/embargoEnd/2020-01-01"]}
    assert describe(rights, HarvestSource())["embargo"] == "2020-01-01"
    assert describe({}, HarvestSource(assume_open=True))["licence"].startswith("open access")
    with pytest.raises(Refused, match="access_unknown"):
        describe({}, HarvestSource())


@pytest.mark.parametrize(
    ("reason", "rights"),
    [
        ("embargo", "Under embargo until 2999-01-01"),
        ("embargo", "Onder embargo tot 1 januari 2020"),  # a date that cannot be read is not over
        ("embargo", "Embargo. Copyright 2019 by the author"),
        ("embargo", "Embargo: 2020-01-01 - 2999-01-01"),
        ("embargo", "Embargo until 2020-01-01, extended until 2999"),
        ("embargo", "Embargo lifted on 2999-01-01"),
        ("embargo", "Embargo; deposited 2015-01-01"),
        ("embargo", "http://purl.org/coar/access_right/c_f1cf"),
        ("embargo", f"{'Licence text. ' * 40} info:eu-repo/date/embargoEnd/2999"),
        ("closed_access", f"{'Licence text. ' * 40} info:eu-repo/semantics/closedAccess"),
        ("closed_access", "http://purl.org/coar/access_right/c_14cb"),
        ("closed_access", "http://purl.org/coar/access_right/c_16ec"),
        ("closed_access", "Confidential"),
        ("closed_access", "Access: closed"),
        ("closed_access", "Closed"),
        ("closed_access", "No access"),
        ("closed_access", "Not open access"),
        ("closed_access", "Niet openbaar"),
        ("closed_access", "Not publicly available"),
        ("closed_access", "No embargo, but confidential"),
    ],
)
def test_a_server_of_open_works_is_not_believed_against_the_record(reason, rights):
    with pytest.raises(Refused, match=reason):
        describe({"rights": ["Open access", rights]}, HarvestSource(assume_open=True))


HARMLESS = (
    *(
        "Embargo: none",
        "Without embargo",
        "zonder embargo",
        "no-embargo",
        "Embargo lifted",
        "Embargo expired",
    ),
    *("Not under embargo", "No longer under embargo", "Non-confidential", "niet vertrouwelijk"),
    *("This thesis contains no confidential information", "There are no access constraints"),
    *("CC BY-NC 4.0 - not open for commercial use", "Not publicly funded"),
    "Open access, restricted to non-commercial use",
)


@pytest.mark.parametrize(
    ("rights", "end"),
    [
        ("Under embargo until 2020-01-01", "2020-01-01"),
        ("Embargoed access (ends 2020-05)", "2020-05-31"),
        ("http://purl.org/coar/access_right/c_f1cf | embargo: 2020-01-01", "2020-01-01"),
        ("http://purl.org/coar/access_right/c_abf2", None),
        ("Open access, there are no access restrictions", None),
        ("Open access, no embargo", None),
        *((f"Open access. {words}", None) for words in HARMLESS),
        ("Embargo ended on 2015-01-01", "2015-01-01"),
        ("Embargo end date: 2015-01-01", "2015-01-01"),
        ("Embargo from 2014-01-01 until 2015-01-01", "2015-01-01"),
        ("Embargo until 01-02-2015", "2015-12-31"),
    ],
)
def test_what_is_open_or_has_become_so_is_kept(rights, end):
    assert describe({"rights": [rights]}, HarvestSource())["embargo"] == end


@pytest.mark.parametrize(
    "licence", ["CC BY", "CC BY NC ND 4.0", "CC-BY-NC-4.0", "cc by-sa", "CC BY-NonCommercial 3.0", "CC0"]
)
def test_a_licence_is_named_with_all_its_conditions(licence):
    assert describe({"rights": [f"Open under {licence} (see there)"]}, HarvestSource())["licence"] == licence


def test_an_embargo_of_a_year_or_a_month_ends_with_its_last_day():
    for stated, end in (("2020", "2020-12-31"), ("2020-05", "2020-05-31"), ("2020-05-06", "2020-05-06")):
        assert (
            describe({"rights": [f"info:eu-repo/date/embargoEnd/{stated}"]}, HarvestSource())["embargo"]
            == end
        )


def test_an_odd_answer_about_one_record_is_a_reason_and_no_traceback(tmp_path):
    repo = repository(2)
    repo.entries[0].rights = ("embargoedAccess", "info:eu-repo/date/embargoEnd/2999-01-01")
    with Server(repo) as server:
        config = corpus_of(tmp_path, server)
        assert fetch(config) == {"embargo": 1, "kept": 1}
        lines = (tmp_path / "raw" / "records.jsonl").read_text()
        (tmp_path / "raw" / "records.jsonl").write_text(lines.replace("2999-01-01", "2024-01-01"))
        repo.page_bodies[repo.lists + 2] = envelope('<error code="badResumptionToken">no</error>').encode()
        assert fetch(config) == {"oai_BadResumptionToken": 1}


def test_records_of_a_damaged_page_are_found_in_one_look(monkeypatch):
    looks = []

    class Counted:
        def search(self, text, at=0):
            looks.append(at)
            return RECORD_START.search(text, at)

    sound = "<record><header><identifier>a</identifier></header></record>"
    damaged = "<x:record xmlns:x='y'><identifier>b</identifier><i></x:record>"
    page = f"<OAI-PMH>{sound}{damaged}<record ><record{'<x:record>' * 300}</OAI-PMH>"
    monkeypatch.setattr("data_prep.oai.RECORD_START", Counted())
    assert [page[start:end] for start, end in _records(page)] == [sound, damaged]
    assert looks == sorted(set(looks)) and len(looks) < 310
    monkeypatch.undo()
    answer = Answer()
    assert mend(f"<OAI-PMH>{sound}{damaged}\x0b</OAI-PMH>".encode(), answer) is not None
    assert answer.mended and answer.lost == ["b"]


def test_a_work_whose_embargo_has_ended_is_asked_for_though_no_server_lists_it(tmp_path):
    repo = repository(2)
    repo.entries[0].rights = ("embargoedAccess", "info:eu-repo/date/embargoEnd/2999-01-01")
    with Server(repo) as server:
        config = corpus_of(tmp_path, server)
        assert fetch(config) == {"embargo": 1, "kept": 1}
        assert fetch(config) == {}
        lines = (tmp_path / "raw" / "records.jsonl").read_text()
        (tmp_path / "raw" / "records.jsonl").write_text(lines.replace("2999-01-01", "2024-01-01"))
        repo.entries[0].rights = ("embargoedAccess", "info:eu-repo/date/embargoEnd/2024-01-01")
        repo.log.clear()
        assert fetch(config) == {"kept": 1}
        assert sum("GetRecord" in line for line in repo.log) == 1
        assert fetch(config) == {}


def test_a_file_that_its_server_fails_on_is_set_aside_and_tried_again_next_time(tmp_path):
    repo = repository(7)
    with Server(repo) as server:
        config = corpus_of(tmp_path, server, retries=0)
        repo.broken = {"/files/2.txt"}
        assert fetch(config) == {"kept": 6, "unreachable": 1}
        assert records(tmp_path)["test:oai:test:2"]["reason"] == "unreachable"
        repo.broken = set()
        assert fetch(config) == {"kept": 1}
        repo.broken = set(repo.files)
        for entry in repo.entries:
            entry.stamp = "2999-01-01"
        with pytest.raises(InputError, match="does not answer"):
            fetch(config)


def test_files_that_fail_one_after_another_hold_up_one_harvest_only(tmp_path):
    with Server(repo := repository(9)) as server:
        config = corpus_of(tmp_path, server, retries=0)
        repo.broken = {f"/files/{number}.txt" for number in range(3)}  # the whole first page
        with pytest.raises(InputError, match="does not answer"):
            fetch(config)
        assert fetch(config) == {"kept": 6, "unreachable": 3}


def test_works_refused_under_other_settings_are_decided_on_again(tmp_path):
    with Server(repo := repository(6)) as server:
        elsewhere = server.address.replace("127.0.0.1", "localhost")
        repo.entries[0].addresses = (f"{elsewhere}/files/0.txt",)
        repo.entries[1].rights = ("All rights reserved",)
        repo.files["/files/2.txt"] = ("text/plain", b"x" * 1_500_000)
        config = corpus_of(tmp_path, server, max_file_mb=1)
        assert fetch(config) == {"kept": 3, "foreign_address": 1, "access_unknown": 1, "answer_too_large": 1}
        assert fetch(config) == {}
        source = config.corpus.harvest.sources[0]
        source.hosts = [elsewhere.removeprefix("http://")]
        assert fetch(config) == {"kept": 1, "unchanged": 3, "access_unknown": 1, "answer_too_large": 1}
        source.assume_open, config.corpus.harvest.max_file_mb = True, 2
        assert fetch(config) == {"kept": 2, "unchanged": 4}
        source.assume_open = False  # what was open by assumption alone is so no longer
        assert fetch(config) == {"unchanged": 5, "access_unknown": 1}
    assert len(raw.scan(config.corpus).works) == 5


def test_a_file_that_was_missing_is_asked_for_again_after_some_weeks(tmp_path):
    with Server(repo := repository(3)) as server:
        config = corpus_of(tmp_path, server)
        data = repo.files.pop("/files/1.txt")
        assert fetch(config) == {"kept": 2, "http_404": 1}
        repo.files["/files/1.txt"] = data
        assert fetch(config) == {}  # not at every call, for most such files never come
        journal = tmp_path / "raw" / "records.jsonl"
        today = records(tmp_path)["test:oai:test:1"]["tried"]
        journal.write_text(journal.read_text().replace(f'"tried": "{today}"', '"tried": "2020-01-01"'))
        assert fetch(config) == {"kept": 1}


def test_a_trial_of_the_newest_works_hides_none_of_the_older(tmp_path):
    with Server(repo := repository(4)) as server:
        repo.entries[0].stamp = repo.entries[1].stamp = "2020-01-01"
        assert fetch(corpus_of(tmp_path, server, from_date="2023-01-01")) == {"kept": 2}
        assert fetch(corpus_of(tmp_path, server)) == {"kept": 2, "unchanged": 2}
        assert fetch(corpus_of(tmp_path, server, from_date="2999-01-01")) == {}
        assert fetch(corpus_of(tmp_path, server)) == {}  # the trial has not moved where the last one stopped


def test_one_harvest_at_a_time_in_a_corpus_folder(tmp_path):
    with Server(repo := repository(2)) as server:
        config = corpus_of(tmp_path, server)
        with lock.held(tmp_path / "raw"), pytest.raises(InputError):
            fetch(config)
        assert not repo.log and fetch(config) == {"kept": 2}


def test_another_set_or_other_dates_begin_a_pass_of_their_own(tmp_path):
    with Server(repo := repository()) as server:
        for entry in repo.entries[5:]:
            entry.sets = ("other",)
        assert fetch(corpus_of(tmp_path, server, source={"set": "theses"})) == {"kept": 5}
        assert fetch(corpus_of(tmp_path, server, source={"set": "other"})) == {"kept": 2}
        assert fetch(corpus_of(tmp_path, server, source={"set": "other"})) == {}
        assert fetch(corpus_of(tmp_path, server, from_date="2020-01-01")) == {"unchanged": 7}


def test_a_pass_that_took_days_misses_no_change_of_its_own_time(tmp_path):
    with Server(repo := repository()) as server:
        config = corpus_of(tmp_path, server, retries=0)
        repo_busy_after(repo, lists=2)
        with pytest.raises(InputError):
            fetch(config)
        state = tmp_path / "raw" / "harvest.json"
        values = json.loads(state.read_text())
        values["test"]["started"] = "2024-06-01"  # and goes on today
        state.write_text(json.dumps(values))
        repo.busy, repo.page_bodies = 0, {}
        fetch(config)
        repo.entries[0].stamp = "2024-06-02"
        assert fetch(config) == {"kept": 1}


def test_a_work_that_is_closed_later_leaves_no_file_behind(tmp_path):
    with Server(repo := repository(3)) as server:
        config = corpus_of(tmp_path, server)
        fetch(config)
        old = tmp_path / "raw" / records(tmp_path)["test:oai:test:1"]["file"]
        repo.entries[1].stamp, repo.entries[1].rights = "2999-01-01", ("closedAccess",)
        assert old.exists() and fetch(config) == {"closed_access": 1}
    assert not old.exists() and [len(raw.scan(config.corpus).works)] == [2]


def test_a_new_version_takes_the_place_of_the_old_one_unless_it_cannot_be_had(tmp_path):
    with Server(repo := repository(3)) as server:
        config = corpus_of(tmp_path, server, retries=0)
        fetch(config)
        old = tmp_path / "raw" / records(tmp_path)["test:oai:test:1"]["file"]
        repo.entries[1].stamp = "2999-01-01"
        repo.files["/files/1.txt"] = ("application/pdf", b"%PDF-1.4 ...")
        repo.broken = {"/files/1.txt"}
        assert fetch(config) == {"unreachable": 1} and len(raw.scan(config.corpus).works) == 3
        repo.broken = set()
        assert fetch(config) == {"kept": 1}
    new = records(tmp_path)["test:oai:test:1"]["file"]
    assert not old.exists() and new.endswith(".pdf") and (tmp_path / "raw" / new).exists()


HARVEST = """
import json, sys
from data_prep.settings import from_mapping
from data_prep.harvest import harvest
print(dict(harvest(from_mapping(json.load(open(sys.argv[1]))).corpus, set(), lambda text: None)))
"""


def test_kill_9_of_a_harvest_and_the_same_again(tmp_path):
    with Server(repo := repository(15)) as server:
        repo.slow = 0.2  # so that the kill comes before the end: the rest takes two seconds
        config = corpus_of(tmp_path, server)
        path, journal = tmp_path / "settings.json", tmp_path / "raw" / "records.jsonl"
        path.write_text(json.dumps(to_mapping(config)))
        process = subprocess.Popen([sys.executable, "-c", HARVEST, str(path)], cwd=ROOT)
        until = time.monotonic() + 60
        while not journal.exists() or journal.read_bytes().count(b"\n") < 5:
            assert process.poll() is None and time.monotonic() < until
            time.sleep(0.005)
        process.kill()
        process.wait()
        repo.slow = 0.0
        assert 5 <= len(records(tmp_path)) < 15
        fetch(config)
    kept = records(tmp_path).values()
    assert sorted(entry["sha256"] for entry in kept) == sorted(sha256(text).hexdigest() for text in TEXTS)
    assert all((tmp_path / "raw" / entry["file"]).exists() for entry in kept)


def test_a_torn_line_takes_no_other_record_with_it(tmp_path):
    with Server(repository()) as server:
        config = corpus_of(tmp_path, server)
        fetch(config)
        journal = tmp_path / "raw" / "records.jsonl"
        lines = journal.read_text()
        journal.write_text(lines[: lines.rindex("{") + 40])  # killed while it wrote of the last record
        (tmp_path / "raw" / "harvest.json").unlink()
        assert len(raw.scan(config.corpus).works) == 6
        assert raw.scan(config.corpus).rejected[0][1] == "no_record"
        assert fetch(config) == {"unchanged": 6, "kept": 1}
    assert len(raw.scan(config.corpus).works) == 7 and not raw.scan(config.corpus).rejected


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
def test_a_full_disk_is_said_and_the_harvest_goes_on_where_it_was(tmp_path):
    raw_folder = tmp_path / "raw"
    raw_folder.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=24k", "tmpfs", raw_folder], check=False
    ).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        with Server(repository()) as server:
            config = corpus_of(tmp_path, server)
            with pytest.raises(InputError, match=r"corpus\.path=.*the disk is full"):
                Preprocess(config)()
            assert not config.data_dir().exists()
            subprocess.run(["mount", "-o", "remount,size=4m", raw_folder], check=True)
            Preprocess(config)()
        assert Manifest.load(config.data_dir()).works == {"in": 7, "out": 7, "dropped": {}}
    finally:
        subprocess.run(["umount", raw_folder], check=True)


def test_busy_slow_and_broken_answers_are_tried_again(tmp_path):
    with Server(repo := repository(2)) as server:
        repo.busy, repo.slow = 2, 0.05
        assert fetch(corpus_of(tmp_path, server)) == {"kept": 2}
        repo.drop = 1
        assert fetch(corpus_of(tmp_path / "b", server)) == {"kept": 2}


def test_an_answer_that_drips_without_end_is_given_up(tmp_path, monkeypatch):
    def drip(handler):
        """As the server's own, for a minute: an answer that is given up ends long before."""
        handler.send_response(200)
        handler.send_header("Content-Length", "100000")
        handler.end_headers()
        with suppress(OSError):  # the client had enough
            for _ in range(3000):
                handler.wfile.write(b"x")
                time.sleep(0.02)

    monkeypatch.setattr(Handler, "drip", drip)
    monkeypatch.setattr("data_prep.web.PATIENCE", 1)  # time-outs of two seconds
    with Server(repo := repository(2)) as server:
        repo.dripping = {"/files/1.txt"}
        begin = time.monotonic()
        assert fetch(corpus_of(tmp_path, server, retries=0)) == {"kept": 1, "unreachable": 1}
        assert time.monotonic() - begin < 30


@pytest.mark.parametrize("date", [False, True])
def test_a_server_says_when_to_come_back(date):
    until = formatdate(time.time() + 30, usegmt=True) if date else "30"
    assert 25 < _retry_after(httpx2.Response(503, headers={"retry-after": until})) <= 30
    for other in ("soon", "-5", b"\xb2", ""):
        assert _retry_after(httpx2.Response(503, headers=[("retry-after", other)])) is None


def test_requests_of_lists_and_files_together_keep_their_distance(tmp_path, monkeypatch):
    now, sent = [0.0], []

    class Clock:
        monotonic = staticmethod(lambda: now[0])

        @staticmethod
        def sleep(seconds):
            now[0] += seconds
            sent.append(now[0])

    monkeypatch.setattr("data_prep.web.time", Clock)
    with Server(repo := repository(4)) as server:
        fetch(corpus_of(tmp_path, server, requests_per_second=20.0))
    assert len(repo.log) == 7 and sent == pytest.approx([0.05 * n for n in range(7)])  # robots.txt too


def test_files_that_stay_broken_do_not_stop_later_harvests(tmp_path):
    repo = repository(9)
    with Server(repo) as server:
        config = corpus_of(tmp_path, server, retries=0)
        repo.broken = {"/files/1.txt", "/files/3.txt", "/files/5.txt", "/files/7.txt"}
        assert fetch(config) == {"kept": 5, "unreachable": 4}
        assert fetch(config) == {"unreachable": 4}


def test_addresses_and_pages_that_cannot_be_read(tmp_path):
    repo = repository(4)
    repo.files["/page"] = ("text/html", b"<html><![foo[bar]]></html>")
    with Server(repo) as server:
        addresses = ["http://[doi]/10.1", f"{server.address}/files/1\n /x.pdf", f"{server.address}/page"]
        for entry, address in zip(repo.entries, addresses, strict=False):
            entry.addresses = (address,)
        found = fetch(corpus_of(tmp_path, server))
    assert found["kept"] == 1 and sum(found.values()) == 4, found


def test_an_unreachable_server_stops_the_build_and_the_next_harvest_goes_on(tmp_path):
    with Server(repo := repository()) as server:
        config = corpus_of(tmp_path, server, retries=0)
        repo_busy_after(repo, lists=2)
        with pytest.raises(InputError, match=r"does not answer.*503.*same command again"):
            fetch(config)
        repo.busy, repo.page_bodies = 0, {}
        repo.log.clear()
        assert sum(fetch(config).values()) <= 4  # the page that was done is not asked for again
        assert "resumptionToken" in repo.log[0]
    assert sum(entry["status"] == "kept" for entry in records(tmp_path).values()) == 7


def repo_busy_after(repo, lists):
    """From the given number of list answers on, every request is answered with 503."""

    class Busy(dict):
        def get(self, number, default=None):
            if number == lists:
                repo.busy = 1000
            return default

    repo.page_bodies = Busy()


def test_an_expired_token_begins_the_pass_again(tmp_path):
    with Server(repo := repository()) as server:
        repo.expired = True
        assert fetch(corpus_of(tmp_path, server)) == {"kept": 7, "unchanged": 3}


BOMB = b"""<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">
<!ENTITY c "&b;&b;&b;&b;&b;&b;&b;&b;">]><OAI-PMH xmlns="http://www.openarchives.org/OAI/2.0/">&c;</OAI-PMH>"""


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"page_bodies": {2: BOMB}}, "xml_with_entities"),
        ({"page_bodies": {2: b"<OAI-PMH><ListRecords><record>"}}, "xml_damaged"),
        ({"page_bodies": {2: b"<a>" + b" " * 2_000_000 + b"</a>"}}, "answer_too_large"),
        ({"compress": True}, "answer_compressed"),
    ],
)
def test_a_page_that_cannot_be_used_stops_the_build_with_its_reason(tmp_path, change, reason):
    with Server(repository(**change)) as server:
        config = corpus_of(tmp_path, server)
        with pytest.raises(InputError, match=rf"test, page \d of .*{reason}.*same command again"):
            Preprocess(config)()
    assert not config.data_dir().exists()


def test_a_damaged_page_is_no_work_and_keeps_no_other_source_waiting(tmp_path):
    with Server(repo := repository()) as server, Server(repository(2)) as second:
        config = corpus_of(tmp_path, server)
        config.corpus.harvest.sources.append(HarvestSource("second", f"{second.address}/oai"))
        repo.page_bodies = {2: b"<OAI-PMH>", 3: b"<OAI-PMH>"}
        for _ in range(2):
            with pytest.raises(InputError, match="test, page 2 of"):
                fetch(config)
        scan = raw.scan(config.corpus)
        assert len(scan.works) == 3 + 2 and not scan.refused
        state = tmp_path / "raw" / "harvest.json"
        assert json.loads(state.read_text())["test"]["trouble"] == "page 2: xml_damaged"
        assert fetch(config) == {"kept": 4}
        assert "trouble" not in state.read_text()


@pytest.mark.parametrize("body", [b"", b"  \n", b"Service temporarily unavailable", b'{"error": 1}', b"\0"])
def test_an_answer_that_is_no_xml_is_said_and_asked_for_again(tmp_path, body):
    with Server(repository(page_bodies={2: body})) as server:
        with pytest.raises(InputError, match=r"page 2 .*xml_damaged"):
            fetch(corpus_of(tmp_path, server))
        assert fetch(corpus_of(tmp_path, server)) == {"kept": 4}


def test_a_record_without_metadata_takes_no_other_with_it(tmp_path):
    with Server(repo := repository(3)) as server:
        repo.entries[1].bare = True
        assert fetch(corpus_of(tmp_path, server)) == {"kept": 2, "access_unknown": 1}
    assert records(tmp_path)["test:oai:test:1"]["reason"] == "access_unknown"


def test_names_and_addresses_of_the_server_lead_nowhere_else(tmp_path):
    repo = repository(1)
    repo.entries = [
        Entry("oai:../../../../evil"),
        Entry("/etc/passwd\nx", addresses=("http://169.254.169.254/secret.txt", "file:///etc/passwd")),
        Entry("oai:test:redirect", addresses=("/r",)),
    ]
    with Server(repo) as server:
        repo.entries[0].addresses = (f"{server.address}/files/0.txt",)
        repo.entries[2].addresses = (f"{server.address}/r",)
        repo.files["/r"] = ("redirect", b"http://169.254.169.254/x")
        assert fetch(corpus_of(tmp_path, server)) == {"kept": 1, "foreign_address": 2}
    found = {path.relative_to(tmp_path).parts[0] for path in tmp_path.rglob("*")}
    assert found == {"raw"}


def test_a_pdf_behind_its_page_is_found(tmp_path):
    repo = repository(1)
    with Server(repo) as server:
        repo.entries[0].addresses = (f"{server.address}/pub/1",)
        repo.files["/pub/1"] = (
            "text/html",
            b'<html><meta name="citation_pdf_url" content="/pub/1/thesis.pdf"></html>',
        )
        repo.files["/pub/1/thesis.pdf"] = ("application/octet-stream", b"%PDF-1.4 ...")
        assert fetch(corpus_of(tmp_path, server)) == {"kept": 1}
    assert records(tmp_path)["test:oai:test:0"]["file"].endswith(".pdf")


def test_from_server_to_dataset_with_every_record_accounted_for_and_taken_down_works_kept_out(tmp_path):
    with Server(repo := repository(9)) as server:
        repo.entries[0].rights = ("closedAccess",)
        repo.entries[1].rights = ("info:eu-repo/semantics/embargoedAccess",)
        config = corpus_of(tmp_path, server)
        Preprocess(config)()
        manifest = Manifest.load(config.data_dir())
        assert manifest.works == {"in": 9, "out": 7, "dropped": {"closed_access": 1, "embargo": 1}}
        assert manifest.sources == {"test": 7} and list(manifest.licences.values()) == [7]
        dropped = pq.read_table(manifest.folder / "dropped.parquet").to_pylist()
        assert {row["stage"] for row in dropped} == {"harvest"}

        config.remove = "test:oai:test:4"
        Preprocess(config)()
        config.remove = None
        repo.entries[4].stamp = "2999-01-01"  # the server offers it again
        Preprocess(config)()
        repo.entries.append(
            Entry("oai:test:other", stamp="2999-01-01", addresses=(f"{server.address}/files/4.txt",))
        )
        Preprocess(config)()
    manifest = Manifest.load(config.data_dir())
    assert manifest.works["out"] == 6 and manifest.works["dropped"]["taken_down"] == 2
    ids = pq.read_table(manifest.folder / "documents.parquet")["id"].to_pylist()
    assert "test:oai:test:4" not in ids and "test:oai:test:other" not in ids
    assert not any(path.read_bytes() == TEXTS[4] for path in Path(tmp_path / "raw").rglob("*.txt"))


def test_a_take_down_spares_the_harvests_own_files(tmp_path):
    for name in ("records.jsonl", "records.txt", "harvest.json"):
        (tmp_path / name).write_text("")
    assert list(_raw_files(tmp_path, "records")) == [("records.txt", "records")]
    assert not list(_raw_files(tmp_path, "harvest"))


def test_what_follows_a_dot_in_a_name_is_not_repeated(tmp_path):
    (tmp_path / "Scriptie A. Somebody").write_text("text")
    (tmp_path / "a.txt").write_text("text")
    (tmp_path / "b.docx").write_text("text")
    config = settings(tmp_path / "data", corpus__path=str(tmp_path))
    assert raw.scan(config.corpus).ignored == {".docx": 1, "other": 1}


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("requests_per_second", 0.0, "more than 0"),
        ("timeout_seconds", -1.0, "more than 0"),
        ("retries", -1, "at least 0"),
        ("max_file_mb", 0, "at least 1"),
        ("max_answer_mb", 0, "at least 1"),
        ("from_date", "yesterday", "YYYY-MM-DD"),
        ("until_date", "2023-02-30", "YYYY-MM-DD"),
        ("until_date", "2022-12-31", "from_date"),
        ("user_agent", "elm\nsuite", "one line"),
    ],
)
def test_wrong_harvest_settings_are_refused_naming_the_key(tmp_path, key, value, says):
    config = settings(tmp_path)
    config.corpus.harvest = HarvestConfig(**{"from_date": "2023-01-01", key: value})
    with pytest.raises(InputError, match=rf"^corpus\.harvest\.{key}=.*{says}"):
        config.check()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("url", "not a url"),
        ("url", "ftp://x/oai"),
        ("url", "http://[x"),
        ("name", ""),
        ("hosts", ["https://x"]),
    ],
)
def test_wrong_sources_are_refused_naming_the_key(tmp_path, key, value):
    config = settings(tmp_path)
    good = HarvestSource("a", "https://x.org:8080/oai", hosts=["y.org", "z.org:81"])
    config.corpus.harvest.sources = [good, HarvestSource(**{"name": "b", "url": "http://x/oai", key: value})]
    with pytest.raises(InputError, match=rf"^corpus\.harvest\.sources\[1\]\.{key}=.*must be"):
        config.check()
    config.corpus.harvest.sources[1] = good
    with pytest.raises(InputError, match="more than one source"):
        config.check()
    config.corpus.harvest.sources = [good]
    config.check()
