"""The settings of a dataset as plain dictionaries, and which of them decide on its bytes."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, fields, is_dataclass

from conf.schema.preprocess import HarvestConfig, HarvestSource, PreprocessConfig
from data_prep.tokenizer import given_path


def to_mapping(config: PreprocessConfig) -> dict:
    """The keys of `PreprocessConfig` as plain dictionaries (a launcher's own keys are left out)."""
    return {item.name: _plain(getattr(config, item.name)) for item in fields(PreprocessConfig)}


def from_mapping(values: dict) -> PreprocessConfig:
    """The inverse of `to_mapping`; absent keys take their defaults."""
    return _build(PreprocessConfig, values)


def _plain(value: object) -> object:
    return asdict(value) if is_dataclass(value) and not isinstance(value, type) else value


def _build(cls: type, values: dict) -> object:
    default, built = cls(), {}
    for name, value in values.items():
        current = getattr(default, name)
        if is_dataclass(current):
            value = _build(type(current), value)
        elif name == "sources" and cls is HarvestConfig:
            value = [HarvestSource(**item) for item in value]
        built[name] = value
    return cls(**built)


def deciding(config: PreprocessConfig) -> dict:
    """The settings in a dataset's key: not where or by how many it is made, nor what is taken down."""
    settings = to_mapping(config)
    for key in ("data", "institution", "remove", "notice", "runs_dir", "look_in"):
        del settings[key]
    del settings["corpus"]["opt_out"]  # the works that it leaves out decide, not its name: see plan.py
    del settings["preprocess"]["ranks"], settings["preprocess"]["chunk_mb"]
    del settings["corpus"]["harvest"], settings["corpus"]["expected_tokens"]
    if settings["tokenizer"].pop("model") is not None:
        model = given_path(config.tokenizer).read_bytes()
        settings["tokenizer"] = {"sha256": hashlib.sha256(model).hexdigest()}
    return settings
