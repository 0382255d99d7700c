"""``manifest.json``: what a dataset folder holds, where it came from, and what was left out.

Reading it imports nothing but the standard library, so that launchers and planners can.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from conf.errors import InputError
from data_prep.files import sha256

FILE = "manifest.json"
LINEAGE = "lineage.jsonl"  # one {"manifest": sha256} for every build that stood in a dataset folder
SCHEMA = 1
SPLITS = ("train", "valid")


@dataclass(frozen=True)
class TokenizerInfo:
    """The tokenizer that wrote the ids; sha256 is that of ``tokenizer.model``."""

    sha256: str
    vocab_size: int
    bos_id: int
    eos_id: int
    pad_id: int


@dataclass(frozen=True)
class FileInfo:
    """Size in bytes and sha256 of one file."""

    bytes: int
    sha256: str

    @classmethod
    def of(cls, path: Path) -> FileInfo:
        """Of a file that is there."""
        return cls(path.stat().st_size, sha256(path))


@dataclass(frozen=True)
class Split:
    """One ``.bin/.idx`` pair.

    Attributes:
        prefix: file name without ``.bin``, relative to the dataset folder.
        documents: sequences in the index.
        tokens: ids in the ``.bin``, one EOS per document included.
        bytes: size of the ``.bin``.
        unigram_entropy: entropy of the split's own token frequencies, nats per token, EOS included.
        bin: size and hash of ``<prefix>.bin``.
        idx: size and hash of ``<prefix>.idx``.
    """

    prefix: str
    documents: int
    tokens: int
    bytes: int
    unigram_entropy: float
    bin: FileInfo
    idx: FileInfo


@dataclass(frozen=True)
class Manifest:
    """A dataset folder's description.

    Attributes:
        corpus: its name.
        key: hash of inputs and settings; equal keys mean that nothing needs to be built again.
        dtype: numpy name of the ids' type, ``uint16`` or ``int32``.
        tokenizer: see `TokenizerInfo`.
        splits: ``train`` and ``valid``.
        files: the other files of the folder (tokenizers, Parquet) with size and hash.
        works: ``in``, ``out`` and ``dropped`` (by reason); in = out + the sum of dropped.
        blocks: the same for the blocks of the works that were read.
        redactions: replacements by kind; the values are kept nowhere.
        repairs: characters set right, by kind.
        languages, sources, licences: works kept, by each.
        access, rights_basis: works kept, by each; empty in an older manifest, see `rights`.
        opt_out: works kept by what is known (`no`, `unknown`), and works left out by how they opted out.
        notes: what a reader should know, in sentences (files ignored, a fallback taken).
        settings: the corpus, tokenizer and cleaning settings.
        stale: why the dataset must be built again, or empty (set by a take-down).
        folder: where it was read from.
        sha256: of manifest.json's bytes.
    """

    corpus: str
    key: str
    dtype: str
    tokenizer: TokenizerInfo
    splits: dict[str, Split]
    files: dict[str, FileInfo]
    works: dict[str, Any]
    blocks: dict[str, Any]
    redactions: dict[str, int]
    languages: dict[str, int]
    sources: dict[str, int]
    licences: dict[str, int]
    notes: list[str]
    settings: dict[str, Any]
    repairs: dict[str, int] = field(default_factory=dict)
    access: dict[str, int] = field(default_factory=dict)
    rights_basis: dict[str, int] = field(default_factory=dict)
    opt_out: dict[str, int] = field(default_factory=dict)
    stale: str = ""
    folder: Path = field(default=Path(), compare=False)
    sha256: str = field(default="", compare=False)

    @property
    def documents(self) -> int:
        """Documents of all splits together."""
        return sum(split.documents for split in self.splits.values())

    @property
    def tokens(self) -> int:
        """Tokens of all splits together."""
        return sum(split.tokens for split in self.splits.values())

    @property
    def dropped(self) -> dict[str, int]:
        """Works left out, by reason."""
        return dict(self.works["dropped"])

    @property
    def rights(self) -> dict[str, dict[str, int]]:
        """Works by licence, access, rights basis and opt-out; what an older manifest lacks is unknown."""
        found = {
            "licence": self.licences,
            "access": self.access,
            "rights_basis": self.rights_basis,
            "opt_out": self.opt_out,
        }
        return {name: dict(counts) or {"unknown": self.works["out"]} for name, counts in found.items()}

    def prefix(self, split: str) -> Path:
        """Absolute path of a split's files without ``.bin``/``.idx``, as Megatron wants it."""
        return self.folder / self.splits[split].prefix

    @classmethod
    def load(cls, data_dir: Path) -> Manifest:
        """Read a dataset folder's manifest.

        Raises:
            InputError: there is none, or it cannot be read as one.
        """
        folder = Path(data_dir).absolute()
        path = folder / FILE
        try:
            raw = path.read_bytes()
        except (FileNotFoundError, NotADirectoryError) as error:
            raise InputError(f"{path} does not exist: there is no dataset in that folder.") from error
        except OSError as error:
            raise InputError(f"{path} cannot be read: {error.strerror}.") from error
        try:
            values = json.loads(raw)
            schema = values.pop("schema")
            if schema != SCHEMA:
                raise InputError(f"{path} has schema {schema}, this software reads {SCHEMA}.")
            return cls(**_typed(values), folder=folder, sha256=hashlib.sha256(raw).hexdigest())
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f"{path} is not a dataset manifest ({error}).") from error

    def dumps(self) -> bytes:
        """The bytes of ``manifest.json``."""
        values = {"schema": SCHEMA, **asdict(self)}
        for name in ("folder", "sha256"):
            del values[name]
        return (json.dumps(values, indent=1, ensure_ascii=False) + "\n").encode()

    def check_files(self) -> None:
        """Compare every file's presence and size with the manifest; hashes are `data_prep.verify`'s work.

        Raises:
            InputError: naming the first file that is missing or has another size.
        """
        for path, info in self.all_files():
            try:
                size = path.stat().st_size
            except OSError as error:
                raise InputError(f"{path} is missing, but {self.folder / FILE} lists it.") from error
            if size != info.bytes:
                raise InputError(f"{path} has {size} bytes, but {self.folder / FILE} says {info.bytes}.")

    def all_files(self) -> list[tuple[Path, FileInfo]]:
        """Every listed file as (absolute path, size and hash)."""
        listed = [(self.folder / name, info) for name, info in self.files.items()]
        for name, split in self.splits.items():
            listed.append((self.prefix(name).with_name(split.prefix + ".bin"), split.bin))
            listed.append((self.prefix(name).with_name(split.prefix + ".idx"), split.idx))
        return listed


