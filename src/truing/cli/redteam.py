"""`truing redteam serve|invite|import|export`: red teaming and rating by people in web pages.

The imports are local to the commands: `--help` works without the `serve` extra.
"""

from __future__ import annotations

import json as json_module
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, get_args

from cyclopts import Parameter

from truing.cli.parameters import AddressFlags, Flag
from truing.cli.tables import print_json, print_text
from truing.core.errors import PlanError
from truing.core.protocols import Model
from truing.specs.extras import needs_extra
from truing.specs.resolve import resolve

if TYPE_CHECKING:
    from truing.annotation.store import Store
    from truing.serve.annotation.app_state import ServerLimits

DEFAULT_DATABASE = "redteam.sqlite"
LOOPBACK_HOSTS = ("127.0.0.1", "localhost", "::1")
MAX_INVITATIONS = 1000
MAX_INVITATION_DAYS = 365
_FEATURE = "truing redteam"

Role = Literal["redteamer", "rater", "adjudicator", "admin"]
ALL_ROLES: tuple[Role, ...] = get_args(Role)


@Parameter(name="*")
@dataclass(frozen=True)
class RedteamAddressFlags(AddressFlags):
    """Where the server listens.

    Parameters
    ----------
    port
        Port to listen on.
    host
        Address to listen on. For other machines, put the server behind a proxy that speaks https.
    https
        Send cookies over https only; give it if a proxy in front speaks https.
    """

    port: int = 8100
    https: Flag = False


def serve(
    *,
    model: Annotated[list[str] | None, Parameter(negative="")] = None,
    db: str = DEFAULT_DATABASE,
    study: Path | None = None,
    migrate: Flag = False,
    address: RedteamAddressFlags | None = None,
) -> int:
    """Serves the pages for red-teamers, raters, adjudicators and administrators.

    Parameters
    ----------
    model
        Spec of a target model. One gives pairs of two samples, several give blind pairs of two
        models. Without one the pages offer reviews only.
    db
        sqlite:///FILE (or a file name) or postgresql://USER@HOST/NAME.
    study
        TOML file with the settings of the study; they are stored in the database.
    migrate
        Upgrade an old database to this version's schema first.
    """
    with needs_extra(_FEATURE, "serve"):
        import uvicorn

        from truing.annotation.store import open_store
        from truing.annotation.study import read_study, save_study
        from truing.serve.annotation.app import create_app
        from truing.serve.annotation.app_state import AppState

    address = address or RedteamAddressFlags()
    address.check()
    models: list[Model] = [resolve(spec, "model") for spec in model or []]
    study_settings = read_study(study) if study else None
    store = open_store(db, upgrade=migrate)
    if study_settings is not None:
        store.write(lambda tx: save_study(tx, study_settings))
    url = address.url.rstrip("/")
    if address.host not in LOOPBACK_HOSTS and not address.https:
        print_text(
            f"truing: {address.host} is reachable from other machines and --https is not given: "
            f"pass phrases are sent unencrypted",
            file=sys.stderr,
        )
    _invite_first_admin(store, url)
    # Handlers and database writers are threads; with the default interval of 5 ms a thread that
    # computes would delay each of the many short steps of the others.
    sys.setswitchinterval(0.0005)
    app = create_app(AppState(store, models, _server_limits(address)))
    names = ", ".join(m.name for m in models) or "no model (reviews only)"
    print_text(f"truing redteam: {names} at {url}", file=sys.stderr)
    uvicorn.run(
        app,
        host=address.host,
        port=address.port,
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=10,
        # People think between two pages: their connections stay open meanwhile.
        timeout_keep_alive=75,
    )
    return 0


def _server_limits(address: RedteamAddressFlags) -> ServerLimits:
    from truing.serve.annotation.app_state import ServerLimits

    # Behind a proxy with https the pages have a name of their own, which only the proxy knows.
    only_local = address.host in LOOPBACK_HOSTS and not address.https
    return ServerLimits(https=address.https, hosts=LOOPBACK_HOSTS if only_local else ())


def _invite_first_admin(store: Store, url: str) -> None:
    """Prints a link for the first account if nobody administers the database yet."""
    from truing.annotation.overview import has_admin
    from truing.annotation.people import create_invitation

    if store.read(has_admin):
        return
    token = store.write(
        lambda tx: create_invitation(tx, ALL_ROLES, by=None, note="the first account")
    )
    print_text(
        f"truing: the database has no administrator yet; the first account: {url}/join/{token}",
        file=sys.stderr,
    )


