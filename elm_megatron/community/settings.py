"""The community's own settings in its folder: endpoints, rubric and consent, with the package's as a start.

    community/secret  community.sqlite  models.yaml  rubric.yaml  consent.yaml  exports/

A curator changes `rubric.yaml` or `consent.yaml` and raises its `version`; each stored item names both.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from conf.errors import InputError

TEXTS = Path(__file__).parent / "texts"
LANGUAGES = ("nl", "en")
OWN = ("rubric.yaml", "consent.yaml")


@dataclass(frozen=True)
class Endpoint:
    """A served model.

    Attributes:
        name: for ratings and lineage.
        url: of its OpenAI-compatible server, without /v1.
        key_file: the file with its key, or None.
        source: the run or folder that is served, for the training works in an answer; None where unknown.
        model: what the server calls it, where it has several; None is `name`.
    """

    name: str
    url: str
    key_file: Path | None = None
    source: str | None = None
    model: str | None = None

    def key(self) -> str | None:
        """The server's key."""
        return self.key_file.read_text(encoding="utf-8").strip() if self.key_file else None


@dataclass(frozen=True)
class Settings:
    """What the folder says.

    Attributes:
        folder: of the app.
        models: served models, the first one answers on the chat page.
        rubric: `version` and, by language, the criteria.
        consent: `version` and, by language, the text.
        words: by language, the words of the pages.
    """

    folder: Path
    models: tuple[Endpoint, ...]
    rubric: dict[str, Any]
    consent: dict[str, Any]
    words: dict[str, dict[str, str]]


def read(folder: Path, models: list[dict[str, str]] | None = None) -> Settings:
    """Read a folder, which is made with the package's texts where it is new.

    Args:
        models: endpoints to use instead of models.yaml.

    Raises:
        InputError: a file is not what it must be.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    for name in OWN:
        if not (folder / name).exists():
            shutil.copyfile(TEXTS / name, folder / name)
    if models is None and (folder / "models.yaml").exists():
        models = _yaml(folder / "models.yaml")
    if not isinstance(models or [], list):
        raise InputError(f"{folder / 'models.yaml'}: must be a list of models, each with `name` and `url`.")
    endpoints = tuple(_endpoint(one, folder) for one in models or [])
    rubric, consent = (_yaml(folder / name) for name in OWN)
    for name, value in (("rubric.yaml", rubric), ("consent.yaml", consent)):
        if not isinstance(value, dict) or not isinstance(value.get("version"), int):
            raise InputError(f"{folder / name}: needs a key `version` with a whole number.")
        for language in LANGUAGES:
            if not value.get(language):
                raise InputError(f"{folder / name}: needs a text under `{language}`.")
    return Settings(
        folder, endpoints, rubric, consent, {one: _yaml(TEXTS / f"{one}.yaml") for one in LANGUAGES}
    )


def _endpoint(values: Any, folder: Path) -> Endpoint:
    if not isinstance(values, dict) or not {"name", "url"} <= values.keys():
        raise InputError(f"{folder / 'models.yaml'}: each model needs `name` and `url`, found {values!r}.")
    key, source, model = (values.get(one) for one in ("key_file", "source", "model"))
    texts = all(isinstance(one, str | None) for one in (key, source, model))
    if not (isinstance(values["name"], str) and texts and _is_url(values["url"])):
        raise InputError(
            f"{folder / 'models.yaml'}: `name`, `key_file`, `source` and `model` are texts and `url` is an "
            f"address such as http://127.0.0.1:8080, found {values!r}."
        )
    return Endpoint(values["name"], values["url"].rstrip("/"), Path(key) if key else None, source, model)


def _is_url(value: Any) -> bool:
    try:
        found = urlsplit(value)
        return found.scheme in ("http", "https") and bool(found.hostname) and found.port != 0
    except (AttributeError, TypeError, ValueError):
        return False


def _yaml(path: Path) -> Any:
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"{path}: cannot be read ({str(error).splitlines()[0]}).") from error
