"""`truing import TOOL` and `truing export inspect`: runs of other tools."""

from __future__ import annotations

from pathlib import Path

from truing.cli.parameters import Flag, OptionalStrings, resolve_all
from truing.cli.progress import ProgressBar, finish_run
from truing.cli.tables import print_text
from truing.core.errors import UserError
from truing.evaluation.evaluate import evaluate
from truing.evaluation.options import EvaluateOptions
from truing.runs.folder import Run
from truing.specs.parser import Spec, redact_spec


def _import_results(
    tool: str,
    file: Path,
    out: Path,
    judge: list[str] | None,
    json: bool,
    threshold: float | None = None,
) -> int:
    """Makes a run of the answers in another tool's file, judged by that tool and `judge`."""
    # The readers of other tools' files are data sets: the kind of the spec is the tool's name.
    spec = Spec(tool, str(file), {} if threshold is None else {"threshold": str(threshold)})
    dataset, *judges = resolve_all([(str(spec), "data"), *((j, "judge") for j in judge or ())])
    with ProgressBar("judging", quiet=json, resumable=True) as progress:
        options = EvaluateOptions(
            plan={
                "import": tool,
                "file": file.name,
                "judges": [redact_spec(spec) for spec in judge or ()],
            },
            progress=progress,
        )
        evaluate(None, dataset, judges, out, options=options)
    return finish_run(out, as_json=json)


def import_garak(
    file: Path,
    /,
    *,
    out: Path,
    judge: OptionalStrings = None,
    threshold: float | None = None,
    json: Flag = False,
) -> int:
    """Makes a run of a garak report, with its detectors as judges; more judges can be added.

    Parameters
    ----------
    file
        garak's *.report.jsonl.
    out
        The run folder.
    judge
        Specs of judges to run on the answers.
    threshold
        Detector score from which an answer counts as a hit (default: the report's own, else 0.5).
    json
        Print the result as JSON.
    """
    return _import_results("garak", file, out, judge, json, threshold)


def import_pyrit(
    file: Path,
    /,
    *,
    out: Path,
    judge: OptionalStrings = None,
    threshold: float | None = None,
    json: Flag = False,
) -> int:
    """Makes a run of PyRIT's memory, with its scorers as judges; more judges can be added.

    Parameters
    ----------
    file
        The SQLite database of PyRIT 1.x, or the JSON that earlier versions export.
    out
        The run folder.
    judge
        Specs of judges to run on the answers.
    threshold
        Score of a scale from which an answer counts as a hit (default 0.5).
    json
        Print the result as JSON.
    """
    return _import_results("pyrit", file, out, judge, json, threshold)


def import_promptfoo(
    file: Path, /, *, out: Path, judge: OptionalStrings = None, json: Flag = False
) -> int:
    """Makes a run of promptfoo's results, with its assertions as judges; more judges can be added.

    Parameters
    ----------
    file
        The output of `promptfoo eval -o FILE.json`.
    out
        The run folder.
    judge
        Specs of judges to run on the answers.
    json
        Print the result as JSON.
    """
    return _import_results("promptfoo", file, out, judge, json)


def import_inspect(
    file: Path, /, *, out: Path, judge: OptionalStrings = None, json: Flag = False
) -> int:
    """Makes a run of an Inspect AI log, with its scorers as judges; more judges can be added.

    Parameters
    ----------
    file
        The log (.eval), also one of Petri.
    out
        The run folder.
    judge
        Specs of judges to run on the answers.
    json
        Print the result as JSON.
    """
    return _import_results("inspect", file, out, judge, json)


def import_otel(
    file: Path, /, *, out: Path, judge: OptionalStrings = None, json: Flag = False
) -> int:
    """Makes a run of agents' traces, one sample a trace; judges read calls and results with
    `transcript,of=(JUDGE)`.

    Parameters
    ----------
    file
        OTLP JSON with the conventions for generative AI, one document or one a line.
    out
        The run folder.
    judge
        Specs of judges; may be given several times.
    json
        Print the result as JSON.
    """
    return _import_results("otel", file, out, judge, json)


def export_inspect(run: Path, file: Path, /, *, force: Flag = False) -> int:
    """Writes a run as an Inspect AI log, for `inspect view`. The log contains the texts of the run.

    Parameters
    ----------
    run
        The run folder.
    file
        The log to write; its name ends in .eval.
    force
        Replace the file if it exists.
    """
    from truing.exchange.inspect_log import write_inspect_log

    if file.exists() and not force:
        raise UserError(f"{file}: exists already; --force replaces it")
    count = write_inspect_log(Run(run), file)
    print_text(f"{file}: {count} answers")
    return 0
