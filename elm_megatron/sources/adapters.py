"""LoRA adapters as PEFT writes them: read, and merged into a base in fp32.

    adapter_config.json  adapter_model.safetensors  elm.json  template.yaml

The last two are ours: which base the adapter was trained on, and with which prompts. PEFT ignores them.
"""

from __future__ import annotations

import hashlib
import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError, safe_open

from conf.errors import InputError
from conf.schema.model import ModelConfig
from elm_megatron.checkpoint.manifest import Checkpoint
from elm_megatron.model import hf_names
from elm_megatron.model.hf_names import MEGATRON_OWNER, PROJECTIONS, Part
from elm_megatron.run.folder import RunFolder
from elm_megatron.run.steps import committed
from elm_megatron.sources import fingerprint
from elm_megatron.sources.fingerprint import Fingerprint
from elm_megatron.sources.places import ADAPTER_CONFIG as CONFIG
from elm_megatron.sources.places import adapter_facts, read_json
from elm_megatron.sources.weights import Weights

TENSORS = "adapter_model.safetensors"
PREFIX = "base_model.model."
MATRICES = ("lora_A", "lora_B")
NONE = (None, {}, [])
# The keys of adapter_config.json whose meaning is known, with the values that mean plain LoRA.
PLAIN: dict[str, tuple[Any, ...]] = {
    "peft_type": ("LORA",),
    "task_type": (None, "CAUSAL_LM"),
    "bias": ("none",),
    "fan_in_fan_out": (None, False),
    "init_lora_weights": (None, True, False, "gaussian"),  # PiSSA, OLoRA, CorDA and others change the base
    "use_rslora": (None, False, True),
    "use_dora": (None, False),
    "lora_bias": (None, False),
    "use_qalora": (None, False),
    "use_bdlora": (None, False),
    "ensure_weight_tying": (None, False),
    **dict.fromkeys(("rank_pattern", "alpha_pattern", "modules_to_save", "layers_to_transform"), NONE),
    **dict.fromkeys(("layers_pattern", "trainable_token_indices", "target_parameters"), (*NONE, "")),
    **dict.fromkeys(
        ("alora_invocation_tokens", "layer_replication", "loftq_config", "megatron_config"), NONE
    ),
}
# These change nothing about a merge: the tensors themselves say which matrices they belong to.
FREE = frozenset(
    (
        *("r", "lora_alpha", "lora_dropout", "target_modules", "exclude_modules", "base_model_name_or_path"),
        *("revision", "inference_mode", "auto_mapping", "peft_version", "megatron_core", "qalora_group_size"),
    )
)
UNUSED = (None, False, {}, [])  # of a key that only a newer PEFT knows


class Stored(Protocol):
    """What an adapter is merged into: a `source.ModelSource`."""

    name: str
    run: RunFolder | None
    base: Any
    folder: Path
    model: ModelConfig

    @property
    def weights(self) -> Weights:
        """Its weights."""

    def at(self, step: int) -> Stored:
        """The same run at another step."""


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

    def require_fits(self, tune: Any, base: Fingerprint) -> None:
        """Refuse to train on under another shape, or on another base.

        Raises:
            InputError: naming what differs.
        """
        if not self.fits_base(base):
            raise InputError(f"{self.of_another_base(base)}.")
        mine = {"r": self.r, "scale": self.scale, "targets": sorted(self.targets)}
        wanted = {"r": tune.r, "scale": tune.alpha / tune.r, "targets": sorted(tune.targets)}
        for key, value in wanted.items():
            if mine[key] != value:
                name = "alpha / r" if key == "scale" else key
                raise InputError(f"tune.{name}={value}: the adapter to start from has {mine[key]}.")

    def fits_base(self, base: Fingerprint) -> bool:
        """Whether it was trained on this base or on a rounding of it; True for adapters made elsewhere."""
        first = self.facts.get("base_fingerprint")
        known = self.facts.get("base_fingerprints") or [first]
        return first is None or not set(known).isdisjoint(base.all)

    def of_another_base(self, base: Fingerprint) -> str:
        """The sentence of a refusal, without its end."""
        step = self.facts.get("base_step")
        at = "" if step is None else f" at step {step}"
        return (
            f"the adapter was trained on another base ({self.facts.get('source')}{at}, fingerprint "
            f"{self.facts['base_fingerprint'][:12]}…; this base's is {base.plain[:12]}…)"
        )


def megatron_name(layer: int, target: str, matrix: str) -> str:
    """Name of an adapter's matrix in a checkpoint."""
    return f"{MEGATRON_OWNER[target]}.{target}.{matrix}.{layer}"


def is_matrix(name: str) -> bool:
    """Whether a tensor of a checkpoint is an adapter's, by its name."""
    return name.rsplit(".", 2)[-2] in MATRICES


def peft_name(layer: int, target: str, matrix: str) -> str:
    """Name of an adapter's matrix in adapter_model.safetensors."""
    module = hf_names.hf_module(layer, PROJECTIONS[target])
    return f"{PREFIX}{module}.{matrix}.weight"


