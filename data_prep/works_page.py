"""``works.html``: "is my thesis in it?", a page beside every dataset that searches its ids and titles.

One file that loads nothing and may be put on any web server. Its policy (CSP) allows its own script and style
by their hashes and nothing else; ids and titles are data, never markup.
"""

from __future__ import annotations

import base64
import hashlib
import json
import unicodedata
from pathlib import Path

import pyarrow.parquet as pq
from markupsafe import Markup

from data_prep import files, opt_out, tombstones
from data_prep.documents import DOCUMENTS
from data_prep.pages import SHARED, render

PAGE = "works.html"


def write_page(corpus: str, manifest: bytes, documents: Path, folder: Path) -> None:
    """Write the page of a dataset.

    Args:
        corpus: its name.
        manifest: the bytes of its manifest, whose hash the page shows.
        documents: has ``documents.parquet``, which lists the works, and gets the page.
        folder: the dataset folder, whose take-downs and opt-outs are counted.
    """
    table = pq.ParquetFile(documents / DOCUMENTS).read(columns=["id", "title"])
    ids, titles = table["id"].to_pylist(), table["title"].to_pylist()
    works = [f"{_line(name)}\t{_line(title or '')}" for name, title in zip(ids, titles, strict=True)]
    gone = {entry["id"] for entry in [*tombstones.read(folder), *opt_out.read_record(folder)]}
    data = {"corpus": corpus, "gone": len(gone.difference(ids)), "works": works}
    script, style = ((SHARED / name).read_text(encoding="utf-8") for name in ("works.js", "works.css"))
    text = render(
        SHARED / PAGE,
        policy=Markup(_policy(script, style)),
        corpus=corpus,
        style=Markup(style),
        script=Markup(script),
        works=Markup(_as_data(data)),
        manifest=hashlib.sha256(manifest).hexdigest(),
    )
    files.write(documents / PAGE, text)


def _line(text: str) -> str:
    """On one line, without control characters and half surrogates."""
    if text.isprintable() and "  " not in text:
        return text.strip()
    breaks = ("Cc", "Cs", "Zl", "Zp")
    return " ".join("".join(" " if unicodedata.category(sign) in breaks else sign for sign in text).split())


def _as_data(data: dict) -> str:
    """JSON that ends no element and begins none, wherever it is in a page."""
    text = json.dumps(data, ensure_ascii=False)
    for sign in "<>&\u2028\u2029":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text


def _policy(script: str, style: str) -> str:
    hashes = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in (script, style)]
    return (
        f"default-src 'none'; script-src 'sha256-{hashes[0]}'; style-src 'sha256-{hashes[1]}'; "
        "base-uri 'none'; form-action 'none'"
    )
