"""The tokenizer of a model: where its files are, its special ids, and the prompts of its tuning."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from conf.errors import InputError
from data_prep.files import sha256
from data_prep.manifest import Manifest, TokenizerInfo
from data_prep.tokenizer import JSON_FILE, MODEL_FILE, Tokenizer
from elm_megatron.model import hf_config
from elm_megatron.run.folder import RunFolder
from elm_megatron.sources.places import (
    TEMPLATE_FILE,
    TOKENIZER_FOLDER,
    is_hf_folder,
    recorded_folder,
    run_config,
)

PUBLISHED_TEMPLATE = "alpaca"  # the prompt that the published model was tuned with
CONFIG_FILE = "tokenizer_config.json"
GENERATION_FILE = "generation_config.json"
COPIED = (
    *(MODEL_FILE, JSON_FILE, CONFIG_FILE, GENERATION_FILE),
    *("special_tokens_map.json", "added_tokens.json", "chat_template.jinja"),
)


@dataclass(frozen=True)
class TokenizerSource:
    """Where a model's tokenizer comes from.

    Attributes:
        folder: holds its files.
        info: its ids; `pad_id` may be None in an imported model.
        manifest: the dataset's, or None for a model that came from elsewhere with its own tokenizer.
        template: the prompt template the model was tuned with, a name or a path; the published one for a base
            model.
        tuned: whether it was tuned with one.
    """

    folder: Path
    info: TokenizerInfo
    manifest: Manifest | None
    template: str = PUBLISHED_TEMPLATE
    tuned: bool = False

    @property
    def adds_bos(self) -> bool:
        """Whether a program puts BOS before a text: what tokenizer_config.json says; ours say no."""
        path = self.folder / CONFIG_FILE
        try:
            settings = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
            return settings.get("add_bos_token") is True
        except (ValueError, AttributeError) as error:
            raise InputError(f"{path} cannot be read as JSON ({error}).") from error

    @property
    def first_id(self) -> int:
        """The id a text is predicted from: BOS where texts begin with it, else the end of another text."""
        return self.info.bos_id if self.adds_bos else self.info.eos_id

    def load(self) -> Tokenizer:
        """The SentencePiece tokenizer itself, with the ids a sequence begins with.

        Raises:
            InputError: the folder holds none.
        """
        tokenizer = Tokenizer.load(self.folder)
        if self.adds_bos:
            tokenizer.begin = [tokenizer.bos_id]
        return tokenizer


def of_dataset(manifest: Manifest) -> TokenizerSource:
    """The tokenizer of a dataset.

    Raises:
        InputError: tokenizer.model is not the one that wrote the dataset.
    """
    model = manifest.folder / MODEL_FILE
    Tokenizer.load(manifest.folder)
    found = sha256(model)
    if found != manifest.tokenizer.sha256:
        raise InputError(
            f"{model}: sha256 {found[:12]}…, the manifest says {manifest.tokenizer.sha256[:12]}…."
        )
    return TokenizerSource(manifest.folder, manifest.tokenizer, manifest)


def of_run(run: RunFolder, data_dir: str | None) -> TokenizerSource:
    """The tokenizer a pretraining run or an imported model was trained with.

    Args:
        data_dir: another place of the dataset than the run's config names.

    Raises:
        InputError: the dataset is gone, or is not the one the run was trained on.
    """
    own = run.path / TOKENIZER_FOLDER
    if data_dir is None and own.is_dir():
        return of_folder(own)
    folder = data_dir or (run_config(run).get("data") or {}).get("dir")
    if folder is None:
        raise InputError(f"{run.config} names no data.dir; give data.dir=<folder of the dataset>.")
    trained = run.read().get("manifest_sha256")
    found = recorded_manifest(run, str(folder), trained) if data_dir is None else None
    manifest = found or Manifest.load(Path(folder).expanduser())
    if trained is not None and trained != manifest.sha256:
        raise InputError(
            f"{manifest.folder} is not the dataset {run.path.name} was trained on: its manifest's sha256 is "
            f"{manifest.sha256[:12]}…, the run's is {trained[:12]}…; give data.dir=<folder of that dataset>."
        )
    return of_dataset(manifest)


def recorded_manifest(run: RunFolder, folder: str, trained: str | None) -> Manifest | None:
    """The dataset that a run recorded, wherever it is now; None when it is gone or another.

    Args:
        run: the run.
        folder: as its configuration names it.
        trained: the sha256 of the manifest it was trained on, where known.
    """

    def fits(place: Path) -> bool:
        try:
            return trained in (None, Manifest.load(place).sha256)
        except InputError:
            return False

    found = recorded_folder(run, folder, fits)
    return None if found is None else Manifest.load(found)


def of_folder(folder: Path) -> TokenizerSource:
    """The tokenizer of a Hugging Face folder, special ids from its config.json.

    Raises:
        InputError: it holds no readable tokenizer, or one with more pieces than the model has.
    """
    if not is_hf_folder(folder):
        raise InputError(f"{folder}: holds no config.json.")
    files = [folder / name for name in (MODEL_FILE, JSON_FILE) if (folder / name).is_file()]
    if not files:
        raise InputError(f"{folder}: holds neither {MODEL_FILE} nor {JSON_FILE}.")
    raw = hf_config.read_config(folder)
    eos = raw.get("eos_token_id")
    pieces, held = _pieces(folder), raw.get("vocab_size")
    if not isinstance(held, int) or pieces > held:  # fewer are fine: a vocabulary may be padded
        raise InputError(f"{folder}: {files[0].name} has {pieces} pieces, config.json says {held}.")
    info = TokenizerInfo(
        sha256=sha256(files[0]),
        vocab_size=pieces,
        bos_id=raw.get("bos_token_id"),
        eos_id=eos[0] if isinstance(eos, list) else eos,
        pad_id=raw.get("pad_token_id"),
    )
    if (folder / TEMPLATE_FILE).is_file():
        return TokenizerSource(folder, info, None, str(folder / TEMPLATE_FILE), tuned=True)
    return TokenizerSource(folder, info, None)


def _pieces(folder: Path) -> int:
    if (folder / MODEL_FILE).is_file():
        return Tokenizer.load(folder).vocab_size
    return _fast(folder).get_vocab_size()


def _fast(folder: Path) -> Any:
    from tokenizers import Tokenizer as Fast

    try:
        return Fast.from_file(str(folder / JSON_FILE))
    except Exception as error:  # tokenizers raises nothing narrower
        raise InputError(f"{folder / JSON_FILE} is not a tokenizer ({error}).") from error


def encoder(folder: Path) -> Callable[[str], list[int]]:
    """What gives the ids of a text under a folder's tokenizer, without special ids."""
    if (folder / MODEL_FILE).is_file():
        return Tokenizer.load(folder).encode
    fast = _fast(folder)
    fast.encode_special_tokens = True
    return lambda text: fast.encode(text, add_special_tokens=False).ids
