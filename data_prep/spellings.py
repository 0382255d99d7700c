"""The names of a work in all their spellings: its id, its file, its addresses, its DOI and its handle.

A person who writes a list types what is at hand: ``thesis:57233``, ``https://thesis.eur.nl/pub/57233/``,
``HTTPS://Thesis.EUR.nl/pub/57233#abstract``, ``doi:10.1000/ABC``, ``<https://doi.org/10.1000%2Fabc>``,
``hdl:1765/1``. Each spelling has keys; an entry means the works that have one of its keys.
"""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from urllib.parse import unquote

DOI = re.compile(r"\b10\.\d{4,9}(?:\.\d+)*/[^\s\"<>]+")
HANDLE = re.compile(r"(?:\bhdl\.handle\.net/|\bhdl:\s*/*|\binfo:hdl/|\bhandle[:/\s]+)(\d[\d.]*/[^\s\"<>?#]+)")
BARE_HANDLE = re.compile(r"\d{3,6}(?:\.\d+)*/\S+")
ADDRESS = re.compile(r"(?:https?:)?//\S+|(?:www\.)?[\w-]+(?:\.[\w-]+)+/\S*")
OAI = re.compile(r"oai:([^:\s]+):(\S+)")
SUFFIX = re.compile(r"\.(?:pdf|txt)$")
LOCAL = re.compile(r"\d{2,}|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")  # a number, or a UUID as Pure's
AROUND = " \t\u00a0\u200b\ufeff\"'`“”‘’«»<>[]{}|*"
BEHIND = ".,;:!?"
MOST_NAMED = 5  # works that a sentence names


@dataclass
class Index:
    """Works by the keys of their names.

    Attributes:
        sure: works by keys that name a work by themselves.
        likely: works by keys that count only where one work alone has them: a number on a host.
    """

    sure: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    likely: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))

    def add(self, identifier: str, addresses: Sequence[str] = (), harvested: bool = False) -> None:
        """Add a work.

        Args:
            identifier: its id, which a list may write in other capitals and with the suffix of a file.
            addresses: its addresses, DOIs and handles, as its record has them.
            harvested: its id is ``<source>:<id on the server>``; any other may stand for the last part of an
                address.
        """
        for key in sure_keys(identifier, addresses, harvested):
            self.sure[key].add(identifier)
        for key in _keys_on_a_host(identifier, addresses, harvested):
            self.likely[key].add(identifier)

    def find(self, entry: str) -> set[str]:
        """The ids of the works that an entry of a list means; none where it could mean one of several."""
        for key in entry_keys(entry):
            if found := self.sure.get(key):
                return found
        for key in _likely_keys(entry):
            found = self.likely.get(key, set())
            if len(found) == 1:
                return found
        return set()

    def several(self, entry: str) -> set[str]:
        """The works of which an entry that was not found could mean one."""
        return next(filter(None, (self.likely.get(key) for key in _likely_keys(entry))), set())


def is_address(text: str) -> bool:
    """Whether a text is an address, a DOI, a handle or an OAI identifier, and so no title or remark."""
    plain = _plain(text)
    return bool(
        re.match(r"https?://|www\.", plain) or DOI.search(plain) or HANDLE.search(plain) or OAI.search(plain)
    )


def sure_keys(identifier: str, addresses: Iterable[str], harvested: bool) -> Iterator[str]:
    """Keys of a work that name it by themselves; for the arguments see `Index.add`."""
    yield f"id {_nfc(identifier)}"
    yield f"any case {_folded(identifier)}"
    local = _local(identifier, harvested)
    if local and not local.isdigit():
        yield f"any case {_folded(local)}"
    for address in filter(None, [*addresses, local]):
        yield from _address_keys(address)


def _keys_on_a_host(identifier: str, addresses: Iterable[str], harvested: bool) -> Iterator[str]:
    """Keys of a work that other works may have too."""
    local = _local(identifier, harvested)
    if local.isdigit():
        yield f"any case {local}"
    if not harvested and "/" not in identifier:
        yield f"end {_folded(identifier)}"
    for address in filter(None, [*addresses, local]):
        yield from _local_keys(address)


def _local(identifier: str, harvested: bool) -> str:
    return identifier.partition(":")[2] if harvested else ""


