"""`truing doctor [TARGET]`: what is installed, and whether a model answers."""

from __future__ import annotations

import asyncio
import os
import platform
import time
from collections import defaultdict
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import msgspec
from msgspec import Struct
from rich.markup import escape

from truing.cli.parameters import Flag
from truing.cli.tables import make_console, make_text_table, print_json, print_next_steps
from truing.core.errors import UserError
from truing.core.protocols import LogprobModel, Model, StreamingModel
from truing.core.types import Answer, Conversation, Sampling
from truing.core.version import __version__
from truing.specs.extras import EXTRA_BY_PACKAGE
from truing.specs.parser import redact_spec

PROMPT = "Reply with the word ready."


class Check(Struct, frozen=True, kw_only=True):
    """The outcome of one check: `failed` sets the exit status to 1, `absent` does not."""

    name: str
    status: Literal["ok", "absent", "failed"]
    detail: str
    seconds: float | None = None


def command(target: str | None = None, /, *, timeout: float = 60, json: Flag = False) -> int:
    """Shows what is installed, and makes one call to a model; exit status 1 if the call fails.

    Parameters
    ----------
    target
        Spec of a model, such as openai:NAME,base_url=URL or local:smollm2.
    timeout
        Seconds to wait for the model's answer.
    json
        Print the checks as JSON.
    """
    checks = check_installation()
    if target is not None:
        checks += check_target(target, timeout)
    failed = any(check.status == "failed" for check in checks)
    if json:
        print_json(msgspec.json.encode(checks))
        return int(failed)
    table = make_text_table("check", "", "")
    for check in checks:
        table.add_row(check.name, check.status, escape(check.detail))
    make_console().print(table)
    if target is not None and not failed:
        spec = redact_spec(target)
        print_next_steps([f"truing init --model {spec!r}", f"truing run --model {spec!r}"])
    return int(failed)


def check_installation() -> list[Check]:
    """Returns the checks of version, extras and data folder; imports no package of an extra."""
    checks = [
        Check(
            name="truing",
            status="ok",
            detail=f"{__version__}, Python {platform.python_version()}, {platform.system()}",
        )
    ]
    packages: dict[str, list[str]] = defaultdict(list)
    for package, extra in EXTRA_BY_PACKAGE.items():
        packages[extra].append(package)
    for extra, names in packages.items():
        missing = [name for name in names if find_spec(name) is None]
        detail = f"pip install 'truing[{extra}]' (lacks {', '.join(missing)})" if missing else ""
        checks.append(
            Check(name=f"extra {extra}", status="absent" if missing else "ok", detail=detail)
        )
    folder = os.environ.get("TRUING_DATA")
    if folder is None:
        detail = "TRUING_DATA is not set: only built-in sets, your files and the hub"
        checks.append(Check(name="published data", status="absent", detail=detail))
    else:
        if Path(folder).is_dir():
            checks.append(Check(name="published data", status="ok", detail=folder))
        else:
            detail = f"TRUING_DATA={folder} is no folder"
            checks.append(Check(name="published data", status="failed", detail=detail))
    return checks


def check_target(spec: str, timeout: float) -> list[Check]:
    """Resolves the spec of a model, makes one call, and returns the checks of both.

    Streaming and log-probabilities are checked by the methods that the model has, without a call.
    """
    from truing.specs.resolve import resolve

    try:
        model: Model = resolve(spec, "model")
    except UserError as error:
        return [Check(name="spec", status="failed", detail=str(error))]
    checks = [Check(name="spec", status="ok", detail=redact_spec(spec))]
    answer, seconds = ask_once(model, timeout)
    if answer.failure is not None:
        detail = f"{answer.failure.kind}: {answer.failure.message}"
        return [*checks, Check(name="answer", status="failed", detail=detail, seconds=seconds)]
    text = " ".join(answer.text.split())
    short_text = f"{text[:60]}…" if len(text) > 60 else text
    checks.append(
        Check(
            name="answer",
            status="ok" if text else "failed",
            detail=f"{short_text!r} in {seconds:.2f} s" if text else "the answer is empty",
            seconds=seconds,
        )
    )
    for name, protocol in (("streaming", StreamingModel), ("log-probabilities", LogprobModel)):
        status: Literal["ok", "absent"] = "ok" if isinstance(model, protocol) else "absent"
        checks.append(Check(name=name, status=status, detail=""))
    return checks


def ask_once(model: Model, timeout: float) -> tuple[Answer, float]:
    """Returns a short answer of the model and the seconds that it took.

    The answer is at most 16 tokens long; after `timeout` seconds it is a failed one.
    """
    from truing.evaluation.evaluate import run_coroutine
    from truing.http.limits import close_connections

    async def generate() -> Answer:
        try:
            generation = model.generate(Conversation.of(PROMPT), Sampling(max_tokens=16))
            return (await asyncio.wait_for(generation, timeout))[0]
        except TimeoutError:
            return Answer.failed("timeout", f"no answer in {timeout:g} s")
        finally:
            await close_connections()

    started = time.monotonic()
    return run_coroutine(generate()), time.monotonic() - started
