"""What the runs behind a model say of it, for the documents that describe it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from conf import typed
from conf.errors import InputError
from conf.names import label
from conf.schema.hf import ExportConfig
from conf.schema.institution import Institution
from conf.schema.model import ModelConfig
from data_prep import withdrawn as withdrawals
from data_prep.bundle.facts import Facts, Source
from data_prep.bundle.summary import TrainedModel
from data_prep.markdown import Safe
from elm_megatron.bundle import withdrawn
from elm_megatron.planner.footprint import Footprint, of_record
from elm_megatron.sources.affected import manifests_behind
from elm_megatron.sources.lineage import (
    LOST,
    Stage,
    TrainedOn,
    dataset_of,
    datasets_of,
    preparation,
    stages_of,
)
from elm_megatron.sources.places import split_step
from elm_megatron.sources.source import ModelSource

COMMUNITY_MANIFEST = "manifest.json"  # beside the files that the community's web app exports; has `items`
EXAMPLES = ("training examples", "examples", "pairs", "dialogues")  # keys of data_counts, the best first


@dataclass(frozen=True)
class Trained:
    """A model with everything behind it.

    Attributes:
        config: of the export.
        source: the model.
        figures: what the export found out: files with their hashes, the step, the gate's differences.
    """

    config: ExportConfig
    source: ModelSource
    figures: dict[str, Any]

    @cached_property
    def stages(self) -> list[Stage]:
        """The runs, first to last."""
        return stages_of(self.source.folder, self.source.merged)

    @cached_property
    def trained_on(self) -> list[TrainedOn]:
        """The datasets of pretraining."""
        return datasets_of(self.stages, self.source.tokenizer.manifest)

    @cached_property
    def datasets(self) -> list[Facts]:
        """Those that are there as they were."""
        return [Facts(one.manifest) for one in self.trained_on if one.manifest is not None]

    @property
    def lost(self) -> list[TrainedOn]:
        """The datasets that are not there any more as they were."""
        return [one for one in self.trained_on if one.manifest is None]

    @cached_property
    def withdrawn(self) -> Safe:
        """The section about works that left the datasets since, as the datasets' folders record it."""
        blends = [Path(part["dir"]) for stage in self.stages for part in stage.record.get("blend") or []]
        datasets = filter(None, (dataset_of([stage]) for stage in self.stages))
        folders = [folder for folder in (*datasets, *blends) if folder.is_dir()]
        since = withdrawals.since(withdrawals.of(folders), manifests_behind(self.stages))
        return Safe(withdrawn.section(*since))

    def preparation(self, facts: Facts) -> dict[str, Any]:
        """run.json of the run that made a dataset; {} where it is not beside the runs."""
        for stage in self.stages:
            for _, record, config in preparation(stage):
                folder = Path((config.get("data") or {}).get("dir") or "")
                if folder.resolve() == facts.manifest.folder.resolve():
                    return record
        return {}

    @property
    def has_manifest(self) -> bool:
        """Whether a run behind the model names the manifest of a dataset."""
        return any(stage.record.get("manifest_sha256") for stage in self.stages)

    @property
    def name(self) -> str:
        """Of the last run; of a model from elsewhere, its folder's."""
        return self.stages[-1].name if self.stages else label(self.source.folder)

    @property
    def weights(self) -> dict[str, str]:
        """The hash of each file of weights."""
        return {name: entry["sha256"] for name, entry in self.figures["files"].items()}

    @property
    def base(self) -> str:
        """The model from elsewhere that this one was made of, "" where it was trained from random weights."""
        if not self.stages:
            return label(self.source.folder)
        first = self.stages[0]
        if self.base_is_lost:
            return f"{first.name}, whose records are lost"
        if made := first.record.get("import"):
            return label(Path(str(made["source"])))
        if first.tuning:
            given = first.config.get("source")
            return label(Path(split_step(str(given))[0])) if given else "unknown"
        return ""

    @property
    def base_is_lost(self) -> bool:
        """Whether the first run behind the model is known by name alone."""
        return bool(self.stages) and self.stages[0].record.get("verb") == LOST

    @property
    def trainings(self) -> list[Stage]:
        """The runs that learnt; an import has learnt nothing."""
        return [stage for stage in self.stages if "import" not in stage.record]

    @property
    def tokens(self) -> int | None:
        """Tokens read in all trainings; None where a run does not say."""
        return _total([stage.record.get("tokens") for stage in self.trainings])

    @cached_property
    def flops(self) -> list[float | None]:
        """FLOP of each training: 6 per matrix weight and token, and the attention (conf/schema/model.py).

        Tuning is counted as if all weights were trained, so that its number is not too small.
        """
        return [_flop(stage) for stage in self.trainings]

    @property
    def flop(self) -> float | None:
        """FLOP of all trainings that say enough; None where none does."""
        known = [flop for flop in self.flops if flop is not None]
        return sum(known) if known else None

    @property
    def flop_unknown(self) -> str:
        """What `flop` does not count, "" for nothing."""
        pairs = zip(self.trainings, self.flops, strict=True)
        missing = [f"the run {stage.name}, whose records do not say" for stage, flop in pairs if flop is None]
        if self.base and not self.base_is_lost:
            missing.insert(0, f"the training of {self.base}, which was made elsewhere")
        return "; ".join(missing)

    @property
    def hours(self) -> float | None:
        """Wall-clock hours of all trainings."""
        seconds = _total([stage.record.get("seconds") for stage in self.trainings])
        return None if seconds is None else seconds / 3600

    @cached_property
    def footprints(self) -> list[Footprint | None]:
        """Energy and CO2 of each training, measured or modelled; None where its records do not say enough."""
        return [of_record(stage.record, stage.config) for stage in self.trainings]

    @property
    def kwh(self) -> float | None:
        """Energy of all trainings, the data centre's overhead included; None where one is unknown."""
        return _total([one and one.kwh for one in self.footprints])

    @property
    def grams(self) -> float | None:
        """CO2 equivalent of all trainings, by the grams per kWh given at export or those of their sites."""
        factor = self.config.grams_per_kwh
        if factor is not None:
            return None if self.kwh is None else self.kwh * factor
        kilograms = _total([one and one.co2_kg for one in self.footprints])
        return None if kilograms is None else kilograms * 1000

    @property
    def energy_methods(self) -> list[str]:
        """How energy and CO2 are known, each way once."""
        return list(dict.fromkeys(one.basis for one in self.footprints if one is not None))

    def tunings(self, institution: Institution) -> list[Source]:
        """The files of chat data that tuning runs learnt from."""
        found = []
        for stage in self.stages:
            if not stage.tuning:
                continue
            values = stage.config.get(stage.config.get("stage")) or {}
            files = [str(name) for key in ("files", "valid_files") for name in values.get(key) or []]
            counts = stage.record.get("data_counts") or {}
            examples = next((counts[key] for key in EXAMPLES if key in counts), None)
            for file in files or ["unknown files"]:
                name = Path(file).name
                said = institution.sources.get(name)
                user = _is_of_users(Path(file))
                category = said or ("user" if user else "other")
                asked = None if said or user else f"sources.{name}"
                works = examples if len(files) == 1 else None
                found.append(
                    Source(name, category, asked, works, None, of=_what(stage), what="training examples")
                )
        return found

    def summary(self, institution: Institution) -> TrainedModel:
        """The model as the summary of training content describes it."""
        weights = next(iter(self.weights.values()), None)
        flop, unknown = self.flop, self.flop_unknown
        tunings = self.tunings(institution)
        return TrainedModel(
            self.name, weights, self.base, self.tokens, flop, unknown, tunings, self.withdrawn
        )


def _what(stage: Stage) -> str:
    return f"{stage.config.get('stage') or 'tuning'} {stage.name}"


def _total(values: Sequence[float | None]) -> Any:
    """The sum; None for no values and where one is unknown."""
    known = [value for value in values if value is not None]
    return sum(known) if known and len(known) == len(values) else None


def _flop(stage: Stage) -> float | None:
    tokens, length = stage.record.get("tokens"), stage.settings.get("seq_length")
    try:
        model = typed.build(ModelConfig, stage.config["model"], "model")
        return float(model.flops_per_token(length) * tokens)
    except (InputError, KeyError, TypeError):
        return None


def _is_of_users(file: Path) -> bool:
    """Whether a file of chat data was exported from the community's web app."""
    try:
        beside = json.loads((file.parent / COMMUNITY_MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(beside, dict) and isinstance(beside.get("items"), list)
