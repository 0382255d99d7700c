"""LoRA adapters as PEFT writes them: read, write, put into a Megatron model, merge into a base in fp32.

    adapter_config.json  adapter_model.safetensors  elm.json  template.yaml

The last two are ours: which base the adapter was trained on, and with which prompts. PEFT does not look at
them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from conf.errors import InputError
from conf.schema.model import ModelConfig
from data_prep import files
from elm_megatron.chat.template import FILE, Template
from elm_megatron.checkpoint.shards import Reader
from elm_megatron.hf import names
from elm_megatron.hf.names import Part
from elm_megatron.sources.weights import Weights

CONFIG, TENSORS, FACTS = "adapter_config.json", "adapter_model.safetensors", "elm.json"
PREFIX = "base_model.model."
PROJECTIONS = {name.split(".")[1]: key for key, name in names.HF_LAYER.items() if name.count(".") == 2}
MATRICES = ("lora_A", "lora_B")
# Where each projection's adapter lies in Megatron's layers; hf/names.py has the layers themselves.
MEGATRON_OWNER = {
    **dict.fromkeys(("q_proj", "k_proj", "v_proj"), "decoder.layers.self_attention.linear_qkv"),
    "o_proj": "decoder.layers.self_attention.linear_proj",
    **dict.fromkeys(("gate_proj", "up_proj"), "decoder.layers.mlp.linear_fc1"),
    "down_proj": "decoder.layers.mlp.linear_fc2",
}
# What PEFT can do beyond plain LoRA, with the value that means it was not done.
PLAIN = {
    "bias": ("none",),
    "use_dora": (None, False),
    "lora_bias": (None, False),
    "fan_in_fan_out": (None, False),
    "rank_pattern": (None, {}),
    "alpha_pattern": (None, {}),
    "modules_to_save": (None, []),
    "layers_to_transform": (None, []),
    "use_qalora": (None, False),
    "trainable_token_indices": (None, []),
    "target_parameters": (None, []),
}


@dataclass(frozen=True)
class Adapter:
    """One adapter, whole.

    Attributes:
        r, alpha, dropout: as trained.
        targets: PEFT's names of the projections.
        tensors: {(layer, target): (A [r, in], B [out, r])}.
        scale: factor of B·A.
        facts: elm.json, {} for an adapter made elsewhere.
    """

    r: int
    alpha: float
    dropout: float
    targets: tuple[str, ...]
    tensors: dict[tuple[int, str], tuple[torch.Tensor, torch.Tensor]]
    scale: float
    facts: dict[str, Any] = field(default_factory=dict)

    def identity(self) -> str:
        """A hash of its matrices and their scale."""
        digest = hashlib.sha256(f"{self.scale}".encode())
        for (layer, target), pair in sorted(self.tensors.items()):
            digest.update(f"{layer} {target}".encode())
            for tensor in pair:
                digest.update(tensor.float().contiguous().numpy().tobytes())
        return digest.hexdigest()

    def megatron_tensors(self) -> dict[str, torch.Tensor]:
        """The matrices under the names they have in a checkpoint."""
        return {
            megatron_name(layer, target, matrix): tensor
            for (layer, target), pair in self.tensors.items()
            for matrix, tensor in zip(MATRICES, pair, strict=True)
        }

    def require_fits(self, tune: Any, fingerprint: str) -> None:
        """Refuse to train on under another shape, or on another base.

        Raises:
            InputError: naming what differs.
        """
        self.require_base(fingerprint)
        mine = {"r": self.r, "scale": self.scale, "targets": sorted(self.targets)}
        wanted = {"r": tune.r, "scale": tune.alpha / tune.r, "targets": sorted(tune.targets)}
        for key, value in wanted.items():
            if mine[key] != value:
                name = "alpha / r" if key == "scale" else key
                raise InputError(f"tune.{name}={value}: the adapter to start from has {mine[key]}.")

    def require_base(self, fingerprint: str) -> None:
        """Refuse a base other than the one the adapter was trained on; unknown for adapters made elsewhere.

        Raises:
            InputError: the fingerprints differ.
        """
        known = self.facts.get("base_fingerprint")
        if known is not None and known != fingerprint:
            raise InputError(
                f"the adapter was trained on another base ({self.facts.get('source')}, fingerprint "
                f"{known[:12]}…; this base's is {fingerprint[:12]}…)."
            )


def lora_facts(tune: Any) -> dict[str, Any]:
    """What decides on an adapter's shape and effect, for a checkpoint's manifest."""
    return {"r": tune.r, "alpha": tune.alpha, "targets": sorted(tune.targets)}


def megatron_name(layer: int, target: str, matrix: str) -> str:
    """Name of an adapter's matrix in a checkpoint."""
    return f"{MEGATRON_OWNER[target]}.{target}.{matrix}.{layer}"


