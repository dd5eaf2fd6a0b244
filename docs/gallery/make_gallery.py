"""Makes the reports and screenshots of docs/gallery: python docs/gallery/make_gallery.py [NAME...].

Each report is made by the commands that the page shows, in a temporary folder, so that the page
shows what a reader would get. The models are scripted, so that each takes seconds. Screenshots need
Chromium and Playwright (extra `pdf`).
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from playwright.sync_api import sync_playwright

GALLERY = Path(__file__).resolve().parent
MAX_REPORT_BYTES = 1_000_000
SHOWN_ADDRESS = "http://localhost:8000/v1"
_SECTION = re.compile(r"(?ms)^## .*?^```bash\n(?P<commands>.*?)^```.*?\]\((?P<name>[a-z]+)\.html\)")


def main() -> None:
    """Makes all reports of the page, or those that are named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="reports to make (default: all)")
    parser.add_argument("--keep", type=Path, help="folder for the runs, to go on there later")
    arguments = parser.parse_args()
    sections = read_sections((GALLERY / "README.md").read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        for name in arguments.names or sections:
            make_report(name, sections[name], folder)


def read_sections(page: str) -> dict[str, str]:
    """Returns the commands of each report of the page, by the report's name."""
    return {match["name"]: match["commands"] for match in _SECTION.finditer(page)}


def make_report(name: str, commands: str, folder: Path) -> None:
    """Runs the commands of one section, and copies the report that the last one has written."""
    needs_endpoint = SHOWN_ADDRESS in commands
    with serve_endpoint() if needs_endpoint else nullcontext(SHOWN_ADDRESS) as address:
        script = commands.replace(SHOWN_ADDRESS, address)
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        subprocess.run(
            ["bash", "-euc", script], cwd=folder, env={**os.environ, "PATH": path}, check=True
        )
    words = shlex.split(script, comments=True)
    output = words[len(words) - words[::-1].index("--out")]
    html = (
        (folder / output / "report.html")
        .read_bytes()
        .replace(address.encode(), SHOWN_ADDRESS.encode())
    )
    if len(html) > MAX_REPORT_BYTES:
        raise SystemExit(f"{name}: the report has {len(html):,} bytes")
    (GALLERY / f"{name}.html").write_bytes(html)
    take_screenshot(GALLERY / f"{name}.html", GALLERY / f"{name}.png")


@contextmanager
def serve_endpoint() -> Iterator[str]:
    """Yields the address of an endpoint that refuses about half of the prompts."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "truing", "serve", "--model", "scripted:mixed"]
    server = subprocess.Popen([*command, "--port", str(port)], stderr=subprocess.DEVNULL)
    address = f"http://127.0.0.1:{port}/v1"
    try:
        while server.poll() is None:
            try:
                urllib.request.urlopen(f"{address}/models", timeout=5).close()
                break
            except OSError:
                time.sleep(0.2)
        yield address
    finally:
        server.terminate()
        server.wait()


def take_screenshot(page: Path, image: Path) -> None:
    """Takes the first screen of a report, at the size of a laptop."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"))
        tab = browser.new_page(viewport={"width": 1100, "height": 760})
        tab.set_default_timeout(120_000)
        tab.goto(page.as_uri())
        tab.screenshot(path=image)
        browser.close()


if __name__ == "__main__":
    main()
