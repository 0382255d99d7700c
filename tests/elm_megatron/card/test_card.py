"""The model card holds the figures of run.json and the manifest, and nothing else."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from conf.schema.model import ModelConfig
from data_prep.manifest import Manifest
from elm_megatron.card import card
from elm_megatron.run.folder import RunFolder
from elm_megatron.sources.lineage import LOST, Stage, stages_of
from tests.elm_megatron import model_jobs as cases
from tests.elm_megatron.rank_pool import RankPool
from tests.elm_megatron.tune import configs as tune_configs
from tests.elm_megatron.tune import rank_functions as tune_ranks


@pytest.fixture(scope="module")
def export(made: Callable[[str], cases.Made]) -> cases.Made:
    """A trained run with its export."""
    return made("gqa")


def section(text: str, title: str) -> str:
    """The text under a heading."""
    return text.split(f"\n## {title}\n", 1)[1].split("\n## ", 1)[0]


def cells(text: str) -> dict[str, str]:
    """First and second column of all tables of a text."""
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("|")]
    return {row[0]: row[1] for row in rows}


def number(text: str) -> float:
    """A figure as the card prints it."""
    return float(text.replace(",", ""))


def energy_row(text: str) -> str:
    """The row of the only stage."""
    lines = section(text, "Energy and hardware").splitlines()
    return next(line for line in lines if "Pretraining" in line)


def test_figures_equal_the_records(export: cases.Made, corpus: Path):
    """Every figure of the card against the file it comes from."""
    text = (export.hf / "README.md").read_text()
    record = json.loads((export.run / "run.json").read_text())
    manifest = Manifest.load(corpus)
    training = cells(section(text, "Pretraining"))
    assert number(training["step"]) == record["step"] == 3
    assert number(training["tokens"]) == record["tokens"]
    for key in ("loss", "valid_loss_first", "valid_loss", "unigram_entropy"):
        assert number(training[key.replace("_", " ")]) == pytest.approx(record[key], rel=1e-5)
    assert training["code"] == record["git_commit"]
    config = yaml.safe_load((export.run / "config.yaml").read_text())
    for key, value in config["train"].items():
        shown = training[f"train.{key}"]
        if type(value) in (int, float):
            assert number(shown) == value
        else:
            assert shown == {None: "null", True: "yes", False: "no"}.get(value, value)
    data = cells(section(text, "Data"))
    assert data["manifest sha256"] == f"`{manifest.sha256}`" == f"`{record['manifest_sha256']}`"
    assert number(data["works read"]) == manifest.works["in"]
    assert number(data["works kept"]) == manifest.works["out"]
    for name, counts in (("languages", manifest.languages), ("sources", manifest.sources)):
        assert dict(item.rsplit(" ", 1) for item in data[f"{name} (works)"].split(", ")) == {
            key: str(value) for key, value in counts.items()
        }
    for name, split in manifest.splits.items():
        assert f"| {name} | {split.documents} | {split.tokens:,} |" in text
    figures = json.loads((export.hf.parent / "run.json").read_text())["export"]
    for name, entry in figures["files"].items():
        assert f"| {name} | {entry['bytes']:,} | `{entry['sha256']}` |" in text
    from safetensors import safe_open

    stored = 0
    for path in export.hf.glob("*.safetensors"):
        with safe_open(path, "pt") as file:
            stored += sum(file.get_tensor(name).numel() for name in file.keys())  # noqa: SIM118
    assert number(cells(section(text, "Model"))["parameters"]) == stored


def test_unknown_is_said(export: cases.Made):
    """No licence was given: the card says so. Energy that was not measured is modelled, and said to be so."""
    text = (export.hf / "README.md").read_text()
    assert yaml.safe_load(text.split("---")[1])["license"] == "unknown"
    row = energy_row(text).split(" | ")
    if json.loads((export.run / "run.json").read_text()).get("kwh") is None:
        assert "modelled: " in row[7] and "PUE 1.19; 268 g CO2 per kWh (the Netherlands, 2023" in row[7]
    assert number(row[6]) == pytest.approx(268 * number(row[5]), rel=1e-4)


def test_it_renders(export: cases.Made):
    """Front matter, links to files that are there, tables of even width, a real picture."""
    text = (export.hf / "README.md").read_text()
    front = yaml.safe_load(text.split("---")[1])
    assert set(front["language"]) == {"nl", "en"}
    assert front["library_name"] == "transformers"
    links = re.findall(r"\]\(([^)]+)\)", text)
    assert links == ["loss.png"]
    for link in links:
        assert (export.hf / link).read_bytes().startswith(b"\x89PNG\r\n")
    widths: list[int] = []
    for line in text.splitlines():
        widths = [*widths, len(re.findall(r"(?<!\\)\|", line))] if line.startswith("|") else []
        assert len(set(widths)) <= 1, line
    assert text.count("```") % 2 == 0
    assert str(export.run.parent) not in text  # no paths of the machine it was made on


def test_energy_in_the_card(export: cases.Made, corpus: Path, ranks: RankPool, tmp_path: Path):
    """kWh as recorded, and the CO2 that follows from the factor given at export."""
    run = tmp_path / "run"
    shutil.copytree(export.run, run)
    record = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps({**record, "kwh": 1.5, "energy_method": "NVML, GPU | test"}))
    config = cases.export_config(tmp_path / "export", run, grams_per_kwh=200.0, licence="cc-by-4.0")
    ranks.run(1, cases.export, config=config)
    text = (tmp_path / "export" / "model" / "README.md").read_text()
    row = energy_row(text).split(" | ")
    assert number(row[5]) == pytest.approx(1.5 * 1.5 * 1.19)  # half as much again for the rest of the node
    assert number(row[6]) == pytest.approx(200 * number(row[5]), rel=1e-4)
    assert "measured by NVML, GPU \\| test" in row[7]
    sums = next(line for line in text.splitlines() if line.startswith("| all |")).split(" | ")
    assert number(sums[5]) >= number(row[5])
    assert "license: cc-by-4.0" in text


def test_evaluation_takes_its_place(export: cases.Made, tmp_path: Path):
    """The section is replaced, also twice; a folder without our card is left alone."""
    folder = tmp_path / "model"
    folder.mkdir()
    assert not card.put_evaluation(folder, "x")
    before = (export.hf / "README.md").read_text()
    (folder / "README.md").write_text(before)
    for words in ("first figures", "second figures"):
        assert card.put_evaluation(folder, words)
    after = (folder / "README.md").read_text()
    assert "second figures" in section(after, "Evaluation")
    assert "first figures" not in after
    assert section(after, "Data") == section(before, "Data")


def test_the_parts_of_a_blend_are_told_apart(corpus: Path, tmp_path: Path):
    manifest = Manifest.load(corpus)
    part = {"share": 0.75, "drawn": 30, "epochs": 1.5}
    blend = [
        {**part, "dir": str(corpus), "manifest_sha256": manifest.sha256},
        {**part, "dir": str(tmp_path / "gone"), "manifest_sha256": "0" * 64},
    ]
    text = card._all_data(manifest, [Stage(RunFolder(tmp_path), {"blend": blend}, {})])
    _, first, second, measured = text.split("### ")
    assert first.startswith("Dataset 1 of 2") and cells(first)["works read"] == str(manifest.works["in"])
    assert cells(second)["manifest_sha256"] == "0" * 64 and "unknown" in second
    assert measured.startswith("The dataset of the tokenizer") and manifest.sha256 in measured


def finetune(ranks: RankPool, folder: Path, source: Path, model: ModelConfig, stage: str) -> Path:
    """A tuning run of two steps."""
    small = {"steps": 2, "seq_length": 128, "global_batch_size": 2, "micro_batch_size": 2, "r": 4, "alpha": 8}
    config = tune_configs.finetune_config(folder, source, stage=stage, model=model, **small)
    tune_configs.folder_of(config).update(verb="finetune")
    assert ranks.run(1, tune_ranks.finetune, config=config) == ["done"]
    return folder


def exported(ranks: RankPool, folder: Path, source: Path, **changes: Any) -> str:
    """An export's card."""
    ranks.run(1, cases.export, config=cases.export_config(folder, source, **changes))
    return (folder / "model" / "README.md").read_text()


