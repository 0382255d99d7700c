"""A run folder belongs to the verb and the sources that made it."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from conf.errors import InputError
from elm_megatron.run.folder import RunFolder
from elm_megatron.sources import ownership


@dataclass
class Run:
    """As the configuration holds it."""

    name: str
    dir: str


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project folder to work in, with two models of the same folder name."""
    folder = tmp_path / "project"
    for name in ("a", "b"):
        (folder / name / "model").mkdir(parents=True)
        (folder / name / "model" / "config.json").write_text("{}")
    monkeypatch.chdir(folder)
    return folder


def made(verb: str, name: str, **asked: Any) -> RunFolder:
    """A run as its submission leaves it."""
    run = RunFolder(f"runs/{name}")
    run.create()
    asked = {"run": {"name": name, "dir": f"runs/{name}"}, **asked}
    run.config.write_text(yaml.safe_dump(asked))
    run.update(verb=verb, state="done", step=200, **ownership.facts(run, asked))
    return run


@pytest.mark.parametrize("verb", ["export", "eval", "import_hf", "preprocess", "finetune"])
def test_another_verb_is_refused(verb: str) -> None:
    run = made("pretrain", "mine", train={})
    before = {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()}
    asked = {"run": {"name": "mine"}, "source": "a/model"}
    with pytest.raises(InputError, match=r"is a pretrain run \(step 200, done\), which"):
        ownership.refuse_others(run, verb, asked)
    assert {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()} == before
    ownership.refuse_others(run, "pretrain", asked)
    run.run_json.unlink()  # config.yaml alone says it too
    with pytest.raises(InputError, match="is a pretrain run, which"):
        ownership.refuse_others(run, verb, asked)


@pytest.mark.parametrize(("verb", "name"), [("export", "export-model"), ("import_hf", "import-model")])
def test_a_default_name_tells_sources_apart(verb: str, name: str, capsys: pytest.CaptureFixture) -> None:
    made(verb, name, source="a/model")

    def claimed(source: str, name: str = name) -> Run:
        run = Run(name, f"runs/{name}")
        ownership.claim(run, verb, {"run": vars(run), "source": source})
        return run

    assert claimed("a/model") == Run(name, f"runs/{name}")
    assert claimed("./a/../a/model/").name == name
    other = claimed("b/model")
    assert other.name.startswith(f"{name}-") and other.dir == f"runs/{other.name}"
    assert f"{name} is of another source" in capsys.readouterr().err
    made(verb, other.name, source="b/model")
    assert claimed("b/model") == other  # and again the same one
    made(verb, "chosen", source="a/model")
    with pytest.raises(InputError, match=r"is the \w+ run of .*/a/model, and this command reads another"):
        claimed("b/model", "chosen")


def test_evaluations_of_models_with_one_label(capsys: pytest.CaptureFixture) -> None:
    made("eval", "eval-model", source=["a/model"])
    run = Run("eval-a", "runs/eval-model")
    ownership.claim(run, "eval", {"run": vars(run), "source": "a/model"})
    assert run.dir == "runs/eval-model"
    with pytest.raises(InputError, match="reads another source"):
        ownership.claim(run, "eval", {"run": vars(run), "source": ["a/model", "b/model"]})


def test_an_adapter_makes_another_model() -> None:
    made("export", "export-model", source="a/model")
    run = Run("export-model", "runs/export-model")
    ownership.claim(run, "export", {"run": vars(run), "source": "a/model", "adapter": "b/adapter"})
    assert run.name.startswith("export-model-")


def test_a_point_of_a_sweep_keeps_its_own_name() -> None:
    made("export", "export-model-dtype=bf16", source="a/model")
    run = Run("export-model-dtype=bf16", "runs/export-model-dtype=bf16")
    ownership.claim(run, "export", {"run": vars(run), "source": "b/model"})
    assert run.name.startswith("export-model-dtype=bf16-")


def test_runs_without_the_key_are_recognised() -> None:
    """Made by the first version: config.yaml and what the job wrote say the source."""
    run = made("export", "export-model", source="a/model")
    record = {key: value for key, value in run.read().items() if key != ownership.MADE_FROM}
    run.run_json.unlink()
    run.update(**record)
    asked = {"run": {"name": "x"}, "source": "a/model"}
    ownership.refuse_others(run, "export", asked)
    run.update(export={"source": str(Path("a/model").absolute()), "adapter": None})
    ownership.refuse_others(run, "export", asked)
    with pytest.raises(ownership.OtherSource):
        ownership.refuse_others(run, "export", {**asked, "source": "b/model"})


def test_a_moved_project_keeps_its_names(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made("export", "export-model", source="a/model")
    moved = project.with_name("moved")
    shutil.move(project, moved)
    monkeypatch.chdir(moved)
    run = RunFolder("runs/export-model")
    ownership.refuse_others(run, "export", {"run": {"name": "x"}, "source": "a/model"})
    with pytest.raises(ownership.OtherSource):
        ownership.refuse_others(run, "export", {"run": {"name": "x"}, "source": "b/model"})


def test_an_export_run_stands_for_its_model() -> None:
    """A stage's source is named before it is made."""
    asked = {"run": {"name": "x"}, "source": "runs/export-x"}
    run = made("eval", "eval-x", source="runs/export-x")
    made("export", "export-x", source="a/model")
    (Path("runs/export-x/model")).mkdir()
    Path("runs/export-x/model/config.json").write_text("{}")
    ownership.refuse_others(run, "eval", asked)
    ownership.refuse_others(run, "eval", {**asked, "source": "export-x"})
    ownership.refuse_others(run, "eval", {**asked, "source": "runs/export-x/model"})


@pytest.mark.parametrize("name", ["config.json", "manifest.json", "notes.txt"])
def test_a_folder_that_is_no_run_is_refused(name: str) -> None:
    run = RunFolder("runs/mine")
    run.create()
    ownership.refuse_others(run, "export", {"run": {"name": "mine"}, "source": "a/model"})
    (run.path / name).write_text("somebody's")
    with pytest.raises(InputError, match=f"is no run's, it holds '{name}'"):
        ownership.refuse_others(run, "export", {"run": {"name": "mine"}, "source": "a/model"})


def test_the_source_of_a_tuning_run_may_move_with_it(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made("finetune", "tuned", source=str(project / "a" / "model"))
    before = {"source": str(project / "a" / "model")}
    moved = project.with_name("moved")
    shutil.move(project, moved)
    monkeypatch.chdir(moved)
    run = RunFolder("runs/tuned")
    assert ownership.is_moved(run, before, {"source": str(moved / "a" / "model")})
    assert ownership.is_moved(run, before, {"source": "a/model"})
    assert not ownership.is_moved(run, before, {"source": "b/model"})
    assert not ownership.is_moved(run, before, {"source": "a/model@3"})