def entry_keys(entry: str) -> Iterator[str]:
    """Keys of an entry that name a work by themselves, the strictest first."""
    text = _nfc(entry.strip())
    yield f"id {text}"
    bare = text.strip(AROUND)
    yield f"id {bare}"
    for form in dict.fromkeys((bare, unquote(bare), bare.rstrip(BEHIND))):
        yield f"any case {_folded(form)}"
        file = form.removeprefix("./").lstrip("/").replace("\\", "/")
        yield f"any case {SUFFIX.sub('', _folded(file))}"
    yield from _address_keys(entry)
    for doi in DOI.findall(_plain(entry)):  # file names have no slash
        yield from (f"any case {_trimmed(doi).replace('/', sign)}" for sign in "_-:")
    if BARE_HANDLE.fullmatch(_plain(entry)):
        yield f"handle {_plain(entry)}"


def _likely_keys(entry: str) -> Iterator[str]:
    plain = _plain(entry)
    yield f"any case {plain}"
    yield from _local_keys(entry)
    parts = _path_parts(plain)
    if parts:
        yield f"end {SUFFIX.sub('', parts[-1])}"
        yield from (f"end {part}" for part in reversed(parts) if LOCAL.fullmatch(part))
    else:
        yield f"end {SUFFIX.sub('', plain)}"


def _address_keys(address: str) -> Iterator[str]:
    """The DOI, the handle and the address in one form each."""
    plain = _plain(address)
    dois = [_trimmed(doi) for doi in DOI.findall(plain)]
    yield from (f"doi {doi}" for doi in dois)
    handles = [_trimmed(found) for found in HANDLE.findall(plain)]
    yield from (f"handle {found}" for found in handles)
    for host, local in OAI.findall(plain):
        yield f"oai {host}:{_trimmed(local)}"
    if ADDRESS.match(plain):
        yield f"address {_bare_address(plain)}"


def _bare_address(plain: str) -> str:
    """An address without scheme, www, the usual port, fragment, and signs at its end."""
    rest = re.sub(r"^(?:https?:)?//", "", plain).partition("#")[0].removeprefix("www.")
    host, slash, path = rest.partition("/")
    host = re.sub(r":(?:80|443)$", "", host).rstrip(".")
    return (host + slash + re.sub(r"/{2,}", "/", path)).rstrip("/?&" + BEHIND)


def _local_keys(address: str) -> Iterator[str]:
    """The numbers on a host that an address or an OAI identifier has."""
    plain = _plain(address)
    for host, local in OAI.findall(plain):
        yield f"on {host}: {re.split(r'[/:]', _trimmed(local))[-1]}"
    parts = _path_parts(plain)
    if parts:
        host = _bare_address(plain).partition("/")[0]
        yield from (f"on {host}: {part}" for part in parts if LOCAL.fullmatch(part))


def _path_parts(plain: str) -> list[str]:
    if not re.match(r"(?:https?:)?//|www\.", plain) and not ADDRESS.fullmatch(plain):
        return []
    return [part for part in _bare_address(plain).partition("/")[2].partition("?")[0].split("/") if part]


def _plain(text: str) -> str:
    """Small letters, percent signs decoded, without quotes and brackets around it."""
    return _folded(unquote(_nfc(text).strip().strip(AROUND))).strip()


def _trimmed(name: str) -> str:
    """A DOI or handle without the signs of a sentence behind it; brackets of its own stay."""
    name = name.rstrip(BEHIND + "'\"’”")
    while name.endswith((")", "]")) and name.count(name[-1]) > name.count("(" if name[-1] == ")" else "["):
        name = name[:-1].rstrip(BEHIND)
    return name.rstrip("/")


def _folded(text: str) -> str:
    return _nfc(text).casefold()


def _nfc(text: str) -> str:
    return unicodedata.normalize("NFC", text)


def page_address(identifier: str, source_urls: dict[str, str]) -> list[str]:
    """The address of a harvested work's page, where its source has pages by number.

    Args:
        identifier: ``<source>:<number>``.
        source_urls: address with ``<id>`` by the name of its source.
    """
    source, _, local = identifier.partition(":")
    return [source_urls[source].replace("<id>", local)] if source in source_urls and local else []
