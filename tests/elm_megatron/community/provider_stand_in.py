"""A stand-in for an institution's OpenID Connect provider, on loopback: SURFconext's shape, invented people.

It checks what a provider checks: the client's secret, the code, the redirect address and PKCE.
"""

from __future__ import annotations

import base64
import hashlib
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from joserfc import jwt
from joserfc.jwk import RSAKey

CLIENT, SECRET = "elm-app", "a-secret-of-the-app"


class Provider:
    """The provider; `claims` and `key` may be changed by a test that attacks."""

    def __init__(self) -> None:
        self.key = self.published = RSAKey.generate_key(2048, {"kid": "one"})
        self.claims: dict[str, Any] = {}
        self.codes: dict[str, dict[str, str]] = {}
        provider = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if urlsplit(self.path).path == "/keys":
                    self.give({"keys": [provider.published.as_dict(private=False)]})
                else:
                    at = provider.issuer
                    places = {"authorization_endpoint": f"{at}/auth", "token_endpoint": f"{at}/token"}
                    self.give({"issuer": at, "jwks_uri": f"{at}/keys", **places})

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"])).decode()
                form = {name: values[0] for name, values in parse_qs(body).items()}
                asked = provider.codes.pop(form.get("code", ""), None)
                basic = base64.b64encode(f"{CLIENT}:{SECRET}".encode()).decode()
                digest = hashlib.sha256(form.get("code_verifier", "").encode()).digest()
                challenge = base64.urlsafe_b64encode(digest).decode().rstrip("=")
                right = asked is not None and self.headers["authorization"] == f"Basic {basic}"
                if (
                    right
                    and asked["code_challenge"] == challenge
                    and asked["redirect_uri"] == form["redirect_uri"]
                ):
                    self.give(
                        {"access_token": "x", "token_type": "Bearer", "id_token": provider.token(asked)}
                    )
                else:
                    self.give({"error": "invalid_grant"}, 400)

            def give(self, found: dict[str, Any], status: int = 200) -> None:
                text = json.dumps(found).encode()
                self.send_response(status)
                self.send_header("content-length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, *words: object) -> None:
                """Say nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def issuer(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"

    def log_in(self, address: str, subject: str) -> tuple[str, str]:
        """What a person does at the provider; gives the state and the code of the way back."""
        asked = {name: values[0] for name, values in parse_qs(urlsplit(address).query).items()}
        assert asked["response_type"] == "code" and asked["scope"] == "openid"
        assert asked["code_challenge_method"] == "S256" and asked["client_id"] == CLIENT
        code = f"code-{len(self.codes)}-{subject}"
        self.codes[code] = asked | {"sub": subject}
        return asked["state"], code

    def token(self, asked: dict[str, str]) -> str:
        now = int(time.time())
        claims = {"iss": self.issuer, "aud": CLIENT, "sub": asked["sub"], "nonce": asked["nonce"]}
        claims |= {"iat": now, "exp": now + 300, "email": "someone@example.org"} | self.claims
        return jwt.encode({"alg": "RS256", "kid": "one"}, claims, self.key)

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
