"""The dataset in Croissant 1.1, with the 20 properties of its vocabulary for responsible AI (RAI 1.0).

https://docs.mlcommons.org/croissant/docs/croissant-spec-1.1.html and croissant-rai-spec.html. The names of
the properties are those of the specification. The library mlcroissant spells two of them otherwise
(dataCollectionTimeFrame, dataDataManipulationProtocol) and passes over these two.
"""

from __future__ import annotations

import html
import json
import re
from typing import Any

from conf.schema.institution import Institution
from data_prep.bundle import summary
from data_prep.bundle.answers import Answers
from data_prep.bundle.facts import Facts
from data_prep.markdown import Safe, one_line, render, shown

FILE = "croissant.json"
CONFORMS = ("http://mlcommons.org/croissant/1.1", "http://mlcommons.org/croissant/RAI/1.0")
MANY = ("dataCollectionType", "dataCollectionTimeframe")  # lists, an item a line
MARKS = re.compile(r"\\(?=[\\`*_\[\]|~#])|[\u2068\u2069]")
TYPES = {
    "bin": "application/octet-stream",
    "idx": "application/octet-stream",
    "model": "application/octet-stream",
    "json": "application/json",
    "parquet": "application/x-parquet",
}
NUMBERS = ("year",)  # columns of documents.parquet that hold whole numbers
CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileProperty": "cr:fileProperty",
    "fileObject": "cr:fileObject",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "prov": "http://www.w3.org/ns/prov#",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}


def write(facts: Facts, institution: Institution) -> str:
    """The document, JSON-LD."""
    manifest, builds = facts.manifest, max(len(facts.builds), 1)
    name = institution.name or "unknown"
    document: dict[str, Any] = {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "name": facts.name,
        "description": (
            f"{manifest.works['out']:,} works of the corpus {facts.name}, as text and as {manifest.tokens:,} "
            "tokens for the training of language models."
        ),
        "conformsTo": list(CONFORMS),
        "license": [one_line(licence) for licence in facts.groups["licence"]] or ["unknown"],
        "url": institution.website or f"urn:sha256:{manifest.sha256}",
        "version": f"{builds}.0.0",
        "creator": {"@type": "Organization", "name": name, "url": institution.website or "urn:unknown"},
        "keywords": ["language model", "theses", *manifest.languages],
        "inLanguage": list(manifest.languages),
        "datePublished": institution.release_date or facts.built,
        "dateCreated": facts.built,
        "citeAs": _citation(facts, name),
        "isLiveDataset": False,
        "prov:wasDerivedFrom": _origins(facts, institution),
        "prov:wasGeneratedBy": {"@type": "prov:Activity", "prov:label": "build by the ELM job suite"},
        **{f"rai:{key}": value for key, value in rai(facts, institution).items()},
        "distribution": _files(facts),
        "recordSet": _records(facts),
    }
    document = {key: value for key, value in document.items() if value is not None}
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def _citation(facts: Facts, author: str) -> str:
    """A BibTeX entry."""
    note = f"note={{manifest sha256 {facts.manifest.sha256}}}"
    return f"@misc{{{facts.name}, title={{{facts.name}}}, author={{{{{author}}}}}, {note}}}"


def rai(facts: Facts, institution: Institution) -> dict[str, Any]:
    """The 20 properties, from the template that has a heading for each."""
    sources = list(facts.sources(institution))
    kinds = {"oai": "Web API", "pages": "Web Scraping", "": "Document analysis"}
    types = [kinds[source.kind] for source in sources] or ["Document analysis"]
    days = facts.acquired or ("unknown",)
    text = render(
        summary.TEMPLATES / "rai.md",
        facts=facts,
        answers=Answers(institution, marked=False),
        sources=sources,
        types=Safe("\n".join(dict.fromkeys(types))),
        timeframe=Safe("\n".join(dict.fromkeys(days))),
    )
    found: dict[str, Any] = {}
    for part in re.split(r"^## ", text, flags=re.MULTILINE)[1:]:
        key, _, body = part.partition("\n")
        lines = [html.unescape(MARKS.sub("", line)).strip() for line in body.strip().splitlines()]
        found[key] = [line for line in lines if line] if key in MANY else " ".join(filter(None, lines))
    return found


def _origins(facts: Facts, institution: Institution) -> list[dict[str, str]]:
    """The sources of the works as PROV entities."""
    return [
        {"@id": f"urn:source:{number}", "prov:label": one_line(f"{source.name} {', '.join(source.hosts)}")}
        for number, source in enumerate(facts.sources(institution), 1)
    ]


def _files(facts: Facts) -> list[dict[str, str]]:
    found = []
    for path, info in facts.manifest.all_files():
        found.append(
            {
                "@type": "cr:FileObject",
                "@id": path.name,
                "name": path.name,
                "contentUrl": path.name,
                "contentSize": f"{info.bytes} B",
                "encodingFormat": TYPES.get(path.suffix.removeprefix("."), "application/octet-stream"),
                "sha256": info.sha256,
            }
        )
    return found


def _records(facts: Facts) -> list[dict[str, Any]]:
    """The record sets of the two Parquet files, where the manifest lists them."""
    columns = {"documents": facts.columns, "dropped": ["id", "stage", "reason"]}
    about = {
        "documents": f"The works kept, {shown(facts.manifest.works['out'])} at the build.",
        "dropped": f"Works left out, {shown(sum(facts.manifest.dropped.values()))}, with stage and reason.",
    }
    return [
        {
            "@type": "cr:RecordSet",
            "@id": name,
            "name": name,
            "description": about[name],
            "key": {"@id": f"{name}/id"},
            "field": [_field(name, column) for column in columns[name]],
        }
        for name in columns
        if f"{name}.parquet" in facts.manifest.files and "id" in columns[name]
    ]


def _field(records: str, column: str) -> dict[str, Any]:
    return {
        "@type": "cr:Field",
        "@id": f"{records}/{column}",
        "name": f"{records}/{column}",
        "description": f"Column {column} of {records}.parquet.",
        "dataType": "sc:Integer" if column in NUMBERS else "sc:Text",
        "source": {"fileObject": {"@id": f"{records}.parquet"}, "extract": {"column": column}},
    }
