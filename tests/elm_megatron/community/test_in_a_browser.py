"""Each page in headless Chromium, as a person uses it: wide and light, on a phone in the dark, nl and en.

axe-core (MPL-2.0) looks at every page. `ELM_SCREENSHOTS=folder` keeps a picture of each.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from elm_megatron.community import identity
from tests.browser import BROWSER, needs_browser
from tests.elm_megatron.community.conftest import Community

sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright")
axe_core = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs axe-playwright-python")
pytestmark = needs_browser

LEVELS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]
WIDE, PHONE = {"width": 1280, "height": 900}, {"width": 360, "height": 740}
MARKUP = "<img src=x onerror=\"document.title='broken'\"><script>document.title='broken'</script>"


class Site:
    """The app on a loopback port, and browsers that look at it."""

    def __init__(self, community: Community, browser: Any):
        self.community, self.browser = community, browser
        server = uvicorn.Server(uvicorn.Config(community.app, port=0, log_level="warning"))
        self._server, self._thread = server, threading.Thread(target=server.run, daemon=True)
        self._thread.start()
        until = time.monotonic() + 30
        while not server.started:
            assert time.monotonic() < until
            time.sleep(0.02)
        self.url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"

    def close(self) -> None:
        self._server.should_exit = True
        self._thread.join(10)

    def visitor(self, language: str = "en", dark: bool = False, size: dict[str, int] = WIDE) -> Visitor:
        """A browser of its own, without a login."""
        scheme = "dark" if dark else "light"
        context = self.browser.new_context(viewport=size, color_scheme=scheme, locale=language)
        return Visitor(self, context.new_page(), f"{language}-{scheme}-{size['width']}")

    def person(self, role: str = "contributor", **looks: Any) -> Visitor:
        """Somebody who has come through an invitation and has agreed."""
        visitor = self.visitor(**looks)
        visitor.go(f"/invitation/{identity.invite(self.community.key, role)}")
        visitor.page.click("main button")
        visitor.page.check("input[name=training]")
        visitor.page.click("main form button")
        return visitor


class Visitor:
    """One person at one screen."""

    def __init__(self, site: Site, page: Any, name: str):
        self.site, self.page, self.name = site, page, name
        self.errors: list[str] = []
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("console", lambda said: self.errors.append(said.text) if said.type == "error" else None)

    def go(self, path: str) -> None:
        self.page.goto(self.site.url + path)

    def look(self, what: str) -> None:
        """What is on the screen has no violation, and needs no scrolling sideways."""
        found = axe_core.Axe().run(self.page, options={"runOnly": LEVELS}).response["violations"]
        said = [(one["id"], [node["html"] for node in one["nodes"]]) for one in found]
        assert not said, (what, self.name, said)
        assert self.page.evaluate("document.documentElement.scrollWidth <= innerWidth"), (what, self.name)
        if folder := os.environ.get("ELM_SCREENSHOTS"):
            self.page.screenshot(path=Path(folder) / f"{what}-{self.name}.png", full_page=True)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as driver:
        found = driver.chromium.launch(executable_path=BROWSER, args=["--no-sandbox", "--disable-gpu"])
        yield found
        found.close()


@pytest.fixture
def site(community: Community, browser: Any) -> Iterator[Site]:
    found = Site(community, browser)
    yield found
    found.close()


@pytest.mark.parametrize(
    "looks",
    [
        pytest.param({"language": "nl", "dark": True, "size": PHONE}, id="dutch-dark-phone"),
        pytest.param({"language": "en"}, id="english-wide", marks=pytest.mark.slow),
    ],
)
def test_every_page_as_a_person_uses_it(site: Site, looks: dict[str, Any]) -> None:
    stranger = site.visitor(**looks)
    for path, what in (("/", "front"), ("/about", "about"), ("/nothing", "no-such-page")):
        stranger.go(path)
        stranger.look(what)
    stranger.go(f"/invitation/{identity.invite(site.community.key, 'contributor')}")
    stranger.look("invitation")
    writer = site.person(**looks)
    writer.look("front-logged-in")
    writer.go("/consent")
    writer.look("consent")
    _ask(writer)
    writer.go("/write")
    writer.look("write")
    for name, text in (("prompt", "What is a trust?"), ("answer", "A legal arrangement."), ("field", "law")):
        writer.page.fill(f"[name={name}]", text)
    writer.page.check("[name=may_be_used]")
    writer.page.click("main form button")
    writer.look("thanks")
    _compare(writer)
    writer.go("/board")
    writer.look("board")
    moderator = site.person("moderator", **looks)
    moderator.go("/review")
    assert "A place where ships are safe." in moderator.page.inner_text("main")  # the correction
    moderator.look("review")
    moderator.go("/admin")
    moderator.look("admin")
    writer.go("/mine")
    writer.look("mine")
    writer.page.click("article button")
    writer.look("withdrawn")
    expected = [one for one in stranger.errors if "404" not in one]  # of the page that is not there
    assert not expected + writer.errors + moderator.errors


def _ask(person: Visitor) -> None:
    """Ask, see the answer grow, and give a correction with the keyboard alone."""
    page = person.page
    person.go("/ask")
    person.look("ask")
    page.focus("#question")
    page.keyboard.type("What is a harbour?")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.wait_for_selector("#answer:has-text('harbour? (')")
    page.wait_for_selector("#send:enabled")
    person.look("answered")
    page.focus("#correct summary")
    page.keyboard.press("Enter")
    person.look("correcting")
    page.fill("#better", "A place where ships are safe.")
    page.check("#used")
    page.click("#correct form button")


def _compare(person: Visitor) -> None:
    page = person.page
    person.go("/compare")
    person.look("compare")
    page.fill("#prompt", "How deep is it?")
    page.click("main form button")
    assert "elm-" not in page.inner_text("main")
    person.look("pair")
    page.check("#choice-left")
    page.click("main form button")
    assert "elm-tuned-x" in page.inner_text("main")


def test_a_server_that_dies_is_said_on_the_page(site: Site) -> None:
    person = site.person()
    person.go("/ask")
    services = site.community.app.state.services
    alive = services.settings
    services.settings = type(alive)(**{**vars(alive), "models": (_dead(),)})
    person.page.fill("#question", "Hello?")
    person.page.click("#send")
    person.page.wait_for_selector("#answer:has-text('does not answer')")
    person.look("model-down")


def _dead() -> Any:
    from elm_megatron.community.settings import Endpoint

    return Endpoint("gone", "http://127.0.0.1:9")


def test_nothing_of_an_answer_runs(site: Site) -> None:
    """Markup in a streamed answer is text, and the policy would stop it anyway."""
    person = site.person()
    person.go("/ask")
    person.page.fill("#question", MARKUP)
    person.page.click("#send")
    person.page.wait_for_selector("#answer:has-text('script')")
    assert person.page.title() != "broken"
    assert person.page.query_selector("#answer img, #answer script") is None


def test_a_page_without_scripts_works_too(site: Site, browser: Callable[..., Any]) -> None:
    person = site.person()
    plain = site.browser.new_context(java_script_enabled=False)
    plain.add_cookies(person.page.context.cookies())
    page = plain.new_page()
    page.goto(f"{site.url}/ask")
    page.fill("#question", "What is a harbour?")
    page.click("#send")
    assert "An answer to: What is a harbour?" in page.inner_text("#answer")
