"""A synthetic trip, a synthetic fleet, and a real browser for the tests of the report."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.report.fleet import make_fleet
from tests.report.synthetic import make_trip


@pytest.fixture
def trip(tmp_path: Path) -> Path:
    return make_trip(tmp_path / "example")


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_fleet(tmp_path_factory.mktemp("fleet") / "fleet")


@dataclass(frozen=True)
class Seen:
    """What a browser made of a page: its document, what it complained of, what it asked for."""

    dom: str
    complaints: list[str]
    requests: set[str]


@pytest.fixture
def browse(tmp_path: Path) -> Callable[..., Seen]:
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no Chromium is on PATH")

    def look(page: Path, width: int = 1280) -> Seen:
        log = tmp_path / "net.json"
        command = [
            browser,
            *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
            *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
            *("--enable-logging=stderr", f"--window-size={width},900", f"--log-net-log={log}"),
            f"--user-data-dir={tmp_path / 'profile'}",
            "--dump-dom",
            page.as_uri(),
        ]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
        complaints = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
        return Seen(done.stdout, complaints, requests_of(log))

    return look


def requests_of(log: Path) -> set[str]:
    """Return the addresses that pages asked for, from Chromium's network log.

    What the browser asks for on its own account has no page as its initiator.
    """
    found = json.loads(log.read_text(encoding="utf-8", errors="replace"))
    asked = set()
    for event in found["events"]:
        values = event.get("params", {})
        url, initiator = values.get("url", ""), values.get("initiator", "not an origin")
        if initiator != "not an origin" and re.match(r"(?!file:|data:|chrome)", url):
            asked.add(url)
    return asked