def invite(
    *,
    role: Annotated[list[Role] | None, Parameter(negative="")] = None,
    person: str | None = None,
    db: str = DEFAULT_DATABASE,
    count: int = 1,
    days: float = 7.0,
    note: str = "",
    url: str = "http://127.0.0.1:8100",
    json: Flag = False,
) -> int:
    """Creates invitation links; each works once.

    Parameters
    ----------
    role
        redteamer, rater, adjudicator or admin; may be given several times.
    person
        Instead of a role: the pseudonym of a person who has forgotten the pass phrase. The link
        sets a new one.
    db
        The database.
    count
        Number of links.
    days
        Days until the links expire.
    note
        A note for administrators; no names of people.
    url
        Address of the pages as people reach them.
    json
        Print a JSON list.
    """
    with needs_extra(_FEATURE, "serve"):
        from truing.annotation.people import create_invitation, create_phrase_reset
        from truing.annotation.store import Transaction, open_store

    if not 1 <= count <= MAX_INVITATIONS or not 0 < days <= MAX_INVITATION_DAYS:
        raise PlanError(
            f"redteam invite: --count must be from 1 to {MAX_INVITATIONS}, "
            f"--days above 0 and at most {MAX_INVITATION_DAYS}"
        )
    if (person is None) == (not role):
        raise PlanError(
            "redteam invite: give --role (once or more), or --person NAME for a new pass phrase"
        )

    def create_tokens(tx: Transaction) -> list[str]:
        if person is not None:
            return [create_phrase_reset(tx, person, by=None, days=days)]
        return [
            create_invitation(tx, role or (), by=None, note=note, days=days) for _ in range(count)
        ]

    store = open_store(db)
    tokens = store.write(create_tokens)
    store.close()
    links = [f"{url.rstrip('/')}/join/{token}" for token in tokens]
    if json:
        print_json(json_module.dumps(links))
    else:
        print_text("\n".join(links))
    return 0


def import_items(
    run: Annotated[tuple[Path, ...], Parameter(negative="")] = (),
    /,
    *,
    db: str = DEFAULT_DATABASE,
    draws: Path | None = None,
    gold: Path | None = None,
    json: Flag = False,
) -> int:
    """Adds the responses of runs, or rows that `truing label` drew, to the review queue.

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
    with needs_extra(_FEATURE, "serve"):
        from truing.annotation.imports import import_gold, import_run
        from truing.annotation.store import OLDEST_EXCHANGE_SCHEMA, open_store
        from truing.annotation.study import load_study
    from truing.runs.folder import Run

    if not run and gold is None:
        raise PlanError("redteam import: give a run folder, or --gold FILE")
    if draws is not None and len(run) != 1:
        raise PlanError("redteam import: --draws needs exactly one run folder")
    store = open_store(db, oldest=OLDEST_EXCHANGE_SCHEMA)
    study = store.read(load_study)
    counts = {str(path): import_run(store, Run(path), study, draws) for path in run}
    if gold is not None:
        counts[str(gold)] = import_gold(store, gold, study)
    store.close()
    if json:
        print_json(json_module.dumps(counts))
    else:
        for path, count in counts.items():
            print_text(f"{path}: {count} new items")
    return 0


def export(
    *,
    out: Path,
    db: str = DEFAULT_DATABASE,
    form: Annotated[Literal["jsonl", "csv", "parquet"], Parameter(name="--format")] = "jsonl",
    text: Flag = False,
    run: Annotated[list[Path] | None, Parameter(negative="")] = None,
    json: Flag = False,
) -> int:
    """Exports the collected data: dialogues, ratings, preferences, costs, runs with judgements.

    Parameters
    ----------
    out
        A new folder.
    db
        The database.
    form
        Format of the tables.
    text
        Include the texts (with personal data redacted), not only ids and numbers.
    run
        Run folders that were imported; people's judgements are written into them. May be given
        several times.
    json
        Print the counts as JSON.
    """
    with needs_extra(_FEATURE, "serve"):
        from truing.annotation.export_files import write_export
        from truing.annotation.store import OLDEST_EXCHANGE_SCHEMA, open_store

    store = open_store(db, oldest=OLDEST_EXCHANGE_SCHEMA)
    exported = write_export(store, out, form=form, text=text, runs=tuple(run or ()))
    store.close()
    labels = {str(path): _import_review_labels(path) for path in run or ()}
    if json:
        fields = {
            "files": exported.files,
            "runs": exported.runs,
            "labels": labels,
            "contradicted": exported.contradicted,
        }
        print_json(json_module.dumps(fields))
        return 0
    for name, count in exported.files.items():
        print_text(f"{out / name}: {count} rows")
    for name, count in exported.runs.items():
        print_text(f"{name}: {count} judgements")
    for name, count in labels.items():
        print_text(f"{name}: {count} labels of drawn rows")
    if exported.contradicted:
        print_text(
            f"left out: {exported.contradicted} pairs whose grades contradict the preference"
        )
    return 0


def _import_review_labels(path: Path) -> int:
    """Turns raters' verdicts on drawn rows into labels of the run, the source of corrected rates.

    Returns the number of labels; 0 if an earlier export has brought the same ones.
    """
    from truing.analysis.label_draws import read_draws
    from truing.analysis.labels import import_labels, read_votes
    from truing.annotation.exports import REVIEW_JUDGE
    from truing.runs.folder import Run

    run = Run(path)
    record = next((j for j in run.manifest.judges if j.name == REVIEW_JUDGE), None)
    if record is None or not read_draws(run, "harmful"):
        return 0
    votes_before = read_votes(run)
    count, _ = import_labels(run, run.file(record.file))
    return count if read_votes(run) != votes_before else 0
