"""`truing redteam`: people who red-team and rate in a web page; invitations, import and export."""

from __future__ import annotations

import json as json_
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from truing.core.errors import PlanError
from truing.specs.resolve import load_object, resolve

DB = "redteam.sqlite"


@Parameter(name="*")
@dataclass(frozen=True)
class Address:
    """Where the server listens.

    Parameters
    ----------
    port
        Port to listen on.
    host
        Address to listen on. Beyond this machine, put it behind a proxy that speaks https.
    https
        Cookies for https alone; give it when a proxy in front speaks https.
    """

    port: int = 8100
    host: str = "127.0.0.1"
    https: Annotated[bool, Parameter(negative="")] = False


def serve(
    *,
    model: Annotated[list[str] | None, Parameter(negative="")] = None,
    db: str = DB,
    study: Path | None = None,
    migrate: Annotated[bool, Parameter(negative="")] = False,
    address: Address | None = None,
) -> int:
    """Serves the pages for red-teamers, raters, adjudicators and administrators.

    Parameters
    ----------
    model
        Spec of a target model. One gives pairs of two samples, several give pairs of two models, blind. Without one
        the pages serve reviews alone.
    db
        sqlite:///FILE (or a plain file) or postgresql://USER@HOST/NAME.
    study
        TOML file with the study's choices; they are kept in the database.
    migrate
        Bring an old database to this version's schema first.
    """
    where = address or Address()
    state_class, create_app, run_server = (
        load_object("truing.serve.annotation.app_state:AppState"),
        load_object("truing.serve.annotation.app:create_app"),
        load_object("uvicorn:run"),
    )
    from truing.annotation.overview import has_admin
    from truing.annotation.people import create_invitation
    from truing.annotation.store import open_store
    from truing.annotation.study import read_study, save_study
    from truing.serve.annotation.app_state import ServerLimits

    models = [resolve(spec, "model") for spec in model or []]
    choices = read_study(study) if study else None
    store = open_store(db, upgrade=migrate)
    if choices is not None:
        store.write(lambda tx: save_study(tx, choices))
    url = f"http://{where.host}:{where.port}"
    if where.host not in ("127.0.0.1", "localhost", "::1") and not where.https:
        print(
            "truing: listening beyond this machine without --https: pass phrases travel in the clear",
            file=sys.stderr,
        )
    if not store.read(has_admin):
        token = store.write(
            lambda tx: create_invitation(tx, _ALL, by=None, note="the first account")
        )
        print(
            f"truing: nobody administers this database yet; the first account: {url}/join/{token}",
            file=sys.stderr,
        )
    sys.setswitchinterval(0.0005)  # threads hand the interpreter on at each statement
    app = create_app(state_class(store, models, ServerLimits(https=where.https)))
    names = ", ".join(m.name for m in models) or "no model (reviews alone)"
    print(f"truing redteam: {names} at {url}", file=sys.stderr)
    run_server(
        app,
        host=where.host,
        port=where.port,
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=10,
        timeout_keep_alive=75,  # people think between two pages
    )
    return 0


_ALL = ("redteamer", "rater", "adjudicator", "admin")
Role = Literal["redteamer", "rater", "adjudicator", "admin"]


