"""The tokenizer of an exported folder: the dataset's own files, and settings that make transformers agree.

transformers reads `tokenizer.json` unchanged only under the plain class; Llama's class rebuilds it and
then disagrees with SentencePiece on leading spaces. With `split_special_tokens`, `</s>` in a text stays text.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from conf.errors import InputError
from data_prep.tokenizer import JSON_FILE, MODEL_FILE, Tokenizer
from data_prep.train_tokenizer import json_differences
from elm_megatron.chat.jinja_template import jinja
from elm_megatron.chat.template import Template
from elm_megatron.hf.passages import passages
from elm_megatron.sources.places import TEMPLATE_FILE
from elm_megatron.sources.tokenizer_files import (
    CHAT_TEMPLATE_FILE,
    CONFIG_FILE,
    COPIED,
    GENERATION_FILE,
    MORE_TEMPLATES,
    TokenizerSource,
    chat_template,
)


def write(source: TokenizerSource, folder: Path, max_length: int) -> None:
    """Put a model's tokenizer and generation settings into an exported folder.

    Args:
        max_length: the model's longest sequence.

    Raises:
        InputError: the dataset's tokenizer.json gives other ids than its tokenizer.model.
    """
    if source.tuned:
        Template.load(source.template).save(folder / TEMPLATE_FILE)
    if source.manifest is None:
        copy(source.folder, folder)
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


def copy(source: Path, target: Path) -> None:
    """Copy the tokenizer files of a foreign model, its added tokens and chat templates with them."""
    for name in COPIED:
        if (source / name).is_file():
            shutil.copyfile(source / name, target / name)
    if (source / MORE_TEMPLATES).is_dir():
        shutil.copytree(source / MORE_TEMPLATES, target / MORE_TEMPLATES, dirs_exist_ok=True)


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
    """A tuned model answers to the template it was tuned with; the one of its base stays under a name.

    Beside named templates transformers takes its default from the file alone, and older versions from the
    settings.
    """
    before = chat_template(folder)
    if before is not None:
        (folder / MORE_TEMPLATES).mkdir(exist_ok=True)
        (folder / MORE_TEMPLATES / "base.jinja").write_text(before, encoding="utf-8")
    path = folder / CONFIG_FILE
    settings = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    # Earlier answers end with EOS, as in tuning, where the tokenizer reads special tokens in a text.
    text = jinja(Template.load(template), eos=not settings.get("split_special_tokens", False))
    (folder / CHAT_TEMPLATE_FILE).write_text(text, encoding="utf-8")
    _write_json(path, {**settings, "chat_template": text})


def _require_same_ids(folder: Path) -> None:
    text = (folder / JSON_FILE).read_text(encoding="utf-8")
    different = json_differences(Tokenizer.load(folder), text, passages().values())
    if different:
        raise InputError(
            f"{JSON_FILE} and {MODEL_FILE} of the dataset give different ids for {different[0][:40]!r}; "
            "build the dataset again."
        )


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
