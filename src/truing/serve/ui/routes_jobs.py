"""Routes of actions: judge again, make a report, check against rules; their state and results."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from litestar import MediaType, Response, get, post

from truing.annotation.store import RequestRejected
from truing.core.input_files import read_input_bytes
from truing.runs.folder import Run
from truing.serve.ui.app_state import UiState
from truing.serve.ui.jobs import Job, path_argument, quote_words
from truing.serve.ui.routes_labels import find_readable_run
from truing.serve.ui.session import AppRequest, PathParam, open_session

_MAX_REPORT_BYTES = 64 << 20
_MAX_OTHER_RUNS = 8
# A report of a received run may hold anything: its scripts run in an origin of their own, without
# this app's cookies, and load nothing. They can still lead the browser to another address.
REPORT_POLICY = (
    "sandbox allow-scripts; default-src 'none'; style-src 'unsafe-inline'; "
    "script-src 'unsafe-inline'; img-src data:; frame-ancestors 'none'"
)


@get("/jobs")
async def jobs_page(request: AppRequest) -> Response[Any]:
    """Lists the actions of this server."""
    session = open_session(request)
    jobs = session.state.jobs.newest()
    return session.render("jobs.html", jobs=jobs, is_moving=any(not j.is_over for j in jobs))


@get("/jobs/{id_:str}")
async def job_page(request: AppRequest, id_: PathParam) -> Response[Any]:
    """Shows what an action has printed, and where its result is."""
    session = open_session(request)
    return session.render("job.html", job=session.state.jobs.find(id_))


@post("/jobs/{id_:str}/stop")
async def stop_job(request: AppRequest, id_: PathParam) -> Response[Any]:
    """Stops an action; what it has done stays."""
    session = open_session(request)
    await session.read_form()
    session.state.jobs.stop(id_)
    return session.redirect(f"/jobs/{id_}")


@post("/runs/{id_:str}/judge")
async def judge_again(request: AppRequest, id_: PathParam) -> Response[Any]:
    """Adds a judge to a run, as `truing judge` does; not any judge (`judge_choices`)."""
    session = open_session(request)
    form = await session.read_form()
    spec = session.state.judges.read(form.text("judge"))

    def add() -> Job:
        run = find_readable_run(session.state, id_)
        # One word: a spec that begins with a dash is no flag.
        words = ["judge", path_argument(run.path), f"--judge={spec.reveal()}"]
        command = quote_words([*words[:2], f"--judge={spec}"])
        return session.state.jobs.add(f"Judge by {spec.kind}", id_, words, command, f"/runs/{id_}")

    job = await session.state.run(add)
    return session.redirect(f"/jobs/{job.id}")


@post("/runs/{id_:str}/report")
async def make_report(request: AppRequest, id_: PathParam) -> Response[Any]:
    """Writes the report on a run, and on others with it, as `truing report` does."""
    session = open_session(request)
    form = await session.read_form()
    other_ids = tuple(dict.fromkeys(form.values("beside")))[:_MAX_OTHER_RUNS]
    with_text = bool(form.text("with_text"))

    def add() -> Job:
        runs = [find_readable_run(session.state, i) for i in (id_, *other_ids)]
        words = ["report", *(path_argument(run.path) for run in runs)]
        words += ["--out", path_argument(runs[0].path)]
        words += ["--with-text"] if with_text else []
        link = f"/runs/{id_}/report"
        return session.state.jobs.add("Report", id_, words, quote_words(words), link)

    job = await session.state.run(add)
    return session.redirect(f"/jobs/{job.id}")


@get("/runs/{id_:str}/report")
async def report_page(request: AppRequest, id_: PathParam) -> Response[bytes]:
    """Shows the report that lies in a run's folder, in an origin of its own."""
    session = open_session(request)

    def read() -> bytes:
        path = Run(session.state.find_run(id_).path).file("report.html")
        try:
            return read_input_bytes(path, _MAX_REPORT_BYTES)
        except FileNotFoundError as error:
            raise RequestRejected("missing", "There is no report on this run yet.") from error
        except OSError as error:
            raise RequestRejected("missing", f"The report {error.strerror}.") from error

    content = await session.state.run(read)
    headers = {"content-security-policy": REPORT_POLICY}
    return Response(content, media_type=MediaType.HTML, headers=headers)


@post("/runs/{id_:str}/gate")
async def check_gate(request: AppRequest, id_: PathParam) -> Response[Any]:
    """Checks a run against rules in the folder, as `truing gate` does."""
    session = open_session(request)
    form = await session.read_form()
    rules, baseline = form.text("rules"), form.text("baseline")

    def add() -> Job:
        run = find_readable_run(session.state, id_)
        words = ["gate", path_argument(run.path), path_argument(find_file(session.state, rules))]
        if baseline:
            other = find_readable_run(session.state, baseline)
            words += ["--baseline", path_argument(other.path)]
        return session.state.jobs.add("Gate", id_, words, quote_words(words), f"/runs/{id_}")

    job = await session.state.run(add)
    return session.redirect(f"/jobs/{job.id}")


def find_file(state: UiState, name: str, suffixes: tuple[str, ...] = (".toml",)) -> Path:
    """Returns a file of the folder that the scan came upon; no other can be named."""
    for relative in state.scan().files:
        if relative.as_posix() == name and name.endswith(suffixes):
            return state.folder / relative
    raise RequestRejected("missing", "There is no such file in this folder.")


def list_files(state: UiState, suffixes: tuple[str, ...]) -> list[str]:
    """Returns the files of the folder with some suffixes, relative to it."""
    names = (relative.as_posix() for relative in state.scan().files)
    return [name for name in names if name.endswith(suffixes)]


HANDLERS = (
    jobs_page,
    job_page,
    stop_job,
    judge_again,
    make_report,
    report_page,
    check_gate,
)