def test_nothing_behind_a_model_is_lost(
    made: Callable[[str], cases.Made], corpus: Path, ranks: RankPool, tmp_path: Path
):
    """Pretrained, tuned, exported, tuned on that, exported: data, both tunings and their files are named."""
    one = made("mha")
    tuned = finetune(ranks, tmp_path / "tuned", one.run, one.model, "sft")
    first = exported(ranks, tmp_path / "export", tuned)
    dpo = finetune(ranks, tmp_path / "dpo", tmp_path / "export", one.model, "dpo")
    second = exported(ranks, tmp_path / "export-dpo", dpo)
    manifest = Manifest.load(corpus)
    for text, tunings in ((first, 1), (second, 2)):
        assert f"`{manifest.sha256}`" in section(text, "Data")
        assert "No BOS token was used" in section(text, "Tokenizer")
        assert text.count("\n## Tuning\n") == tunings and text.count("\n## Pretraining\n") == 1
        assert set(yaml.safe_load(text.split("---")[1])["tags"]) >= {"lora", "chat"}
    assert "\n# dpo\n" in second
    for text, stage, run, file in (
        (first, "Tuning", tuned, "instructions.jsonl"),
        (second.rpartition("\n## Tuning\n")[0], "Tuning", tuned, "instructions.jsonl"),
        (second.replace("\n## Tuning\n", "\n## First\n", 1), "Tuning", dpo, "preferences.jsonl"),
    ):
        record, shown = json.loads((run / "run.json").read_text()), cells(section(text, stage))
        assert (shown["stage"], shown["files"]) == ("sft" if run == tuned else "dpo", file)
        assert shown["sha256"] == f"`{record['data_sha256']}`"
        assert {key: number(shown[key]) for key in record["data_counts"]} == record["data_counts"]

    # The same adapter merged by hand, and an export of that export: the same runs are behind them.
    merged = exported(ranks, tmp_path / "merged", one.run, adapter=str(tuned))
    again = exported(ranks, tmp_path / "again", tmp_path / "merged", dtype="bf16")
    for text in (merged, again):
        assert "\n# tuned\n" in text
        assert section(text, "Tuning") == section(first, "Tuning")
        assert section(text, "Data") == section(first, "Data")
        assert set(yaml.safe_load(text.split("---")[1])["tags"]) >= {"lora", "chat"}

    # Imported, and gone on with: the same runs, and the one that began with them.
    imported = RunFolder(tmp_path / "imported")
    imported.path.mkdir()
    imported.config.write_text("import: {}\n")
    imported.update(**{"import": {"source": str(tmp_path / "export" / "model")}})
    names = [stage.name for stage in stages_of(tmp_path / "export" / "model")]
    assert [stage.name for stage in stages_of(imported.path)] == names and names[-1] == "tuned"
    later = RunFolder(tmp_path / "later")
    later.path.mkdir()
    later.config.write_text(f"run: {{name: later}}\ntrain: {{init_from: '{imported.path}@0'}}\n")
    assert [stage.name for stage in stages_of(later.path)] == [*names, "later"]

    # What is gone is said to be, and nothing is refused for it.
    shutil.copytree(tuned / "adapter", tmp_path / "peft")
    alone = exported(ranks, tmp_path / "alone", one.hf, adapter=str(tmp_path / "peft"))
    assert cells(section(alone, "Tuning"))["files"] == "unknown" and "\n# peft\n" in alone
    shutil.rmtree(tuned)
    lost = exported(ranks, tmp_path / "export-dpo", dpo, dtype="bf16")
    assert "Earlier training, its records lost" in lost and "Training data: unknown" in lost


