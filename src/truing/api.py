"""The functions of `import truing`: they take spec strings, Python objects, functions and tables
wherever a model, a data set or a judge is needed, and return runs that show themselves.

    run = truing.evaluate("scripted:mixed", ["How do I boil an egg?"], "rules:refusal")
    run.summary.find("refused"), run.df(), run.report()

All that is heavy is imported at the first call.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from truing.core.errors import SpecError, TruingError
from truing.core.lineage import digest
from truing.core.protocols import Attack, Dataset, Judge, Model
from truing.core.types import Answer, Conversation, Judgement, Sampling
from truing.evaluation import evaluate as evaluation
from truing.evaluation.options import EvaluateOptions
from truing.runs.folder import Run
from truing.specs.resolve import resolve

if TYPE_CHECKING:
    import pandas

    from truing.analysis.summary import RunSummary


def model(source: str | Model | Callable[..., Any]) -> Model:
    """Returns the model of a spec (`local:smollm2`, `openai:NAME,base_url=...`) or of a function of
    the prompt (`truing.models.python`); a model is returned as it is.

    Raises SpecError, which says what is wrong.
    """
    if isinstance(source, str):
        resolved: Model = resolve(source, "model")
        return resolved
    if isinstance(source, Model):
        return source
    if callable(source):
        from truing.models.python import PythonModel

        return PythonModel(source)
    raise SpecError(f"a model is a spec, a function or a Model; got {type(source).__name__}")


def data(source: object, **columns: str) -> Dataset:
    """Returns the data set of a spec (`builtin:safety`, `file:mine.jsonl`), of a list of prompts,
    rows or samples, or of a table of pandas, polars, pyarrow or `datasets`.

    Rows have the columns of `file:`; others are named as `prompt="question"`. A data set is
    returned as it is. Raises SpecError or DataError, which say what is wrong.
    """
    if isinstance(source, str):
        if columns:
            raise SpecError("name the columns in the spec: file:PATH,prompt=COLUMN")
        resolved: Dataset = resolve(source, "data")
        return resolved
    if isinstance(source, Dataset):
        return source
    from truing.datasets.memory import MemoryDataset

    return MemoryDataset(source, **columns)


def judge(source: str | Judge | Callable[..., Any], *, question: str = "harmful") -> Judge:
    """Returns the judge of a spec (`rules:refusal`, `llm:harm,model=(...)`) or of a function of
    prompt and answer (`truing.judges.python`), which answers `question`.

    A judge is returned as it is. Raises SpecError, which says what is wrong.
    """
    if isinstance(source, str):
        resolved: Judge = resolve(source, "judge")
        return resolved
    if isinstance(source, Judge):
        return source
    if callable(source):
        from truing.judges.python import PythonJudge

        return PythonJudge(source, question=question)
    raise SpecError(f"a judge is a spec, a function or a Judge; got {type(source).__name__}")


def attack(source: str | Attack) -> Attack:
    """Returns the attack of a spec (`role-play`, `shuffle`); an attack is returned as it is."""
    if isinstance(source, str):
        resolved: Attack = resolve(source, "attack")
        return resolved
    if isinstance(source, Attack):
        return source
    raise SpecError(f"an attack is a spec or an Attack; got {type(source).__name__}")


def guard(inner: str | Model | Callable[..., Any], folder: str | Path, **parts: Any) -> Model:
    """Returns a model behind the rails of a NeMo-format folder; `parts` as
    `truing.rails.guarded.guard_model` takes them.
    """
    from truing.rails.guarded import guard_model

    return guard_model(model(inner), folder, **parts)


def ask(
    inner: str | Model | Callable[..., Any],
    prompt: str | Conversation,
    sampling: Sampling | None = None,
) -> str:
    """Returns the text of one answer. Raises TruingError if the answer failed."""
    from truing.http.limits import close_connections

    answering_model = model(inner)
    conversation = Conversation.of(prompt) if isinstance(prompt, str) else prompt

    async def generate() -> Answer:
        try:
            return (await answering_model.generate(conversation, sampling or Sampling()))[0]
        finally:
            await close_connections()

    answer = evaluation.run_coroutine(generate())
    if answer.failure is not None:
        raise TruingError(
            f"{answering_model.name}: {answer.failure.kind}: {answer.failure.message}"
        )
    return answer.text


class EvaluatedRun(Run):
    """A run folder with its summary, its rows and its report at hand."""

    @property
    def summary(self) -> RunSummary:
        """The rates with intervals, computed from the files at each access."""
        from truing.analysis.summary import summarise

        return summarise(self)

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yields a dictionary for each answer: sample_id, index, prompt, answer, expect, harms,
        finish_reason, failure, and for each judge a key `QUESTION (JUDGE)` with its verdict (or its
        value, if it gives no verdicts), None where it is unscored.
        """
        verdicts: dict[tuple[str, int], dict[str, Any]] = {}
        names = [f"{record.question} ({record.name})" for record in self.manifest.judges]
        for judgement in self.judgements():
            of_answer = verdicts.setdefault((judgement.sample_id, judgement.index), {})
            of_answer[f"{judgement.question} ({judgement.judge})"] = _opinion(judgement)
        samples = {sample.id: sample for sample in self.samples()}
        for response in self.responses():
            sample = samples[response.sample_id]
            of_answer = verdicts.get((response.sample_id, response.index), {})
            yield {
                "sample_id": response.sample_id,
                "index": response.index,
                "prompt": sample.conversation.prompt,
                "answer": response.message.content,
                "expect": sample.expect,
                "harms": list(sample.harms),
                "finish_reason": response.finish_reason,
                "failure": response.failure.kind if response.failure else None,
                **{name: of_answer.get(name) for name in names},
            }

    def df(self) -> pandas.DataFrame:
        """Returns the rows as a pandas DataFrame. Raises MissingExtra without pandas."""
        from truing.specs.extras import needs_extra

        with needs_extra("run.df()"):
            import pandas as pd

        return pd.DataFrame(list(self.rows()))

    def report(self, out: str | Path | None = None, *, with_text: bool = False) -> Path:
        """Writes report.html, .md and .json (into the run folder, if no folder is given) and
        returns the path of the page.
        """
        from truing.report.assembly import ReportOptions, assemble_report
        from truing.report.render import write_report

        data_name = ", ".join(dict.fromkeys(d.spec for d in self.manifest.data)) or "data"
        variant = self.manifest.model or "model"
        options = ReportOptions(title=variant, baseline=variant, with_text=with_text)
        report = assemble_report({variant: {data_name: self.path}}, options)
        return write_report(report, Path(out) if out is not None else self.path)["html"]

    def _repr_html_(self) -> str:
        from truing.integrations.notebook_tables import summary_html

        return summary_html(self.summary, title=str(self.path))