def invite(
    *,
    role: Annotated[list[Role] | None, Parameter(negative="")] = None,
    person: str | None = None,
    db: str = DB,
    count: int = 1,
    days: float = 7.0,
    note: str = "",
    url: str = "http://127.0.0.1:8100",
    json: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Makes invitation links; each works once.

    Parameters
    ----------
    role
        redteamer, rater, adjudicator or admin; may be given several times.
    person
        Instead of a role: the pseudonym of somebody who has forgotten the pass phrase; the link sets a new one.
    db
        The database.
    count
        How many links.
    days
        For how long they work.
    note
        A note to yourself; no names.
    url
        Where people reach the pages.
    json
        Print a JSON list.
    """
    load_object("sqlalchemy:select")
    from truing.annotation.people import create_invitation, create_phrase_reset
    from truing.annotation.store import Transaction, open_store

    if not 1 <= count <= 1000 or not 0 < days <= 365:
        raise PlanError("redteam invite: --count from 1 to 1000, --days above 0 and at most 365")
    if (person is None) == (not role):
        raise PlanError(
            "redteam invite: give --role (once or more), or --person NAME for a new pass phrase"
        )
    store = open_store(db)

    def work(tx: Transaction) -> list[str]:
        if person is not None:
            return [create_phrase_reset(tx, person, by=None, days=days)]
        return [
            create_invitation(tx, role or (), by=None, note=note, days=days) for _ in range(count)
        ]

    tokens = store.write(work)
    links = [f"{url.rstrip('/')}/join/{token}" for token in tokens]
    print(json_.dumps(links) if json else "\n".join(links))
    store.close()
    return 0


def import_(
    run: Annotated[tuple[Path, ...], Parameter(negative="")] = (),
    /,
    *,
    db: str = DB,
    draws: Path | None = None,
    gold: Path | None = None,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Puts the responses of runs, or the rows that `truing label` drew from them, into the review queue.

    Parameters
    ----------
    run
        Run folders.
    db
        The database.
    draws
        A file of drawn rows other than the run's own labels/draws.jsonl.
    gold
        A JSONL file of gold items: prompt or messages, response, low, high, optional category.
    json
        Print the counts as JSON.
    """
    load_object("sqlalchemy:select")
    from truing.annotation.imports import import_gold, import_run
    from truing.annotation.store import open_store
    from truing.annotation.study import load_study
    from truing.runs.folder import Run

    if not run and gold is None:
        raise PlanError("redteam import: give a run folder, or --gold FILE")
    if draws is not None and len(run) != 1:
        raise PlanError("redteam import: --draws goes with one run folder")
    store = open_store(db)
    study = store.read(load_study)
    counts = {str(path): import_run(store, Run(path), study, draws) for path in run}
    if gold is not None:
        counts[str(gold)] = import_gold(store, gold, study)
    print(
        json_.dumps(counts)
        if json
        else "\n".join(f"{path}: {n} new items" for path, n in counts.items())
    )
    store.close()
    return 0


def export(
    *,
    out: Path,
    db: str = DB,
    form: Annotated[Literal["jsonl", "csv", "parquet"], Parameter(name="--format")] = "jsonl",
    text: Annotated[bool, Parameter(negative="")] = False,
    run: Annotated[list[Path] | None, Parameter(negative="")] = None,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Writes what people did: dialogues, ratings, preference and cost rows, and runs with their judgements.

    Parameters
    ----------
    out
        A new folder.
    db
        The database.
    form
        Of the tables.
    text
        With the texts (personal data redacted); otherwise ids and numbers alone.
    run
        Run folders that were imported; people's judgements go into them. May be given several times.
    json
        Print the counts as JSON.
    """
    load_object("sqlalchemy:select")
    from truing.annotation.export_files import write_export
    from truing.annotation.store import open_store

    store = open_store(db)
    made = write_export(store, out, form=form, text=text, runs=tuple(run or ()))
    store.close()
    labels = {str(path): _labels(path) for path in run or ()}
    if json:
        found = {
            "files": made.files,
            "runs": made.runs,
            "labels": labels,
            "contradicted": made.contradicted,
        }
        print(json_.dumps(found))
        return 0
    for name, count in made.files.items():
        print(f"{out / name}: {count} rows")
    for name, count in made.runs.items():
        print(f"{name}: {count} judgements")
    for name, count in labels.items():
        print(f"{name}: {count} labels of drawn rows")
    if made.contradicted:
        print(f"left out: {made.contradicted} pairs whose grades say the contrary of the pick")
    return 0


def _labels(path: Path) -> int:
    """Raters' verdicts on rows that were drawn become the run's labels, from which corrected rates come."""
    from truing.analysis.label_draws import read_draws
    from truing.analysis.labels import import_labels, read_votes
    from truing.annotation.exports import REVIEW_JUDGE
    from truing.runs.folder import Run

    run = Run(path)
    record = next((j for j in run.manifest.judges if j.name == REVIEW_JUDGE), None)
    if record is None or not read_draws(run, "harmful"):
        return 0
    before = read_votes(run)
    taken, _ = import_labels(run, path / record.file)
    return taken if read_votes(run) != before else 0
