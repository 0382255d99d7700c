"""The documents to publish with a model, computed from the runs and the data behind it.

python launch/export.py source=<run> bundle=true

model/ro-crate-metadata.json
model/bundle/training-content-summary.md  model-documentation.md  copyright-policy.md  chain.yaml
model/bundle/datasheet-<dataset>.md  croissant-<dataset>.json  provenance/
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from conf.names import folder_name
from conf.schema.hf import ExportConfig
from data_prep.bundle import copyright_policy, croissant, datasheet, summary
from data_prep.bundle.write import FOLDER, put
from elm_megatron.bundle import form, records, ro_crate, withdrawn
from elm_megatron.bundle.trained import Trained
from elm_megatron.sources.source import ModelSource

CHANGING = withdrawn.FILES  # an evaluation or a take-down writes into them, so that no size is kept


def is_wanted(config: ExportConfig, trained: Trained) -> bool:
    """Whether an export has the documents: as asked, else where the manifest of a dataset is known."""
    if config.format != "hf":
        return False
    return trained.has_manifest if config.bundle is None else config.bundle


def write(folder: Path, config: ExportConfig, source: ModelSource, figures: dict[str, Any]) -> list[Path]:
    """Bring the documents in a model's folder up to date; returns those that changed.

    Args:
        folder: of the model; its other files are there.
        source: the model.
        figures: what the export found out.
    """
    trained = Trained(config, source, figures)
    if not is_wanted(config, trained):
        return []
    changed = put(folder, documents(folder, trained))
    missing = config.institution.missing()
    if changed:
        more = f"; the institution has yet to say: {', '.join(missing)}" if missing else ""
        print(f"bundle: {len(changed)} documents to publish are written{more}", flush=True)
    return changed


def documents(folder: Path, trained: Trained) -> dict[str, str]:
    """The text of each document by its path in the folder of the model."""
    institution, datasets = trained.config.institution, trained.datasets
    model = trained.summary(institution)
    texts = {
        f"{FOLDER}/{summary.FILE}": summary.write(datasets, institution, model),
        f"{FOLDER}/{copyright_policy.FILE}": copyright_policy.write(datasets, institution, model),
        f"{FOLDER}/{form.FILE}": form.write(trained, institution),
        ro_crate.CHAIN: records.chain(trained),
    }
    names = [folder_name(facts.name) for facts in datasets]
    for number, (name, facts) in enumerate(zip(names, datasets, strict=True), 1):
        suffix = name if names.count(name) == 1 else f"{name}-{number}"
        texts[f"{FOLDER}/datasheet-{suffix}.md"] = datasheet.write(facts, institution)
        texts[f"{FOLDER}/croissant-{suffix}.json"] = croissant.write(facts, institution)
    others = {
        path.name: None if path.name in CHANGING else path.stat().st_size
        for path in sorted(folder.iterdir())
        if path.is_file() and path.name != ro_crate.FILE and not path.name.startswith(".")
    }
    chain = ro_crate.steps(trained, list(others))
    for step in chain:
        texts |= step.texts
    sizes = {name: None if name in CHANGING else len(text.encode()) for name, text in texts.items()}
    present = {**others, **sizes}
    texts[ro_crate.FILE] = ro_crate.write(trained, institution, chain, present)
    return texts
