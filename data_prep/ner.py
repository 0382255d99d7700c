"""Names by a model of the user's: spaCy's (a folder with ``meta.json``) or GLiNER's (``gliner_config.json``).

Neither library is needed for anything else, so both are imported when a model is asked for. Models read a
bounded number of words and ignore the others, so a text is given to them in pieces.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path

from conf.errors import InputError

KEY = "clean.redact.ner_model"
PERSON = ("PER", "PERSON", "person")
PIECE = 1000  # characters; GLiNER's models read 384 words at most
END = re.compile(r"(?<=[.!?])\s|\n|\s")
CERTAIN = 0.5  # least score of a name that GLiNER finds
Find = Callable[[str], list[tuple[int, int]]]


@lru_cache(1)
def model(folder: str) -> Find:
    """A function that finds the names of a text, as (start, end).

    Raises:
        InputError: the folder holds no model, or its library is not installed.
    """
    path = Path(folder).expanduser()
    if (path / "meta.json").is_file():
        return _in_pieces(_spacy(path))
    if (path / "gliner_config.json").is_file():
        return _in_pieces(_gliner(path))
    raise InputError(
        f"{KEY}={folder}: must be the folder of a spaCy model (with meta.json) or of a GLiNER model (with "
        "gliner_config.json)."
    )


def _in_pieces(find: Find) -> Find:
    def find_in_all(text: str) -> list[tuple[int, int]]:
        return [
            (at + start, at + end) for at, piece in _pieces(text) for start, end in find(piece) if start < end
        ]

    return find_in_all


def _pieces(text: str) -> Iterator[tuple[int, str]]:
    """(place, text) of parts that end with a sentence or a line where there is one, or with a word."""
    at = 0
    while len(text) - at > PIECE:
        ends = list(END.finditer(text, at + PIECE // 2, at + PIECE))
        best = [end for end in ends if end[0] == "\n" or text[end.start() - 1] in ".!?"] or ends
        cut = best[-1].end() if best else at + PIECE
        yield at, text[at:cut]
        at = cut
    yield at, text[at:]


def _spacy(path: Path) -> Find:
    try:
        import spacy
    except ImportError as error:
        raise InputError(f"{KEY}={path}: a spaCy model needs spaCy: pip install -e .[ner].") from error
    try:
        pipeline = spacy.load(path)
    except (OSError, ValueError) as error:
        raise InputError(
            f"{KEY}={path}: spaCy cannot load it ({' '.join(str(error).split())[:200]})."
        ) from error

    def find(text: str) -> list[tuple[int, int]]:
        return [(item.start_char, item.end_char) for item in pipeline(text).ents if item.label_ in PERSON]

    return find


def _gliner(path: Path) -> Find:
    try:
        from gliner import GLiNER
    except ImportError as error:
        raise InputError(f"{KEY}={path}: a GLiNER model needs gliner: pip install gliner.") from error
    try:
        loaded = GLiNER.from_pretrained(str(path), local_files_only=True)
    except Exception as error:  # whatever is below: torch, transformers, safetensors, a missing file
        raise InputError(
            f"{KEY}={path}: GLiNER cannot load it ({' '.join(str(error).split())[:200]})."
        ) from error

    def find(text: str) -> list[tuple[int, int]]:
        found = loaded.predict_entities(text, ["person"], threshold=CERTAIN)
        return [(item["start"], item["end"]) for item in found]

    return find
