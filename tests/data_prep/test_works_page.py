"""The page "is my thesis in it?": what it says, that it is safe, and how a real browser searches it."""

from __future__ import annotations

import html
import json
import re
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_prep.job import Preprocess
from data_prep.manifest import Manifest
from data_prep.takedown import take_down
from data_prep.works_page import PAGE, write_page
from tests.browser import PHONE, WIDE, chromium, frames, look, needs_browser
from tests.data_prep.conftest import SAMPLE, settings

WORKS = [
    ("thesis:57233", "Het Café Ünïcode: een “studie” – deel 2"),
    ("pure:oai:pure.eur.nl:publications/AB-12", "The ﬁnal Straße of Łódź"),
    ("a&b<c>", "</script><img src=x onerror=alert(1)><b>bold</b>"),
    ('quo"te', "Line\nbreak\ttab\u2028sep"),
    ("untitled", None),
    ("rtl", "שלום עולם"),
]
# Types each query into the page and writes down what it shows. A page takes its focus when it is first drawn.
TYPE = """
const typed = () => {
  const page = document.querySelector("iframe").contentDocument, found = {};
  const input = page.getElementById("query"), queries = QUERIES;
  const type = text => { input.value = text; input.dispatchEvent(new Event("input")); };
  for (const query of queries) {
    const began = performance.now();
    type(query);
    found[query] = { ms: performance.now() - began, count: page.getElementById("count").textContent,
      ids: [...page.querySelectorAll("#found code")].map(item => item.textContent),
      titles: [...page.querySelectorAll("#found b")].map(item => item.textContent) };
  }
  MORE
  found.facts = page.getElementById("facts").textContent;
  found.elements = page.querySelectorAll("main img, main b b").length;
  found.focus = page.activeElement.id;
  document.body.innerHTML = "<pre></pre>";
  document.querySelector("pre").textContent = JSON.stringify(found);
};
addEventListener("load", TIMED ? typed : () => setTimeout(typed, 200));
"""


def type_into(page: Path, queries: list[str], more: str = "", timed: bool = False) -> dict:
    """What the page shows for each query in a real browser. Its `ms` are real where it is timed."""
    script = TYPE.replace("QUERIES", json.dumps(queries)).replace("MORE", more)
    script = script.replace("TIMED", json.dumps(timed))
    waits = [] if timed else ["--virtual-time-budget=5000"]
    dom = chromium(False, *waits, "--dump-dom", str(frames(page, (WIDE,), script)))
    found = re.search(r"<pre>(.*?)</pre>", dom, re.DOTALL)
    assert found, dom[-2000:]
    return json.loads(html.unescape(found[1]))


def page_of(folder: Path, works: list) -> Path:
    ids, titles = zip(*works, strict=True)
    pq.write_table(
        pa.table({"id": pa.array(ids), "title": pa.array(titles, pa.string())}), folder / "documents.parquet"
    )
    write_page("<sample>", b"{}", folder, folder)
    return folder / PAGE


@needs_browser
def test_ids_and_titles_are_found_by_parts_whatever_the_accents(tmp_path: Path) -> None:
    page = page_of(tmp_path, WORKS)
    wanted = {
        "cafe": 0, "CAFÉ unicode": 0, "studie deel": 0, 'een "studie" - deel': 0, "57233": 0, "thesis:57": 0,
        "https://thesis.eur.nl/pub/57233": 0, "https://thesis.eur.nl/pub/57233/": 0, "café, ünïcode!": 0,
        "final strasse": 1, "lodz": 1, "pure.eur.nl": 1, "publications/ab-12": 1, "  ab-12 ": 1,
        "a&b": 2, "<img": 2, "break tab": 3, 'o"t': 3, "untit": 4, "עולם": 5,
    }  # fmt: skip
    found = type_into(page, [*wanted, "nobody's work", "57234", " "])
    for query, place in wanted.items():
        assert found[query]["ids"] == [WORKS[place][0]], (query, found[query])
        assert found[query]["count"] == "1 work matches."
    assert found["nobody's work"]["ids"] == [] and "No work" in found["57234"]["count"]
    assert found[" "] == {**found[" "], "ids": [], "count": ""}
    assert found["<img"]["titles"] == [WORKS[2][1]] and found["elements"] == 0
    assert found["focus"] == "query" and found["facts"] == "The dataset has 6 works."


