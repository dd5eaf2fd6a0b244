"""Ten first tasks of a new user, in truing and in three other tools: commands, lines, seconds.

    python benchmarks/first_steps/walk.py --promptfoo DIR/node_modules/.bin --inspect VENV/bin \
        --nemo VENV/bin

Each recipe (`recipes.py`) runs in an empty folder against one endpoint of fixed answers
(`truing serve --model scripted:mixed`). Counted are the commands, the lines that are written by
hand, and the processor time of the commands; wall time is printed too, and depends on what else
the machine does. A tool whose folder of programs is not given is listed, not run. Writes the table
into README.md; a cell that is not run anew stays as it was, as long as the recipe has the same
number of commands and lines.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from recipes import PROVIDED_FILES, RECIPES, TASKS, Recipe

HERE = Path(__file__).resolve().parent
TOOLS = ("truing", "promptfoo", "inspect", "nemo")
BEGIN, END = "<!-- begin table -->", "<!-- end table -->"
COMMAND_SECONDS = 900


@dataclass
class Result:
    """What a recipe took; `failed` is the command that did not end as it should."""

    cpu_seconds: float = 0.0
    wall_seconds: float = 0.0
    failed: str = ""


def main() -> int:
    """Runs the recipes of the tools that are here, and writes the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    for tool in TOOLS[1:]:
        parser.add_argument(f"--{tool}", type=Path, help="folder with its programs")
    parser.add_argument("--task", nargs="*", choices=tuple(TASKS), default=list(TASKS))
    parser.add_argument("--quick", action="store_true", help="truing's two shortest tasks alone")
    arguments = parser.parse_args()
    tasks = ["endpoint", "rails"] if arguments.quick else arguments.task
    programs = {"truing": Path(sys.executable).parent}
    programs |= {tool: path for tool in TOOLS[1:] if (path := getattr(arguments, tool))}
    results: dict[tuple[str, str], Result] = {}
    with serve_endpoint() as base:
        for recipe in RECIPES:
            if recipe.task in tasks and recipe.tool in programs and recipe.commands:
                result = run_recipe(recipe, base, programs[recipe.tool].resolve())
                results[recipe.tool, recipe.task] = result
                print(f"{recipe.tool:10} {recipe.task:10} {describe(recipe, result)}", flush=True)
    if not arguments.quick:
        write_page(results, programs)
    return 1 if any(result.failed for result in results.values()) else 0


@contextmanager
def serve_endpoint() -> Iterator[str]:
    """Yields the address of an endpoint that refuses about half of the prompts."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "truing", "serve", "--model", "scripted:mixed"]
    base = f"http://127.0.0.1:{port}/v1"
    with tempfile.TemporaryFile() as output:
        server = subprocess.Popen([*command, "--port", str(port)], stdout=output, stderr=output)
        try:
            if not _answers(f"{base}/models", server):
                output.seek(0)
                raise SystemExit(f"no endpoint at {base}:\n{output.read()[-800:].decode()}")
            yield base
        finally:
            server.terminate()
            server.wait()


def _answers(url: str, server: subprocess.Popen[bytes]) -> bool:
    """Waits at most two minutes for an answer; False if none comes or the server has ended."""
    end = time.monotonic() + 120
    while server.poll() is None and time.monotonic() < end:
        try:
            urllib.request.urlopen(url, timeout=5).close()
        except OSError:
            time.sleep(0.1)
        else:
            return True
    return False


def run_recipe(recipe: Recipe, base: str, programs: Path) -> Result:
    """Runs a recipe in an empty folder."""
    result = Result()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for path, text in PROVIDED_FILES.get(recipe.task, {}).items():
            (folder / path).write_text(text, encoding="utf-8")
        for path, text in recipe.files.items():
            target = folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(fill_in(text, base), encoding="utf-8")
        for command in recipe.commands:
            if command.startswith(("pip ", "npm ")) or command == "promptfoo view":
                continue  # installed before; a window for a person
            before, started = children_seconds(), time.monotonic()
            status, output = run_command(fill_in(command, base), folder, programs)
            result.cpu_seconds += children_seconds() - before
            result.wall_seconds += time.monotonic() - started
            if status not in (0, *recipe.findings):
                result.failed = command
                print(output[-800:], file=sys.stderr)
                break
    return result


def fill_in(text: str, base: str) -> str:
    """Returns a text of a recipe with the address of the endpoint."""
    return text.replace("{base}", base)


def run_command(command: str, folder: Path, programs: Path) -> tuple[int, str]:
    """Returns the exit status and the output of a command."""
    environment = {
        **os.environ,
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        "OPENAI_API_KEY": "none",
        "PROMPTFOO_CONFIG_DIR": str(folder / ".promptfoo"),
        "PROMPTFOO_DISABLE_TELEMETRY": "1",
        "PROMPTFOO_DISABLE_UPDATE": "1",
        "INSPECT_DISPLAY": "plain",
    }
    try:
        process = subprocess.run(
            ["bash", "-c", command],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=COMMAND_SECONDS,
        )
    except subprocess.TimeoutExpired:
        return 124, f"took more than {COMMAND_SECONDS} s"
    return process.returncode, process.stdout


def children_seconds() -> float:
    """Returns the processor time of all commands so far."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def describe(recipe: Recipe, result: Result | None, earlier: str = "") -> str:
    """Returns the figures of a recipe as a cell of the table; the earlier cell if it was not run.

    An earlier cell is of this recipe if it has the same number of commands and lines.
    """
    if not recipe.commands:
        return "–"
    counts = f"{len(recipe.commands)} / {recipe.lines}"
    if result is None:
        return earlier if earlier.startswith(f"{counts} / ") else f"{counts} / not run"
    if result.failed:
        return f"{counts} / failed"
    if recipe.by_hand and not result.cpu_seconds:
        return f"{counts} / by hand"
    return f"{counts} / {result.cpu_seconds:.1f}"


