"""The documents in an exported folder: validated, computed, of every kind of lineage."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import mlcroissant
import pytest
import yaml

from conf import typed
from conf.errors import InputError
from conf.schema.hf import ExportConfig
from conf.schema.institution import Institution
from conf.schema.model import ModelConfig
from conf.schema.run import RunConfig
from data_prep.bundle import copyright_policy, summary
from data_prep.manifest import Manifest
from data_prep.markdown import escape
from elm_megatron.bundle import form, withdrawn, write
from elm_megatron.bundle.trained import Trained
from elm_megatron.run.folder import RunFolder
from elm_megatron.sources.places import run_config
from elm_megatron.sources.source import ModelSource, resolve
from tests.data_prep.bundle import planted
from tests.data_prep.bundle.test_write import headings
from tests.elm_megatron import model_jobs
from tests.elm_megatron.bundle.crate_validator import problems
from tests.elm_megatron.rank_pool import RankPool

OLD = Path(planted.FIXTURE).parents[1]  # runs and a dataset made by an earlier version
RUN = {"kwh": 1.25, "seconds": 7200.0, "energy_method": "NVML", "started": 1.7e9, "updated": 1.7e9 + 9000}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with a pretraining run, a tuning run and their dataset."""
    folder = tmp_path / "project"
    shutil.copytree(OLD, folder)
    monkeypatch.chdir(folder)
    adapter = folder / "runs/finetune/adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text("{}", encoding="utf-8")
    for name in ("pretrain", "finetune"):
        RunFolder(folder / "runs" / name).update(state="done")
        path = folder / "runs" / name / "run.json"
        record = json.loads(path.read_text(encoding="utf-8"))
        path.write_text(json.dumps({**record, **RUN}), encoding="utf-8")
    return folder


def exported(project: Path, source: str, name: str = "out", **changes: Any) -> tuple[Path, Trained]:
    """A folder like an export's, with its documents."""
    folder = project / "runs" / name / "model"
    folder.mkdir(parents=True)
    for file in ("config.json", "tokenizer.json", "model.safetensors", "README.md"):
        (folder / file).write_text(f"{file} of a test", encoding="utf-8")
    config = ExportConfig(RunConfig(name, str(folder.parent)), source, **changes)
    config.check()
    found = resolve(source)
    files = {"model.safetensors": {"bytes": 26, "sha256": "5" * 64}}
    figures = {"dtype": "fp32", "files": files, "step": 6, "path": "model", "source": str(found.folder)}
    write.write(folder, config, found, figures)
    return folder, Trained(config, found, figures)


def read(folder: Path) -> dict[str, str]:
    """Each document."""
    paths = [folder / "ro-crate-metadata.json", *(folder / "bundle").rglob("*")]
    return {str(p.relative_to(folder)): p.read_text(encoding="utf-8") for p in paths if p.is_file()}


def section(text: str, start: str, end: str) -> str:
    return text.partition(start)[2].partition(end)[0]


