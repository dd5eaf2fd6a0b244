"""`truing import garak|pyrit|promptfoo` and `truing export inspect`: runs from other tools, and for them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from truing.cli.evaluate import resolve_all
from truing.cli.progress import Bar, report
from truing.core.errors import UserError
from truing.evaluation.evaluate import evaluate
from truing.evaluation.options import EvaluateOptions
from truing.runs.folder import Run
from truing.specs.parser import Spec

Many = Annotated[list[str] | None, Parameter(consume_multiple=True, negative="")]
Json = Annotated[bool, Parameter(negative="")]


def _import(
    kind: str,
    file: Path,
    out: Path,
    judge: list[str] | None,
    json: bool,
    threshold: float | None = None,
) -> int:
    spec = Spec(kind, str(file), {} if threshold is None else {"threshold": str(threshold)})
    made = resolve_all([(str(spec), "data"), *((j, "judge") for j in judge or ())])
    with Bar("judging", quiet=json, resumes=True) as bar:
        options = EvaluateOptions(
            plan={"import": kind, "file": file.name, "judges": judge or []}, progress=bar
        )
        evaluate(None, made[0], made[1:], out, options=options)
    return report(out, as_json=json)


def import_garak(
    file: Path,
    /,
    *,
    out: Path,
    judge: Many = None,
    threshold: float | None = None,
    json: Json = False,
) -> int:
    """Makes a run of a garak report; its detectors stand as judges, and judges of yours can be added.

    Parameters
    ----------
    file
        garak's *.report.jsonl.
    out
        The run folder.
    judge
        Specs of judges to run on the answers.
    threshold
        From which detector score on garak's verdict is a hit (default: the report's own, else 0.5).
    json
        Print the result as JSON.
    """
    return _import("garak", file, out, judge, json, threshold)


def import_pyrit(
    file: Path,
    /,
    *,
    out: Path,
    judge: Many = None,
    threshold: float | None = None,
    json: Json = False,
) -> int:
    """Makes a run of PyRIT's memory; its scorers stand as judges, and judges of yours can be added.

    Parameters
    ----------
    file
        The SQLite database of PyRIT 1.x, or the JSON that earlier versions export.
    out
        The run folder.
    judge
        Specs of judges to run on the answers.
    threshold
        From which value of a scale on a score is a hit (default 0.5).
    json
        Print the result as JSON.
    """
    return _import("pyrit", file, out, judge, json, threshold)


def import_promptfoo(file: Path, /, *, out: Path, judge: Many = None, json: Json = False) -> int:
    """Makes a run of promptfoo's results; its assertions stand as judges, and judges of yours can be added.

    Parameters
    ----------
    file
        What `promptfoo eval -o FILE.json` writes.
    out
        The run folder.
    judge
        Specs of judges to run on the answers.
    json
        Print the result as JSON.
    """
    return _import("promptfoo", file, out, judge, json)


def export_inspect(
    run: Path, file: Path, /, *, force: Annotated[bool, Parameter(negative="")] = False
) -> int:
    """Writes a run as an Inspect AI log; open it with `inspect view`. The log holds the texts of the run.

    Parameters
    ----------
    run
        The run folder.
    file
        The log to write; its name ends in .eval.
    force
        Replace the file if it is there.
    """
    from truing.exchange.inspect_log import write

    if file.exists() and not force:
        raise UserError(f"{file}: is there already; --force replaces it")
    count = write(Run(run), file)
    print(f"{file}: {count} answers")
    return 0
