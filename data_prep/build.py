"""A dataset from a corpus folder: the stages in order, each resumed where an earlier attempt stopped.

    mpiexec -n 4 python -m data_prep.job --ranks 4 settings.json

Everything is made in a hidden work folder inside the dataset folder and moved into place at the end, the
manifest last, so that a finished dataset stays intact until the new one is whole. The work folder is named by
the hash of inputs and settings: the same command finds it again, other settings start a new one.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow.parquet as pq

from conf.errors import InputError, disk_full
from conf.schema.preprocess import PreprocessConfig
from data_prep import lock, raw, tombstones
from data_prep.binarize import binarize
from data_prep.comm import Alone
from data_prep.documents import DOCUMENTS, SCHEMA, Account, cut_for_validation, make_parts
from data_prep.finish import Plan, commit, finish, write_whole
from data_prep.manifest import FILE as MANIFEST
from data_prep.manifest import Manifest
from data_prep.merge import merge_parts
from data_prep.progress import Progress
from data_prep.settings import deciding
from data_prep.tokenizer import JSON_FILE, MODEL_FILE, Tokenizer, given
from data_prep.train_tokenizer import in_sample, json_differences, to_json, train

VERSION = 2  # raise it when the same inputs and settings give other bytes
PDF_VERSION = 2  # the same, where a work is a PDF
WORK = ".build-"


def build(config: PreprocessConfig, comm: Alone, progress: Progress) -> Manifest:
    """Make the dataset of a corpus, or find it made; every rank calls this and gets the manifest.

    Raises:
        InputError: wrong settings or inputs, on every rank; a dataset that stood there stands there still.
    """
    started = time.perf_counter()
    data_dir = config.data_dir()
    _everywhere(comm, lambda: _harvest(config, progress))
    plan = _everywhere(comm, lambda: make_plan(config, data_dir))
    finished = comm.bcast(_finished(data_dir, plan.key) if comm.rank == 0 else None)
    if finished is not None:
        progress.say(f"{data_dir} is finished and up to date: nothing to do.")
        return finished
    made = _missing(data_dir) if comm.rank == 0 else []
    try:
        with _held(data_dir, comm):
            try:
                manifest = _stages(config, plan, comm, progress)
            except InputError:
                if comm.rank == 0:
                    shutil.rmtree(plan.work, ignore_errors=True)
                raise
    except InputError:
        for folder in made:  # wrong input leaves nothing behind
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()
        raise
    progress.say(f"{data_dir} is built, {time.perf_counter() - started:.1f} s.")
    return manifest


def _harvest(config: PreprocessConfig, progress: Progress) -> None:
    """Fetch new works first, where the corpus has servers."""
    config.check()
    if config.corpus.harvest.enabled and config.corpus.harvest.sources:
        from data_prep.harvest import harvest

        try:
            done = harvest(config.corpus, tombstones.load(config).names, progress.say)
        except OSError as error:
            if not disk_full(error):
                raise
            raise InputError(
                f"corpus.path={config.corpus.path}: the disk is full; make room and repeat the command."
            ) from error
        progress.say("harvest: " + ", ".join(f"{key} {count}" for key, count in sorted(done.items())))


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
    settings = deciding(config)
    inputs = [[work.id, work.path, work.size, work.mtime, work.record] for work in scan.works]
    left_out = [sorted(scan.rejected + scan.refused), sorted(stones.names), stones.signatures]
    pdfs = [PDF_VERSION] if any(work.path.lower().endswith(".pdf") for work in scan.works) else []
    text = json.dumps([VERSION, settings, inputs, *left_out, *pdfs], sort_keys=True)
    key = hashlib.sha256(text.encode()).hexdigest()
    chunk_mb = float(config.preprocess.chunk_mb)  # moves no id, but cuts the parts
    work = hashlib.sha256(f"{key} {chunk_mb}".encode()).hexdigest()[:12]
    return Plan(scan, stones, key, data_dir / f"{WORK}{work}")


def _everywhere(comm: Alone, function):
    """Rank 0's result of a function on every rank, or its InputError on every rank."""
    value = error = None
    if comm.rank == 0:
        try:
            value = function()
        except InputError as found:
            error = str(found)
    comm.agree(error)
    return comm.bcast(value)


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


def finished(config: PreprocessConfig) -> Manifest | None:
    """The dataset, where a build would find nothing to do; None where it would, or would harvest first."""
    if config.corpus.harvest.enabled and config.corpus.harvest.sources:
        return None
    return _finished(config.data_dir(), make_plan(config, config.data_dir()).key)


def _finished(data_dir: Path, key: str) -> Manifest | None:
    """The manifest of a dataset made from the same inputs and settings, whose files are all there."""
    try:
        manifest = Manifest.load(data_dir)
        manifest.check_files()
    except InputError:
        return None
    return manifest if manifest.key == key and not manifest.stale else None


@contextmanager
def _held(data_dir: Path, comm: Alone) -> Iterator[None]:
    """Hold the dataset folder against a second build or a take-down; rank 0 does."""
    handle = _everywhere(comm, lambda: lock.take(data_dir))
    try:
        yield
    finally:
        if comm.rank == 0:
            lock.release(data_dir, handle)