def write_page(results: dict[tuple[str, str], Result], programs: dict[str, Path]) -> None:
    """Replaces the table of README.md."""
    page = HERE / "README.md"
    text = page.read_text(encoding="utf-8")
    earlier = read_cells(text)
    recipes = {(recipe.tool, recipe.task): recipe for recipe in RECIPES}
    rows = ["| task | " + " | ".join(TOOLS) + " |", "| --- |" + " --- |" * len(TOOLS)]
    for task, title in TASKS.items():
        cells = [
            describe(recipes[t, task], results.get((t, task)), earlier.get((t, title), ""))
            for t in TOOLS
        ]
        rows.append(f"| {title} | " + " | ".join(cells) + " |")
    remarks = [
        f"- **{recipe.tool}**, {TASKS[recipe.task]}: {recipe.reason}."
        for recipe in RECIPES
        if recipe.reason and recipe.tool != "nemo"
    ]
    remarks.append("- **nemo** guards; all but rails, incidents and agents is not its purpose.")
    remarks += [
        f"- **{recipe.tool}**, {TASKS[recipe.task]}: by hand, {recipe.by_hand}."
        for recipe in RECIPES
        if recipe.by_hand
    ]
    wall = sum(result.wall_seconds for result in results.values())
    cpu = sum(result.cpu_seconds for result in results.values())
    load = os.getloadavg()[0]
    state = (
        f"{os.cpu_count()} cores at a load of {load:.1f}; {cpu:.0f} s of processor time in "
        f"{wall:.0f} s for all that was run. {describe_versions(programs)}"
    )
    before, after = text.partition(BEGIN)[0], text.partition(END)[2]
    table = "\n".join([*rows, "", state, "", *remarks])
    page.write_text(f"{before}{BEGIN}\n\n{table}\n\n{END}{after}", encoding="utf-8")


def read_cells(text: str) -> dict[tuple[str, str], str]:
    """Returns the cells of the table of a page by tool and title of the task."""
    table = text.partition(BEGIN)[2].partition(END)[0]
    rows = [
        [cell.strip() for cell in line.strip("| ").split(" | ")]
        for line in table.splitlines()
        if line.startswith("| ") and not line.startswith("| ---")
    ]
    return {(tool, row[0]): cell for row in rows[1:] for tool, cell in zip(rows[0][1:], row[1:])}


def describe_versions(programs: dict[str, Path]) -> str:
    """Returns the versions of the tools that were run."""
    versions = []
    for tool, path in programs.items():
        if tool == "promptfoo":
            package = path.parent / "promptfoo" / "package.json"
            versions.append(f"promptfoo {json.loads(package.read_text())['version']}")
            continue
        name = {"inspect": "inspect-ai", "nemo": "nemoguardrails"}.get(tool, tool)
        python = shutil.which("python", path=str(path)) or sys.executable
        code = f"import importlib.metadata as m; print(m.version('{name}'))"
        output = subprocess.run([python, "-c", code], capture_output=True, text=True).stdout
        versions.append(f"{name} {output.strip() or '(version unknown)'}")
    return ", ".join(versions) + "."


if __name__ == "__main__":
    sys.exit(main())
