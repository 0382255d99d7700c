"""A page as a real browser shows it: headless Chromium, light or dark, at any width.

Chromium's own window is never narrower than 500 pixels, so the page is put into frames of the asked widths.
"""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
needs_browser = pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine")

WIDE, PHONE = 1280, 390
# --no-sandbox: root has none; the pages are our own. The rest keeps Chromium from calling home.
FLAGS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"),
    *("--no-first-run", "--no-default-browser-check", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--disable-extensions", "--disable-default-apps"),
    "--host-resolver-rules=MAP * ~NOTFOUND",
]


@dataclass
class View:
    """What a page measures in a frame.

    Attributes:
        inner: width of the frame in CSS pixels.
        scroll: width of what is in it; more than `inner` has to be scrolled sideways.
        plots: width and height of each picture on it.
        bars: how many shapes with a size the pictures hold.
        background: its computed colour, as `rgb(…)`.
        requests: addresses that it loaded, or tried to.
    """

    inner: int
    scroll: int
    plots: list[tuple[float, float]]
    bars: int
    background: str
    requests: list[str]


PROBE = """
addEventListener("load", () => setTimeout(() => {
  const size = element => { const box = element.getBoundingClientRect(); return [box.width, box.height]; };
  const views = [...document.querySelectorAll("iframe")].map(frame => {
    const page = frame.contentDocument;
    const shapes = [...page.querySelectorAll("svg rect, svg circle, svg polyline")].map(size);
    return {
      inner: frame.contentWindow.innerWidth,
      scroll: page.documentElement.scrollWidth,
      plots: [...page.querySelectorAll("svg")].map(size),
      bars: shapes.filter(([width, height]) => width > 0 && height > 0).length,
      background: frame.contentWindow.getComputedStyle(page.body).backgroundColor,
      requests: frame.contentWindow.performance.getEntriesByType("resource").map(entry => entry.name),
    };
  });
  document.body.innerHTML = "<pre></pre>";
  document.querySelector("pre").textContent = JSON.stringify(views);
}, 100));
"""


def look(page: Path, dark: bool, widths: tuple[int, ...] = (WIDE, PHONE)) -> list[View]:
    """What the page measures in a frame of each width."""
    wrapper = frames(page, widths, PROBE)
    dom = chromium(dark, "--virtual-time-budget=5000", "--dump-dom", str(wrapper))
    found = re.search(r"<pre>(.*?)</pre>", dom, re.DOTALL)
    assert found, dom[-2000:]
    return [View(**view) for view in json.loads(html.unescape(found[1]))]


def screenshot(page: Path, target: Path, dark: bool, width: int, height: int) -> tuple[int, int, int]:
    """Take a picture of the page's top and return the colour of its upper left corner."""
    image = pytest.importorskip("PIL.Image", reason="Pillow, which reads the picture, is not installed")
    wrapper = frames(page, (width,), "", height)
    chromium(dark, f"--window-size={max(width, 500)},{height}", f"--screenshot={target}", str(wrapper))
    with image.open(target) as picture:
        cut = picture.convert("RGB").crop((0, 0, width, height))
    cut.save(target)
    return cut.getpixel((2, 2))


def frames(page: Path, widths: tuple[int, ...], script: str, height: int = 900) -> Path:
    """A page beside `page` that shows it in a frame of each width."""
    inside = html.escape(page.read_text(encoding="utf-8"))
    shown = "".join(
        f'<iframe width="{width}" height="{height}" srcdoc="{inside}"></iframe>' for width in widths
    )
    # A frame follows light and dark only where the page around it does.
    style = "<style>:root { color-scheme: light dark } body { margin: 0 } iframe { border: 0 }</style>"
    wrapper = page.with_name(f"frames-{page.name}")
    wrapper.write_text(f'<!doctype html><meta charset="utf-8">{style}{shown}<script>{script}</script>')
    return wrapper


def chromium(dark: bool, *words: str) -> str:
    assert BROWSER
    profile = Path(words[-1]).parent / "profile"
    scheme = f"--blink-settings=preferredColorScheme={0 if dark else 1}"
    argv = [BROWSER, *FLAGS, scheme, f"--user-data-dir={profile}", *words]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def check_page(page: Path, plots: int) -> None:
    """The page fits a wide window and a phone, shows its plots, follows the dark, and loads nothing."""
    views = {dark: look(page, dark) for dark in (False, True)}
    for dark, found in views.items():
        assert [view.inner for view in found] == [WIDE, PHONE]
        for view in found:
            assert view.scroll <= view.inner, f"{view}: dark={dark}"
            assert len(view.plots) == plots
            assert all(0 < width <= view.inner and height > 5 for width, height in view.plots), view
            assert view.bars >= plots, view
            assert view.requests == []
    assert views[False][0].background != views[True][0].background
    taken = page.parent
    light = screenshot(page, taken / "wide.png", False, WIDE, 2000)
    night = screenshot(page, taken / "dark.png", True, PHONE, 2400)
    assert min(light) > 200, light
    assert max(night) < 60, night