def lineage(folder: Path) -> list[str]:
    """The manifests of the builds that stood in a dataset folder, the present one last."""
    path = folder / LINEAGE
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return [json.loads(line)["manifest"] for line in lines]


def builds(folder: Path) -> set[str]:
    """The manifests of a dataset's builds; what the earlier ones held is not known, so they count.

    Raises:
        InputError: the folder holds no dataset.
    """
    manifest, before = Manifest.load(folder), lineage(folder)
    return {*before} if manifest.stale and before else {*before, manifest.sha256}


def _typed(values: dict[str, Any]) -> dict[str, Any]:
    """Nested dictionaries of the JSON as dataclasses; file names may not leave the folder."""
    files = {name: FileInfo(**info) for name, info in values["files"].items()}
    splits = {}
    for name, item in values["splits"].items():
        item = dict(item)
        splits[name] = Split(bin=FileInfo(**item.pop("bin")), idx=FileInfo(**item.pop("idx")), **item)
    for name in [*files, *(split.prefix for split in splits.values())]:
        if "/" in name or name.startswith("."):
            raise ValueError(f"file name {name!r}")
    if set(splits) != set(SPLITS):
        raise ValueError(f"splits {sorted(splits)}")
    return {**values, "tokenizer": TokenizerInfo(**values["tokenizer"]), "files": files, "splits": splits}
