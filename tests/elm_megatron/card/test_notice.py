"""Who must be told after a take-down or an opt-out: found by lineage, wherever the folders are now."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from conf.errors import InputError
from conf.schema.preprocess import PreprocessConfig
from data_prep.job import Preprocess
from data_prep.manifest import Manifest
from elm_megatron.bundle import withdrawn
from elm_megatron.card import notice
from elm_megatron.run.folder import RunFolder
from tests.browser import needs_browser
from tests.data_prep.conftest import SAMPLE, settings
from tests.data_prep.test_works_page import type_into

BANK, PORT = "09-central-bank-words", "01-port-transition"
HEAD = "---\ntags:\n- erasmian-language-model\n---\n\n# x\n"
CARD = HEAD + "\n## Data\n\n| manifest sha256 | `{}` |\n\n## Losses\n\nx\n"


def a_run(folder: Path, config: dict[str, Any], **record: Any) -> Path:
    run = RunFolder(folder)
    run.create()
    run.config.write_text(yaml.safe_dump({"run": {"name": folder.name}, **config}))
    run.update(**record)
    return folder


def exported(folder: Path, source: Path, digest: str, who: list[str], **more: Any) -> Path:
    entries = [{"who": name, "date": "2026-11-01"} for name in who]
    weights = f"weights of {folder.name}".encode()
    held = {"m.safetensors": {"bytes": len(weights), "sha256": hashlib.sha256(weights).hexdigest()}}
    made = {"path": "model", "source": str(source), "files": held, "recipients": entries, **more}
    a_run(folder, {"source": str(source)}, verb="export", state="done", export=made)
    model = folder / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    (model / "m.safetensors").write_bytes(weights)
    (model / "README.md").write_text(CARD.format(digest))
    return folder


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PreprocessConfig:
    """A dataset; a model of it, tuned, exported; the same of a model that it began; and strangers."""
    home = tmp_path / "project"
    home.mkdir()
    monkeypatch.chdir(home)
    corpus = Path(shutil.copytree(SAMPLE, home / "raw"))
    runs = home / "runs"
    config = settings(home / "data" / "sample", corpus__path=str(corpus), runs_dir=str(runs))
    Preprocess(config)()
    digest, other = Manifest.load(config.data_dir()).sha256, "0" * 64
    base = a_run(runs / "base", {"train": {}}, verb="pretrain", state="done", step=9, manifest_sha256=digest)
    a_run(runs / "later", {"train": {"init_from": "base"}}, verb="pretrain", manifest_sha256=other)
    blend = [{"dir": "x", "manifest_sha256": other}, {"dir": "y", "manifest_sha256": digest}]
    a_run(runs / "blended", {"train": {}}, verb="pretrain", manifest_sha256=other, blend=blend)
    a_run(runs / "stranger", {"train": {}}, verb="pretrain", manifest_sha256=other)
    a_run(runs / "measured", {"tasks": []}, verb="eval", manifest_sha256=digest)
    tuned = a_run(runs / "tuned", {"tune": {}, "source": "base"}, verb="finetune", manifest_sha256=digest)
    (tuned / "adapter").mkdir()
    facts = {"base_fingerprint": "f" * 64, "manifest_sha256": digest}
    (tuned / "adapter" / "elm.json").write_text(json.dumps(facts))
    (tuned / "adapter" / "adapter_config.json").write_text("{}")
    exported(runs / "export-base", base, digest, ["Faculty of Law", "b@example.org"])
    for name in ("base", "tuned"):  # what a bundle has of the runs behind a model
        shutil.copytree(runs / name, runs / "export-base/model/bundle/provenance" / name)
    exported(runs / "export-tuned", tuned, digest, [])
    exported(runs / "export-stranger", runs / "stranger", other, ["Somebody else"])
    a_run(runs / "chat", {"source": ["export-base", "stranger"]}, verb="serve", state="running")
    a_run(runs / "chat-stranger", {"source": "stranger"}, verb="serve")
    a_run(runs / "gguf", {}, verb="export", export={"path": "model.gguf", "source": str(base), "files": {}})
    return config


def of(config: PreprocessConfig, identifier: str) -> dict[str, Any]:
    """The notice as JSON."""
    digest = hashlib.sha256(identifier.encode()).hexdigest()[:8]
    return json.loads((config.data_dir().parent / "notices" / f"{identifier}-{digest}.json").read_text())


def names(entries: list[dict[str, Any]], runs: Path) -> list[str]:
    return [Path(entry["path"]).relative_to(runs).as_posix() for entry in entries]


def asked(config: PreprocessConfig, name: str) -> dict[str, Any]:
    config.notice = name
    assert notice.command(config) == 0
    config.notice = None
    return of(config, BANK)


def test_a_notice_names_datasets_tokenizers_models_adapters_exports_and_recipients(
    project: PreprocessConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    found, runs = asked(project, BANK), Path(project.runs_dir)
    manifest = Manifest.load(project.data_dir())
    assert found["state"] == "in a dataset" and found["title"] is not None
    assert [one["path"] for one in found["datasets"]] == [str(project.data_dir())]
    assert found["tokenizers"] == {manifest.tokenizer.sha256: [str(project.data_dir())]}
    assert names(found["models"], runs) == ["base", "blended", "later"]
    assert names(found["adapters"], runs) == ["tuned"]
    assert names(found["exports"], runs) == ["export-base/model", "export-tuned/model", "gguf/model.gguf"]
    assert [one["who"] for one in found["tell"]["recipients"]] == ["Faculty of Law", "b@example.org"]
    assert names(found["services"], runs) == ["chat"] and found["services"][0]["state"] == "running"
    assert found["copies"] == [] and found["unsure"] == [] and len(found["tell"]["owners"]) == 1
    said = capsys.readouterr().out
    assert "Faculty of Law, who has" in said and "models 3, adapters 1, exported models 3" in said
    text = next((project.data_dir().parent / "notices").glob("*.md")).read_text()
    assert "no recipient is recorded" in text and "Somebody else" not in text
    assert (project.data_dir() / "manifest.json").read_bytes() and Manifest.load(
        project.data_dir()
    ) == manifest


def test_what_was_moved_copied_or_renamed_is_found(project: PreprocessConfig, tmp_path: Path) -> None:
    runs, away = Path(project.runs_dir), tmp_path / "away"
    (runs / "base").rename(runs / "first")
    shutil.copytree(runs / "export-base" / "model", away / "to give" / "card")
    shutil.copytree(runs / "export-base" / "model", away / "weights")
    (away / "weights" / "README.md").unlink()
    shutil.copytree(runs / "tuned" / "adapter", away / "adapter")
    (away / "adapter" / "elm.json").write_text(json.dumps({"base_fingerprint": "f" * 64}))
    shutil.copytree(runs / "export-stranger" / "model", away / "stranger")
    (runs / "tuned").rename(away / "tuned elsewhere")
    project.look_in = [str(away)]
    (runs / "blended").rename(tmp_path / "another disk")
    (runs / "linked").symlink_to(tmp_path / "another disk")
    moved = project.data_dir().with_name("renamed")
    project.data_dir().rename(tmp_path / "dataset")
    moved.symlink_to(tmp_path / "dataset")
    project.data.dir = str(moved.parent / "gone")
    found = asked(project, f"{BANK}.TXT")
    assert names(found["models"], tmp_path) == ["another disk", "project/runs/first", "project/runs/later"]
    assert names(found["adapters"], away) == ["tuned elsewhere"]
    assert names(found["copies"], away) == ["adapter", "to give/card", "weights"]
    assert [one["path"] for one in found["datasets"]] == [str(tmp_path / "dataset")]
    assert "export-tuned/model" in names(found["exports"], runs)


def test_a_run_whose_beginnings_are_lost_is_named(project: PreprocessConfig) -> None:
    shutil.rmtree(Path(project.runs_dir) / "base")
    (Path(project.runs_dir) / "blended" / "run.json").write_text("{no json")
    found = asked(project, BANK)
    assert [Path(path).name for path in found["unsure"]] == ["gguf", "later"]
    assert names(found["exports"], Path(project.runs_dir)) == ["export-base/model", "export-tuned/model"]
    assert any("blended" in reason for reason in found["not_searched"])


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("09-central", f"near are {BANK}"),
        ("9-centrl-bank-word", f"near are {BANK}"),
        ("file:/nowhere", "cannot be read"),
        ("number:99", "must be a number of the report"),
        ("zzzzzzzzzz", r"no work of that id in .*raw or in .*data\.$"),
    ],
)
def test_an_unknown_id_is_one_sentence_with_near_ids(project: PreprocessConfig, name: str, says: str) -> None:
    project.notice = name
    with pytest.raises(InputError, match=f"notice={name}: .*{says}") as error:
        notice.command(project)
    assert "\n" not in str(error.value) and not (project.data_dir().parent / "notices").exists()


def test_a_take_down_writes_the_notice_and_refreshes_the_cards(project: PreprocessConfig) -> None:
    runs = Path(project.runs_dir)
    project.remove = BANK
    for _ in range(2):
        Preprocess(project, notice.follow_up)()
        found = of(project, BANK)
        assert found["state"] == "taken down" and found["withdrawn"] and found["datasets"][0]["stale"]
        assert [one["who"] for one in found["tell"]["recipients"]] == ["Faculty of Law", "b@example.org"]
        for name in ("export-base", "export-tuned"):
            card = (runs / name / "model" / "README.md").read_text()
            assert card.count(withdrawn.HEADING) == 1 and "1 work that this model may have learnt" in card
            assert card.index(withdrawn.HEADING) < card.index("## Losses") and BANK not in card
        assert withdrawn.HEADING not in (runs / "export-stranger" / "model" / "README.md").read_text()
    project.remove = PORT
    Preprocess(project, notice.follow_up)()
    assert "2 works that" in (runs / "export-base" / "model" / "README.md").read_text()
    project.remove = None
    Preprocess(project, notice.follow_up)()
    again = asked(project, BANK)
    assert [one["stale"] for one in again["datasets"]] == [""] and names(again["models"], runs)[0] == "base"
    assert len(again["tokenizers"]) == 1  # of the build before: the new one was not trained on it
    assert Manifest.load(project.data_dir()).tokenizer.sha256 not in again["tokenizers"]


def test_an_opt_out_of_a_work_that_was_learnt_from_is_followed_too(project: PreprocessConfig) -> None:
    (Path("no.txt")).write_text(f"{BANK}\n")
    project.corpus.opt_out = "no.txt"
    Preprocess(project, notice.follow_up)()
    found = of(project, BANK)
    assert found["state"] == "opted out" and names(found["adapters"], Path(project.runs_dir)) == ["tuned"]
    assert found["datasets"][0]["dropped"] == "opt_out" and not found["datasets"][0]["holds"]
    assert "1 work that" in (Path(project.runs_dir) / "export-base" / "model" / "README.md").read_text()
    written = Path("data/notices").stat().st_mtime_ns
    Preprocess(project, notice.follow_up)()
    assert Path("data/notices").stat().st_mtime_ns == written  # nothing new: nobody is told twice


def test_a_dataset_that_has_no_record_of_its_builds_is_named_too(project: PreprocessConfig) -> None:
    (project.data_dir() / "lineage.jsonl").unlink()
    project.remove = BANK
    Preprocess(project, notice.follow_up)()
    found = of(project, BANK)
    assert [one["held"] for one in found["datasets"]] == [True] and len(found["tokenizers"]) == 1
    assert found["models"] and found["exports"]


def test_remove_and_notice_together_are_refused(project: PreprocessConfig) -> None:
    project.remove, project.notice = BANK, BANK
    with pytest.raises(InputError, match="writes the notice itself"):
        notice.command(project)


@needs_browser
def test_notice_page_summary_and_card_agree_after_one_command(
    project: PreprocessConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    page = project.data_dir() / "works.html"
    assert type_into(page, [BANK])[BANK]["ids"] == [BANK]
    project.remove = BANK
    Preprocess(project, notice.follow_up)()
    said = capsys.readouterr().out
    assert "export-base/model" in said and "provenance" not in said
    shown, manifest = type_into(page, [BANK]), Manifest.load(project.data_dir())
    assert (
        shown[BANK]["ids"] == []
        and f"{manifest.works['out']} works" in shown["facts"]
        and "it: 1." in shown["facts"]
    )
    assert manifest.works["dropped"] == {"taken_down": 1} and manifest.stale
    assert of(project, BANK)["state"] == "taken down"
    summary = (project.data_dir() / "bundle" / "training-content-summary.md").read_text()
    assert f"| works kept | {manifest.works['out']} |" in summary and "taken_down 1" in summary
    report = (project.data_dir() / "report.html").read_text()
    assert f"{manifest.works['out']} works" in report and BANK not in report
    assert "1 work that" in (Path(project.runs_dir) / "export-base" / "model" / "README.md").read_text()
