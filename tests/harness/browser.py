"""A headless Chromium that opens a page and tells what it sees: errors, requests, and what is cut off."""

import base64
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

# Whatever stands beyond the right edge, unless it is in a box of its own that can be scrolled: as (tag, text).
_CUT_OFF = """
const beyond = element => element.getBoundingClientRect().right > innerWidth + 1 && element.innerText !== "";
const page = [...document.querySelectorAll("main *, footer *")].filter(e => !e.closest(".box") || e.matches(".box"));
const boxes = arguments[0] ? [...document.querySelectorAll(".box")].filter(e => e.scrollWidth > e.clientWidth) : [];
const wide = document.scrollingElement.scrollWidth > innerWidth ? [document.scrollingElement] : [];
return [...wide, ...page.filter(beyond), ...boxes].map(e => `${e.tagName}: ${e.innerText.slice(0, 40)}`);
"""
_HEADINGS = "return [...document.querySelectorAll('h1,h2,h3,h4,h5,h6')].map(e => Number(e.tagName[1]))"
_IMAGES = "return [...document.images].map(e => [e.alt, e.naturalWidth])"


@contextmanager
def chromium(profile: Path) -> Iterator[Any]:
    """Yield a driver of the system's Chromium; skips the test, naming it, where that is not there."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium, which drives Chromium, is not installed")
    binary, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if binary is None or driver is None:
        pytest.skip("Debian's packages chromium and chromium-driver are not installed")
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    # A sandbox inside of a container, and as root, is refused; and /dev/shm is small there.
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"):
        options.add_argument(argument)
    options.add_argument(f"--user-data-dir={profile}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    try:
        yield browser
    finally:
        browser.quit()


def opened(browser: Any, path: Path, width: int, *, media: str = "screen", dark: bool = False) -> None:
    """Open a page so many pixels wide."""
    metrics = {"width": width, "height": 844, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    features = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": media, "features": features})
    browser.get(path.resolve().as_uri())


def cut_off(browser: Any, *, also_in_boxes: bool = False) -> list[str]:
    """Return what stands beyond the right edge; paper cannot be scrolled, so there boxes must hold what is in them."""
    found: list[str] = browser.execute_script(_CUT_OFF, also_in_boxes)
    return found


def told(browser: Any) -> list[str]:
    """Return what stands in the console since it was last asked."""
    return [entry["message"] for entry in browser.get_log("browser")]


def requested(browser: Any) -> list[str]:
    """Return what was asked for since last time, but for files that were opened and what stands in the page itself."""
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    urls = [each["params"]["request"]["url"] for each in messages if each["method"] == "Network.requestWillBeSent"]
    # The last two: its own first tab, whose requests may come late.
    return [url for url in urls if not url.startswith(("file:", "data:", "chrome:", "chrome-untrusted:"))]


def headings(browser: Any) -> list[int]:
    """Return the levels of all headings, in their order."""
    levels: list[int] = browser.execute_script(_HEADINGS)
    return levels


def images(browser: Any) -> list[tuple[str, int]]:
    """Return the text alternative of each image, and how many pixels wide it is: 0 for one that is not shown."""
    return [(alt, width) for alt, width in browser.execute_script(_IMAGES)]


def screenshot(browser: Any, path: Path) -> None:
    """Write the whole page as it is open now into a PNG file."""
    width, height = browser.execute_script("return [innerWidth, document.scrollingElement.scrollHeight]")
    clip = {"x": 0, "y": 0, "width": width, "height": min(height, 16000), "scale": 1}
    answer = browser.execute_cdp_cmd("Page.captureScreenshot", {"captureBeyondViewport": True, "clip": clip})
    path.write_bytes(base64.b64decode(answer["data"]))


def printed_pdf(browser: Any) -> bytes:
    """Return the page as it is open now, printed."""
    return base64.b64decode(browser.print_page())


def artifacts(fallback: Path) -> Path:
    """Return the folder for what somebody should look at: PRUNECHECK_ARTIFACTS names it."""
    folder = Path(os.environ.get("PRUNECHECK_ARTIFACTS") or fallback)
    folder.mkdir(parents=True, exist_ok=True)
    return folder
