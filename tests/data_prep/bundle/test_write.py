"""The documents beside a dataset: whole, computed, and brought up to date by every command."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from conf.schema.institution import Institution
from conf.schema.preprocess import CorpusConfig, DataConfig, PreprocessConfig, TokenizerConfig
from data_prep.bundle import answers, summary, write
from data_prep.bundle.facts import Facts
from data_prep.job import Preprocess
from data_prep.manifest import Manifest
from tests.data_prep.bundle import planted

TEMPLATES = Path(write.__file__).parents[2]
FOLDERS = ("*/bundle/templates/*", "*/templates/*.md")
WORDS = r"\b(?:four|five|six|seven|eight|nine|ten|eleven|twelve|dozen|twenty|thirty|fifty|hundred|thousand)\b"
ASKED = r"issing: (?:`institution\.([\w.]+)`|institution\.(\w+)\.)"
SUMMARY = "bundle/training-content-summary.md"


def typed_numbers(template: str) -> list[str]:
    """The numbers that a template says by itself, outside of references to the law."""
    text = re.sub(r"\{#.*?#\}|\{\{.*?\}\}|\{%.*?%\}", "", template, flags=re.DOTALL)
    for reference in planted.REFERENCES:
        text = reference.sub("", text)
    return re.findall(rf"\d+|{WORDS}", text, flags=re.IGNORECASE)


def test_no_number_is_typed_in_a_template() -> None:
    templates = [path for folder in FOLDERS for path in sorted(TEMPLATES.glob(folder))]
    assert len(templates) >= 6
    for path in templates:
        assert typed_numbers(path.read_text(encoding="utf-8")) == [], path.name
    assert typed_numbers("Article 53(1)(d) and {{ 5 }} of\n## 2.1 Works\n") == []
    assert typed_numbers("It holds 60,000 works of twenty years") == ["60", "000", "twenty"]


def test_a_changed_manifest_changes_every_number(tmp_path: Path) -> None:
    texts = [write.documents(Manifest.load(folder), Institution()) for folder in planted.two(tmp_path)]
    assert texts[0].keys() == texts[1].keys() and len(texts[0]) == 4
    for name in (name for name in texts[0] if name.endswith(".md")):
        assert planted.NUMBER.search(texts[0][name])
        assert planted.same_numbers(texts[0][name], texts[1][name]) == [], name


def test_the_range_of_the_training_data_follows_its_tokens(tmp_path: Path) -> None:
    manifest = Manifest.load(planted.two(tmp_path)[0])
    for tokens, words in ((10**9 - 1, "less than 1"), (10**9, "1 billion to 10"), (10**13, "more than 10")):
        splits = {**manifest.splits, "train": replace(manifest.splits["train"], tokens=tokens)}
        text = summary.write([Facts(replace(manifest, splits=splits))], Institution())
        assert f"- Training data size: {words}" in text


def headings(text: str) -> list[str]:
    return [line.lstrip("# ") for line in text.splitlines() if line.startswith("#")]


def test_the_summary_has_every_section_and_lists_what_is_missing(tmp_path: Path) -> None:
    folder, _ = planted.two(tmp_path)
    manifest = Manifest.load(folder)
    said = dict.fromkeys(Institution().missing(), "said") | {"code_of_practice": False}
    said |= {"release_date": "2026-12-01", "union_date": "2026-12-02", "distribution": ["hub"]}
    nobody, somebody = Institution(), Institution(**said, sources={"folder": "private"})
    for institution in (nobody, somebody):
        text = write.documents(manifest, institution)[SUMMARY]
        assert [title for title in headings(text) if title[0].isdigit()] == list(summary.SECTIONS)
    for name, before in write.documents(manifest, nobody).items():
        after = write.documents(manifest, somebody)[name]
        asked = {a or b for a, b in re.findall(ASKED, before)}
        assert asked and "issing:" not in after, name
        if name.endswith(".md"):
            listed = set(re.findall(r"^- `institution\.([\w.]+)`$", before, flags=re.MULTILINE))
            assert listed == asked
            assert "Nothing: the YAML of the institution answers every question" in after
    private = summary.write([Facts(manifest)], somebody).partition("#### 2.2.2")[2].partition("\n### ")[0]
    assert "| folder |" in private


def test_what_is_crawled_is_found_in_the_settings(tmp_path: Path) -> None:
    text = summary.write([Facts(Manifest.load(planted.two(tmp_path)[0]))], Institution())
    crawled = text.partition("### 2.3")[2].partition("### 2.4")[0]
    assert "| thesis | sample | text | 11 works |" in crawled and "thesis.example.org (11 works)" in crawled
    assert "2026-11-29 to 2026-11-29" in crawled and "folder" not in crawled


def test_a_key_that_no_institution_has_is_an_error() -> None:
    with pytest.raises(AttributeError):
        answers.Answers(Institution()).telephone  # noqa: B018


@pytest.fixture
def config(tmp_path: Path) -> PreprocessConfig:
    """A build of three works, of which two languages and a strange licence are known."""
    raw = tmp_path / "raw"
    raw.mkdir()
    sample = Path("data_prep/sample")
    for path in sorted((Path(__file__).parents[3] / sample).glob("*.txt"))[:4]:
        (raw / path.name).write_bytes(path.read_bytes())
    corpus = CorpusConfig("three", str(raw), licence="CC BY | <b>x</b>\n# heading \u202e 🎓 رخصة")
    return PreprocessConfig(
        corpus, TokenizerConfig(400), data=DataConfig(str(tmp_path / "data")), runs_dir=str(tmp_path)
    )


def stamps(folder: Path) -> dict[str, int]:
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in sorted(folder.rglob("*"))}


def test_every_command_brings_them_up_to_date(
    config: PreprocessConfig, capsys: pytest.CaptureFixture
) -> None:
    """Built, repeated, built by an older version, answered by the institution, and a work taken down."""
    folder = config.data_dir()
    Preprocess(config)()
    assert "4 documents to publish are written" in capsys.readouterr().out
    before = stamps(folder)
    assert {SUMMARY, "croissant.json", "bundle/datasheet.md", "bundle/copyright-policy.md"} <= before.keys()
    facts = Facts(Manifest.load(folder))
    assert facts.built and facts.acquired and facts.acquired[0] <= facts.built
    for column in ("language", "source", "licence", "access"):
        groups = facts.groups[column].values()
        assert sum(group.tokens or 0 for group in groups) == facts.manifest.tokens, column
    Preprocess(config)()
    assert stamps(folder) == before and "documents to publish" not in capsys.readouterr().out
    (folder / SUMMARY).unlink()
    (folder / "bundle" / "croissant-old.json").write_text("{}")
    answered = replace(config, institution=Institution(contact="data@example.org"))
    Preprocess(answered)()
    assert "data@example.org" in (folder / SUMMARY).read_text(encoding="utf-8")
    assert stamps(folder).keys() == before.keys()
    identifier = Manifest.load(folder) and sorted(path.stem for path in config.corpus.folder().iterdir())[0]
    Preprocess(replace(answered, remove=identifier))()
    text = (folder / SUMMARY).read_text(encoding="utf-8")
    assert "a work was taken down since the build" in text and "data@example.org" in text
    works = Manifest.load(folder).works
    assert f"| works kept | {works['out']} |" in text
    Preprocess(answered)()
    assert "taken down since" not in (folder / SUMMARY).read_text(encoding="utf-8")


def test_texts_of_others_put_no_markup_into_a_document(config: PreprocessConfig) -> None:
    Preprocess(config)()
    folder = config.data_dir()
    for path in folder.glob("bundle/*.md"):
        text = path.read_text(encoding="utf-8")
        assert "<b>" not in text and "\u202e" not in text and "\n# heading" not in text
        for line in text.splitlines():
            if line.startswith("|"):
                assert len(re.findall(r"(?<!\\)\|", line)) in (3, 4, 5, 7), line
    assert "رخصة" in (folder / "bundle/copyright-policy.md").read_text(encoding="utf-8")
    assert json.loads((folder / "croissant.json").read_text(encoding="utf-8"))["license"] == [
        "CC BY | <b>x</b> # heading 🎓 رخصة"
    ]
