"""Two datasets that differ in every number of their records, and how their documents are compared."""

from __future__ import annotations

import copy
import hashlib
import json
import re
from pathlib import Path
from typing import Any

from data_prep.bundle.tables import LEFT_OUT

FIXTURE = Path(__file__).parents[2] / "elm_megatron" / "fixtures" / "run-62c88f5" / "data" / "sample"
NUMBER = re.compile(r"\d[\d,.]*\d(?:e[+-]\d+)?|\d(?:e[+-]\d+)?")
HASH = re.compile(r"[0-9a-f]{64}")
# The numbers that a template may have: references to the law, sections of the Commission's template.
REFERENCES = (
    re.compile(r"Article \d+(\(\d+\))?(\([a-z]\))?"),
    re.compile(r"(Regulation|Directive) \(EU\) \d{4}/\d+"),
    re.compile(r"^#+ \d(\.\d)*\.? ", re.MULTILINE),
)
# data_prep/bundle/law.py, elm_megatron/bundle/form.py, and a word
LAW = ("1e+23", "1 billion", "10 trillion", "1 to 500 million", "less than 1 month", "sha256")


def rich(values: dict[str, Any]) -> dict[str, Any]:
    """A manifest's values with something to count everywhere."""
    values = copy.deepcopy(values)
    values["works"]["dropped"] = {reason: 3 + n for n, reason in enumerate(LEFT_OUT)} | {"too_short": 41}
    values["redactions"], values["repairs"] = {"e-mail": 5, "phone": 8}, {"mojibake": 21}
    values["licences"] = {"CC BY": 14, "unknown": 1}
    values["sources"] = {"folder": 4, "thesis": 11}
    values["access"], values["rights_basis"] = {"open": 12, "unknown": 3}, {"public task": 9, "unknown": 6}
    values["opt_out"] = {"no": 13, "unknown": 2, "list": 7}
    values["notes"] = ["17 .doc file(s) ignored: not a work"]
    server = {"name": "thesis", "kind": "oai", "url": "https://thesis.example.org/oai", "hosts": []}
    values["settings"]["corpus"]["harvest"]["sources"] = [server]
    return values


def changed(value: Any) -> Any:
    """The same values with every number and every hash another."""
    if isinstance(value, dict):
        return {key: value[key] if key == "schema" else changed(value[key]) for key in value}
    if isinstance(value, list):
        return [changed(one) for one in value]
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, int | float):
        return value * 3 + 1
    if HASH.fullmatch(value):
        return hashlib.sha256(value.encode()).hexdigest()
    return NUMBER.sub(lambda found: str(int(found[0]) * 3 + 1), value) if value.startswith("17 ") else value


def dataset(folder: Path, values: dict[str, Any], days: list[str]) -> Path:
    """A folder with a manifest and the days of its builds, and no other file."""
    folder.mkdir()
    (folder / "manifest.json").write_text(json.dumps(values), encoding="utf-8")
    lines = [{"manifest": "0" * 64, "built": day, "acquired": [day, day]} for day in days]
    (folder / "lineage.jsonl").write_text(
        "".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8"
    )
    return folder


def two(tmp_path: Path) -> tuple[Path, Path]:
    """The folders of a dataset and of one that differs in every number."""
    values = rich(json.loads((FIXTURE / "manifest.json").read_text(encoding="utf-8")))
    one = dataset(tmp_path / "one", values, ["2026-11-29"])
    return one, dataset(tmp_path / "other", changed(values), ["2025-10-17", "2024-08-18"])


def same_numbers(one: str, other: str) -> list[str]:
    """The numbers of a document that are not another in the second one; its words must be the same.

    References to the law are passed over.
    """
    texts = []
    for text in (one, other):
        for reference in REFERENCES:
            text = reference.sub("", text)
        for constant in LAW:
            text = text.replace(constant, "")
        texts.append(text)
    words = [NUMBER.sub("#", HASH.sub("#", text)) for text in texts]
    lines = zip(*(text.splitlines() for text in words), strict=True)
    different = [pair for pair in lines if pair[0] != pair[1]]
    assert different == [], different
    pairs = zip(*(re.findall(rf"{HASH.pattern}|{NUMBER.pattern}", text) for text in texts), strict=True)
    return [first for first, second in pairs if first == second]