def of_checkpoint(checkpoint: Checkpoint, dropout: float = 0.0) -> Adapter:
    """The adapter held by a tuning run's checkpoint.

    Args:
        checkpoint: of a tuning run; its manifest has the adapter's shape.
        dropout: as trained.
    """
    lora, reader = checkpoint.manifest["lora"], checkpoint.reader()
    r, alpha, targets = int(lora["r"]), float(lora["alpha"]), tuple(lora["targets"])
    layers = {int(name.rsplit(".", 1)[1]) for name in reader.names()}
    tensors = {
        (layer, target): tuple(reader.read(megatron_name(layer, target, m)) for m in MATRICES)
        for layer in sorted(layers)
        for target in targets
    }
    return Adapter(r, alpha, dropout, targets, tensors, alpha / r)  # type: ignore[arg-type]


def read(folder: Path, model: ModelConfig) -> Adapter:
    """Read a PEFT folder, ours or another's.

    Raises:
        InputError: it is not plain LoRA, or its matrices do not fit the model.
    """
    config = read_json(folder / CONFIG)
    require_plain(folder / CONFIG, config)
    r, alpha = int(config["r"]), float(config["lora_alpha"])
    scale = alpha / r**0.5 if config.get("use_rslora") else alpha / r
    tensors = dict(_read_tensors(folder, model, r))
    facts = adapter_facts(folder)
    targets = tuple(sorted({target for _, target in tensors}, key=list(MEGATRON_OWNER).index))
    return Adapter(r, alpha, float(config.get("lora_dropout") or 0.0), targets, tensors, scale, facts)


def require_plain(path: Path, config: dict[str, Any]) -> None:
    """Refuse a configuration that asks for more than plain LoRA, or whose meaning is not known.

    Raises:
        InputError: naming the key.
    """
    if "peft_type" not in config:
        raise InputError(f"{path}: peft_type is missing, allowed is 'LORA'.")
    for key, value in config.items():
        allowed = PLAIN.get(key, UNUSED)
        if key in FREE or any(value == one and type(value) is type(one) for one in allowed):
            continue
        if key == "peft_type":
            raise InputError(f"{path}: peft_type={value!r}, allowed is 'LORA'.")
        known = "is not plain LoRA" if key in PLAIN else "is a setting whose meaning is not known here"
        raise InputError(f"{path}: {key}={value!r} {known}, allowed is {' or '.join(map(repr, allowed))}.")
    for key in ("r", "lora_alpha"):
        value = config.get(key)
        number = isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < math.inf
        if not number or (key == "r" and value != int(value)):
            whole = "whole " * (key == "r" and bool(number))
            raise InputError(f"{path}: {key}={value!r}, must be a {whole}number above 0.")


def merge(base: Stored, folder: Path, search: bool = False) -> Weights:
    """A model's weights with a PEFT adapter merged in fp32, on the base it was trained on.

    Args:
        base: the model.
        folder: the PEFT folder.
        search: of a run that was trained on since, take the checkpoint the adapter belongs to.

    Raises:
        InputError: it is not plain LoRA, does not fit the model, or was trained on another base.
    """
    adapter = read(folder, base.model)
    weights = base.weights
    found = fingerprint.of_weights(weights)
    if adapter.fits_base(found):
        return MergedWeights(weights, adapter)
    step = step_of(base, adapter)
    if step is None or not search:
        raise InputError(f"{adapter.of_another_base(found)}; {_way_out(base, step)}.")
    print(
        f"note: the adapter {folder} belongs to step {step} of {base.folder}, which is read", file=sys.stderr
    )
    return MergedWeights(base.at(step).weights, adapter)


def step_of(base: Stored, adapter: Adapter) -> int | None:
    """The checkpoint of a run that an adapter was trained on; None where there is none (any more)."""
    for folder in committed(base.run) if base.run and base.base is None else []:
        try:
            step = Checkpoint.open(folder).step
            if adapter.fits_base(fingerprint.of_weights(base.at(step).weights)):
                return step
        except InputError:  # a damaged one is not what is looked for
            continue
    return None


def _way_out(base: Stored, step: int | None) -> str:
    if step is not None:
        return f"it belongs to step {step}: give source={base.name}@{step}"
    if base.run is None:
        return "give the run or the export it was trained on as source"
    return (
        f"no checkpoint in {base.run.checkpoints} is that base; give an export of it as source, or tune "
        "again on this one"
    )


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
            out, width = hf_names.projection_shape(model, target)
            for matrix, tensor, shape in zip(MATRICES, pair, ((r, width), (out, r)), strict=True):
                if tensor is None or tuple(tensor.shape) != shape:
                    found_shape = "missing" if tensor is None else f"{tuple(tensor.shape)}"
                    raise InputError(
                        f"{path}: {peft_name(layer, target, matrix)} is {found_shape}, must be {shape}."
                    )
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
        hf = dict(hf_names.to_hf(self.model, part, tensors))
        touched = set()
        for target in self._adapter.targets:
            a, b = self._adapter.tensors[part, target]
            name = hf_names.hf_module(part, PROJECTIONS[target]) + ".weight"
            hf[name] = hf[name].float() + self._adapter.scale * (b.float() @ a.float())
            touched.add(MEGATRON_OWNER[target])
        merged = hf_names.to_megatron(self.model, part, hf)
        return {
            name: merged[name] if name.rpartition(".weight")[0] in touched else tensor
            for name, tensor in tensors.items()
        }