def test_a_tuned_model_has_documents_that_validate(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """0 errors of either validator, and each stage of the chain with its records."""
    config = yaml.safe_load(Path("runs/finetune/config.yaml").read_text(encoding="utf-8"))
    prepared = {"verb": "preprocess", "state": "done", "seconds": 12.0, "submit_host": "localhost"}
    fake_run(project / "runs/prepare", prepared, {"data": {"dir": "data/sample"}})
    folder, trained = exported(project, "finetune", grams_per_kwh=100.0, licence="apache-2.0")
    assert problems(folder, monkeypatch) == []
    found = mlcroissant.Dataset(str(folder / "bundle/croissant-sample.json"))
    assert not found.metadata.ctx.issues.errors
    crate = json.loads((folder / "ro-crate-metadata.json").read_text(encoding="utf-8"))
    by_id = {entity["@id"]: entity for entity in crate["@graph"]}
    verbs = [by_id[f"#step-{number}"]["name"] for number in range(1, 6)]
    assert verbs == ["preprocess", "tokenizer", "pretrain", "sft", "export"]
    texts = read(folder)
    for name in texts:
        assert name in by_id or name == "ro-crate-metadata.json"
    records = [name for name in texts if name.endswith(("run.json", "manifest.json"))]
    assert len(records) >= 5 and all("provenance" in name for name in records)
    assert by_id["#action-1-seconds"]["value"] == "12.0"
    assert len([name for name in records if "-sample/" in name]) == 2  # manifest.json, run.json
    assert by_id["#action-3-kwh"]["value"] == "1.25" and by_id["#action-3-seconds"]["unitCode"] == "SEC"
    assert by_id["model.safetensors"]["sha256"] == "5" * 64
    model = trained.source.model
    tokens = [json.loads(Path(f"runs/{n}/run.json").read_text())["tokens"] for n in ("pretrain", "finetune")]
    lengths = [64, config["tune"]["seq_length"]]
    flop = sum(model.flops_per_token(length) * count for length, count in zip(lengths, tokens, strict=True))
    assert trained.flop == flop and trained.hours == 4.0
    assert trained.kwh and trained.kwh >= 2.5 and trained.grams == trained.kwh * 100
    text = texts["bundle/training-content-summary.md"]
    assert f"about {flop:.6g} FLOP" in text and "**It is published voluntarily.**" in text and "1e+23" in text
    assert [title for title in headings(text) if title[0].isdigit()] == list(summary.SECTIONS)
    assert "| instructions.jsonl | sft finetune | text |" in section(text, "### 2.6", "## 3.")
    form = texts["bundle/model-documentation.md"]
    assert f"- Energy for training: {trained.kwh / 1000:.6g} MWh" in form and "measured by NVML" in form
    assert f"{trained.grams:.6g} grams, by 100 grams" in form
    for name, text in texts.items():
        assert str(project) not in text and "localhost" not in text and "14357" not in text, name


def test_the_same_model_has_the_same_documents(project: Path) -> None:
    folder, trained = exported(project, "finetune")
    before = read(folder)
    config, figures = trained.config, {**trained.figures, "key": "k"}
    figures["recipients"] = [{"who": "somebody", "date": "2026-01-01"}]
    assert write.write(folder, config, trained.source, figures) == []  # nobody who got it is in them
    (folder / "bundle/datasheet-old.md").write_text("of another dataset", encoding="utf-8")
    answered = replace(config, institution=Institution(copyright_contact="copyright@example.org"))
    write.write(folder, answered, trained.source, figures)
    assert read(folder).keys() == before.keys()
    assert "copyright@example.org" in read(folder)["bundle/copyright-policy.md"]


def test_changed_records_change_every_number(project: Path, tmp_path: Path) -> None:
    """The dataset, the runs and their settings are others in every number: none stays in a document."""
    shutil.copytree(project, tmp_path / "other")
    values = planted.rich(json.loads(Path("data/sample/manifest.json").read_text(encoding="utf-8")))
    one = described(project, values, ["2026-11-29"], lambda found: found, "6" * 64, 100.0)
    changed = planted.changed
    days = ["2025-10-17", "2024-08-18"]
    other = described(tmp_path / "other", changed(values), days, changed, "7" * 64, 333.0)
    for name, text in one.items():
        assert len(planted.NUMBER.findall(text)) > 20
        assert planted.same_numbers(text, other[name]) == [], name


def described(
    root: Path,
    values: dict[str, Any],
    days: list[str],
    plant: Callable[[Any], Any],
    weights: str,
    grams: float,
) -> dict[str, str]:
    """The documents of a project whose records are replaced by planted ones."""
    shutil.rmtree(root / "data/sample")
    planted.dataset(root / "data/sample", values, days)
    for name in ("pretrain", "finetune"):
        run = RunFolder(root / "runs" / name)
        record = {key: value for key, value in run.read().items() if key != "versions"}
        record = {**plant(record), "manifest_sha256": Manifest.load(root / "data/sample").sha256, "schema": 1}
        run.run_json.write_text(json.dumps(record), encoding="utf-8")
        config = yaml.safe_load(run.config.read_text(encoding="utf-8"))
        changes = {key: plant(config[key]) for key in ("model", "train", "tune") if key in config}
        run.config.write_text(yaml.safe_dump({**config, **changes}), encoding="utf-8")
    model = typed.build(ModelConfig, run_config(RunFolder(root / "runs/pretrain"))["model"], "model")
    tokenizer = SimpleNamespace(manifest=None)
    source = SimpleNamespace(folder=root / "runs/finetune", merged=None, model=model, tokenizer=tokenizer)
    figures = {"dtype": "fp32", "files": {"model.safetensors": {"sha256": weights}}}
    config = ExportConfig(RunConfig("out", "out"), "finetune", grams_per_kwh=grams)
    trained = Trained(config, cast(ModelSource, source), figures)
    told = trained.summary(Institution())
    documented = form.write(trained, Institution())
    for basis in trained.energy_methods:  # the figures of a site, which is the same
        documented = documented.replace(escape(basis), "")
    return {
        summary.FILE: summary.write(trained.datasets, Institution(), told),
        copyright_policy.FILE: copyright_policy.write(trained.datasets, Institution(), told),
        form.FILE: documented,
    }


def fake_run(folder: Path, record: dict[str, Any], config: dict[str, Any]) -> Path:
    """A run of which only the two files are there."""
    run = RunFolder(folder)
    run.path.mkdir(parents=True)
    run.config.write_text(yaml.safe_dump(config), encoding="utf-8")
    run.update(**record)
    return run.path


@pytest.mark.parametrize("wanted", [None, True, False])
def test_a_model_without_a_manifest_has_them_when_asked(
    project: Path, wanted: bool | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.rmtree("data/sample")
    path = Path("runs/pretrain/run.json")
    record = json.loads(path.read_text(encoding="utf-8"))
    del record["manifest_sha256"]
    path.write_text(json.dumps(record), encoding="utf-8")
    monkeypatch.setattr(Trained, "trained_on", [])
    monkeypatch.setattr(Trained, "datasets", [])
    folder, _ = exported(project, "pretrain", bundle=wanted)
    assert (folder / "bundle").is_dir() == bool(wanted)
    if wanted:
        assert problems(folder, monkeypatch) == []
        assert "its content is unknown" in read(folder)["bundle/training-content-summary.md"]


def test_a_gguf_file_has_no_folder_for_documents() -> None:
    config = ExportConfig(RunConfig("a", "b"), "c", format="gguf", bundle=True)
    with pytest.raises(InputError, match="bundle=true: a GGUF file has no folder"):
        config.check()


def test_a_base_from_elsewhere_is_named_and_not_counted(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Imported from a foreign folder, then trained on and tuned."""
    train = yaml.safe_load(Path("runs/pretrain/config.yaml").read_text(encoding="utf-8"))
    shutil.move("runs/pretrain", "runs/begun")
    foreign = project / "hub" / "Foreign-1B"
    foreign.mkdir(parents=True)
    (foreign / "config.json").write_text("{}", encoding="utf-8")
    fake_run(project / "runs/imported", {"import": {"source": str(foreign)}}, {"import": {}})
    train["train"]["init_from"] = "imported@0"
    train["run"]["name"] = "begun"
    Path("runs/begun/config.yaml").write_text(yaml.safe_dump(train), encoding="utf-8")
    folder, trained = exported(project, "begun")
    assert trained.base == "Foreign-1B" and trained.tokens == 1536
    text = read(folder)["bundle/training-content-summary.md"]
    assert "Model dependencies: Foreign-1B" in text
    assert "Not counted: the training of Foreign-1B, which was made elsewhere" in text
    assert problems(folder, monkeypatch) == []
    shutil.rmtree(foreign)
    gone = Trained(trained.config, trained.source, trained.figures)
    assert gone.base == "Foreign-1B, whose records are lost"
    assert "the run Foreign-1B, whose records do not say" in gone.flop_unknown


def test_every_part_of_a_blend_and_every_run_before_is_told(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two datasets of one name, one that is gone, and no measured energy."""
    values = json.loads(Path("data/sample/manifest.json").read_text(encoding="utf-8"))
    planted.dataset(project / "data/second", planted.rich(values), ["2026-01-01"])
    digests = [Manifest.load(project / "data" / name).sha256 for name in ("sample", "second")]
    folders = ("data/sample", "data/second", "data/gone")
    each = zip(folders, [*digests, "9" * 64], strict=True)
    parts = [{"dir": folder, "manifest_sha256": digest, "share": 0.3} for folder, digest in each]
    path = Path("runs/pretrain/run.json")
    record = {**json.loads(path.read_text(encoding="utf-8")), "blend": parts, "seconds": None}
    path.write_text(json.dumps(record), encoding="utf-8")
    folder, trained = exported(project, "pretrain")
    assert len(trained.datasets) == 2 and [one.sha256 for one in trained.lost] == ["9" * 64]
    texts = read(folder)
    for suffix in ("sample-1", "sample-2"):
        assert f"bundle/croissant-{suffix}.json" in texts and f"bundle/datasheet-{suffix}.md" in texts
    form = texts["bundle/model-documentation.md"]
    assert f"`{'9' * 64}` is not there any more" in form and "- Energy for training: unknown MWh" in form
    assert "thesis.example.org" in texts["bundle/training-content-summary.md"]
    assert problems(folder, monkeypatch) == []


def test_names_of_runs_put_no_markup_into_a_document(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = "<b>run</b> | x\n# kop\n- y 🎓 رسالة back`tick [a](b) \u202e"
    path = Path("runs/pretrain/config.yaml")
    config = yaml.safe_load(path.read_text(encoding="utf-8"))
    config["run"]["name"] = name
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    folder, _ = exported(project, "pretrain")
    for file, text in read(folder).items():
        assert not file.endswith(".md") or not re.search(
            r"<b>|^# kop|[^\\]\[a\]", text, flags=re.MULTILINE
        ), file
    assert problems(folder, monkeypatch) == []


def test_an_export_of_this_version_has_them(
    made: Callable[[str], model_jobs.Made], ranks: RankPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Written by the job itself, and brought up to date by the same command."""
    model = made("gqa")
    assert problems(model.hf, monkeypatch) == []
    text = (model.hf / "bundle/training-content-summary.md").read_text(encoding="utf-8")
    assert "*missing: `institution.name`*" in text
    stamp = (model.hf / "model.safetensors.index.json").stat().st_mtime_ns
    config = model_jobs.export_config(model.hf.parent, model.run, shard_gb=0.0004)
    config.institution = Institution(name="A university")
    ranks.run(1, model_jobs.export, config=config)
    after = (model.hf / "bundle/training-content-summary.md").read_text(encoding="utf-8")
    assert "A university" in after and (model.hf / "model.safetensors.index.json").stat().st_mtime_ns == stamp


def test_the_summary_follows_a_take_down(project: Path) -> None:
    """What the card says of works withdrawn since, the summary says too, when written and when refreshed."""
    folder, trained = exported(project, "pretrain")
    path = folder / "bundle/training-content-summary.md"
    assert withdrawn.NONE in path.read_text(encoding="utf-8")
    before = read(folder)
    stone = {
        "id": "a",
        "sha256": None,
        "date": "2026-11-30",
        "manifests": [trained.datasets[0].manifest.sha256],
    }
    Path("data/sample/tombstones.jsonl").write_text(json.dumps(stone) + "\n", encoding="utf-8")
    withdrawn.refresh(folder, 1, "2026-11-30")
    refreshed = path.read_text(encoding="utf-8")
    assert "1 work that this model may have learnt from was taken down" in refreshed
    assert write.write(folder, trained.config, trained.source, trained.figures) == []
    assert read(folder).keys() == before.keys() and refreshed != before[withdrawn.FILES[1]]
