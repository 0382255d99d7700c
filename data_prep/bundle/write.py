"""The documents beside a dataset, written at the end of every build and after every take-down.

data/<corpus>/croissant.json
data/<corpus>/bundle/training-content-summary.md  copyright-policy.md  datasheet.md
"""

from __future__ import annotations

from pathlib import Path

from conf.schema.institution import Institution
from data_prep import files
from data_prep.bundle import copyright_policy, croissant, datasheet, summary
from data_prep.bundle.facts import Facts
from data_prep.manifest import Manifest

FOLDER = "bundle"
PROVENANCE = f"{FOLDER}/provenance"  # of a model: copies of the records of runs


def is_of_provenance(folder: Path) -> bool:
    """Whether a folder with a run.json is no run, but in the documents of a model."""
    return f"/{PROVENANCE}/" in f"{folder.as_posix()}/"


def documents(manifest: Manifest, institution: Institution) -> dict[str, str]:
    """The text of each document by its path in the dataset folder."""
    facts = Facts(manifest)
    return {
        f"{FOLDER}/{summary.FILE}": summary.write([facts], institution),
        f"{FOLDER}/{copyright_policy.FILE}": copyright_policy.write([facts], institution),
        f"{FOLDER}/{datasheet.FILE}": datasheet.write(facts, institution),
        croissant.FILE: croissant.write(facts, institution),
    }


def write(data_dir: Path, institution: Institution) -> list[Path]:
    """Bring the documents of a dataset up to date; returns those that changed.

    Raises:
        InputError: there is no dataset in the folder.
    """
    return put(data_dir, documents(Manifest.load(data_dir), institution))


def put(folder: Path, texts: dict[str, str]) -> list[Path]:
    """Write the documents that are not there as they should be, and remove others from the bundle's folder.

    Args:
        folder: of the dataset or the model.
        texts: of each document, by its path in that folder.
    """
    changed = []
    for name, text in texts.items():
        path = folder / name
        if _read(path) != text.encode():
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            files.write(path, text, mode=0o600)
            changed.append(path)
    for path in sorted((folder / FOLDER).rglob("*"), reverse=True):
        if path.is_file() and str(path.relative_to(folder)) not in texts:
            path.unlink()
            changed.append(path)
        elif path.is_dir() and not any(path.iterdir()):
            path.rmdir()
    return changed


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None
