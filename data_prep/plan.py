"""What a build will do, found before anything is written: its inputs, its key and its work folder."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path

from conf.errors import InputError
from conf.schema.preprocess import PreprocessConfig
from data_prep import clean, raw, tombstones
from data_prep.settings import deciding
from data_prep.tokenizer import given
from data_prep.tombstones import Tombstones

# Raise one when the same inputs and settings give other bytes; a cleaning rule has a version of its own.
VERSION = 3
PDF_VERSION = 3  # where a work is a PDF
WORK = ".build-"


@dataclass(frozen=True)
class Plan:
    """What rank 0 found before anything is written; the same on every rank.

    Attributes:
        scan: the works.
        tombstones: of works that were taken down.
        key: hash of inputs and settings; equal keys mean the same dataset.
        work: the hidden folder in which the dataset is made.
    """

    scan: raw.Scan
    tombstones: Tombstones
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
    inputs = [[work.id, work.path, work.size, work.mtime, work.record] for work in scan.works]
    left_out = [sorted(scan.rejected + scan.refused), sorted(stones.names), stones.signatures]
    pdfs = [PDF_VERSION] if any(work.path.lower().endswith(".pdf") for work in scan.works) else []
    versions = [VERSION, clean.versions(config.clean), pdfs]
    text = json.dumps([versions, deciding(config), inputs, *left_out], sort_keys=True)
    key = hashlib.sha256(text.encode()).hexdigest()
    chunk_mb = float(config.preprocess.chunk_mb)  # moves no id, but cuts the parts
    work = hashlib.sha256(f"{key} {chunk_mb}".encode()).hexdigest()[:12]
    return Plan(scan, stones, key, data_dir / f"{WORK}{work}")


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