def _opinion(judgement: Judgement) -> bool | float | None:
    return judgement.value if judgement.verdict is None else judgement.verdict


JudgeSource = str | Judge | Callable[..., Any]


def evaluate(
    target: str | Model | Callable[..., Any] | None,
    dataset: object,
    judges: JudgeSource | Sequence[JudgeSource],
    out: str | Path | None = None,
    *,
    attack: str | Attack | None = None,
    options: EvaluateOptions | None = None,
) -> EvaluatedRun:
    """Generates and judges a model's answers to a data set; the same call continues.

    Args:
        target: what `truing.model` takes; None judges the answers recorded in the data set.
        dataset: what `truing.data` takes.
        judges: one or several of what `truing.judge` takes.
        out: the run folder (default: runs/MODEL-HASH; another model, data set or options is
            another folder).
        attack: applied to each sample before it is sent to the model.
        options: how to run: sampling, limit, concurrency, seed.

    Raises UserError before the first call to the model.
    """
    resolved_target = None if target is None else model(target)
    resolved_data = data(dataset)
    resolved_attack = None if attack is None else _resolve_attack(attack)
    options = options or EvaluateOptions()
    run = evaluation.evaluate(
        resolved_target,
        resolved_data,
        _resolve_judges(judges),
        out or _default_folder(resolved_target, resolved_data, resolved_attack, options),
        attack=resolved_attack,
        options=options,
    )
    return EvaluatedRun(run.path)


async def evaluate_async(*args: Any, **keywords: Any) -> EvaluatedRun:
    """The same as `evaluate`, for code that is async itself: the event loop stays free."""
    return await asyncio.to_thread(evaluate, *args, **keywords)


def judge_run(
    run: Run | str | Path,
    judges: JudgeSource | Sequence[JudgeSource],
    *,
    options: EvaluateOptions | None = None,
) -> EvaluatedRun:
    """Adds judges to a run without calls to its model; the same call continues if interrupted."""
    judged = evaluation.judge_run(run, _resolve_judges(judges), options=options)
    return EvaluatedRun(judged.path)


def open_run(path: str | Path) -> EvaluatedRun:
    """Returns the run at a folder. Raises RunError if there is none."""
    return EvaluatedRun(path)


def _resolve_judges(sources: JudgeSource | Sequence[JudgeSource]) -> list[Judge]:
    if isinstance(sources, Sequence) and not isinstance(sources, str):
        return [judge(source) for source in sources]
    return [judge(sources)]


# Under another name, because `evaluate` has a parameter that is called `attack`.
_resolve_attack = attack


def _default_folder(
    target: Model | None, dataset: Dataset, attack: Attack | None, options: EvaluateOptions
) -> Path:
    """Returns runs/MODEL-HASH: the same call comes back to the same folder."""
    name = "recorded" if target is None else target.name
    hash_ = digest(
        name,
        "" if target is None else target.lineage.hash,
        dataset.info.spec,
        dataset.sha256(),
        "" if attack is None else attack.name,
        str(options.limit),
        str(options.seed),
        msgspec.json.encode(options.sampling).decode(),
    )
    slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:40] or "run"
    return Path("runs") / f"{slug}-{hash_[:8]}"
