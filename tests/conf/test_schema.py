"""Settings of every verb: a default is written once, a key is explained, a chain's stages are the verbs."""

from __future__ import annotations

import dataclasses
import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from conf import compose, help, overrides, typed
from conf.errors import InputError
from conf.names import CONF
from conf.plain import plain
from conf.removed import REMOVED, without_removed
from conf.schema.hf import EvalConfig, ExportConfig
from conf.schema.pipeline import PipelineConfig
from conf.schema.preprocess import PreprocessCommand
from conf.schema.pretrain import PretrainConfig
from conf.schema.tune import FinetuneConfig

ROOT = CONF.parent
VERBS = sorted(path.stem for path in CONF.glob("*.yaml"))
MODELS = sorted(path.stem for path in (CONF / "model").glob("*.yaml"))


def schema_of(verb: str) -> type:
    """The dataclass that a launcher hands to `main`."""
    found: list[type] = []

    def main(name: str, schema: type, *rest: Any) -> Any:
        assert name == verb
        found.append(schema)
        return lambda function: function

    spec = importlib.util.spec_from_file_location(f"launcher_{verb}", ROOT / "launch" / f"{verb}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    path, compose.main, kept = list(sys.path), main, compose.main
    sys.path.insert(0, str(ROOT / "launch"))
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path[:], compose.main = path, kept
    return found[0]


SCHEMAS = {verb: schema_of(verb) for verb in VERBS}


def one(verb: str, schema: type, *argv: str) -> Any:
    """The typed config of a command."""
    found: list[Any] = []
    compose.run(verb, schema, lambda config: found.append(config), argv)
    return found[0]


def flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as dotted keys."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return found


def written(path: Path) -> dict[str, Any]:
    """The keys that a file of conf/ sets, dotted from the root of a verb's config."""
    values = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    values.pop("defaults", None)
    group = path.parent.relative_to(CONF).as_posix()
    in_root = group == "." or "@package _global_" in path.read_text(encoding="utf-8")
    return flat(values if in_root else {group: values})


def own_default(schema: type, key: str) -> Any:
    """What the class gives to a key: MISSING where it gives nothing."""
    found = flat(typed.defaults(schema)).get(key, typed.MISSING)
    return dataclasses.MISSING if found == typed.MISSING else found


@pytest.mark.parametrize("verb", VERBS)
def test_no_key_of_a_verb_has_two_defaults(verb: str) -> None:
    """Neither its own YAML nor that of a choice repeats or replaces what the class says of the same key."""
    for key in written(CONF / f"{verb}.yaml"):
        assert own_default(SCHEMAS[verb], key) is dataclasses.MISSING, f"{key}: its class has one too"
    for path in CONF.glob("*/*.yaml"):
        if path.parent.name in ("schema", "experiment") or path.parent.name not in typed.names(SCHEMAS[verb]):
            continue
        for key, value in written(path).items():
            typed.lookup(SCHEMAS[verb], key)
            assert own_default(SCHEMAS[verb], key) != value, f"{path.name}: {key} repeats the default"


def test_a_choice_repeats_nothing_of_the_choice_it_builds_on() -> None:
    for path in CONF.glob("*/*.yaml"):
        values = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        for base in [item for item in values.get("defaults", []) if isinstance(item, str)]:
            if base != "_self_":
                inherited = written(path.with_name(f"{base}.yaml"))
                same = {key for key, value in written(path).items() if inherited.get(key, value) == value}
                assert same - (written(path).keys() - inherited.keys()) == set()


def test_what_a_key_follows_is_what_it_is_alone() -> None:
    """A class that is used without composing gives the value of the composed defaults."""
    config = one("pipeline", PipelineConfig)
    tune = one("finetune", FinetuneConfig, "model=large").tune
    for made, group in ((config.data, "data"), (config.corpus, "corpus"), (tune, "tune")):
        for item in dataclasses.fields(made):
            if "follows" in item.metadata and item.default is not dataclasses.MISSING:
                assert getattr(made, item.name) == item.default, f"{group}.{item.name}"


@pytest.mark.parametrize("verb", VERBS)
def test_help_shows_purpose_examples_and_every_key_with_its_meaning(verb: str) -> None:
    shown = subprocess.run(
        [sys.executable, str(ROOT / "launch" / f"{verb}.py"), "--help"],
        capture_output=True,
        encoding="utf-8",
        check=True,
    ).stdout
    lines = shown.splitlines()
    assert lines[0].endswith(".") or lines[0].endswith(":"), lines[0]
    assert f"launch/{verb}.py" in shown.partition("flags")[0], "an example"
    assert "powered by Hydra" not in shown
    accepted = set(keys_of(SCHEMAS[verb]))
    explained = {key: help.meanings(owner).get(name, "") for key, owner, name in typed.keys(SCHEMAS[verb])}
    assert explained.keys() == accepted
    assert [key for key, meaning in explained.items() if not meaning] == []
    for key in accepted:
        (at,) = [number for number, line in enumerate(lines) if line.startswith(f"  {key}=")]
        assert lines[at + 1].strip(), key


def keys_of(schema: type, prefix: str = "") -> list[str]:
    """Every key that a verb accepts, by the way the command line looks them up."""
    found = []
    for name, hint in typed.hints(schema).items():
        if name not in typed.names(schema):
            continue
        group = typed.group_of(hint)
        optional = any(item.name == name and item.default is None for item in dataclasses.fields(schema))
        found += keys_of(group, f"{prefix}{name}.") if group and not optional else [f"{prefix}{name}"]
    return found


def test_help_shows_the_defaults_of_the_choices_made(tmp_path: Path) -> None:
    def shown(*argv: str) -> str:
        done = subprocess.run(
            [sys.executable, str(ROOT / "launch/pretrain.py"), *argv],
            cwd=tmp_path,
            capture_output=True,
            encoding="utf-8",
        )
        assert done.returncode == 0 and list(tmp_path.iterdir()) == []
        return done.stdout

    assert "  model.hidden_size=2048\n" in shown("--help", "model=large")
    assert "  train.lr=0.01\n" in shown("train.lr=0.01", "-h")


@pytest.mark.parametrize("model", MODELS)
def test_finetune_and_the_stage_of_a_chain_compose_alike(model: str) -> None:
    pipeline = one("pipeline", PipelineConfig, f"model={model}")
    stages = (
        ("preprocess", PreprocessCommand, pipeline.preprocessing(), [f"corpus={pipeline.corpus.name}"]),
        ("pretrain", PretrainConfig, pipeline.pretraining(), [f"model={model}"]),
        ("finetune", FinetuneConfig, pipeline.tuning(), [f"model={model}"]),
        ("export", ExportConfig, pipeline.exporting(), ["source=x"]),
        ("eval", EvalConfig, pipeline.measuring(), ["source=x"]),
    )
    for verb, schema, stage, keys in stages:
        alone = plain(one(verb, schema, *keys))
        composed = plain(stage)
        for key in ("run", "source"):  # which run is written and read is what a chain decides
            alone.pop(key, None), composed.pop(key, None)
        assert composed == alone, verb


def test_a_model_size_is_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Train and tune settings have defaults where there is no file of the model's name."""
    conf = tmp_path / "conf"
    shutil.copytree(CONF, conf, ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    size = {"hidden_size": 1536, "ffn_hidden_size": 4096, "num_layers": 12, "num_attention_heads": 16}
    values = {"defaults": ["large", "_self_"], "name": "medium", **size}
    (conf / "model" / "medium.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    monkeypatch.setattr(compose, "CONF", conf)
    monkeypatch.setattr(overrides, "CONF", conf)
    for verb in ("pretrain", "finetune", "pipeline"):
        config = one(verb, SCHEMAS[verb], "model=medium")
        assert (config.model.name, config.model.hidden_size, config.corpus.name) == ("medium", 1536, "eur")
        assert config.run.name.endswith("-medium-eur")
    assert one("pretrain", PretrainConfig, "model=medium", "train=medium").train.epochs == 3.0
    assert one("pretrain", PretrainConfig, "model=medium", "train=tiny").train.steps == 200


def test_large_and_small_are_the_published_sizes() -> None:
    sizes = {"large": (902_891_520, 3e-4, 256), "small": (165_954_560, 6e-4, 128)}
    for model, expected in sizes.items():
        made = one("pretrain", PretrainConfig, f"model={model}")
        assert (made.model.parameters(), made.train.lr, made.train.global_batch_size) == expected
        for stage, numbers in (("sft", (32, 8, 2e-5, 100)), ("dpo", (16, 2, 1e-5, 5))):
            tune = one("finetune", FinetuneConfig, f"model={model}", f"stage={stage}").tune
            found = (tune.global_batch_size, tune.micro_batch_size, tune.lr, tune.warmup_steps)
            assert (found, tune.epochs, tune.r, tune.alpha) == (numbers, 3.0, 64, 128.0)


def test_what_is_held_out_of_chat_data_is_the_same_everywhere() -> None:
    assert one("finetune", FinetuneConfig).sft.valid_fraction == 0.1
    assert one("pipeline", PipelineConfig).tuning().sft.valid_fraction == 0.1


def test_a_removed_key_is_refused_with_what_to_do_and_dropped_from_old_files() -> None:
    for key in REMOVED:
        with pytest.raises(InputError, match=f"{key} is no longer a key: "):
            one("pretrain", PretrainConfig, f"{key}=false")
    old = {"data": {"dir": "x", "reset_position_ids": True}, "train": {"steps": 1}}
    assert without_removed(old) == {"data": {"dir": "x"}, "train": {"steps": 1}}
