"""Names by a model of the user's: spaCy's (a folder with ``meta.json``) or GLiNER's (``gliner_config.json``).

Neither library is needed for anything else, so both are imported when a model is asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

from conf.errors import InputError

KEY = "clean.redact.ner_model"
PERSON = ("PER", "PERSON", "person")
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
        return _spacy(path)
    if (path / "gliner_config.json").is_file():
        return _gliner(path)
    raise InputError(
        f"{KEY}={folder}: must be the folder of a spaCy model (with meta.json) or of a GLiNER model (with "
        "gliner_config.json)."
    )


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
    loaded = GLiNER.from_pretrained(str(path), local_files_only=True)

    def find(text: str) -> list[tuple[int, int]]:
        found = loaded.predict_entities(text, ["person"], threshold=CERTAIN)
        return [(item["start"], item["end"]) for item in found]

    return find
