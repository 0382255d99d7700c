"""The tokenizer of a model: where its files are, its special ids, and the prompts of its tuning."""

from __future__ import annotations

from collections.abc import Callable, Iterator
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
    read_json,
    recorded_folder,
    run_config,
)

PUBLISHED_TEMPLATE = "alpaca"  # the prompt that the published model was tuned with
CONFIG_FILE = "tokenizer_config.json"
CHAT_TEMPLATE_FILE = "chat_template.jinja"
MORE_TEMPLATES = "additional_chat_templates"  # folder of templates by name
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
        return (read_json(path) if path.is_file() else {}).get("add_bos_token") is True

    @property
    def first_id(self) -> int:
        """The id a text is predicted from: BOS where texts begin with it, else the end of another text.

        Raises:
            InputError: the model has neither.
        """
        first, second = self.info.eos_id, self.info.bos_id
        if self.adds_bos:
            first, second = second, first
        found = first if first is not None else second
        if found is None:
            raise InputError(
                f"{self.folder}: names no id that ends or begins a text; put eos_token_id into config.json."
            )
        return found

    def load(self) -> Tokenizer:
        """The SentencePiece tokenizer itself, with the ids a sequence begins with.

        Raises:
            InputError: the folder holds none.
        """
        tokenizer = Tokenizer.load(self.folder)
        if self.info.eos_id is not None:
            tokenizer.eos_id = self.info.eos_id  # a chat model's own, which may be an added token
        if self.adds_bos:
            tokenizer.begin = [tokenizer.bos_id]
        if self.manifest is None:
            own = (i for i in (tokenizer.bos_id, tokenizer.eos_id) if 0 <= i < tokenizer.vocab_size)
            special = {token.text for token in added_tokens(self.folder).values() if token.special}
            tokenizer.specials = frozenset({*map(tokenizer.processor.id_to_piece, own), *special})
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
    pieces, held = _pieces(folder), raw.get("vocab_size")
    if not isinstance(held, int) or pieces > held:  # fewer are fine: a vocabulary may be padded
        raise InputError(f"{folder}: {files[0].name} has {pieces} pieces, config.json says {held}.")
    info = TokenizerInfo(
        sha256=sha256(files[0]),
        vocab_size=pieces,
        bos_id=_special_id(folder, raw, "bos", held),
        eos_id=_special_id(folder, raw, "eos", held),
        pad_id=_special_id(folder, raw, "pad", held),
    )
    for index, token in added_tokens(folder).items():
        if index >= held:
            raise InputError(
                f"{folder}: the added token {token.text!r} has the id {index}, config.json's vocab_size is "
                f"{held}."
            )
    if (folder / TEMPLATE_FILE).is_file():
        return TokenizerSource(folder, info, None, str(folder / TEMPLATE_FILE), tuned=True)
    return TokenizerSource(folder, info, None)


def _special_id(folder: Path, raw: dict[str, Any], name: str, vocab_size: int) -> int | None:
    """A special id: of config.json, else of generation_config.json, else of the tokenizer's own files.

    Raises:
        InputError: the end or the beginning of texts is no row of the embedding.
    """
    key = f"{name}_token_id"
    found = raw.get(key)
    path = folder / GENERATION_FILE
    if found is None and path.is_file():
        found = read_json(path).get(key)
    if isinstance(found, list):
        found = found[0] if found else None
    if found is None:
        found = _named_id(folder, name)
    if found is None:
        return None
    if isinstance(found, bool) or not isinstance(found, int) or not 0 <= found < vocab_size:
        if name == "pad":
            return None  # it stands in no text
        raise InputError(f"{folder}: {key}={found!r} is no row of the vocabulary of {vocab_size}.")
    return found


def _named_id(folder: Path, name: str) -> int | None:
    """The id of the token that tokenizer_config.json calls BOS, EOS or PAD, else SentencePiece's own."""
    path = folder / CONFIG_FILE
    token = (read_json(path) if path.is_file() else {}).get(f"{name}_token")
    text = token.get("content") if isinstance(token, dict) else token
    if text:
        for index, added in added_tokens(folder).items():
            if added.text == text:
                return index
    if (folder / MODEL_FILE).is_file():
        found = getattr(Tokenizer.load(folder), f"{name}_id")
        return found if found >= 0 else None
    return None if text is None else _fast(folder).token_to_id(text)


@dataclass(frozen=True)
class AddedToken:
    """A token put in after the tokenizer was trained, such as <|im_end|>."""

    text: str
    special: bool


def added_tokens(folder: Path) -> dict[int, AddedToken]:
    """{id: token} of the tokens that were added to a tokenizer, from whichever of its files lists them.

    Raises:
        InputError: a list of them is not what transformers writes.
    """
    found: dict[int, AddedToken] = {}
    for name in ("added_tokens.json", JSON_FILE, CONFIG_FILE):
        if not (path := folder / name).is_file():
            continue
        try:
            found |= dict(_listed(name, read_json(path)))
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise InputError(f"{path}: its added tokens are not readable ({error!r}).") from error
    return found


def _listed(name: str, values: dict[str, Any]) -> Iterator[tuple[int, AddedToken]]:
    if name == "added_tokens.json":
        yield from ((int(index), AddedToken(str(text), True)) for text, index in values.items())
    entries = values.get("added_tokens" if name == JSON_FILE else "added_tokens_decoder") or {}
    for index, entry in entries.items() if name == CONFIG_FILE else ((one["id"], one) for one in entries):
        yield int(index), AddedToken(str(entry["content"]), bool(entry.get("special")))


def chat_template(folder: Path) -> str | None:
    """The chat template that came with a folder, Jinja; None where there is none.

    Raises:
        InputError: tokenizer_config.json has one that is neither a text nor a list of them by name.
    """
    if (path := folder / CHAT_TEMPLATE_FILE).is_file():
        return path.read_text(encoding="utf-8-sig")
    path = folder / CONFIG_FILE
    found = (read_json(path) if path.is_file() else {}).get("chat_template")
    if isinstance(found, list) and all(isinstance(one, dict) for one in found):  # several, by name
        found = next((one.get("template") for one in found if one.get("name") == "default"), None)
    if not isinstance(found, str | None):
        raise InputError(f"{path}: chat_template is neither a text nor a list of texts with names.")
    return found


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
