"""Builds the documentation site: `python docs/make_site.py [build|serve]`, or `make docs`.

The pages are written to be read in the repository, where README.md and the folders benchmarks/ and
examples/ stand beside docs/. `stage` copies them into build/pages, which has the layout of the
site, and rewrites the links between them; Zensical (zensical.toml) renders that folder. A link to a
file that the site would not have stops the build. The site also gets notebooks of the tutorials and
`llms.txt`, a table of contents for language models (https://llmstxt.org).
"""

from __future__ import annotations

import os
import posixpath
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import nbformat

ROOT = Path(__file__).resolve().parents[1]
PAGES = ROOT / "build" / "pages"
CONFIG = ROOT / "zensical.toml"

# Files of the repository on the site, other than those of docs/, and where they stand there.
_MOVED = {
    "README.md": "index.md",
    "ARCHITECTURE.md": "project/architecture.md",
    "CHANGELOG.md": "project/changelog.md",
    "CONTRIBUTING.md": "project/contributing.md",
    "SECURITY.md": "project/security.md",
    "benchmarks/README.md": "benchmarks/index.md",
}
LOG_INDEX = "docs/log/README.md"
"""The page of the site that lists the log; no file of the repository has this name."""

_CODE = re.compile(r"(?ms)^```.*?^```\s*?$")
_LINK = re.compile(r"(\]\()([^)\s]+)(\))")
_BLOCK = re.compile(r"(?ms)^```(python|bash)\n(.*?)^```\s*?$")


def site_paths() -> dict[str, str]:
    """Returns where each file stands on the site, by its path in the repository."""
    paths = {**_MOVED, LOG_INDEX: "log/index.md"}
    for file in sorted((ROOT / "docs").rglob("*")):
        if file.is_file() and "__pycache__" not in file.parts and file.suffix != ".py":
            name = file.relative_to(ROOT / "docs").as_posix()
            paths[f"docs/{name}"] = posixpath.join(
                posixpath.dirname(name), posixpath.basename(name).replace("README.md", "index.md")
            )
    for file in sorted((ROOT / "benchmarks").glob("*/*.md")):
        name = file.relative_to(ROOT).as_posix()
        paths[name] = name.replace("README.md", "index.md")
    return paths


def rewrite_links(text: str, source: str, paths: dict[str, str]) -> str:
    """Returns the page `source` with its links as they are on the site; blocks of code stay.

    A file of the repository that is linked and not in `paths` is added there under its own path.
    Raises ValueError for a link that leads nowhere.
    """

    def rewrite(match: re.Match[str]) -> str:
        before, target, after = match.groups()
        path, hash_sign, anchor = target.partition("#")
        if not path or re.match(r"[a-z]+:", target):
            return match.group(0)
        linked = posixpath.normpath(posixpath.join(posixpath.dirname(source), path))
        if (ROOT / linked).is_dir():
            linked = posixpath.join(linked, "README.md")
        if linked not in paths and not (ROOT / linked).is_file():
            raise ValueError(f"{source}: {target} leads nowhere")
        paths.setdefault(linked, linked)
        relative = posixpath.relpath(paths[linked], posixpath.dirname(paths[source]) or ".")
        return f"{before}{relative}{hash_sign}{anchor}{after}"

    parts = []
    position = 0
    for block in _CODE.finditer(text):
        parts.append(_LINK.sub(rewrite, text[position : block.start()]))
        parts.append(block.group(0))
        position = block.end()
    return "".join([*parts, _LINK.sub(rewrite, text[position:])])


