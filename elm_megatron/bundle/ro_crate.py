"""The chain as a Workflow Run RO-Crate: Provenance Run Crate 0.5 over RO-Crate 1.1.

https://www.researchobject.org/workflow-run-crate/profiles/0.5/provenance_run_crate/

    preprocess → tokenizer → pretrain → finetune or dpo → export

Each step is an action with the records that it read and wrote, its times and what it used. The crate is the
model's folder. The records in it are the published copies (records.py).
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from conf.schema.institution import Institution
from data_prep.bundle.write import PROVENANCE
from data_prep.markdown import one_line
from elm_megatron.bundle import records
from elm_megatron.bundle.trained import Trained

FILE = "ro-crate-metadata.json"
CHAIN = "bundle/chain.yaml"
ROOT, RUN, ENGINE, AGENT = "./", "#run", "#elm-suite", "#institution"
PROFILES = {
    "https://w3id.org/ro/wfrun/process/0.5": "Process Run Crate",
    "https://w3id.org/ro/wfrun/workflow/0.5": "Workflow Run Crate",
    "https://w3id.org/ro/wfrun/provenance/0.5": "Provenance Run Crate",
    "https://w3id.org/workflowhub/workflow-ro-crate/1.0": "Workflow RO-Crate",
}
TERMS = "https://w3id.org/ro/terms/workflow-run#"
CONTEXT = ["https://w3id.org/ro/crate/1.1/context", {"resourceUsage": f"{TERMS}resourceUsage"}]
FORMATS = {
    ".json": "application/json",
    ".jsonl": "application/jsonl",
    ".md": "text/markdown",
    ".yaml": "application/yaml",
    ".png": "image/png",
    ".safetensors": "application/octet-stream",
}
DONE = "http://schema.org/CompletedActionStatus"
USED = {"kwh": ("energy", "KWH"), "seconds": ("duration", "SEC")}  # UN/CEFACT codes of the units
Entity = dict[str, Any]


class Step:
    """One step of the chain.

    Args:
        verb: preprocess, tokenizer, pretrain, sft, dpo, import_hf or export.
        name: of the run or the dataset.
        texts: its records by their paths in the crate.
        results: paths of other files in the crate that it wrote.
        record: run.json, {} where there is none.
    """

    def __init__(self, verb: str, name: str, texts: dict[str, str], results: list[str], record: Entity):
        self.verb, self.name, self.texts, self.results, self.record = verb, name, texts, results, record


def steps(trained: Trained, exported: list[str]) -> list[Step]:
    """The chain in order.

    Args:
        exported: paths of the files of the model.
    """
    found: list[Step] = []

    def folder(name: str) -> str:
        return records.folder_of(len(found) + 1, name)

    for facts in trained.datasets:
        texts, record = records.of_dataset(folder(facts.name), facts), trained.preparation(facts)
        if record:
            texts[f"{folder(facts.name)}/run.json"] = records.of_record(record)
        found.append(Step("preprocess", facts.name, texts, [], {**record, "day": facts.built}))
    pieces = [name for name in exported if name.startswith(("tokenizer", "special_tokens"))]
    if trained.datasets:
        found.append(Step("tokenizer", trained.datasets[0].name, {}, pieces, {}))
    for stage in trained.stages:
        verb = str(stage.config.get("stage") or stage.record.get("verb") or "pretrain")
        is_exported = stage.run.path.resolve() == trained.source.stored.folder.resolve()
        step = trained.figures["step"] if is_exported else None
        texts = records.of_stage(folder(stage.name), stage, step)
        found.append(Step(verb, stage.name, texts, [], stage.record))
    texts = {f"{folder('export')}/run.json": records.export_record(trained)}
    found.append(Step("export", trained.name, texts, exported, {}))
    return found


def write(
    trained: Trained, institution: Institution, chain: list[Step], present: dict[str, int | None]
) -> str:
    """The crate's metadata.

    Args:
        chain: the steps.
        present: every file of the crate with its bytes, None where they may change.
    """
    graph = [
        *_head(trained, institution, present, len(chain)),
        *_files(trained, present),
        *_actions(trained, chain),
    ]
    entities = [{key: _alone(value) for key, value in entity.items()} for entity in graph]
    return json.dumps({"@context": CONTEXT, "@graph": entities}, indent=1, ensure_ascii=False) + "\n"


def _alone(value: Any) -> Any:
    """A list of one as its value, as RO-Crate recommends."""
    return value[0] if isinstance(value, list) and len(value) == 1 else value


def _head(
    trained: Trained, institution: Institution, present: dict[str, int | None], count: int
) -> Iterator[Entity]:
    """The descriptor, the crate, its profiles, the institution and the suite."""
    crate = "https://w3id.org/ro/crate/1.1"
    workflow = "https://w3id.org/workflowhub/workflow-ro-crate/1.0"
    yield {
        "@id": FILE, "@type": "CreativeWork", "about": _ref(ROOT), "conformsTo": [_ref(crate), _ref(workflow)]
    }  # fmt: skip
    yield {
        "@id": ROOT,
        "@type": "Dataset",
        "name": one_line(trained.name),
        "description": f"The language model {one_line(trained.name)}, with the records of how it was made.",
        "datePublished": institution.release_date or _time(_last(trained))[:10],
        "license": one_line(trained.config.licence or "unknown"),
        "publisher": _ref(AGENT),
        "conformsTo": [_ref(profile) for profile in PROFILES],
        "hasPart": [_ref(name) for name in present],
        "mainEntity": _ref(CHAIN),
        "mentions": [_ref(RUN), *(_ref(f"#action-{number}") for number in range(1, count + 1))],
    }
    for profile, name in PROFILES.items():
        version = profile.rpartition("/")[2]
        yield {"@id": profile, "@type": "CreativeWork", "name": name, "version": version}
    agent = {"@id": AGENT, "@type": "Organization", "name": one_line(institution.name or "unknown")}
    yield {**agent, **({"url": institution.website} if institution.website else {})}
    engine = {"@id": ENGINE, "@type": "SoftwareApplication", "name": "ELM job suite"}
    yield {**engine, "softwareVersion": _commit(trained)}


def _files(trained: Trained, present: dict[str, int | None]) -> Iterator[Entity]:
    """Every file, those of the weights with their hashes; the chain itself is among the actions."""
    for name, size in present.items():
        if name == CHAIN:
            continue
        entity = {"@id": name, "@type": "File", "name": Path(name).name}
        entity["encodingFormat"] = FORMATS.get(Path(name).suffix, "application/octet-stream")
        if name == "README.md":
            entity["about"] = _ref(ROOT)
        if name.startswith(PROVENANCE):
            entity["description"] = "Copy of a record, without paths, hosts and job numbers."
        if size is not None:
            entity["contentSize"] = str(size)
        if name in trained.weights:
            entity["sha256"] = trained.weights[name]
        yield entity


def _actions(trained: Trained, chain: list[Step]) -> Iterator[Entity]:
    """The workflow, its tools and steps, and what was run."""
    tools = {f"#tool-{step.verb}": step.verb for step in chain}
    yield {
        "@id": "#yaml",
        "@type": "ComputerLanguage",
        "name": "YAML of the ELM job suite",
        "alternateName": "YAML",
    }
    yield {
        "@id": CHAIN,
        "@type": ["File", "SoftwareSourceCode", "ComputationalWorkflow", "HowTo"],
        "name": f"Chain of {one_line(trained.name)}",
        "encodingFormat": "application/yaml",
        "programmingLanguage": _ref("#yaml"),
        "version": "1",
        "hasPart": [_ref(tool) for tool in tools],
        "step": [_ref(f"#step-{number}") for number, _ in enumerate(chain, 1)],
    }
    for tool, verb in tools.items():
        tool_of = {"isPartOf": _ref(ENGINE), "softwareVersion": _commit(trained)}
        yield {"@id": tool, "@type": "SoftwareApplication", "name": verb, **tool_of}
    before: list[str] = []
    for number, step in enumerate(chain, 1):
        results = [*step.texts, *step.results]
        yield {
            "@id": f"#step-{number}", "@type": "HowToStep", "position": str(number), "name": step.verb,
            "workExample": _ref(f"#tool-{step.verb}"),
        }  # fmt: skip
        yield from _action(number, step, before, results)
        yield {
            "@id": f"#control-{number}", "@type": "ControlAction", "name": f"orchestrate {step.verb}",
            "instrument": _ref(f"#step-{number}"), "object": _ref(f"#action-{number}"),
        }  # fmt: skip
        before = [*before, *step.texts] if step.verb == "preprocess" else (list(step.texts) or before)
    yield {
        "@id": RUN, "@type": "CreateAction", "name": f"Making of {one_line(trained.name)}",
        "description": "The whole chain, of which each step has an action of its own.",
        "instrument": _ref(CHAIN), "agent": _ref(AGENT), "endTime": _time(_last(trained)),
        "object": [_ref(name) for name in chain[0].texts], "result": [_ref(name) for name in trained.weights],
    }  # fmt: skip
    yield {
        "@id": "#orchestration", "@type": "OrganizeAction", "name": "orchestration of the chain",
        "instrument": _ref(ENGINE), "result": _ref(RUN), "agent": _ref(AGENT),
        "object": [_ref(f"#control-{number}") for number, _ in enumerate(chain, 1)],
    }  # fmt: skip


def _action(number: int, step: Step, before: list[str], results: list[str]) -> Iterator[Entity]:
    """What one step did, and the entities of what it used."""
    record, identifier = step.record, f"#action-{number}"
    action = {
        "@id": identifier,
        "@type": "CreateAction",
        "name": f"{step.verb} {one_line(step.name)}",
        "description": f"{step.verb} of {one_line(step.name)}, as its records say.",
        "instrument": _ref(f"#tool-{step.verb}"),
        "agent": _ref(AGENT),
        "object": [_ref(name) for name in before],
        "result": [_ref(name) for name in results],
    }
    if record.get("started"):
        action["startTime"] = _time(record["started"])
    if record.get("updated") or record.get("day"):
        action["endTime"] = record.get("day") or _time(record["updated"])
    if record.get("state") == "done":
        action["actionStatus"] = DONE
    used = {key: record[key] for key in USED if isinstance(record.get(key), int | float)}
    if used:
        action["resourceUsage"] = [_ref(f"{identifier}-{key}") for key in used]
    yield {key: value for key, value in action.items() if value != []}
    for key, value in used.items():
        name, unit = USED[key]
        yield {
            "@id": f"{identifier}-{key}", "@type": "PropertyValue", "name": name, "value": str(value),
            "propertyID": f"{TERMS}{name}", "unitCode": unit,
        }  # fmt: skip


def _commit(trained: Trained) -> str:
    """The suite's own version at the last run."""
    return (trained.stages[-1].record.get("git_commit") if trained.stages else None) or "unknown"


def _ref(identifier: str) -> Entity:
    return {"@id": identifier}


def _time(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime(seconds))


def _last(trained: Trained) -> float:
    """When the last run behind a model was written, so that the same model has the same crate; or now."""
    return max((stage.record.get("updated") or 0.0 for stage in trained.stages), default=0.0) or time.time()
