"""Chat data in files: Alpaca's JSON, JSONL and Parquet, chat-format JSONL, EUR's spreadsheet.

Every reader yields `Dialogue`s and counts what it skips, by reason. A file that is none of these is refused.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from conf.errors import InputError
from elm_megatron.chat.template import Dialogue, Preference, Turn

PACKAGE = "pkg://"
SUFFIXES = (".json", ".jsonl", ".parquet", ".xlsx")
MAX_FILE_BYTES = 2_000_000_000
ROLES = ("system", "user", "assistant")
SURROGATE = re.compile("[\ud800-\udfff]")
HALF_A_CHARACTER = "half a character (a lone surrogate)"


def data_file(name: str, key: str) -> Path:
    """The path of a data file; pkg://<package>/… lies in this suite.

    Args:
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
    if path.suffix.lower() not in SUFFIXES:
        raise InputError(
            f"{key}: {name} is {path.suffix or 'without suffix'}; allowed are {', '.join(SUFFIXES)}."
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
        with path.open("rb") as file:
            whole.update(hashlib.file_digest(file, "sha256").digest())
    return whole.hexdigest()


def dialogues(path: Path, sheet: str, skipped: Counter[str]) -> Iterator[Dialogue]:
    """The dialogues of one file.

    Args:
        sheet: worksheet of a spreadsheet.
        skipped: counts rows that hold no dialogue, by reason.

    Raises:
        InputError: the file is not what its suffix says.
    """
    for dialogue in _dialogues(path, sheet, skipped):
        said = (text for turn in dialogue.turns for text in (turn.instruction, turn.context, turn.response))
        if _is_unicode(dialogue.system, *said):
            yield dialogue
        else:
            skipped[HALF_A_CHARACTER] += 1


def _dialogues(path: Path, sheet: str, skipped: Counter[str]) -> Iterator[Dialogue]:
    if path.suffix.lower() == ".xlsx":
        from elm_megatron.chat.eur_sheet import read_dialogues

        yield from read_dialogues(path, sheet, skipped)
        return
    for number, record in records(path):
        reason_or_dialogue = _dialogue(record)
        if isinstance(reason_or_dialogue, str):
            skipped[reason_or_dialogue] += 1
        elif reason_or_dialogue is None:
            raise InputError(
                f"{path}: record {number} is neither Alpaca's (instruction, input, output) nor a chat "
                "(messages of role and content)."
            )
        else:
            yield reason_or_dialogue


def records(path: Path) -> Iterator[tuple[int, Any]]:
    """The records of a JSON, JSONL or Parquet file with their numbers, from 1.

    Raises:
        InputError: it cannot be read as that.
    """
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        yield from enumerate(_parquet(path), 1)
        return
    try:
        with path.open(encoding="utf-8-sig") as file:  # editors on Windows put a mark in front
            if suffix == ".json":
                values = _json(str(path), file.read())
                if not isinstance(values, list):
                    raise InputError(f"{path}: must hold a list of records.")
                yield from enumerate(values, 1)
                return
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield number, _json(f"{path}: line {number}", line)
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 ({error.reason} at byte {error.start}).") from error


def _json(where: str, text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:  # also numbers of thousands of digits, endless nesting
        raise InputError(f"{where}: not JSON ({error}).") from error


def _parquet(path: Path) -> Iterator[dict[str, Any]]:
    import pyarrow
    import pyarrow.parquet

    try:
        file = pyarrow.parquet.ParquetFile(path)
        for batch in file.iter_batches(batch_size=1024):
            yield from batch.to_pylist()
    except (pyarrow.ArrowException, OSError) as error:
        raise InputError(f"{path}: not readable as Parquet ({error}).") from error


def _dialogue(record: Any) -> Dialogue | str | None:
    """A record as a dialogue; a reason to skip it; None when it is of no known form."""
    if not isinstance(record, dict):
        return None
    if "messages" in record or "conversations" in record:
        return _chat(record.get("messages") or record.get("conversations"))
    if "instruction" not in record or "output" not in record:
        return None
    texts = [record["instruction"], record.get("input"), record["output"]]
    if not all(text is None or isinstance(text, str) for text in texts):
        return None
    instruction, context, response = ((text or "").strip() for text in texts)
    if not instruction:
        return "no instruction"
    if not response:
        return "no response"
    return Dialogue((Turn(instruction, context, response),))


def _chat(messages: Any) -> Dialogue | str | None:
    """[{role, content}, …]: an optional system message, then user and assistant in turn."""
    if not isinstance(messages, list) or not all(isinstance(m, dict) for m in messages):
        return None
    said = [(m.get("role"), m.get("content")) for m in messages]
    if any(role not in ROLES or not isinstance(text, str) for role, text in said):
        return None
    system = said.pop(0)[1] if said and said[0][0] == "system" else ""
    if said and said[-1][0] == "user":
        said.pop()  # a question nobody answered yet
    if not said:
        return "no response"
    if [role for role, _ in said] != ["user", "assistant"] * (len(said) // 2):
        return "user and assistant do not take turns"
    if any(not text.strip() for _, text in said):
        return "an empty message"
    pairs = zip(said[::2], said[1::2], strict=True)
    return Dialogue(tuple(Turn(q.strip(), "", a.strip()) for (_, q), (_, a) in pairs), system.strip())


def preferences(path: Path, sheet: str, min_agreement: float, counts: Counter[str]) -> Iterator[Preference]:
    """The preferences of one file.

    Args:
        counts: gets the rows skipped, by reason.

    Raises:
        InputError: the file is not what its suffix says.
    """
    for preference in _preferences(path, sheet, min_agreement, counts):
        if _is_unicode(preference.prompt, preference.chosen, preference.rejected):
            yield preference
        else:
            counts[f"skipped, {HALF_A_CHARACTER}"] += 1


def _is_unicode(*texts: str) -> bool:
    """Whether texts can be encoded; the escapes of JSON and of spreadsheets can hold halves of characters."""
    return not any(SURROGATE.search(text) for text in texts)


def _preferences(path: Path, sheet: str, min_agreement: float, counts: Counter[str]) -> Iterator[Preference]:
    if path.suffix.lower() == ".xlsx":
        from elm_megatron.chat.eur_sheet import read_preferences

        yield from read_preferences(path, sheet, min_agreement, counts)
        return
    for number, record in records(path):
        keys = ("prompt", "chosen", "rejected")
        if not isinstance(record, dict) or not all(isinstance(record.get(key), str) for key in keys):
            raise InputError(f"{path}: record {number} must hold the texts prompt, chosen and rejected.")
        prompt, chosen, rejected = (record[key].strip() for key in keys)
        if not (prompt and chosen and rejected):
            counts["skipped, an empty text"] += 1
        elif chosen == rejected:
            counts["skipped, both answers alike"] += 1
        else:
            yield Preference(prompt, chosen, rejected)
