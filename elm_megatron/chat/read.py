"""Chat data in files, in every format of `formats/`.

Every reader yields `Dialogue`s or `Preference`s and counts what it skips, by reason. A file of another format
is refused.
"""

from __future__ import annotations

import hashlib
import importlib
import pkgutil
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from conf.errors import InputError
from conf.names import PACKAGE
from data_prep.files import sha256
from elm_megatron.chat import formats as package
from elm_megatron.chat.format import Format
from elm_megatron.chat.template import Dialogue, Preference

MAX_FILE_BYTES = 2_000_000_000
SURROGATE = re.compile("[\ud800-\udfff]")
HALF_A_CHARACTER = "half a character (a lone surrogate)"


@cache
def formats() -> dict[str, Format]:
    """{suffix: format} of the modules in `formats/`."""
    names = [module.name for module in pkgutil.iter_modules(package.__path__)]
    found = [importlib.import_module(f"{package.__name__}.{name}").FORMAT for name in names]
    return {one.suffix: one for one in found}


def data_file(name: str, key: str) -> Path:
    """The path of a data file; pkg://<package>/… is in this suite.

    Args:
        name: as it was given.
        key: the configuration key that names it, for the refusal.

    Raises:
        InputError: it is missing, too large, or of another kind.
    """
    if name.startswith(PACKAGE):
        package, _, rest = name.removeprefix(PACKAGE).partition("/")
        spec = find_spec(package)
        if spec is None or not spec.submodule_search_locations:
            raise InputError(f"{key}: there is no package {package!r} in {name}.")
        path = Path(next(iter(spec.submodule_search_locations))) / rest
    else:
        path = Path(name).expanduser().absolute()
    if path.suffix.lower() not in formats():
        raise InputError(
            f"{key}: {name} is {path.suffix or 'without suffix'}; allowed are {', '.join(sorted(formats()))}."
        )
    if not path.is_file():
        raise InputError(f"{key}: {path} does not exist.")
    if path.stat().st_size > MAX_FILE_BYTES:
        raise InputError(
            f"{key}: {path} has {path.stat().st_size:,} bytes, at most {MAX_FILE_BYTES:,} are read."
        )
    return path


def listing(counts: Mapping[str, int]) -> str:
    """Counts in one line."""
    return ", ".join(f"{name}: {count:,}" for name, count in counts.items() if count)


def digest(paths: list[Path]) -> str:
    """One hash over the bytes of several files, in order."""
    whole = hashlib.sha256()
    for path in paths:
        whole.update(bytes.fromhex(sha256(path)))
    return whole.hexdigest()


def dialogues(path: Path, sheet: str, skipped: Counter[str]) -> Iterator[Dialogue]:
    """The dialogues of one file.

    Args:
        path: the file.
        sheet: worksheet of a spreadsheet.
        skipped: counts records that hold no dialogue, by reason.

    Raises:
        InputError: the file is not what its suffix says.
    """
    for dialogue in formats()[path.suffix.lower()].dialogues(path, sheet, skipped):
        said = (text for turn in dialogue.turns for text in (turn.instruction, turn.context, turn.response))
        if _is_unicode(dialogue.system, *said):
            yield dialogue
        else:
            skipped[HALF_A_CHARACTER] += 1


def preferences(path: Path, sheet: str, min_agreement: float, counts: Counter[str]) -> Iterator[Preference]:
    """The preferences of one file.

    Args:
        path: the file.
        sheet: worksheet of a spreadsheet.
        min_agreement: share of the raters behind a preference.
        counts: gets the records skipped, by reason.

    Raises:
        InputError: the file is not what its suffix says.
    """
    for preference in formats()[path.suffix.lower()].preferences(path, sheet, min_agreement, counts):
        if _is_unicode(preference.prompt, preference.chosen, preference.rejected):
            yield preference
        else:
            counts[f"skipped, {HALF_A_CHARACTER}"] += 1


def _is_unicode(*texts: str) -> bool:
    """Whether texts can be encoded; the escapes of JSON and of spreadsheets can hold halves of characters."""
    return not any(SURROGATE.search(text) for text in texts)
