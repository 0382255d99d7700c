"""What `sft.files=[community]` and `dpo.files=[community]` stand for: the files of the newest export.

community/exports/<name>/sft-train.jsonl  sft-valid.jsonl  dpo-train.jsonl  dpo-valid.jsonl  manifest.json
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from conf.errors import InputError
from conf.schema.tune import FinetuneConfig
from elm_megatron.run.folder import RunFolder
from elm_megatron.sources.places import run_config

WORD = "community"  # in a list of files
FOLDER = Path("community")  # of the app, in the folder of the command
MANIFEST = "manifest.json"
WITHDRAWN = "withdrawn.json"  # beside it: what was taken back since


def newest(folder: Path = FOLDER) -> Path:
    """The export that was made last.

    Raises:
        InputError: there is none.
    """
    made = sorted((folder / "exports").glob(f"*/{MANIFEST}"), key=lambda path: path.stat().st_mtime_ns)
    if not made:
        raise InputError(
            f"files=[{WORD}]: {folder / 'exports'} has no export; make one with "
            "`python launch/community.py export=<name>`."
        )
    return made[-1].parent.absolute()


def manifest_of(export: Path) -> dict[str, Any]:
    """The manifest of an export.

    Raises:
        InputError: it cannot be read.
    """
    try:
        return json.loads((export / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{export / MANIFEST}: cannot be read ({error}).") from error


def of_community(config: FinetuneConfig, export: Path | None = None) -> FinetuneConfig:
    """The configuration with the files of an export where it says `community`; any other as it is.

    A run that was begun goes on with the export that it was begun with.

    Args:
        config: of a tuning run.
        export: which export; None is that of the run, and of a new run the newest.

    Raises:
        InputError: there is no export, or it has no row of that kind.
    """
    if WORD not in config.files:
        return config
    kind = config.stage
    folder = export or _begun_with(RunFolder(config.run.dir), kind) or newest()
    files = [str(folder / f"{kind}-train.jsonl") if one == WORD else one for one in config.files]
    print(f"{kind}.files: {WORD} is {folder}", flush=True)
    if kind == "dpo":
        return replace(config, dpo=replace(config.dpo, files=files))
    sft = replace(config.sft, files=files)
    held_out = folder / "sft-valid.jsonl"
    if not sft.valid_files and sft.files == [str(folder / "sft-train.jsonl")] and _has_rows(held_out):
        sft = replace(sft, valid_files=[str(held_out)])  # of people who are not in the other file
    return replace(config, sft=sft)


def held_out_pairs(files: list[str]) -> list[str]:
    """The files with the pairs of people who are held out, beside those files that are of an export."""
    beside = [Path(one).with_name("dpo-valid.jsonl") for one in files if Path(one).name == "dpo-train.jsonl"]
    return [str(path) for path in beside if _has_rows(path)]


def _has_rows(path: Path) -> bool:
    return path.is_file() and path.stat().st_size > 0


def _begun_with(run: RunFolder, kind: str) -> Path | None:
    """The export of a run that was begun."""
    if not run.config.exists():
        return None
    for one in (run_config(run).get(kind) or {}).get("files") or []:
        path = Path(str(one))
        if path.name == f"{kind}-train.jsonl" and (path.parent / MANIFEST).is_file():
            return path.parent
    return None
