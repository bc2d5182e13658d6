"""A browser as people have one, by W3C's WebDriver protocol: Debian's Chromium, which finds one address alone."""

from __future__ import annotations

import base64
import contextlib
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import requests

from simulator import cache, preflight

PROGRAMS = {"chromium": "chromium", "chromedriver": "chromium-driver"}
"""Program → its Debian package."""

ENTER = "\ue007"
ELEMENT = "element-6066-11e4-a52e-4f735466cecf"
"""Source: W3C WebDriver, 17.4.2 (keys) and 12.1 (elements)."""

PATIENCE = 120
"""Seconds that an element is waited for."""


class Browser:
    def __init__(self, driver: str, address: str) -> None:
        """`address`: the only one that it can reach."""
        words = [
            "--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1280,800", "--no-first-run",
            # Its makers' services, as everything else, are not for a test.
            "--disable-background-networking", "--disable-component-update", "--no-proxy-server",
            f"--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE {address}",
        ]  # fmt: skip
        options = {"args": words, "binary": shutil.which("chromium")}
        wanted = {"alwaysMatch": {"goog:chromeOptions": options, "timeouts": {"implicit": PATIENCE * 1000}}}
        self._session = driver
        self._session += f"/{self._ask('POST', '', capabilities=wanted)['sessionId']}"

    def _ask(self, method: str, path: str, **body: Any) -> Any:
        sent = body if method == "POST" else None
        answer = requests.request(method, self._session + path, json=sent, timeout=PATIENCE + 60).json()["value"]
        if isinstance(answer, dict) and "error" in answer:
            raise AssertionError(f"{path} {body}: {answer['error']}: {answer['message']}")
        return answer

    def opens(self, url: str) -> None:
        self._ask("POST", "/url", url=url)

    def finds(self, css: str) -> str:
        """The first element of that selector, as soon as it is there."""
        found: str = self._ask("POST", "/element", using="css selector", value=css)[ELEMENT]
        return found

    def sees(self, what: str, text: str) -> str:
        """The first element by that XPath which holds the text, as soon as one does."""
        found: str = self._ask("POST", "/element", using="xpath", value=f'//{what}[contains(., "{text}")]')[ELEMENT]
        return found

    def clicks(self, element: str) -> None:
        self._ask("POST", f"/element/{element}/click")

    def types(self, element: str, text: str) -> None:
        self._ask("POST", f"/element/{element}/value", text=text)

    def shoots(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self._ask("GET", "/screenshot")))

    def ends(self) -> None:
        self._ask("DELETE", "")


def install() -> None:
    """Raises SimulatorError where this machine's packages have none, as Ubuntu's."""
    with cache.lock("packages"):
        preflight.install([package for program, package in PROGRAMS.items() if not shutil.which(program)])


@contextlib.contextmanager
def browser(address: str) -> Iterator[Browser]:
    with subprocess.Popen(["chromedriver", "--port=0"], stdout=subprocess.PIPE, text=True) as driver:
        assert driver.stdout
        try:
            ports = (re.search(r"started successfully on port (\d+)", line) for line in driver.stdout)
            port = next(found[1] for found in ports if found)
            opened = Browser(f"http://127.0.0.1:{port}/session", address)
            try:
                yield opened
            finally:
                opened.ends()
        finally:
            driver.terminate()
