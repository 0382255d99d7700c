"""The last stage of a build: hashes, index, report and manifest, and the move into place."""

from __future__ import annotations

import datetime
import hashlib
import json
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np

from conf.schema.preprocess import PreprocessConfig
from data_prep import files
from data_prep.account import Account
from data_prep.documents import DOCUMENTS, DROPPED
from data_prep.indexed import dtype_for, entropy, index_bytes, sha256_and_counts
from data_prep.manifest import FILE as MANIFEST
from data_prep.manifest import LINEAGE, SPLITS, FileInfo, Manifest, Split, TokenizerInfo
from data_prep.plan import Plan
from data_prep.raw import Work
from data_prep.report import REPORT, write_report
from data_prep.settings import to_mapping
from data_prep.tokenizer import JSON_FILE, MODEL_FILE, Tokenizer
from data_prep.works_page import PAGE


def finish(config: PreprocessConfig, plan: Plan, tokenizer: Tokenizer, account: Account, why: str) -> None:
    """Write the index, the report, and last of all the manifest into the work folder; rank 0 alone."""
    work, name = plan.work, config.corpus.name
    dtype = dtype_for(tokenizer.vocab_size)
    splits = {}
    for split in SPLITS:
        prefix = f"{name}-{split}"
        lengths = np.fromfile(work / f"{split}.lengths", "<i4")
        digest, counts = sha256_and_counts(work / f"{split}.bin", dtype, tokenizer.vocab_size)
        size = (work / f"{split}.bin").stat().st_size
        if int(lengths.sum(dtype=np.int64)) * dtype.itemsize != size:
            raise AssertionError(f"{split}: lengths sum to {lengths.sum()} tokens, the .bin has {size} bytes")
        if counts[tokenizer.eos_id] != len(lengths):
            raise AssertionError(f"{split}: {counts[tokenizer.eos_id]} EOS for {len(lengths)} documents")
        index = index_bytes(lengths, dtype)
        files.write(work / f"{split}.idx", index)
        splits[split] = Split(
            prefix, len(lengths), int(counts.sum()), size, entropy(counts),
            FileInfo(size, digest), FileInfo(len(index), hashlib.sha256(index).hexdigest()),
        )  # fmt: skip
    notes = [
        f"{count} {kind} file(s) ignored: not a work" for kind, count in sorted(plan.scan.ignored.items())
    ]
    if why:
        notes.append(f"encoded by SentencePiece alone: {why}")
    manifest = Manifest(
        corpus=name,
        key=plan.key,
        dtype=dtype.name,
        tokenizer=TokenizerInfo(
            FileInfo.of(work / MODEL_FILE).sha256, tokenizer.vocab_size, tokenizer.bos_id, tokenizer.eos_id,
            tokenizer.pad_id,
        ),
        splits=splits,
        files={item: FileInfo.of(work / item) for item in (MODEL_FILE, JSON_FILE, DOCUMENTS, DROPPED)},
        works={"in": account.works_in, "out": account.works_out, "dropped": account.works_dropped},
        blocks={"in": account.blocks_in, "out": account.blocks_out, "dropped": account.blocks_dropped},
        redactions=account.redactions,
        repairs=account.repairs,
        languages=account.languages,
        sources=account.sources,
        licences=account.licences,
        access=account.access,
        rights_basis=account.rights_basis,
        opt_out=account.opt_out,
        notes=notes,
        settings={key: to_mapping(config)[key] for key in ("corpus", "tokenizer", "clean", "preprocess")},
    )  # fmt: skip
    write_report(manifest, work)
    files.write(work / MANIFEST, manifest.dumps())


def commit(work: Path, data_dir: Path, name: str, works: list[Work]) -> None:
    """Move the finished files into place, the manifest last.

    `lineage.jsonl` keeps the day of the build, and the days between which the raw files of `works` came.

    Killed in between, the folder holds a manifest that does not fit its files, which `Manifest.check_files`
    refuses; the same command finds the work folder, whose manifest is there, and moves the rest.
    """
    moves = {item: item for item in (MODEL_FILE, JSON_FILE, DOCUMENTS, DROPPED, REPORT, PAGE)}
    moves |= {f"{split}.{kind}": f"{name}-{split}.{kind}" for split in SPLITS for kind in ("bin", "idx")}
    for source, target in moves.items():
        if (work / source).exists():
            (work / source).replace(data_dir / target)
    digest = files.sha256(work / MANIFEST)
    lineage = data_dir / LINEAGE  # runs name the manifest they read, also after a rebuild
    before = lineage.read_bytes() if lineage.exists() else b""
    built = {"manifest": digest, "tokenizer": files.sha256(data_dir / MODEL_FILE)}
    files.write(lineage, before + json.dumps({**built, **_days(works)}).encode() + b"\n")
    (work / MANIFEST).replace(data_dir / MANIFEST)
    shutil.rmtree(work)


def _days(works: list[Work]) -> dict[str, Any]:
    """The day of the build, and the days between which the raw files were last written (UTC)."""

    def day(seconds: float) -> str:
        return datetime.datetime.fromtimestamp(seconds, datetime.UTC).date().isoformat()

    times = [work.mtime / 1e9 for work in works]
    return {"built": day(time.time()), "acquired": [day(min(times)), day(max(times))] if times else None}
