"""`truing import TOOL` and `truing export inspect`: runs of other tools."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cyclopts import Parameter

from truing.cli.parameters import Flag, OptionalStrings, resolve_all
from truing.cli.tables import print_text
from truing.core.errors import UserError
from truing.specs.parser import Spec, redact_spec


@Parameter(name="*")
@dataclass(frozen=True)
class ImportFlags:
    """Where the run goes, and what else judges it.

    Parameters
    ----------
    out
        The run folder.
    judge
        Specs of judges to run on the answers.
    json
        Print the result as JSON.
    """

    out: Path
    judge: OptionalStrings = None
    json: Flag = False


def _import_results(
    tool: str, file: Path, flags: ImportFlags, threshold: float | None = None
) -> int:
    """Makes a run of the answers in another tool's file, judged by that tool and `flags.judge`."""
    from truing.cli.progress import ProgressBar, finish_run
    from truing.evaluation.evaluate import evaluate
    from truing.evaluation.options import EvaluateOptions

    # The readers of other tools' files are data sets: the kind of the spec is the tool's name.
    spec = Spec(tool, str(file), {} if threshold is None else {"threshold": str(threshold)})
    judge_specs = flags.judge or []
    dataset, *judges = resolve_all([(str(spec), "data"), *((j, "judge") for j in judge_specs)])
    with ProgressBar("judging", quiet=flags.json, resumable=True) as progress:
        options = EvaluateOptions(
            plan={
                "import": tool,
                "file": file.name,
                "judges": [redact_spec(judge) for judge in judge_specs],
            },
            progress=progress,
        )
        evaluate(None, dataset, judges, flags.out, options=options)
    return finish_run(flags.out, as_json=flags.json)


def import_garak(file: Path, /, *, flags: ImportFlags, threshold: float | None = None) -> int:
    """Makes a run of a garak report, with its detectors as judges; more judges can be added.

    Parameters
    ----------
    file
        garak's *.report.jsonl.
    threshold
        Detector score from which an answer counts as a hit (default: the report's own, else 0.5).
    """
    return _import_results("garak", file, flags, threshold)


def import_pyrit(file: Path, /, *, flags: ImportFlags, threshold: float | None = None) -> int:
    """Makes a run of PyRIT's memory, with its scorers as judges; more judges can be added.

    Parameters
    ----------
    file
        The SQLite database of PyRIT 1.x, or the JSON that earlier versions export.
    threshold
        Score of a scale from which an answer counts as a hit (default 0.5).
    """
    return _import_results("pyrit", file, flags, threshold)


def import_promptfoo(file: Path, /, *, flags: ImportFlags) -> int:
    """Makes a run of promptfoo's results, with its assertions as judges; more judges can be added.

    Parameters
    ----------
    file
        The output of `promptfoo eval -o FILE.json`.
    """
    return _import_results("promptfoo", file, flags)


def import_inspect(file: Path, /, *, flags: ImportFlags) -> int:
    """Makes a run of an Inspect AI log, with its scorers as judges; more judges can be added.

    Parameters
    ----------
    file
        The log (.eval), also one of Petri.
    """
    return _import_results("inspect", file, flags)


def import_otel(file: Path, /, *, flags: ImportFlags) -> int:
    """Makes a run of agents' traces, one sample a trace; judges read calls and results with
    `transcript,of=(JUDGE)`.

    Parameters
    ----------
    file
        OTLP JSON with the conventions for generative AI, one document or one a line.
    """
    return _import_results("otel", file, flags)


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
    from truing.runs.folder import Run

    if file.exists() and not force:
        raise UserError(f"{file}: exists already; --force replaces it")
    count = write_inspect_log(Run(run), file)
    print_text(f"{file}: {count} answers")
    return 0