def make_notebook(page: str) -> nbformat.NotebookNode:
    """Returns a tutorial as a notebook: its text, and a cell for each block of Python or shell."""
    cells = []
    position = 0
    for block in _BLOCK.finditer(page):
        if text := page[position : block.start()].strip():
            cells.append(nbformat.v4.new_markdown_cell(text))
        language, code = block.groups()
        cells.append(
            nbformat.v4.new_code_cell(("%%bash\n" if language == "bash" else "") + code.rstrip())
        )
        position = block.end()
    if text := page[position:].strip():
        cells.append(nbformat.v4.new_markdown_cell(text))
    for number, cell in enumerate(cells):
        cell["id"] = f"cell-{number}"  # nbformat draws random ones, which would change every build
    notebook = nbformat.v4.new_notebook(cells=cells)
    nbformat.validate(notebook)
    return notebook


def list_contents(nav: list[Any], lead: str) -> str:
    """Returns `llms.txt`: the site's navigation with the first sentence of each page."""
    lines = ["# truing", "", f"> {lead}", ""]

    def add(entries: list[Any]) -> None:
        for entry in entries:
            for title, target in entry.items():
                if isinstance(target, list):
                    lines.extend(["", f"## {title}", ""])
                    add(target)
                else:
                    sentence = _first_sentence((PAGES / target).read_text(encoding="utf-8"))
                    lines.append(f"- [{title}]({target}): {sentence}")

    add(nav)
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)) + "\n"


def list_log() -> str:
    """Returns the page with the titles of all experiments, the newest first."""
    lines = [
        "# Experiments\n",
        "What was tried and measured, failures too. Each page is as it was written on its day.\n",
    ]
    for file in sorted((ROOT / "docs" / "log").glob("2*.md"), reverse=True):
        title = file.read_text(encoding="utf-8").splitlines()[0].removeprefix("# ")
        lines.append(f"- {file.name[:10]}: [{title}]({file.name})")
    return "\n".join(lines) + "\n"


def stage() -> None:
    """Writes build/pages: all files of the site, with links rewritten.

    Raises ValueError for a link that leads nowhere, FileNotFoundError for a page of the navigation
    that there is not.
    """
    shutil.rmtree(PAGES, ignore_errors=True)
    paths = site_paths()
    pages = [source for source in paths if source.endswith(".md")]
    for source in pages:
        if source == LOG_INDEX:
            text = list_log()
        else:
            text = rewrite_links((ROOT / source).read_text(encoding="utf-8"), source, paths)
        destination = _make_parents(PAGES / paths[source])
        destination.write_text(text, encoding="utf-8")
    for source in paths.keys() - set(pages):
        shutil.copyfile(ROOT / source, _make_parents(PAGES / paths[source]))
    for page in sorted((PAGES / "tutorials").glob("*.md")):
        text = page.read_text(encoding="utf-8")
        nbformat.write(make_notebook(text), page.with_suffix(".ipynb"))
        name = page.with_suffix(".ipynb").name
        page.write_text(f"{text}\nThis page as a notebook: [{name}]({name}).\n", encoding="utf-8")
    project = tomllib.loads(CONFIG.read_text(encoding="utf-8"))["project"]
    contents = list_contents(project["nav"], project["site_description"])
    (PAGES / "llms.txt").write_text(contents, encoding="utf-8")


def _make_parents(file: Path) -> Path:
    """Makes the folder of a file and returns the file."""
    file.parent.mkdir(parents=True, exist_ok=True)
    return file


def _first_sentence(page: str) -> str:
    """Returns the first sentence of the first paragraph that is plain text."""
    for paragraph in re.split(r"\n\s*\n", _CODE.sub("", page)):
        if re.match(r"[A-Za-z`*\[]", paragraph):
            plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", " ".join(paragraph.split()))
            return re.split(r"(?<=\.)\s", plain.replace("**", ""), maxsplit=1)[0]
    return ""


if __name__ == "__main__":
    stage()
    command = sys.argv[1] if len(sys.argv) > 1 else "build"
    arguments = ["build", "--strict", "--clean"] if command == "build" else ["serve"]
    environment = {**os.environ, "NO_COLOR": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "zensical", *arguments], cwd=ROOT, env=environment, check=False
    )
    sys.exit(done.returncode)
