"""The model card: README.md of an exported folder, written from run.json, config.yaml and the manifest alone.

What none of them holds is printed as unknown; nothing is filled in from elsewhere.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from conf.errors import InputError
from conf.schema.hf import ExportConfig
from conf.schema.model import ModelConfig
from data_prep import files
from data_prep.manifest import Manifest, TokenizerInfo
from elm_megatron.bundle.trained import Trained
from elm_megatron.card import head, texts
from elm_megatron.card.plot import PICTURE, draw
from elm_megatron.model import hf_names
from elm_megatron.planner import footprint
from elm_megatron.sources.lineage import Stage, manifest_of, preparation
from elm_megatron.sources.places import read_json
from elm_megatron.sources.source import ModelSource

FILE = "README.md"
UNKNOWN = "unknown"
EVALUATION = ("<!-- evaluation -->", "<!-- end of evaluation -->")


def write(folder: Path, config: ExportConfig, source: ModelSource, figures: dict[str, Any]) -> None:
    """Write README.md and the picture of the losses into an exported folder.

    Args:
        source: the model.
        figures: what the export found out: bytes, hashes, the gate's differences.
    """
    trained = Trained(config, source, figures)
    stages = trained.stages
    drawn = draw([(stage.run, _verb(stage)) for stage in stages], folder)
    picture = f"![Training and validation loss]({PICTURE})" if drawn else "Loss curves: unknown."
    name = stages[-1].name if stages else source.folder.name
    model, manifest = source.model, source.tokenizer.manifest or manifest_of(stages)
    sections = [
        head.write(trained),
        f"# {name}\n\n{texts.INTRODUCTION}",
        f"## How to run it\n\n{texts.usage(source.tokenizer.tuned)}",
        f"## Model\n\n{_model(model, figures)}",
        f"## Tokenizer\n\n{_tokenizer(source.tokenizer.info, manifest)}",
        f"## Data\n\n{_all_data(manifest, stages)}",
        *(f"## {_verb(stage)}\n\n{_training(stage)}" for stage in stages),
        trained.withdrawn,
        f"## Losses\n\n{picture}",
        f"## Evaluation\n\n{EVALUATION[0]}\n{texts.NOT_EVALUATED}\n{EVALUATION[1]}",
        f"## Energy and hardware\n\n{_energy(stages, config.grams_per_kwh)}",
        f"## The check of this export\n\n{_gate(figures)}",
        f"## Intended use and limits\n\n{texts.LIMITS}",
        f"## Citation\n\n{_citation(name, stages)}",
    ]
    files.write(folder / FILE, "\n\n".join(sections) + "\n")


def put_evaluation(folder: Path, markdown: str, measured: Iterable[tuple[str, float | None]] = ()) -> bool:
    """Replace the evaluation section of a card, and what its head says of evaluations.

    Args:
        folder: of the model.
        markdown: the section.
        measured: each figure with what it is.

    Returns:
        False when the folder has no card of ours.
    """
    path = folder / FILE
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    before, start, rest = text.partition(EVALUATION[0])
    _, end, tail = rest.partition(EVALUATION[1])
    if not (start and end):
        return False
    changed = f"{before}{start}\n{markdown.strip()}\n{end}{tail}"
    files.write(path, head.with_results(changed, measured))
    return True


def table(rows: Iterable[tuple[Any, ...]], header: tuple[str, ...] = ("what", "value")) -> str:
    """A Markdown table; None is printed as unknown."""
    lines = [header, tuple("---" for _ in header), *rows]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines)


def _cell(value: Any) -> str:
    if value is None:
        return UNKNOWN
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.6g}"
    return " ".join(str(value).split()).replace("|", "\\|") or "none"


def _counts(counts: dict[str, int] | None) -> str | None:
    """{"nl": 7, "en": 8} as text, largest first."""
    if counts is None:
        return None
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{name} {count:,}" for name, count in ordered) or "none"


def _model(model: ModelConfig, figures: dict[str, Any]) -> str:
    rows = [
        ("architecture", "Llama: RMSNorm, SwiGLU, rotary positions, no biases"),
        ("parameters", hf_names.count(model)),
        ("layers", model.num_layers),
        ("hidden size", model.hidden_size),
        ("feed-forward size", model.ffn_hidden_size),
        ("attention heads", model.num_attention_heads),
        ("query groups", model.num_query_groups),
        ("longest sequence", model.max_position_embeddings),
        ("vocabulary", model.vocab_size),
        ("tied embeddings", model.tie_embeddings),
        ("rotary base", model.rope_theta),
        ("norm epsilon", f"{model.norm_eps:g}"),
        ("weights", figures["dtype"]),
    ]
    stored = [(name, entry["bytes"], f"`{entry['sha256']}`") for name, entry in figures["files"].items()]
    return f"{table(rows)}\n\n{table(stored, ('file', 'bytes', 'sha256'))}"


def _tokenizer(info: TokenizerInfo, manifest: Manifest | None) -> str:
    ours = manifest is not None and manifest.tokenizer.sha256 == info.sha256
    rows = [
        ("kind", "SentencePiece BPE, byte fallback, spaces kept" if ours else None),
        ("pieces", info.vocab_size),
        ("bos, eos, pad ids", ", ".join(UNKNOWN if i is None else str(i) for i in _ids(info))),
        ("sha256", f"`{info.sha256}`"),
    ]
    return f"{table(rows)}\n\n{texts.TOKENIZER if ours else ''}".rstrip()


def _ids(info: Any) -> tuple[int | None, ...]:
    return info.bos_id, info.eos_id, info.pad_id


def _all_data(manifest: Manifest | None, stages: list[Stage]) -> str:
    """What was trained on: the dataset, or each part of a blend beside the dataset that measured it."""
    parts = next((stage.record["blend"] for stage in stages if stage.record.get("blend")), None)
    if parts is None:
        return _data(manifest)
    texts_of_parts = []
    for number, part in enumerate(parts, 1):
        drawn = [(key, part[key]) for key in ("share", "drawn", "epochs", "manifest_sha256")]
        try:
            found = Manifest.load(Path(part["dir"]))
        except InputError:
            found = None
        same = found is not None and found.sha256 == part["manifest_sha256"]
        told = _data(found) if same else "Sources and licences: unknown; the dataset is not there any more."
        texts_of_parts.append(f"### Dataset {number} of {len(parts)}\n\n{table(drawn)}\n\n{told}")
    measured = f"### The dataset of the tokenizer and of the validation split\n\n{_data(manifest)}"
    return "\n\n".join(["Trained on several datasets by weight.", *texts_of_parts, measured])


def _data(manifest: Manifest | None) -> str:
    if manifest is None:
        return "Training data: unknown; the model came without a dataset manifest."
    splits = [(name, s.documents, s.tokens) for name, s in manifest.splits.items()]
    rows = [
        ("corpus", manifest.corpus),
        ("manifest sha256", f"`{manifest.sha256}`"),
        ("languages (works)", _counts(manifest.languages)),
        ("sources (works)", _counts(manifest.sources)),
        ("licences (works)", _counts(manifest.licences)),
        ("access (works)", _counts(manifest.rights["access"])),
        ("legal basis (works)", _counts(manifest.rights["rights_basis"])),
        ("opt-outs (works)", _counts(manifest.rights["opt_out"])),
        ("works read", manifest.works["in"]),
        ("works kept", manifest.works["out"]),
        ("works dropped, by reason", _counts(manifest.works["dropped"])),
        ("blocks kept", manifest.blocks.get("out")),
        ("blocks dropped, by reason", _counts(manifest.blocks.get("dropped"))),
        ("redactions, by kind", _counts(manifest.redactions)),
        ("notes", "; ".join(manifest.notes)),
    ]
    return f"{table(splits, ('split', 'documents', 'tokens'))}\n\n{table(rows)}"


def _verb(stage: Stage) -> str:
    verb = stage.record.get("verb", "pretrain")
    return {"pretrain": "Pretraining", "finetune": "Tuning", "import_hf": "Import"}.get(verb, verb)


def _training(stage: Stage) -> str:
    record = stage.record
    keys = ("state", "step", "tokens", "loss", "valid_loss_first", "valid_loss", "unigram_entropy")
    results = [(key.replace("_", " "), record.get(key)) for key in keys]
    results.append(("code", record.get("git_commit")))
    results += [(f"version of {name}", v) for name, v in (record.get("versions") or {}).items()]
    layout = [(f"parallel.{k}", v) for k, v in (stage.config.get("parallel") or {}).items()]
    group = "tune" if stage.tuning else "train"
    settings = [(f"{group}.{key}", _setting(value)) for key, value in stage.settings.items()]
    learnt = [table(_examples(stage), ("tuning data", "value"))] if stage.tuning else []
    return "\n\n".join([table(results), *learnt, table([*settings, *layout], ("setting", "value"))])


def _examples(stage: Stage) -> list[tuple[str, Any]]:
    """What a tuning run learnt from: its files' names, what they held, what was skipped, their hash."""
    values = stage.config.get(stage.config.get("stage")) or {}
    files = [
        (key, ", ".join(Path(name).name for name in values[key]))
        for key in ("files", "valid_files")
        if values.get(key)
    ]
    counts = stage.record.get("data_counts") or {}
    digest = stage.record.get("data_sha256")
    named = [("stage", stage.config.get("stage")), *(files or [("files", None)])]
    return [*named, *counts.items(), ("sha256", digest and f"`{digest}`"), *_withdrawn(values)]


