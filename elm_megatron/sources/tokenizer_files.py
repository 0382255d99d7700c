"""The tokenizer of an exported folder: the dataset's own files, and settings that make transformers agree.

transformers reads `tokenizer.json` as it stands only under the plain class; Llama's class rebuilds it and
then disagrees with SentencePiece on leading spaces. With `split_special_tokens`, `</s>` in a text stays text.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from conf.errors import InputError
from data_prep.manifest import Manifest, TokenizerInfo
from data_prep.tokenizer import JSON_FILE, MODEL_FILE, Tokenizer
from elm_megatron.chat.jinja_template import jinja
from elm_megatron.chat.template import FILE, PUBLISHED, Template
from elm_megatron.hf import architecture
from elm_megatron.run.folder import RunFolder
from elm_megatron.sources.source import TOKENIZER_FOLDER, base_of, hf_folder, is_hf_folder, locate, run_config

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
    template: str = PUBLISHED
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
    import hashlib

    model = manifest.folder / MODEL_FILE
    Tokenizer.load(manifest.folder)
    found = hashlib.sha256(model.read_bytes()).hexdigest()
    if found != manifest.tokenizer.sha256:
        raise InputError(
            f"{model}: sha256 {found[:12]}…, the manifest says {manifest.tokenizer.sha256[:12]}…."
        )
    return TokenizerSource(manifest.folder, manifest.tokenizer, manifest)


def of_run(run: RunFolder, data_dir: str | None) -> TokenizerSource:
    """The tokenizer a run was trained with.

    Args:
        data_dir: another place of the dataset than the run's config names.

    Raises:
        InputError: the dataset is gone, or is not the one the run was trained on.
    """
    base = base_of(run)
    if base is not None:
        folder = hf_folder(base)
        source = of_folder(folder) if folder else of_run(RunFolder(locate(base)), data_dir)
        kept = run.path / "adapter" / FILE
        named = (run_config(run).get("tune") or {}).get("template", source.template)
        return replace(source, template=str(kept) if kept.is_file() else named, tuned=True)
    own = run.path / TOKENIZER_FOLDER
    if data_dir is None and own.is_dir():
        return of_folder(own)
    folder = data_dir or (run_config(run).get("data") or {}).get("dir")
    if folder is None:
        raise InputError(f"{run.config} names no data.dir; give data.dir=<folder of the dataset>.")
    manifest = Manifest.load(Path(folder).expanduser())
    trained = run.read().get("manifest_sha256")
    if trained is not None and trained != manifest.sha256:
        raise InputError(
            f"{manifest.folder} is not the dataset {run.path.name} was trained on: its manifest's sha256 is "
            f"{manifest.sha256[:12]}…, the run's is {trained[:12]}…; give data.dir=<folder of that dataset>."
        )
    return of_dataset(manifest)


def of_folder(folder: Path) -> TokenizerSource:
    """The tokenizer of a Hugging Face folder, special ids from its config.json.

    Raises:
        InputError: it holds no readable tokenizer, or one with more pieces than the model has.
    """
    import hashlib

    if not is_hf_folder(folder):
        raise InputError(f"{folder}: holds no config.json.")
    files = [folder / name for name in (MODEL_FILE, JSON_FILE) if (folder / name).is_file()]
    if not files:
        raise InputError(f"{folder}: holds neither {MODEL_FILE} nor {JSON_FILE}.")
    raw = architecture.read_config(folder)
    eos = raw.get("eos_token_id")
    pieces, held = _pieces(folder), raw.get("vocab_size")
    if not isinstance(held, int) or pieces > held:  # fewer are fine: a vocabulary may be padded
        raise InputError(f"{folder}: {files[0].name} has {pieces} pieces, config.json says {held}.")
    info = TokenizerInfo(
        sha256=hashlib.sha256(files[0].read_bytes()).hexdigest(),
        vocab_size=pieces,
        bos_id=raw.get("bos_token_id"),
        eos_id=eos[0] if isinstance(eos, list) else eos,
        pad_id=raw.get("pad_token_id"),
    )
    if (folder / FILE).is_file():
        return TokenizerSource(folder, info, None, str(folder / FILE), tuned=True)
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


def write(source: TokenizerSource, folder: Path, max_length: int) -> None:
    """Put a model's tokenizer and generation settings into an exported folder.

    Args:
        max_length: the model's longest sequence.

    Raises:
        InputError: the dataset's tokenizer.json gives other ids than its tokenizer.model.
    """
    if source.tuned:
        Template.load(source.template).save(folder / FILE)
    if source.manifest is None:
        for name in COPIED:
            if (source.folder / name).is_file():
                shutil.copyfile(source.folder / name, folder / name)
        if source.tuned:
            _exchange_chat_template(folder, source.template)
        return
    for name in (MODEL_FILE, JSON_FILE):
        if not (source.folder / name).is_file():
            raise InputError(f"{source.folder / name} is missing.")
        shutil.copyfile(source.folder / name, folder / name)
    _require_same_ids(folder)
    _write_json(folder / CONFIG_FILE, tokenizer_config(Tokenizer.load(folder), source.template, max_length))
    ids = {"bos_token_id": "bos_id", "eos_token_id": "eos_id", "pad_token_id": "pad_id"}
    generation = {key: getattr(source.info, name) for key, name in ids.items()}
    _write_json(folder / GENERATION_FILE, {**generation, "max_length": max_length, "use_cache": True})


def tokenizer_config(tokenizer: Tokenizer, template: str, max_length: int) -> dict[str, Any]:
    """The contents of tokenizer_config.json."""
    piece = tokenizer.processor.id_to_piece
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": piece(tokenizer.bos_id),
        "eos_token": piece(tokenizer.eos_id),
        "pad_token": piece(tokenizer.pad_id),
        "unk_token": piece(tokenizer.processor.unk_id()),
        "add_bos_token": False,
        "add_eos_token": False,
        "clean_up_tokenization_spaces": False,
        "split_special_tokens": True,
        "model_max_length": max_length,
        "model_input_names": ["input_ids", "attention_mask"],
        "chat_template": jinja(Template.load(template), eos=False),
    }


def _exchange_chat_template(folder: Path, template: str) -> None:
    """A tuned model answers to the template it was tuned with, not to the one its base came with."""
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    path = folder / CONFIG_FILE
    settings = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    _write_json(path, {**settings, "chat_template": jinja(Template.load(template), eos=False)})


def _require_same_ids(folder: Path) -> None:
    from data_prep.train_tokenizer import json_differences
    from elm_megatron.evaluate.texts import passages

    text = (folder / JSON_FILE).read_text(encoding="utf-8")
    different = json_differences(Tokenizer.load(folder), text, passages().values())
    if different:
        raise InputError(
            f"{JSON_FILE} and {MODEL_FILE} of the dataset give different ids for {different[0][:40]!r}; "
            "build the dataset again."
        )


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
