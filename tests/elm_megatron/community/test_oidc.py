"""Logging in through an institution, and what does not log anybody in. The provider is a stand-in."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from joserfc.jwk import RSAKey
from sqlalchemy import select
from starlette.testclient import TestClient

from conf.errors import InputError
from elm_megatron.community import oidc
from elm_megatron.community.tables import Person
from tests.elm_megatron.community.conftest import Community
from tests.elm_megatron.community.provider_stand_in import CLIENT, SECRET, Provider

SUBJECT = "pairwise-of-somebody"


@pytest.fixture(scope="module")
def institution() -> Iterator[Provider]:
    found = Provider()
    yield found
    found.close()


@pytest.fixture
def provider(institution: Provider) -> Provider:
    institution.claims, institution.key = {}, institution.published
    return institution


@pytest.fixture
def site(community: Community, provider: Provider) -> Community:
    """The app with an oidc.yaml."""
    secret = community.folder / "oidc-secret"
    secret.write_text(SECRET)
    secret.chmod(0o600)
    values = {"issuer": provider.issuer, "client_id": CLIENT, "secret_file": "oidc-secret"}
    (community.folder / "oidc.yaml").write_text(yaml.safe_dump(values | {"address": "https://127.0.0.1"}))
    community.app.state.services.provider = oidc.read(community.folder)
    return community


def begin(site: Community, provider: Provider, subject: str = SUBJECT) -> tuple[TestClient, str, str]:
    browser = TestClient(site.app, base_url="https://elm.test", follow_redirects=False)
    assert "/log-in/institution" in browser.get("/").text
    sent = browser.get("/log-in/institution")
    assert sent.status_code == 303 and sent.headers["location"].startswith(provider.issuer)
    for word in ("Secure", "HttpOnly", "SameSite=lax"):
        assert word in sent.headers["set-cookie"]
    return browser, *provider.log_in(sent.headers["location"], subject)


def back(browser: TestClient, state: str, code: str) -> int:
    return browser.get("/log-in/callback", params={"state": state, "code": code}).status_code


def people(site: Community) -> list[str]:
    with site.sessions() as stored:
        return list(stored.scalars(select(Person.pseudonym)))


def test_a_person_comes_back_as_the_same_pseudonym_and_nothing_else_is_stored(
    site: Community, provider: Provider
) -> None:
    for _ in range(2):
        browser, state, code = begin(site, provider)
        assert back(browser, state, code) == 303
        assert browser.get("/mine").status_code == 200
    other, state, code = begin(site, provider, "somebody-else")
    assert back(other, state, code) == 303
    found = people(site)
    assert len(found) == 2 and SUBJECT not in found
    site.engine.dispose()
    for path in site.folder.rglob("*"):
        if path.is_file():
            assert SUBJECT.encode() not in path.read_bytes() and b"someone@" not in path.read_bytes(), path


def _no_nonce(provider: Provider) -> None:
    provider.claims = {"nonce": "of-another-login"}


def _other_audience(provider: Provider) -> None:
    provider.claims = {"aud": "another-app"}


def _other_issuer(provider: Provider) -> None:
    provider.claims = {"iss": "https://elsewhere.example"}


def _too_old(provider: Provider) -> None:
    provider.claims = {"exp": int(time.time()) - 3600}


def _other_party(provider: Provider) -> None:
    provider.claims = {"azp": "another-app"}


def _forged(provider: Provider) -> None:
    provider.key = RSAKey.generate_key(2048, {"kid": "one"})


@pytest.mark.parametrize(
    "attack", [_no_nonce, _other_audience, _other_issuer, _too_old, _other_party, _forged]
)
def test_a_token_that_is_not_for_this_login_is_refused(
    attack: Callable[[Provider], None], site: Community, provider: Provider
) -> None:
    browser, state, code = begin(site, provider)
    attack(provider)
    assert back(browser, state, code) == 403
    assert not people(site)


def test_an_answer_to_another_browser_or_state_is_refused(site: Community, provider: Provider) -> None:
    browser, state, code = begin(site, provider)
    assert back(TestClient(site.app, base_url="https://elm.test"), state, code) == 403  # no cookie
    assert back(browser, "wrong", code) == 403
    other, _, _ = begin(site, provider)
    assert back(other, state, code) == 403  # the state of the first browser: login CSRF
    assert back(browser, state, "no-such-code") == 403
    assert back(browser, state, code) == 303
    assert back(browser, state, code) == 403  # a code works once
    assert len(people(site)) == 1


def test_an_institution_that_is_down_is_a_page(site: Community, tmp_path: Path) -> None:
    gone = oidc.Provider("http://127.0.0.1:9", CLIENT, site.folder / "oidc-secret", "https://elm.test")
    site.app.state.services.provider = gone
    browser = TestClient(site.app, base_url="https://elm.test", follow_redirects=False)
    assert browser.get("/log-in/institution").status_code == 503
    site.app.state.services.provider = None
    assert browser.get("/log-in/institution").status_code == 404


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"issuer": "http://idp.example"}, "issuer must begin with https://"),
        ({"address": "ftp://x"}, "address must begin with https://"),
        ({"more": "x"}, "must have the texts address, client_id"),
        ({"secret_file": "nowhere"}, "secret_file must be a file that its owner alone"),
        ({"secret_file": "open"}, "secret_file must be a file that its owner alone"),
    ],
)
def test_settings_that_are_not_safe_are_a_sentence(values: dict[str, str], said: str, tmp_path: Path) -> None:
    for name, mode in (("kept", 0o600), ("open", 0o644)):
        (tmp_path / name).write_text("x")
        (tmp_path / name).chmod(mode)
    good = {"issuer": "https://a", "client_id": "b", "secret_file": "kept", "address": "https://c"}
    (tmp_path / "oidc.yaml").write_text(yaml.safe_dump(good))
    assert oidc.read(tmp_path).callback == "https://c/log-in/callback"
    (tmp_path / "oidc.yaml").write_text(yaml.safe_dump(good | values))
    with pytest.raises(InputError, match=said):
        oidc.read(tmp_path)