def _withdrawn(values: dict[str, Any]) -> list[tuple[str, Any]]:
    """How many contributions people have taken back, where the data is an export of the community's app."""
    rows: list[tuple[str, Any]] = []
    for folder in dict.fromkeys(Path(name).parent for name in values.get("files") or []):
        before = _json(folder / "manifest.json").get("withdrawn")
        if isinstance(before, int):
            since = _json(folder / "withdrawn.json").get("items") or []
            rows.append((f"withdrawn before the export {folder.name}, and not in it", before))
            rows.append((f"withdrawn since, and still in the export {folder.name}", len(since)))
    return rows


def _json(path: Path) -> dict[str, Any]:
    try:
        return read_json(path)
    except InputError:
        return {}


def _setting(value: Any) -> Any:
    """A configured value; null is a choice here, not something unknown."""
    if value is None:
        return "null"
    return ", ".join(map(str, value)) or "none" if isinstance(value, list) else value


def _energy(stages: list[Stage], grams_per_kwh: float | None) -> str:
    if not stages:
        return "Unknown: the model came without a run."
    rows: list[tuple[Any, ...]] = []
    sums = [0.0, 0.0, 0.0]
    behind = [(_verb(stage), stage.record, stage.config) for stage in stages]
    for verb, record, config in [*preparation(stages[0]), *behind]:
        cluster, found = config.get("cluster") or {}, footprint.of_record(record, config)
        device = cluster.get("gpu_type") or cluster.get("device")
        named = (verb, cluster.get("name"), device, record.get("world_size"))
        if found is None:
            rows.append((*named, None, None, None, None))
            continue
        grams = found.co2_kg * 1000
        if grams_per_kwh is not None:
            grams = found.kwh * grams_per_kwh
        figures = (found.device_hours, found.kwh, grams)
        sums = [total + one for total, one in zip(sums, figures, strict=True)]
        rows.append((*named, *figures, found.basis))
    rows.append(("all", "", "", "", *sums, ""))
    header = ("stage", "cluster", "device", "ranks", "device-hours", "kWh", "g CO2", "how it is known")
    method = "Device-hours are those of GPUs, or of CPU cores. kWh include the data centre's overhead (PUE)."
    if grams_per_kwh is not None:
        method += f" CO2 is the kWh times {grams_per_kwh:g} g per kWh, given at export."
    return f"{table(rows, header)}\n\n{method}"


def _gate(figures: dict[str, Any]) -> str:
    gate = figures["gate"]
    rows = [
        ("checkpoint's step", figures["step"]),
        ("largest difference of logits, same rounding", f"{gate['rounded']:.3g}"),
        ("largest difference of logits from the weights as trained", f"{gate['trained']:.3g}"),
        ("tokens compared", gate["tokens"]),
    ]
    return f"{texts.GATE}\n\n{table(rows)}"


def _citation(name: str, stages: list[Stage]) -> str:
    started = stages[0].record.get("started") if stages else None
    year = time.gmtime(started).tm_year if started else UNKNOWN
    return texts.citation(name, year, stages[-1].record.get("git_commit") if stages else None)
