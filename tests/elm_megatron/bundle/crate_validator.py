"""The validator of RO-Crates, kept off the network: it gets JSON-LD contexts from the package `rocrate`."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path

import pytest
import requests
from rocrate_validator import models, services
from rocrate_validator.utils.http import HttpRequester

# The package has the context of RO-Crate 1.3, which writes terms of Bioschemas otherwise than that of 1.1.
BIOSCHEMAS = {
    "ComputationalWorkflow": "https://bioschemas.org/ComputationalWorkflow",
    "FormalParameter": "https://bioschemas.org/FormalParameter",
    "input": "https://bioschemas.org/ComputationalWorkflow#input",
    "output": "https://bioschemas.org/ComputationalWorkflow#output",
}


def problems(folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What Provenance Run Crate 0.5 and its base profiles require and the crate does not have."""
    context = json.loads((resources.files("rocrate") / "data/ro-crate.jsonld").read_text(encoding="utf-8"))
    context["@context"] |= BIOSCHEMAS

    def get(self: HttpRequester, url: str, *rest: object, **more: object) -> requests.Response:
        response = requests.Response()
        response.url, known = url, url.startswith("https://w3id.org/ro/crate/1.1/context")
        response.status_code = 200 if known else 504
        response.headers["Content-Type"] = "application/ld+json"
        response._content = json.dumps(context).encode() if known else b""
        return response

    monkeypatch.setattr(HttpRequester, "get", get, raising=False)
    monkeypatch.setattr(HttpRequester, "head", get, raising=False)
    settings = services.ValidationSettings(
        rocrate_uri=str(folder),
        profile_identifier="provenance-run-crate",
        requirement_severity=models.Severity.REQUIRED,
        abort_on_first=False,
    )
    return [f"{issue.message} {issue.violatingEntity}" for issue in services.validate(settings).get_issues()]
