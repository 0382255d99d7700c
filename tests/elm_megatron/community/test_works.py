"""Which training works are in an answer? The page behind the chat page."""

from __future__ import annotations

import html
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from conf.errors import InputError
from elm_megatron.community import settings
from elm_megatron.trace.datasets import datasets_of
from elm_megatron.trace.index import build
from tests.elm_megatron.community.conftest import Community
from tests.elm_megatron.small_dataset import make_text_dataset
from tests.elm_megatron.trace.test_command import BODY, OTHER, WORKS, run_of


@pytest.fixture
def traced(corpus: Path, tmp_path: Path, model: Callable[..., dict[str, str]]) -> Community:
    """An app whose model is a run of `WORKS`."""
    works = [{**work, "title": f"{work['title']} <b>&"} for work in WORKS]
    run_of(tmp_path / "runs" / "served", make_text_dataset(tmp_path / "data", corpus, works))
    return Community(tmp_path, [{**model("elm-x"), "source": "served"}])


def index(community: Community) -> None:
    """Make the index, as the command does."""
    (one,) = datasets_of(str(community.runs / "served"))
    build(one.places[0], one.manifest, lambda done, total: None)


def text_of(page: str) -> str:
    """The answer as the page shows it, without its numbers."""
    shown = re.search(r'<div class="answer">(.*?)</div>', page, re.DOTALL)[1]
    return html.unescape(re.sub(r"<sup>.*?</sup>|</?mark>", "", shown))


def test_passages_are_marked_and_works_named(traced: Community) -> None:
    index(traced)
    person = traced.person()
    page = person.post("/ask", question="Hello")
    script = person.get("/static/ask.js")
    for name in re.findall(r'getElementById\("([^"]+)"\)', script):  # those that hold the answer too
        assert f'id="{name}"' in page
    assert "/ask/works" in page
    answer = f'<script>x</script> "{BODY}" & {OTHER}'
    page = person.post("/ask/works", answer=answer)
    assert text_of(page) == answer
    marked = html.unescape("".join(re.findall(r"<mark>.*?</mark>", page, re.DOTALL)))
    assert BODY[10:50] in marked and OTHER[10:50] in marked and "<script>" not in marked
    assert "Haven &lt;b&gt;&amp; (a)" in page and "Wonen &lt;b&gt;&amp; (b)" in page
    for number in re.findall(r'href="#(passage-\d+)"', page):
        assert f'id="{number}"' in page
    assert "No passage of this answer" in person.post("/ask/works", answer="Nothing of the kind.")


def test_without_an_index_the_page_has_the_command(traced: Community) -> None:
    """Also after a work was taken down: its index is not shown any more."""
    person = traced.person()
    page = person.post("/ask/works", status=503, answer=BODY)
    assert "python launch/trace_answer.py source=served" in page
    index(traced)
    assert "<mark>" in person.post("/ask/works", answer=BODY)
    data = traced.folder.parent / "data"
    (data / "tombstones.jsonl").write_text('{"id": "a", "sha256": null}\n')
    assert "trace_answer.py source=served" in person.post("/ask/works", status=503, answer=BODY)
    (data / "tombstones.jsonl").unlink()
    assert "<mark>" in person.post("/ask/works", answer=BODY)
    shutil.rmtree(data)
    assert "cannot be looked through" in person.post("/ask/works", status=503, answer=BODY)


def test_odd_requests(traced: Community, community: Community) -> None:
    index(traced)
    person = traced.person()
    for answer in ("kort", "\x00\ufeff\u202e", "🌍" * 900, "\r\n \r\n x"):
        assert "No passage of this answer" in person.post("/ask/works", answer=answer)
    assert "fill in" in person.post("/ask/works", status=400, answer="")
    assert "too long" in person.post("/ask/works", status=400, answer="a" * 20_001)
    assert traced.browser().post("/ask/works", data={"answer": BODY}).status_code == 401
    assert traced.browser().get("/ask/works").status_code in (404, 405)
    other = community.person()  # its models name no source
    assert "/ask/works" not in other.get("/ask")
    other.post("/ask/works", status=404, answer=BODY)


def test_nothing_of_it_is_stored(traced: Community) -> None:
    index(traced)
    canary = "Qx7-canary-of-an-answer"
    traced.person().post("/ask/works", answer=f"{canary} {BODY}")
    traced.engine.dispose()
    for path in traced.folder.parent.rglob("*"):  # the app, the run and the dataset
        assert not path.is_file() or canary.encode() not in path.read_bytes(), path


def test_a_source_is_text(tmp_path: Path) -> None:
    (tmp_path / "models.yaml").write_text("- {name: a, url: 'http://127.0.0.1:1', source: [x]}\n")
    with pytest.raises(InputError, match="`source` and `model` are texts"):
        settings.read(tmp_path)
    (tmp_path / "models.yaml").write_text("- {name: a, url: 'http://127.0.0.1:1', source: runs/x}\n")
    assert settings.read(tmp_path).models[0].source == "runs/x"