def _missing(folder: Path) -> list[Path]:
    """The folders, innermost first, that making `folder` would make."""
    return [item for item in (folder, *folder.parents) if not item.exists()]


def _stages(config: PreprocessConfig, plan: Plan, comm: Alone, progress: Progress) -> Manifest:
    """The build itself, in the work folder; each stage is skipped when its last file is there."""
    work, data_dir = plan.work, config.data_dir()
    if comm.rank == 0:
        for other in data_dir.glob(f"{WORK}*"):
            if other != work:
                shutil.rmtree(other)
        (work / "parts").mkdir(parents=True, exist_ok=True, mode=0o700)
    comm.bcast(None)
    if not comm.bcast((work / MANIFEST).exists()):
        account = _documents(config, plan, comm, progress)
        tokenizer = _tokenizer(config, work, account, comm, progress)
        with progress.stage("binarize", "chunks") as report:
            _, _, why = binarize(work, tokenizer, comm, report)
        if comm.rank == 0:
            with progress.stage("finish", ""):
                finish(config, plan, tokenizer, account, why)
    if comm.rank == 0:
        commit(work, data_dir, config.corpus.name)
    return comm.bcast(Manifest.load(data_dir) if comm.rank == 0 else None)


def _documents(config: PreprocessConfig, plan: Plan, comm: Alone, progress: Progress) -> Account:
    """Stage 1; the account is kept beside the documents for a build that goes on later."""
    path = plan.work / "account.json"
    if not comm.bcast(path.exists()):
        with progress.stage("documents", "works") as report:
            done, mine = 0, -(-len(plan.scan.works) // comm.size)
            for count in make_parts(plan.scan.works, config, plan.tombstones, plan.work / "parts", comm):
                done += count
                report(done, max(mine, done))

        def merge() -> None:
            account = merge_parts(plan.scan, config, plan.work / "parts", plan.work)
            if account.works_out == 0:
                reasons = ", ".join(f"{key} {n}" for key, n in sorted(account.works_dropped.items()))
                raise InputError(
                    f"corpus.path={config.corpus.path}: none of the {account.works_in} works is left after "
                    f"cleaning ({reasons}); look at the clean.* settings."
                )
            write_whole(path, json.dumps(vars(account)).encode())
            shutil.rmtree(plan.work / "parts")

        _everywhere(comm, merge)
    return comm.bcast(Account(**json.loads(path.read_text())) if comm.rank == 0 else None)


def _tokenizer(
    config: PreprocessConfig, work: Path, account: Account, comm: Alone, progress: Progress
) -> Tokenizer:
    """Stage 2: train on rank 0, read on all."""
    path = work / MODEL_FILE

    def make() -> None:
        with progress.stage("tokenizer", ""):
            texts = training_texts(work / DOCUMENTS, config)
            taken = config.tokenizer.model is not None
            tokenizer = given(config.tokenizer) if taken else Tokenizer(train(texts, config.tokenizer))
            text_json = to_json(tokenizer)
            some = [
                text[:2000]
                for text, _ in zip(training_texts(work / DOCUMENTS, config), range(200), strict=False)
            ]
            different = json_differences(tokenizer, text_json, some)
            if different and taken:
                raise InputError(
                    f"tokenizer.model={config.tokenizer.model}: its settings are not Llama's, so that "
                    f"tokenizer.json would give other ids on {len(different)} texts, first "
                    f"{different[0]!r:.80}."
                )
            if different:
                raise AssertionError(
                    f"tokenizer.json differs on {len(different)} texts, first {different[0]!r:.80}"
                )
            write_whole(work / JSON_FILE, text_json.encode())
            write_whole(path, tokenizer.model)

    if not comm.bcast(path.exists()):
        _everywhere(comm, make)
    return Tokenizer(comm.bcast(path.read_bytes() if comm.rank == 0 else None))


def training_texts(path: Path, config: PreprocessConfig) -> Iterator[str]:
    """Training documents for the tokenizer: a seeded share of at most ``tokenizer.sample_mb``.

    Where no whole work of the share fits, the start of the corpus' first training work stands for it.
    """
    file = pq.ParquetFile(path)
    column = SCHEMA.get_field_index("text")
    groups = map(file.metadata.row_group, range(file.num_row_groups))
    size = sum(group.column(column).total_uncompressed_size for group in groups)
    most = config.tokenizer.sample_mb * raw.MEGABYTE
    share = most / max(size, 1)
    taken, first = 0, ""
    for identifier, text in _training_rows(file):
        first = first or text[:most]
        if not in_sample(identifier, config.tokenizer.seed, share):
            continue
        if taken + len(text) > most:
            break
        taken += len(text)
        yield text
    if not taken:
        yield first


def _training_rows(file: pq.ParquetFile) -> Iterator[tuple[str, str]]:
    """(id, text) of what is not validation."""
    for group in range(file.num_row_groups):
        table = file.read_row_group(group, columns=["id", "split", "text"])
        for row in zip(table["id"], table["split"], table["text"], strict=True):
            identifier, split, text = (item.as_py() for item in row)
            if split != "valid":
                yield identifier, cut_for_validation(text)[0] if split == "both" else text