@needs_browser
def test_the_page_is_dutch_too_and_shows_more_by_the_keyboard(tmp_path: Path) -> None:
    page = page_of(tmp_path, [(f"w{number}", f"Werk {number}") for number in range(120)])
    more = """type("werk"); page.getElementById("more").click(); found.item = page.activeElement.textContent;
      page.querySelector("[data-language=nl]").click(); found.lang = page.documentElement.lang;
      found.title = page.title; found.nl = page.getElementById("count").textContent;
      found.pressed = page.querySelector("[data-language=nl]").getAttribute("aria-pressed");"""
    found = type_into(page, ["werk"], more)
    assert (
        found["werk"]["count"] == "120 works match; the first 50 are shown."
        and len(found["werk"]["ids"]) == 50
    )
    assert found["item"] == "Werk 50w50" and found["lang"] == "nl" and found["pressed"] == "true"
    assert found["title"] == "Zit mijn scriptie erin? · <sample>"
    assert found["nl"] == "120 werken passen hierbij; de eerste 50 staan hieronder."


@needs_browser
def test_the_page_fits_a_phone_follows_the_dark_and_loads_nothing(tmp_path: Path) -> None:
    page = page_of(tmp_path, [("x" * 300, "Een titel zonder einde " * 9), *WORKS])
    light, dark = (look(page, dark) for dark in (False, True))
    for view in [*light, *dark]:
        assert view.scroll <= view.inner and view.inner in (WIDE, PHONE) and view.requests == []
    assert light[0].background != dark[0].background


def test_nothing_of_a_work_can_become_markup_and_only_our_script_may_run(tmp_path: Path) -> None:
    text = page_of(tmp_path, WORKS).read_text()
    assert (
        text.count("<script") == text.count("</script>") == 2 and "<img" not in text and "\u2028" not in text
    )
    assert (
        "default-src 'none'" in text
        and "unsafe-inline" not in text
        and "http" not in text.replace("http-equiv", "")
    )
    assert " on" + "click=" not in text and " style=" not in text


@needs_browser
@pytest.mark.slow
def test_sixty_thousand_works_are_searched_in_a_tenth_of_a_second(tmp_path: Path) -> None:
    words = (SAMPLE / "09-central-bank-words.txt").read_text().split()
    works = [
        (f"thesis:oai:thesis.eur.nl:{n}", " ".join(words[(n * 7) % 900 : (n * 7) % 900 + 12]) + f" Café {n}")
        for n in range(60_000)
    ]
    found = type_into(
        page_of(tmp_path, works),
        ["c", "cafe", "cafe 59999", "nobody at all", "thesis.eur.nl:12345"],
        timed=True,
    )
    assert found["cafe 59999"]["ids"] == ["thesis:oai:thesis.eur.nl:59999"]
    slowest = max(item["ms"] for item in found.values() if isinstance(item, dict))
    print(f"slowest search {slowest:.0f} ms")
    assert slowest <= 100


@needs_browser
def test_after_a_take_down_page_report_and_manifest_agree(tmp_path: Path) -> None:
    corpus = Path(shutil.copytree(SAMPLE, tmp_path / "raw"))
    config = settings(tmp_path / "data" / "sample", corpus__path=str(corpus))
    Preprocess(config)()
    page, name = config.data_dir() / PAGE, "09-central-bank-words"
    before = type_into(page, [name])
    assert before[name]["ids"] == [name] and before["facts"] == "The dataset has 15 works."
    config.remove = name
    for _ in range(2):  # again: nothing changes
        take_down(config)
        manifest = Manifest.load(config.data_dir())
        assert manifest.works == {"in": 15, "out": 14, "dropped": {"taken_down": 1}}
        assert sum(manifest.languages.values()) == manifest.rights["access"]["unknown"] == 14
        assert manifest.blocks["in"] == manifest.blocks["out"] + sum(manifest.blocks["dropped"].values())
        after = type_into(page, [name, "09-"])
        assert after[name]["ids"] == after["09-"]["ids"] == [] and "14 works" in after["facts"]
        assert "not in it: 1." in after["facts"] and manifest.sha256 in page.read_text()
        report = (config.data_dir() / "report.html").read_text()
        assert name not in report and "14 works" in report and "To build again" in report
    config.remove = None
    Preprocess(config)()
    after = type_into(page, [name])
    assert after[name]["ids"] == [] and "14 works" in after["facts"] and "not in it: 1." in after["facts"]


def test_a_dataset_without_the_page_gets_one_from_the_same_command(tmp_path: Path) -> None:
    config = settings(tmp_path / "data")
    Preprocess(config)()
    (tmp_path / "data" / PAGE).unlink()
    Preprocess(config)()
    assert "15" not in (tmp_path / "data" / PAGE).read_text()[:100] and (tmp_path / "data" / PAGE).exists()
