"""Places and default names: of a corpus after its folder, of a run after what it reads."""

from __future__ import annotations

import re
from pathlib import Path

CONF = Path(__file__).resolve().parent
PACKAGE = "pkg://"  # the start of a path inside this suite
MODEL_FOLDER = "model"  # of an export run: the Hugging Face folder


def folder_name(path: object) -> str:
    """The name a corpus takes from its folder: its last part, unusual characters written as ``-``."""
    last = Path(str(path).removeprefix(PACKAGE)).expanduser().absolute().resolve().name
    return re.sub(r"[^A-Za-z0-9._-]+", "-", last).strip("-.") or "corpus"


def licence_of(path: object, licence: str) -> str:
    """The licence of works that came with the code; of any other folder it is unknown until somebody says."""
    return licence if str(path).startswith(PACKAGE) else "unknown"


def label(folder: Path) -> str:
    """What a model is called beside others: its folder's name, or for `<run>/model` the export run's."""
    folder = folder.expanduser().absolute()
    return folder.parent.name if folder.name == MODEL_FOLDER else folder.name


def joined_names(source: object) -> str:
    """The default name of an evaluation: the names of what is read, joined."""
    sources = [source] if isinstance(source, str | int | float) else list(source)  # type: ignore[call-overload]
    return "-".join(folder_name(label(Path(str(one)))) for one in sources)[:100]


def tuning_run_name(stage: str, model: str, corpus: str) -> str:
    """The default run.name; the two stages of one model do not share a folder."""
    return f"finetune-{model}-{corpus}" if stage == "sft" else f"{stage}-{model}-{corpus}"
