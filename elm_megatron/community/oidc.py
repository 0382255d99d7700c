"""Log in through an institution: OpenID Connect's code flow with PKCE, as SURFconext offers it.

    community/oidc.yaml:  {issuer: https://connect.surfconext.nl, client_id: …, secret_file: …, address: https://…}

Of the identity token only `sub` is used, which SURFconext makes for this app alone (pairwise), and nothing
but its keyed hash is stored. No name and no e-mail is asked for: the scope is `openid`.
"""

from __future__ import annotations

import hmac
import secrets
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import httpx2 as httpx
import yaml
from authlib.oauth2.rfc7636 import create_s256_code_challenge
from itsdangerous import BadSignature, URLSafeTimedSerializer
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from conf.errors import InputError

FILE = "oidc.yaml"
KEYS = {"issuer", "client_id", "secret_file", "address"}
CALLBACK = "/log-in/callback"
SECONDS = 600  # between the two halves of a login
LEEWAY = 60  # seconds by which clocks may differ
ALGORITHMS = ["RS256", "ES256"]
TIMEOUT = httpx.Timeout(10.0)


class Refused(Exception):
    """The institution, or what came back from it, does not say who somebody is."""


@dataclass(frozen=True)
class Provider:
    """What `oidc.yaml` says.

    Attributes:
        issuer: of the institution.
        client_id: by which it knows this app.
        secret_file: readable by its owner alone.
        address: of this app, as browsers see it.
    """

    issuer: str
    client_id: str
    secret_file: Path
    address: str

    @property
    def callback(self) -> str:
        """Where the institution sends people back."""
        return self.address + CALLBACK

    async def begin(self, key: bytes) -> tuple[str, str]:
        """Begin a login: the institution's address to go to, and what the browser's cookie keeps meanwhile.

        Raises:
            Refused: the institution cannot be asked.
        """
        async with httpx.AsyncClient(timeout=TIMEOUT) as client:
            places = await self._places(client)
        kept = {name: secrets.token_urlsafe(32) for name in ("state", "nonce", "verifier")}
        asked = {
            "response_type": "code",
            "client_id": self.client_id,
            "redirect_uri": self.callback,
            "scope": "openid",
            "state": kept["state"],
            "nonce": kept["nonce"],
            "code_challenge": create_s256_code_challenge(kept["verifier"]),
            "code_challenge_method": "S256",
        }
        return f"{places['authorization_endpoint']}?{urlencode(asked)}", _signer(key).dumps(kept)

    async def subject(self, key: bytes, cookie: str, state: str, code: str) -> str:
        """Who came back, as the institution calls them for this app.

        Raises:
            Refused: the answer is not to the login that this browser began, is too old, or is not the
                institution's.
        """
        try:
            kept = _signer(key).loads(cookie, max_age=SECONDS)
        except BadSignature as error:
            raise Refused("the login was not begun in this browser, or is too old") from error
        if not hmac.compare_digest(kept["state"], state):
            raise Refused("the answer is not to this login")
        async with httpx.AsyncClient(timeout=TIMEOUT) as client:
            places = await self._places(client)
            form = {
                "grant_type": "authorization_code",
                "code": code,
                "redirect_uri": self.callback,
                "code_verifier": kept["verifier"],
            }
            secret = self.secret_file.read_text(encoding="utf-8").strip()
            token = await _json(
                client, "POST", places["token_endpoint"], data=form, auth=(self.client_id, secret)
            )
            keys = await _json(client, "GET", places["jwks_uri"])
        return self._claims(str(token.get("id_token")), keys, kept["nonce"])["sub"]

    def _claims(self, token: str, keys: dict[str, Any], nonce: str) -> dict[str, Any]:
        """What an identity token says, its signature and claims checked (OpenID Connect Core, 3.1.3.7)."""
        try:
            known = KeySet.import_key_set(keys)  # type: ignore[arg-type]
            claims = jwt.decode(token, known, algorithms=ALGORITHMS).claims
            rules = jwt.JWTClaimsRegistry(
                now=int(time.time()),
                leeway=LEEWAY,
                iss={"essential": True, "value": self.issuer},
                aud={"essential": True, "value": self.client_id},
                exp={"essential": True},
                nonce={"essential": True, "value": nonce},
                sub={"essential": True},
            )
            rules.validate(claims)
        except (JoseError, ValueError, KeyError, TypeError) as error:
            raise Refused("the identity token is not valid") from error
        if not isinstance(claims["sub"], str) or claims.get("azp", self.client_id) != self.client_id:
            raise Refused("the identity token is another app's")
        return claims

    async def _places(self, client: httpx.AsyncClient) -> dict[str, str]:
        """The institution's addresses, as it publishes them.

        Raises:
            Refused: it does not answer, or names another issuer.
        """
        found = await _json(client, "GET", f"{self.issuer}/.well-known/openid-configuration")
        names = ("authorization_endpoint", "token_endpoint", "jwks_uri")
        safe = urlsplit(self.issuer).scheme
        if found.get("issuer") != self.issuer or not all(
            urlsplit(str(found.get(name))).scheme == safe for name in names
        ):
            raise Refused("the institution describes itself wrongly")
        return found


async def _json(client: httpx.AsyncClient, method: str, url: str, **more: Any) -> dict[str, Any]:
    try:
        answer = await client.request(method, url, **more)
        found = answer.json() if answer.status_code == 200 else None
    except (httpx.HTTPError, ValueError) as error:
        raise Refused("the institution does not answer") from error
    if not isinstance(found, dict):
        raise Refused("the institution refuses the login")
    return found


def read(folder: Path) -> Provider | None:
    """The provider of an app's folder; None where people come by invitation alone.

    Raises:
        InputError: the file is not what it must be, or others can read the secret.
    """
    path = folder / FILE
    if not path.exists():
        return None
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"{path}: cannot be read ({str(error).splitlines()[0]}).") from error
    if (
        not isinstance(values, dict)
        or set(values) != KEYS
        or not all(isinstance(v, str) for v in values.values())
    ):
        raise InputError(f"{path}: must have the texts {', '.join(sorted(KEYS))} and nothing else.")
    for key in ("issuer", "address"):
        found = urlsplit(values[key])
        if found.scheme != "https" and found.hostname not in ("127.0.0.1", "localhost"):
            raise InputError(f"{path}: {key} must begin with https://, found {values[key]!r}.")
    secret = Path(values["secret_file"])
    secret = secret if secret.is_absolute() else folder / secret
    if not secret.is_file() or secret.stat().st_mode & 0o077:
        raise InputError(f"{path}: secret_file must be a file that its owner alone can read (chmod 600).")
    return Provider(values["issuer"].rstrip("/"), values["client_id"], secret, values["address"].rstrip("/"))


def _signer(key: bytes) -> URLSafeTimedSerializer:
    return URLSafeTimedSerializer(key, salt="oidc")
