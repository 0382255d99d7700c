"""A dataset from a corpus folder: the stages in order, each resumed where an earlier attempt stopped.

    mpiexec -n 4 python -m data_prep.job --ranks 4 settings.json

Everything is made in a hidden work folder inside the dataset folder and moved into place at the end, the
manifest last, so that a finished dataset stays intact until the new one is whole. The work folder is named by
the hash of inputs and settings: the same command finds it again, other settings start a new one.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from conf.errors import InputError, disk_full
from conf.schema.preprocess import PreprocessConfig
from data_prep import files, lock, opt_out, tombstones
from data_prep.account import Account
from data_prep.binarize import binarize
from data_prep.comm import Comm, on_first
from data_prep.documents import DOCUMENTS, DROPPED, merge_parts
from data_prep.finish import commit, finish
from data_prep.manifest import FILE as MANIFEST
from data_prep.manifest import Manifest, builds, lineage
from data_prep.parts import make_parts
from data_prep.plan import WORK, Plan, make_plan
from data_prep.progress import Progress
from data_prep.tokenizer import JSON_FILE, MODEL_FILE, Tokenizer, given
from data_prep.train_tokenizer import json_differences, to_json, train, training_texts
from data_prep.works_page import PAGE, write_page

ACCOUNT = "account.json"
KEY = "key"  # of the dataset that the work folder is for


def build(config: PreprocessConfig, comm: Comm, progress: Progress) -> Manifest:
    """Make the dataset of a corpus, or find it made; every rank calls this and gets the manifest.

    Raises:
        InputError: wrong settings or inputs, on every rank; an existing dataset is left unchanged.
    """
    started = time.perf_counter()
    data_dir = config.data_dir()
    on_first(comm, lambda: _harvest(config, progress))
    plan = on_first(comm, lambda: make_plan(config, data_dir))
    for line in plan.opt_outs.lines() if config.corpus.opt_out is not None else ():
        progress.log(line)
    finished = comm.bcast(_finished(data_dir, plan.key) if comm.rank == 0 else None)
    if finished is not None:
        if comm.rank == 0:
            with contextlib.suppress(OSError):  # a dataset that may only be read is complete without it
                _complete(config, plan, data_dir)
        progress.log(f"{data_dir} is finished and up to date: nothing to do.")
        return finished
    made = _missing(data_dir) if comm.rank == 0 else []
    try:
        with ExitStack() as stack:
            on_first(comm, lambda: stack.enter_context(lock.held(data_dir)))
            try:
                manifest = _stages(config, plan, comm, progress)
            except InputError:
                if comm.rank == 0 and not (plan.work / ACCOUNT).exists():  # cleaned works are kept
                    shutil.rmtree(plan.work, ignore_errors=True)
                raise
    except InputError:
        for folder in made:  # wrong input leaves nothing behind
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()
        raise
    progress.log(f"{data_dir} is built, {time.perf_counter() - started:.1f} s.")
    return manifest


def _harvest(config: PreprocessConfig, progress: Progress) -> None:
    """Fetch new works first, where the corpus has servers."""
    config.check()
    if config.corpus.harvest.enabled and config.corpus.harvest.sources:
        from data_prep.harvest import harvest

        try:
            done = harvest(config.corpus, tombstones.load(config).names, progress.log)
        except OSError as error:
            if not disk_full(error):
                raise
            raise InputError(
                f"corpus.path={config.corpus.path}: the disk is full; make room and repeat the command."
            ) from error
        progress.log("harvest: " + ", ".join(f"{key} {count}" for key, count in sorted(done.items())))


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


def _complete(config: PreprocessConfig, plan: Plan, data_dir: Path) -> None:
    """Write what is beside a dataset and decides on nothing: the list's account, a page that is not there."""
    if config.corpus.opt_out is not None:
        opt_out.write_list(plan.opt_outs, data_dir)
    if not (data_dir / PAGE).exists():  # of a dataset of an older version
        write_page(config.corpus.name, (data_dir / MANIFEST).read_bytes(), data_dir, data_dir)


def _builds_before(data_dir: Path) -> set[str]:
    """The builds that stood in a dataset folder, whose manifest may be missing or damaged."""
    try:
        return builds(data_dir)
    except InputError:
        return set(lineage(data_dir))


def _missing(folder: Path) -> list[Path]:
    """The folders, innermost first, that making `folder` would make."""
    return [item for item in (folder, *folder.parents) if not item.exists()]


def _stages(config: PreprocessConfig, plan: Plan, comm: Comm, progress: Progress) -> Manifest:
    """The build itself, in the work folder; each stage is skipped when its last file is there."""
    work, data_dir = plan.work, config.data_dir()
    if comm.rank == 0:
        for other in data_dir.glob(f"{WORK}*"):
            if other != work:
                shutil.rmtree(other)
        (work / "parts").mkdir(parents=True, exist_ok=True, mode=0o700)
        _forget_others(work, plan.key)
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
        if (work / DOCUMENTS).exists():  # else an earlier attempt has begun to move the files
            opt_out.record(work, data_dir, _builds_before(data_dir))
            write_page(config.corpus.name, (work / MANIFEST).read_bytes(), work, data_dir)
        commit(work, data_dir, config.corpus.name, plan.scan.works)
        _complete(config, plan, data_dir)
    return comm.bcast(Manifest.load(data_dir) if comm.rank == 0 else None)


def _forget_others(work: Path, key: str) -> None:
    """Keep the cleaned works of a work folder, but nothing that another tokenizer left there."""
    path = work / KEY
    if path.exists() and path.read_text(encoding="utf-8") == key:
        return
    for item in work.iterdir():
        if item.is_file() and item.name not in (DOCUMENTS, DROPPED, ACCOUNT):
            item.unlink()
    files.write(path, key)


def _documents(config: PreprocessConfig, plan: Plan, comm: Comm, progress: Progress) -> Account:
    """Stage 1; the account is kept beside the documents for a build that goes on later."""
    path = plan.work / ACCOUNT
    if not comm.bcast(path.exists()):
        with progress.stage("documents", "works") as report:
            done, mine = 0, -(-len(plan.scan.works) // comm.size)
            for count in make_parts(plan, config, plan.work / "parts", comm):
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
            files.write(path, json.dumps(vars(account)))
            shutil.rmtree(plan.work / "parts")

        on_first(comm, merge)
    return comm.bcast(Account(**json.loads(path.read_text(encoding="utf-8"))) if comm.rank == 0 else None)


def _tokenizer(
    config: PreprocessConfig, work: Path, account: Account, comm: Comm, progress: Progress
) -> Tokenizer:
    """Stage 2: train on rank 0, read on all."""
    path = work / MODEL_FILE

    def texts() -> Iterator[str]:
        return training_texts(work / DOCUMENTS, config.tokenizer)

    def make() -> None:
        with progress.stage("tokenizer", ""):
            taken = config.tokenizer.model is not None
            tokenizer = given(config.tokenizer) if taken else Tokenizer(train(texts(), config.tokenizer))
            text_json = to_json(tokenizer)
            some = [text[:2000] for text in itertools.islice(texts(), 200)]
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
            files.write(work / JSON_FILE, text_json)
            files.write(path, tokenizer.model)

    if not comm.bcast(path.exists()):
        on_first(comm, make)
    return Tokenizer(comm.bcast(path.read_bytes() if comm.rank == 0 else None))
