"""What a build will do, found before anything is written: its inputs, its key and its work folder."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path

from conf.errors import InputError
from conf.schema.preprocess import SMALLEST_VOCAB, PreprocessConfig
from data_prep import clean, opt_out, raw, tombstones
from data_prep.opt_out import OptOuts
from data_prep.settings import deciding
from data_prep.tokenizer import given
from data_prep.tombstones import Tombstones

# Raise one when the same inputs and settings give other bytes; a cleaning rule has a version of its own.
VERSION = 5
PDF_VERSION = 4  # where a work is a PDF
WORK = ".build-"
TOLD = ("addresses", "robots")  # of a harvest's record: they decide on no byte of the dataset
SMALL = 500  # bytes of raw works for each piece of the vocabulary, below which the works' words are counted
ADDED = 500  # pieces that placeholders and repaired characters can add


@dataclass(frozen=True)
class Plan:
    """What rank 0 found before anything is written; the same on every rank.

    Attributes:
        scan: the works.
        tombstones: of works that were taken down.
        opt_outs: what `corpus.opt_out` means in this corpus.
        key: hash of inputs and settings; equal keys mean the same dataset.
        work: the hidden folder in which the dataset is made; named by what decides on the documents, so that
            another tokenizer finds the cleaned works there.
    """

    scan: raw.Scan
    tombstones: Tombstones
    opt_outs: OptOuts
    key: str
    work: Path


def make_plan(config: PreprocessConfig, data_dir: Path) -> Plan:
    """Check the settings and list the inputs; writes nothing.

    Raises:
        InputError: wrong settings, no works, or a dataset folder that cannot be written.
    """
    config.check()
    if config.tokenizer.model is not None:
        given(config.tokenizer)
    stones = tombstones.load(config)
    scan = raw.scan(config.corpus, stones.names)
    _check_writable(data_dir)
    opt_outs = opt_out.find(config.corpus, scan, stones.names)
    inputs = [[work.id, work.path, work.size, work.mtime, _deciding(work.record)] for work in scan.works]
    left_out = [sorted(scan.rejected + scan.refused), sorted(stones.names), stones.signatures]
    if gone := sorted(opt_outs.works.keys() & {work.id for work in scan.works}):
        left_out.append(["opt_out", *gone])
    pdfs = [PDF_VERSION] if any(work.path.lower().endswith(".pdf") for work in scan.works) else []
    versions = [VERSION, clean.versions(config.clean), pdfs]
    settings = deciding(config)
    key = _hash([versions, settings, inputs, *left_out])
    del settings["tokenizer"]
    chunk_mb = float(config.preprocess.chunk_mb)  # moves no id, but cuts the parts
    work = _hash([versions, settings, inputs, *left_out, chunk_mb])[:12]
    if config.tokenizer.model is None and not pdfs:
        _check_vocabulary(config, scan)
    return Plan(scan, stones, opt_outs, key, data_dir / f"{WORK}{work}")


def _deciding(record: dict) -> dict:
    return {key: value for key, value in record.items() if key not in TOLD}


def _hash(values: list) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def _check_vocabulary(config: PreprocessConfig, scan: raw.Scan) -> None:
    """Refuse, before anything is cleaned, a vocabulary that the corpus is too small for.

    A piece is part of a word. So the different words of the raw works, letter by letter, are a bound on the
    pieces; what cleaning adds is less than `ADDED`. Only a small corpus is read for this. One that has too
    few words for any work to be left is for cleaning to explain.
    """
    size = config.tokenizer.vocab_size
    if sum(work.size for work in scan.works) > SMALL * size:
        return
    words: set[str] = set()
    count = 0
    for work in scan.works:
        try:
            text = raw.read_bytes(config.corpus.folder(), work).decode("utf-8-sig")
        except (raw.Unreadable, UnicodeDecodeError):
            return
        found = text.replace("\\n", "\n").split()
        count += len(found)
        words.update(found)
    most = SMALLEST_VOCAB + ADDED + sum(map(len, words))
    if count >= (config.clean.quality.min_words or 1) and size > most:
        raise InputError(
            f"tokenizer.vocab_size={size} is too large for this corpus, whose words give at most {most} "
            f"pieces: "
            "add works or lower it."
        )


def _check_writable(data_dir: Path) -> None:
    """Refuse a folder in which nothing can be made, before hours are spent."""
    place = data_dir
    while not place.exists() and place != place.parent:
        place = place.parent
    if not place.is_dir():
        raise InputError(f"data.dir={data_dir}: {place} is a file, not a folder.")
    # The permission bits say nothing to root on a read-only disk, so a file is really made.
    probe = place / f".elm-probe-{os.getpid()}"
    try:
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise InputError(f"data.dir={data_dir}: {place} cannot be written ({error.strerror}).") from error
