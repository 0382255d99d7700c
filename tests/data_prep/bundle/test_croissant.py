"""Croissant: 0 errors of mlcroissant, all properties of responsible AI, records that can be read."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import mlcroissant
import pytest

from conf.schema.institution import Institution
from data_prep.bundle import croissant, write
from data_prep.bundle.facts import Facts
from data_prep.manifest import Manifest
from tests.data_prep.bundle import planted

# https://docs.mlcommons.org/croissant/docs/croissant-rai-spec.html, "RAI property information"
RAI = {
    *("dataCollection", "dataCollectionType", "dataCollectionMissingData", "dataCollectionRawData"),
    *("dataCollectionTimeframe", "dataImputationProtocol", "dataManipulationProtocol"),
    *("dataPreprocessingProtocol", "dataAnnotationProtocol", "dataAnnotationPlatform"),
    *("dataAnnotationAnalysis", "dataReleaseMaintenancePlan", "personalSensitiveInformation"),
    *("dataSocialImpact", "dataBiases", "dataLimitations", "dataUseCases", "annotationsPerItem"),
    *("annotatorDemographics", "machineAnnotationTools"),
}


@pytest.mark.parametrize("said", [False, True])
def test_it_validates_and_its_records_can_be_read(tmp_path: Path, said: bool) -> None:
    folder = tmp_path / "sample"
    shutil.copytree(planted.FIXTURE, folder)
    answers = (
        {"name": "A <b>university</b>", "website": "https://example.org", "biases": "x\ny"} if said else {}
    )
    write.write(folder, Institution(**answers))
    found = mlcroissant.Dataset(str(folder / croissant.FILE))
    assert not found.metadata.ctx.issues.errors
    assert "http://mlcommons.org/croissant/1.1" in found.metadata.conforms_to
    manifest = Manifest.load(folder)
    records = list(found.records("documents"))
    assert len(records) == manifest.works["out"] and all(row["documents/id"] for row in records)
    files = json.loads((folder / croissant.FILE).read_text(encoding="utf-8"))["distribution"]
    assert {entry["@id"]: entry["sha256"] for entry in files} == {
        path.name: info.sha256 for path, info in manifest.all_files()
    }


def test_all_properties_of_responsible_ai_are_there() -> None:
    facts = Facts(Manifest.load(planted.FIXTURE))
    text = json.loads(croissant.write(facts, Institution(biases="few *faculties* & <schools>")))
    found = {key.removeprefix("rai:"): value for key, value in text.items() if key.startswith("rai:")}
    assert len(RAI) == 20 and set(found) == RAI and all(found.values())
    assert "few *faculties* & <schools>" in found["dataBiases"]


def test_a_changed_manifest_changes_every_number(tmp_path: Path) -> None:
    one, other = (croissant.write(Facts(Manifest.load(f)), Institution()) for f in planted.two(tmp_path))
    pairs = list(zip(leaves(json.loads(one)), leaves(json.loads(other)), strict=True))
    assert len(pairs) > 100
    for (key, first), (_, second) in pairs:
        if "@context" in key or "conformsTo" in key or not planted.NUMBER.search(str(first)):
            continue
        numbers = planted.same_numbers(str(first), str(second))
        passed = key.startswith(("version", "prov:")) or key.endswith("@id")  # 1.0.0 → 2.0.0, names by number
        assert not numbers or passed, key


def leaves(value: object, key: str = "") -> list[tuple[str, object]]:
    """Each value of a document by its dotted key."""
    if isinstance(value, dict):
        return [leaf for name, one in value.items() for leaf in leaves(one, f"{key}.{name}".strip("."))]
    if isinstance(value, list):
        return [leaf for number, one in enumerate(value) for leaf in leaves(one, f"{key}.{number}")]
    return [(key, value)]
