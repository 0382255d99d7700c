"""What a stranger, a contributor and a model's answer cannot do."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from sqlalchemy import select
from starlette.testclient import TestClient

from conf.errors import InputError
from elm_megatron.community import guards, identity
from elm_megatron.community.app import ROOMS
from elm_megatron.community.tables import Item, Person
from elm_megatron.community.visit import COOKIE
from tests.elm_megatron.community.conftest import Community

OPEN = {"/", "/about", "/health", "/invitation/{invitation}", "/log-in", "/language/{language}"}
OPEN |= {"/log-in/institution", "/log-in/callback"}
ROUTES = [route for room in ROOMS for route in room.ROUTES]
MARKUP = "<script>alert(1)</script><img src=x onerror=alert(2)>"


@pytest.mark.parametrize(("method", "path"), [route[:2] for route in ROUTES if route[1] not in OPEN])
def test_no_page_without_a_login(method: str, path: str, community: Community) -> None:
    browser = TestClient(community.app, base_url="https://elm.test", follow_redirects=False)
    answer = browser.request(method, path, data={"item": "1"} if method == "POST" else None)
    assert answer.status_code == (303 if method == "GET" else 401)
    assert answer.headers.get("location") == ("/" if method == "GET" else None)


@pytest.mark.parametrize(
    "path", [path for method, path, _ in ROUTES if method == "POST" and path not in OPEN]
)
def test_a_form_without_its_token_is_refused(path: str, community: Community) -> None:
    person = community.person("moderator").agree()
    for token in ({}, {"csrf": "wrong"}, {"csrf": community.person().csrf()}):
        form = {"item": "1", "prompt": "x", "answer": "y", "may_be_used": "yes", **token}
        assert person.client.post(path, data=form).status_code == 403
    with community.sessions() as stored:
        assert stored.scalar(select(Item.id)) is None


def test_markup_in_texts_and_answers_is_text(community: Community) -> None:
    writer = community.person().agree()
    writer.give(MARKUP, MARKUP, source=MARKUP, field=MARKUP)
    for page in (
        community.person("reviewer").agree().get("/review"),
        writer.get("/mine"),
        writer.post("/ask", question=MARKUP),
        writer.post("/compare", prompt=MARKUP),
    ):
        assert "<script>alert" not in page and "<img" not in page and "&lt;script&gt;" in page


def test_headers(community: Community) -> None:
    for path in ("/", "/about", "/nothing", "/static/style.css"):
        headers = community.browser().get(path).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert headers["x-frame-options"] == "DENY" and headers["x-content-type-options"] == "nosniff"
    assert community.browser().get("/").headers["cache-control"] == "no-store"


def test_the_cookie_is_new_at_each_login_and_guarded(community: Community) -> None:
    browser = community.browser()
    browser.cookies.set(COOKIE, "chosen-by-an-attacker", domain="elm.test")
    invitation = identity.invite(community.key, "contributor")
    browser.follow_redirects = False
    answer = browser.post("/log-in", data={"invitation": invitation})
    cookie = answer.headers["set-cookie"]
    for word in ("Secure", "HttpOnly", "SameSite=lax", "Path=/"):
        assert word in cookie
    assert "chosen-by-an-attacker" not in cookie
    value = cookie.split("=")[1].split(";")[0]
    community.engine.dispose()
    for path in community.folder.glob("community.sqlite*"):
        assert value.encode() not in path.read_bytes()  # the database has its hash alone


def test_an_invitation_works_once_and_only_with_our_signature(community: Community) -> None:
    invitation = identity.invite(community.key, "contributor")
    assert (
        "invitation is not valid"
        not in community.browser().post("/log-in", data={"invitation": invitation}).text
    )
    for bad in (invitation, invitation[:-2] + "xx", identity.invite(b"another key", "curator"), "", "x.y.z"):
        assert community.browser().post("/log-in", data={"invitation": bad}).status_code == 403
    with pytest.raises(InputError, match=r"invite=king: allowed are contributor, reviewer"):
        identity.invite(community.key, "king")


def test_a_login_ends(community: Community, monkeypatch: pytest.MonkeyPatch) -> None:
    person = community.person()
    person.get("/mine")
    person.post("/log-out")
    assert "log in" in person.client.get("/mine").text
    other = community.person()
    monkeypatch.setattr(identity, "LOGIN_SECONDS", -1)
    assert "log in" in other.client.get("/mine").text


def test_roles_are_not_taken_by_asking(community: Community) -> None:
    person = community.person().agree()
    assert person.client.get("/admin").status_code == 403
    person.post("/admin", 403, item="1", action="restore", role="curator")
    with community.sessions() as stored:
        assert set(stored.scalars(select(Person.role))) == {"contributor"}


def test_anothers_item_is_out_of_reach(community: Community) -> None:
    owner, other = community.person().agree(), community.person().agree()
    owner.give("Mine", "Answer")
    assert "no such page" in other.post("/withdraw", 404, item="1")
    owner.post("/review", 404, item="1", verdict="accept")  # nor one's own review
    assert "Mine" not in other.get("/mine.json")
    for strange in ("-1", "1 OR 1=1", "'; DROP TABLE item; --", "9" * 30, ""):
        other.post("/withdraw", 404, item=strange)
    assert "Mine" in owner.get("/mine")


def test_too_much_and_too_fast_is_refused(community: Community) -> None:
    person = community.person().agree()
    assert person.client.post("/write", data={"prompt": "x" * guards.MAX_BODY}).status_code == 413
    assert "too long" in person.post(
        "/write", 413, prompt="x" * 9000, answer="y", language="en", may_be_used="yes"
    )
    rates = guards.Rates()
    assert [rates.allows("a", 2, now) for now in (0.0, 1.0, 2.0, 70.0)] == [True, True, False, True]
    csrf = person.csrf()
    seen = {
        person.client.post("/report", data={"csrf": csrf, "item": "1"}).status_code
        for _ in range(guards.FORMS_A_MINUTE + 1)
    }
    assert 429 in seen


def test_the_key_is_private(tmp_path: Path) -> None:
    key = identity.secret(tmp_path)
    assert stat.S_IMODE((tmp_path / "secret").stat().st_mode) == 0o600 and identity.secret(tmp_path) == key
    (tmp_path / "secret").chmod(0o644)
    with pytest.raises(InputError, match="others can read the key"):
        identity.secret(tmp_path)


def test_a_report_reaches_a_moderator_who_can_quarantine_and_restore(community: Community) -> None:
    writer, reader, moderator = (
        community.person().agree(), community.person().agree(), community.person("moderator").agree()
    )  # fmt: skip
    writer.give("Odd text", "Answer")
    reader.post("/report", item="1", reason="not nice")
    assert "not nice" in moderator.get("/admin")
    moderator.post("/admin", item="1", action="quarantine")
    assert "nothing to review" in reader.get("/review")
    moderator.post("/admin", item="1", action="restore")
    assert "Odd text" in reader.get("/review")
    page = moderator.get("/admin")
    assert "quarantine item 1" in page and "restore item 1" in page
