"""Where weights are read from, part by part: a run's checkpoint or a Hugging Face folder.

Both give Megatron's tensors, whole, whatever layout wrote them. A part's files are closed before the next
part is read, so that no more than one part is ever in memory.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import torch
from safetensors import SafetensorError, safe_open

from conf.errors import InputError
from conf.schema.model import ModelConfig
from elm_megatron.checkpoint.manifest import Checkpoint
from elm_megatron.model import hf_config, hf_names
from elm_megatron.model.hf_names import Part
from elm_megatron.run.folder import RunFolder
from elm_megatron.run.steps import step_folder
from elm_megatron.sources import tokenizer_files

SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")


class Weights(Protocol):
    """Weights of one model; an adapter is merged by wrapping one of these.

    Attributes:
        model: its sizes.
        identity: changes whenever the numbers may have changed.
        step: the checkpoint's step, None where there is none.
    """

    model: ModelConfig
    identity: str
    step: int | None

    def part(self, part: Part) -> dict[str, torch.Tensor]:
        """Megatron's tensors of a part, whole, in the stored dtype."""
        ...


def hf_tensors(weights: Weights) -> Iterator[tuple[str, torch.Tensor]]:
    """All tensors under Hugging Face's names, one part in memory at a time."""
    for part in hf_names.parts(weights.model):
        yield from hf_names.to_hf(weights.model, part, weights.part(part))


class CheckpointWeights:
    """The weights of a checkpoint, verified when opened.

    Args:
        model: its sizes.
        folder: the step folder.

    Raises:
        InputError: it fails its verification.
    """

    def __init__(self, model: ModelConfig, folder: Path):
        self.model = model
        self.checkpoint = Checkpoint.open(folder)
        self.checkpoint.verify()
        self.identity = json.dumps(self.checkpoint.manifest["files"], sort_keys=True)
        self.step = self.checkpoint.step

    def part(self, part: Part) -> dict[str, torch.Tensor]:
        """Megatron's tensors of a part.

        Raises:
            InputError: a tensor is missing or has another shape than the run's config says.
        """
        reader = self.checkpoint.reader()
        tensors = {}
        for name, shape in hf_names.megatron_shapes(self.model, part).items():
            if reader.shape(name) != shape:
                raise InputError(
                    f"{self.checkpoint.folder}: {name} is {reader.shape(name)}, "
                    f"the run's config says {shape}."
                )
            try:
                tensors[name] = reader.read(name)
            except (SafetensorError, OSError) as error:
                raise InputError(f"{self.checkpoint.folder}: {name} cannot be read ({error}).") from error
        return tensors


class RunWeights(CheckpointWeights):
    """The weights of a run.

    Args:
        run: the run's folder.
        step: which checkpoint; None is the newest.
        model: its sizes.

    Raises:
        InputError: there is no such checkpoint, or it fails its verification.
    """

    def __init__(self, run: RunFolder, step: int | None, model: ModelConfig):
        super().__init__(model, step_folder(run, step))


