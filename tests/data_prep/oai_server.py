"""A small OAI-PMH server on loopback, with the moods of real ones."""

import gzip
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit
from xml.sax.saxutils import escape

PAGE = 3


@dataclass
class Entry:
    """One record; `file` is a path on this server."""

    id: str
    stamp: str = "2024-01-01"
    deleted: bool = False
    rights: tuple[str, ...] = (
        "info:eu-repo/semantics/openAccess",
        "https://creativecommons.org/licenses/by/4.0/",
    )
    date: str = "2021-06-30"
    title: str = "A thesis"
    sets: tuple[str, ...] = ("theses",)
    addresses: tuple[str, ...] = ()
    bare: bool = False  # its metadata element is empty


@dataclass
class Repository:
    """What the server holds and how it behaves; `log` has every request's path and query."""

    entries: list[Entry] = field(default_factory=list)
    files: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    log: list[str] = field(default_factory=list)
    busy: int = 0  # the next requests are answered with 503 and Retry-After
    slow: float = 0.0  # seconds before each answer
    drop: int = 0  # the next requests get a connection closed in the middle
    expired: bool = False  # resumption tokens are refused once
    page_bodies: dict[int, bytes] = field(default_factory=dict)  # other answers for the n-th list request
    compress: bool = False
    missing: int = 404  # the status of paths that are not there; with 200 comes a page that says so
    broken: set[str] = field(default_factory=set)  # paths that are answered with 500
    dripping: set[str] = field(default_factory=set)  # paths whose answer goes on, a byte at a time
    lists: int = 0


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *args):
        pass

    def do_GET(self):
        repository: Repository = self.server.repository
        repository.log.append(self.path)
        time.sleep(repository.slow)
        if repository.busy:
            repository.busy -= 1
            body = b"Service temporarily unavailable"
            self.send_response(503)
            self.send_header("Retry-After", "0")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
            return
        if repository.drop:
            repository.drop -= 1
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b"<OAI-PMH")
            return
        parts = urlsplit(self.path)
        if parts.path != "/oai":
            self.send_file(repository, parts.path)
            return
        repository.lists += 1
        body = repository.page_bodies.get(repository.lists)
        query = {key: values[0] for key, values in parse_qs(parts.query).items()}
        self.send(200, "text/xml", body if body is not None else self.answer(repository, query).encode())

    def send_file(self, repository, path):
        if path in repository.broken:
            self.send(500, "text/plain", b"no")
            return
        if path in repository.dripping:
            self.drip()
            return
        if path not in repository.files:
            self.send(repository.missing, "text/html", b"<html><title>No such page</title></html>")
            return
        kind, data = repository.files[path]
        if kind == "redirect":
            self.send_response(302)
            self.send_header("Location", data.decode())
            self.end_headers()
        else:
            self.send(200, kind, data)

    def drip(self):
        self.send_response(200)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", "100000")
        self.end_headers()
        try:
            for _ in range(200):
                self.wfile.write(b"x")
                self.wfile.flush()
                time.sleep(0.02)
        except OSError:
            pass  # the client had enough

    def send(self, status, kind, body):
        self.send_response(status)
        if self.server.repository.compress:
            body = gzip.compress(body)
            self.send_header("Content-Encoding", "gzip")
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        with suppress(ConnectionError):  # the client was killed
            self.wfile.write(body)

    def answer(self, repository, query):
        if query["verb"] == "GetRecord":
            found = "".join(
                record(entry, self.server) for entry in repository.entries if entry.id == query["identifier"]
            )
            return envelope(f"<GetRecord>{found}</GetRecord>" if found else '<error code="idDoesNotExist"/>')
        if "resumptionToken" in query:
            if repository.expired:
                repository.expired = False
                return envelope('<error code="badResumptionToken">gone</error>')
            start, since, chosen = query["resumptionToken"].split("|")
            start = int(start)
        else:
            start, since, chosen = 0, query.get("from", ""), query.get("set", "")
        matching = [e for e in repository.entries if e.stamp >= since and (not chosen or chosen in e.sets)]
        if not matching:
            return envelope('<error code="noRecordsMatch">none</error>')
        records = "".join(record(entry, self.server) for entry in matching[start : start + PAGE])
        more = start + PAGE < len(matching)
        token = f"<resumptionToken>{start + PAGE}|{since}|{chosen}</resumptionToken>" if more else ""
        return envelope(f"<ListRecords>{records}{token}</ListRecords>")


def record(entry, server):
    status = ' status="deleted"' if entry.deleted else ""
    inner = f"<identifier>{escape(entry.id)}</identifier><datestamp>{entry.stamp}</datestamp>"
    head = f"<header{status}>{inner}</header>"
    if entry.deleted:
        return f"<record>{head}</record>"
    if entry.bare:
        return f"<record>{head}<metadata/></record>"
    addresses = entry.addresses or (f"{server.address}/files/{entry.id.rpartition(':')[2]}.txt",)
    values = [
        ("title", entry.title),
        ("creator", "Persoon, Voorbeeld"),
        ("date", entry.date),
        ("language", "eng"),
    ]
    values += [("rights", item) for item in entry.rights] + [("identifier", item) for item in addresses]
    inner = "".join(f"<dc:{name}>{escape(value)}</dc:{name}>" for name, value in values)
    return (
        f"<record>{head}<metadata><!-- Dublin Core -->"
        f'<oai_dc:dc xmlns:oai_dc="http://www.openarchives.org/OAI/2.0/oai_dc/" '
        f'xmlns:dc="http://purl.org/dc/elements/1.1/">{inner}</oai_dc:dc></metadata></record>'
    )


def envelope(inner):
    return f'<?xml version="1.0"?><OAI-PMH xmlns="http://www.openarchives.org/OAI/2.0/">{inner}</OAI-PMH>'


class Server:
    """The server while a test runs: ``with Server(repository) as server``."""

    def __init__(self, repository):
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.repository = repository
        self.address = self._http.address = f"http://127.0.0.1:{self._http.server_address[1]}"

    def __enter__(self):
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *args):
        self._http.shutdown()
        self._http.server_close()