def test_exports_in_a_circle_end(made: Callable[[str], cases.Made], tmp_path: Path):
    """An export made anew from what was made of it: the way back ends."""
    for name, source in (("a", "b"), ("b", "a")):
        shutil.copytree(made("mha").hf, tmp_path / name / "model")
        made_of = {"path": "model", "source": str(tmp_path / source / "model")}
        RunFolder(tmp_path / name).update(export=made_of)
    assert [stage.record["verb"] for stage in stages_of(tmp_path / "a" / "model")] == [LOST]


def test_an_export_records_what_it_has_learnt_from_and_who_got_it(
    export: cases.Made, ranks: RankPool, corpus: Path
) -> None:
    """The card says how many works were withdrawn since; recipients are added and never forgotten."""
    run, digest = export.hf.parent, Manifest.load(corpus).sha256
    before = RunFolder(run).read()["export"]
    assert before["manifests"] == [digest] and "recipients" not in before
    assert "No work was taken down" in section((export.hf / "README.md").read_text(), "Works withdrawn since")
    config = cases.export_config(run, export.run, shard_gb=0.0004)
    for names in (["Faculty of Law", " b@example.org "], ["b@example.org", "c"], []):
        config.recipients = names
        ranks.run(1, cases.export, config=config)
    after = RunFolder(run).read()["export"]
    assert [entry["who"] for entry in after.pop("recipients")] == ["Faculty of Law", "b@example.org", "c"]
    assert after == before and "Faculty" not in (export.hf / "README.md").read_text()
