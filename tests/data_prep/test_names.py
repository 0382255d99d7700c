"""Names in running text: by rules on annotated front matter, and by a model that the test makes itself."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from conf.errors import InputError
from conf.schema.preprocess import RedactConfig
from data_prep.names import marked
from data_prep.redact import redact
from tests.data_prep.conftest import settings
from tests.data_prep.front_matter import TEMPLATES, works


def test_at_most_one_work_in_twenty_has_a_name_left() -> None:
    every = works(160)
    left = []
    for work in every:
        text = " ".join(redact(work.blocks, RedactConfig())[0])
        left += [work for name in work.names if re.search(rf"\b{re.escape(name)}\b", text)][:1]
    assert len(left) <= 0.05 * len(every), left[:3]


def test_organisations_places_and_authors_of_citations_stay() -> None:
    for work in works(len(TEMPLATES)):
        blocks, _ = redact(work.blocks, RedactConfig())
        assert blocks[2:] == work.stays
        for word in ("Erasmus", "Rotterdam", "Ministry", "Ministerie", "CBS", "Schiedam"):
            assert (word in blocks[1]) == (word in work.blocks[1]), blocks[1]


def test_a_person_has_one_placeholder_in_the_whole_work() -> None:
    blocks = [
        "Preface\nI thank Kees Testeling and Anna Nepmans.",
        "I would like to thank Anna Nepmans again.",
    ]
    first, second = redact(blocks, RedactConfig())[0]
    assert first == "Preface\nI thank [person 1] and [person 2]." and "[person 2] again" in second


def test_only_marked_blocks_are_looked_at() -> None:
    body = ["Anna Karenina by Leo Tolstoy was read by Kees Testeling in the book of that year."] * 40
    assert marked(body) == [] and redact(body, RedactConfig())[0] == body
    body[30] = "I interviewed nobody; Kees Testeling is a character."
    assert redact(body, RedactConfig())[0] == body


def test_the_stage_can_be_switched_off() -> None:
    blocks = ["Preface\nI thank Kees Testeling."]
    assert redact(blocks, RedactConfig(names="off"))[0] == blocks


def test_a_model_of_the_user_finds_what_the_rules_do_not(tmp_path: Path) -> None:
    spacy = pytest.importorskip("spacy")
    pipeline = spacy.blank("en")
    ruler = pipeline.add_pipe("entity_ruler")
    ruler.add_patterns([{"label": "PERSON", "pattern": "zwaluwstaart"}, {"label": "ORG", "pattern": "acme"}])
    pipeline.to_disk(tmp_path / "model")
    blocks = [
        "Preface\nI thank zwaluwstaart of acme.",
        "zwaluwstaart is a bird in this text of the body.",
    ] * 20
    rules, _ = redact(blocks, RedactConfig())
    assert rules == blocks
    found, counts = redact(blocks, RedactConfig(names="ner", ner_model=str(tmp_path / "model")))
    assert found[0] == "Preface\nI thank [person 1] of acme." and found[21] == blocks[21]
    assert counts["name in text"] > 0


class StandInForGliner:
    """In GLiNER's place: knows one name, and reads the first 200 words of a text as real models do."""

    @classmethod
    def from_pretrained(cls, folder: str, local_files_only: bool) -> StandInForGliner:
        assert local_files_only
        if not (Path(folder) / "weights").exists():
            raise OSError("no weights")
        return cls()

    def predict_entities(self, text: str, labels: list[str], threshold: float):
        read = " ".join(text.split(" ")[:200])
        found = re.finditer("zwaluwstaart", read)
        return [{"start": item.start(), "end": item.end()} for item in found]


def test_a_gliner_model_is_given_all_of_a_long_text(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "gliner", SimpleNamespace(GLiNER=StandInForGliner))
    (tmp_path / "gliner_config.json").write_text("{}")
    config = RedactConfig(names="ner", ner_model=str(tmp_path))
    with pytest.raises(InputError, match=r"GLiNER cannot load it \(no weights"):
        redact(["I thank you."], config)
    (tmp_path / "weights").touch()
    block = "Preface\nI thank " + "the people who helped, and zwaluwstaart; " * 300
    (result,), counts = redact([block], config)
    assert result == block.replace("zwaluwstaart", "[person 1]") and counts["name in text"] == 300


@pytest.mark.parametrize(
    ("names", "folder", "says"),
    [
        ("all", None, r"clean\.redact\.names=all: allowed are rules, ner, off"),
        ("ner", None, r"clean\.redact\.ner_model=None: must be the folder of a spaCy or GLiNER model"),
        ("ner", "/nowhere", r"clean\.redact\.ner_model=/nowhere: must be the folder"),
    ],
)
def test_wrong_settings_are_refused(tmp_path: Path, names: str, folder: str | None, says: str) -> None:
    config = settings(tmp_path, clean__redact__names=names, clean__redact__ner_model=folder)
    with pytest.raises(InputError, match=says):
        config.check()


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"clean\.redact\.ner_model=.*spaCy model"):
        redact(["I thank you."], RedactConfig(names="ner", ner_model=str(tmp_path)))