def peft_name(layer: int, target: str, matrix: str) -> str:
    """Name of an adapter's matrix in adapter_model.safetensors."""
    module = names.hf_module(layer, PROJECTIONS[target])
    return f"{PREFIX}{module}.{matrix}.weight"


def shapes(model: ModelConfig, target: str) -> tuple[int, int]:
    """(out, in) of a projection."""
    return names.hf_shapes(model, 0)[names.hf_module(0, PROJECTIONS[target]) + ".weight"]


def of_checkpoint(reader: Reader, tune: Any) -> Adapter:
    """The adapter held by a tuning run's checkpoint."""
    layers = {int(name.rsplit(".", 1)[1]) for name in reader.names()}
    tensors = {
        (layer, target): tuple(reader.read(megatron_name(layer, target, m)) for m in MATRICES)
        for layer in sorted(layers)
        for target in tune.targets
    }
    return Adapter(tune.r, tune.alpha, tune.dropout, tuple(tune.targets), tensors, tune.alpha / tune.r)


def write(
    folder: Path, adapter: Adapter, model: ModelConfig, facts: dict[str, Any], template: Template
) -> None:
    """Write a PEFT folder; its files appear whole, the configuration last."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    (folder / CONFIG).unlink(missing_ok=True)
    tensors = {
        peft_name(layer, target, matrix): tensor.contiguous()
        for (layer, target), pair in adapter.tensors.items()
        for matrix, tensor in zip(MATRICES, pair, strict=True)
    }
    temporary = folder / f".{TENSORS}.tmp"
    save_file(tensors, temporary, metadata={"format": "pt"})
    temporary.replace(folder / TENSORS)
    files.write(folder / FACTS, json.dumps(facts, indent=2) + "\n")
    template.save(folder / FILE)
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": None,
        "r": adapter.r,
        "lora_alpha": adapter.alpha,
        "lora_dropout": adapter.dropout,
        "target_modules": sorted(adapter.targets),
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "init_lora_weights": True,
        "use_rslora": False,
        "use_dora": False,
        "modules_to_save": None,
        "layers_to_transform": None,
        "rank_pattern": {},
        "alpha_pattern": {},
    }
    files.write(folder / CONFIG, json.dumps(config, indent=2) + "\n")


def locate(name: str) -> Path:
    """The PEFT folder a name stands for: a folder, a finetune run's folder, or a run's name below runs/.

    Raises:
        InputError: there is none.
    """
    given = Path(name).expanduser()
    for folder in (given, given / "adapter", Path("runs") / name / "adapter"):
        if (folder / CONFIG).is_file():
            return folder.absolute()
    raise InputError(f"adapter={name}: neither a PEFT folder nor a finished finetune run.")


def read(folder: Path, model: ModelConfig) -> Adapter:
    """Read a PEFT folder, ours or another's.

    Raises:
        InputError: it is not plain LoRA, or its matrices do not fit the model.
    """
    config = _read_json(folder / CONFIG)
    if config.get("peft_type") != "LORA":
        raise InputError(f"{folder / CONFIG}: peft_type={config.get('peft_type')!r}, allowed is 'LORA'.")
    for key, allowed in PLAIN.items():
        if config.get(key, allowed[0]) not in allowed:
            raise InputError(
                f"{folder / CONFIG}: {key}={config[key]!r} is not plain LoRA, allowed is {allowed[0]!r}."
            )
    for key in ("r", "lora_alpha"):
        if not isinstance(config.get(key), int | float) or config[key] <= 0:
            raise InputError(f"{folder / CONFIG}: {key}={config.get(key)!r}, must be a number above 0.")
    r, alpha = int(config["r"]), float(config["lora_alpha"])
    scale = alpha / r**0.5 if config.get("use_rslora") else alpha / r
    tensors = dict(_read_tensors(folder, model, r))
    facts = _read_json(folder / FACTS) if (folder / FACTS).is_file() else {}
    targets = tuple(sorted({target for _, target in tensors}, key=list(MEGATRON_OWNER).index))
    return Adapter(r, alpha, float(config.get("lora_dropout") or 0.0), targets, tensors, scale, facts)


def template_of(name: str) -> str | None:
    """The prompt template an adapter was tuned with, a name or a path, where it is known."""
    folder = locate(name)
    if (folder / FILE).is_file():
        return str(folder / FILE)
    return _read_json(folder / FACTS).get("template") if (folder / FACTS).is_file() else None


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read as JSON ({error}).") from error
    if not isinstance(value, dict):
        raise InputError(f"{path} is not a JSON object.")
    return value


def _read_tensors(
    folder: Path, model: ModelConfig, r: int
) -> Iterator[tuple[tuple[int, str], tuple[torch.Tensor, torch.Tensor]]]:
    path = folder / TENSORS
    if not path.is_file():
        raise InputError(f"{path} does not exist; an adapter saved as a pickle (.bin) is never opened.")
    wanted = {
        peft_name(layer, target, matrix): (layer, target)
        for layer in range(model.num_layers)
        for target in MEGATRON_OWNER
        for matrix in MATRICES
    }
    try:
        with safe_open(path, framework="pt") as file:
            found = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path} is not a readable safetensors file ({error}).") from error
    strange = sorted(found.keys() - wanted.keys())
    if strange or not found:
        raise InputError(
            f"{path}: holds {strange[0] if strange else 'nothing'}, which the model has no place for."
        )
    targets = {wanted[name][1] for name in found}
    for layer in range(model.num_layers):
        for target in sorted(targets):
            pair = tuple(found.get(peft_name(layer, target, matrix)) for matrix in MATRICES)
            out, width = shapes(model, target)
            for matrix, tensor, shape in zip(MATRICES, pair, ((r, width), (out, r)), strict=True):
                if tensor is None or tuple(tensor.shape) != shape:
                    is_ = "missing" if tensor is None else f"{tuple(tensor.shape)}"
                    raise InputError(f"{path}: {peft_name(layer, target, matrix)} is {is_}, must be {shape}.")
            yield (layer, target), pair  # type: ignore[misc]


class MergedWeights:
    """A base's weights with an adapter folded in, in fp32; what the adapter does not touch stays as stored.

    Args:
        base: the weights underneath.
        adapter: fits the base's sizes.
    """

    def __init__(self, base: Weights, adapter: Adapter):
        self.model, self._base, self._adapter = base.model, base, adapter
        self.identity, self.step = f"{base.identity} {adapter.identity()}", base.step

    def part(self, part: Part) -> dict[str, torch.Tensor]:
        """Megatron's tensors of a part."""
        tensors = self._base.part(part)
        if not isinstance(part, int):
            return tensors
        hf = dict(names.to_hf(self.model, part, tensors))
        touched = set()
        for target in self._adapter.targets:
            a, b = self._adapter.tensors[part, target]
            name = names.hf_module(part, PROJECTIONS[target]) + ".weight"
            hf[name] = hf[name].float() + self._adapter.scale * (b.float() @ a.float())
            touched.add(MEGATRON_OWNER[target])
        merged = names.to_megatron(self.model, part, hf)
        return {
            name: merged[name] if name.rpartition(".weight")[0] in touched else tensor
            for name, tensor in tensors.items()
        }