class FolderWeights:
    """The weights of a Hugging Face Llama folder, from safetensors alone.

    Args:
        folder: holds config.json and the weights.
        model: its sizes; read from config.json when not given.

    Raises:
        InputError: not a Llama this suite can hold, or files or tensors are missing.
    """

    def __init__(self, folder: Path, model: ModelConfig | None = None):
        self.folder = folder
        self.model = model or hf_config.model_config(folder, folder.name)
        self.identity, self.step = identity(folder), None
        self._file_of = _files_by_tensor(folder)
        self._check_names()

    def part(self, part: Part) -> dict[str, torch.Tensor]:
        """Megatron's tensors of a part."""
        return hf_names.to_megatron(self.model, part, self.hf_part(part))

    def hf_part(self, part: Part) -> dict[str, torch.Tensor]:
        """Hugging Face's tensors of a part, as stored.

        Raises:
            InputError: a tensor has another shape than config.json says.
        """
        tensors = {}
        for name, shape in hf_names.hf_shapes(self.model, part).items():
            with _opened(self.folder / self._file_of[name]) as file:
                # A copy: the file is unmapped before the next one.
                tensors[name] = file.get_tensor(name).clone()
            if tuple(tensors[name].shape) != shape:
                raise InputError(
                    f"{self.folder}: {name} is {tuple(tensors[name].shape)}, config.json says {shape}."
                )
        return tensors

    def _require_tied_head(self) -> None:
        """Refuse an output head that config.json says is the embedding, and is not."""
        if hf_names.HF_HEAD not in self._file_of:
            return
        head, embedding = (
            tensor_of(self.folder / self._file_of[name], name)
            for name in (hf_names.HF_HEAD, hf_names.HF_EMBEDDING)
        )
        if not torch.equal(head, embedding):
            raise InputError(
                f"{self.folder / 'config.json'}: tie_word_embeddings=True, and the weights hold another "
                f"{hf_names.HF_HEAD}; set it to false where that head is the model's, else remove the head."
            )

    def _check_names(self) -> None:
        wanted = {
            name for part in hf_names.parts(self.model) for name in hf_names.hf_shapes(self.model, part)
        }
        missing = sorted(wanted - self._file_of.keys())
        if self.model.tie_embeddings and not missing:
            self._require_tied_head()
        # Older folders carry a buffer that is computed, and a tied head that repeats the embedding.
        known = {name for name in self._file_of if name.endswith("rotary_emb.inv_freq")}
        known |= {hf_names.HF_HEAD} if self.model.tie_embeddings else set()
        extra = sorted(self._file_of.keys() - wanted - known)
        if missing or extra:
            what = f"lacks {missing[0]}" if missing else f"holds {extra[0]}, which no Llama has"
            raise InputError(f"{self.folder}: {what}.")


def tensor_of(path: Path, name: str) -> torch.Tensor:
    """One tensor of a safetensors file, in memory of its own."""
    with _opened(path) as file:
        return file.get_tensor(name).clone()


def identity(folder: Path) -> str:
    """Names, sizes and times of the files that make a folder's model: what else lies there may change."""
    others = ("config.json", INDEX_FILE, *tokenizer_files.COPIED)
    files = sorted({*folder.glob("*.safetensors"), *(p for name in others if (p := folder / name).is_file())})
    return json.dumps([str(folder), [(p.name, p.stat().st_size, p.stat().st_mtime_ns) for p in files]])


def is_same(before: str, now: str) -> bool:
    """Whether an earlier `identity` is that of the same model; older ones name more files of its folder."""
    (folder, files), (folder_now, files_now) = json.loads(before), json.loads(now)
    held = {name for name, *_ in files_now}
    return folder == folder_now and [file for file in files if file[0] in held] == files_now


def _opened(path: Path) -> safe_open:
    try:
        return safe_open(path, framework="pt")
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path} is not a readable safetensors file ({error}).") from error


def _files_by_tensor(folder: Path) -> dict[str, str]:
    """{tensor: file name} of a folder's safetensors.

    Raises:
        InputError: there are none, or the index names files that are not in the folder.
    """
    index = folder / INDEX_FILE
    if index.is_file():
        try:
            listed = {
                str(k): str(v) for k, v in json.loads(index.read_text(encoding="utf-8"))["weight_map"].items()
            }
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f"{index} is not an index of weights ({error}).") from error
    elif (folder / SINGLE_FILE).is_file():
        with _opened(folder / SINGLE_FILE) as file:
            return dict.fromkeys(file.keys(), SINGLE_FILE)
    else:
        pickles = [path.name for pattern in PICKLES for path in folder.glob(pattern)]
        note = f"; {pickles[0]} is a pickle, which could run code and is never opened" if pickles else ""
        raise InputError(f"{folder} holds neither {SINGLE_FILE} nor {INDEX_FILE}{note}.")
    held: dict[str, set[str]] = defaultdict(set)
    for name, file_name in listed.items():
        if Path(file_name).name != file_name or not (folder / file_name).is_file():
            raise InputError(f"{index} names {file_name!r}, which is not a file of {folder}.")
        if file_name not in held:
            with _opened(folder / file_name) as file:
                held[file_name] = set(file.keys())
        if name not in held[file_name]:
            raise InputError(f"{folder / file_name} lacks {name}, which {index.name} says it holds.")
    return listed
