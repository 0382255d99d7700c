"""robots.txt: which addresses a server gives to programs (RFC 9309, with wildcards)."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from data_prep.web import Refused, Web

if TYPE_CHECKING:
    from protego import Protego

RESOLVERS = ("hdl.handle.net", "doi.org", "dx.doi.org")  # they send on; the host behind them has the work


class Robots:
    """The rules of each host, asked for once."""

    def __init__(self, web: Web, user_agent: str) -> None:
        """Ask by `web`, on behalf of a program with this name."""
        self._web, self._user_agent = web, user_agent
        self._rules: dict[tuple[str, str], Protego] = {}

    def allow(self, url: str) -> bool:
        """Whether the rules of its host let this program have an address.

        Raises:
            Unreachable: the host does not answer.
            ValueError: the address cannot be read.
        """
        from protego import Protego

        parts = urlsplit(url)
        if parts.netloc in RESOLVERS:
            return True
        host = parts.scheme, parts.netloc
        if host not in self._rules:
            try:
                text = self._web.get(f"{parts.scheme}://{parts.netloc}/robots.txt").text
            except Refused:  # there is none, so that everything is allowed
                text = ""
            self._rules[host] = Protego.parse(text.removeprefix("\ufeff"))
        return self._rules[host].can_fetch(url, self._user_agent)
