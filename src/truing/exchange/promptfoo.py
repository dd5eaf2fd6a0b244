"""Reads promptfoo's results (`promptfoo eval -o FILE.json`): assertions become judges.

An assertion of red teaming (``promptfoo:redteam:...``) and of moderation that fails says *harmful*;
``is-refusal`` says *refused*; any other says whether it *passed*, as does ``promptfoo:all`` for a
whole result. Results of the same messages by the same provider are several answers to one sample.
Its harm plug-ins are mapped onto the 14 categories.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from msgspec import Struct, field

from truing.core.errors import DataError
from truing.core.taxonomy import load_crosswalk
from truing.core.types import Conversation, Judgement, Response, Row, Sample
from truing.exchange.base import (
    ToolResultsDataset,
    decode_json,
    make_judgement,
    make_response,
    require_file,
)
from truing.specs.resolve import Args


class _Assertion(Struct):
    type: str = ""


class _Component(Struct):
    passed: bool | None = field(default=None, name="pass")
    score: float | None = None
    reason: str | None = None
    assertion: _Assertion | None = None


class _Grading(Struct):
    components: list[_Component] | None = field(default=None, name="componentResults")


class _Prompt(Struct):
    raw: str = ""


class _Provider(Struct):
    id: str = ""
    label: str | None = None


class _Reply(Struct):
    output: Any = None
    error: str | None = None


class _Result(Struct):
    prompt: _Prompt = field(default_factory=_Prompt)
    provider: _Provider | str = field(default_factory=_Provider)
    response: _Reply | None = None
    error: str | None = None
    success: bool | None = None
    score: float | None = None
    grading: _Grading | None = field(default=None, name="gradingResult")
    metadata: dict[str, Any] = field(default_factory=dict)


class _Results(Struct):
    results: list[_Result]
    version: int = 0


class _File(Struct):
    results: _Results | list[_Result]


def _parse_prompt(raw: str) -> Conversation:
    """Parses a prompt, which is plain text or a chat as JSON."""
    # A plain prompt may begin with a bracket as well, hence the fallback to text.
    if raw.lstrip().startswith("["):
        try:
            conversation = Conversation.from_openai(json.loads(raw))
        except (ValueError, TypeError):
            return Conversation.of(raw)
        if conversation.messages:
            return conversation
    return Conversation.of(raw)


def _output_text(output: Any) -> str | None:
    return (
        output
        if isinstance(output, str) or output is None
        else json.dumps(output, ensure_ascii=False)
    )


def _read_judgements(row_result: _Result, index: int) -> Iterator[Judgement]:
    seen: dict[str, int] = {}
    for component in (row_result.grading.components or ()) if row_result.grading else ():
        kind = (
            component.assertion.type
            if component.assertion and component.assertion.type
            else "assertion"
        )
        # Assertions have no ids: equal types within a test are numbered in their order.
        seen[kind] = seen.get(kind, 0) + 1
        name = f"promptfoo:{kind}" if seen[kind] == 1 else f"promptfoo:{kind}#{seen[kind]}"
        if kind.startswith("promptfoo:redteam:") or kind == "moderation":
            yield _harm_judgement(
                name.replace("promptfoo:promptfoo:", "promptfoo:"), component, index
            )
        else:
            question = "refused" if kind == "is-refusal" else "passed"
            yield make_judgement(
                name,
                question,
                component.passed,
                index=index,
                score=_unit_score(component.score),
                rationale=component.reason,
            )
    has_output = (
        row_result.response is not None
        and row_result.response.output is not None
        and not row_result.response.error
    )
    if (
        row_result.success is not None and has_output
    ):  # `error` of a result is also the reason of a failed assertion
        yield make_judgement(
            "promptfoo:all",
            "passed",
            row_result.success,
            index=index,
            score=_unit_score(row_result.score),
        )


def _harm_judgement(name: str, component: _Component, index: int) -> Judgement:
    # Passing means that no harm was found, so verdict and score are reversed.
    verdict = None if component.passed is None else not component.passed
    score = _unit_score(component.score)
    return make_judgement(
        name,
        "harmful",
        verdict,
        index=index,
        score=None if score is None else 1 - score,
        rationale=component.reason,
    )


def _unit_score(score: float | None) -> float | None:
    return score if score is not None and 0 <= score <= 1 else None


def _read_harms(metadata: dict[str, Any]) -> tuple[str, ...]:
    crosswalk = load_crosswalk("promptfoo")
    plugin = str(metadata.get("pluginId") or metadata.get("harmCategory") or "")
    return crosswalk(plugin) if plugin in crosswalk.map else ()


def read_promptfoo_results(path: Path) -> Iterator[Row]:
    """Yields the rows of a results file (format versions 2 to 4)."""
    document: Any = decode_json(path, path.read_bytes(), _File)
    row_results = (
        document.results.results if isinstance(document.results, _Results) else document.results
    )
    if not row_results:
        raise DataError.at(
            path, None, "no results: is this what `promptfoo eval -o FILE.json` writes?"
        )
    groups: dict[tuple[str, str], list[_Result]] = {}
    for row_result in row_results:
        provider = (
            row_result.provider
            if isinstance(row_result.provider, str)
            else row_result.provider.label or row_result.provider.id
        )
        groups.setdefault((row_result.prompt.raw, provider), []).append(row_result)
    for (raw, provider), group in groups.items():
        metadata = group[0].metadata
        tags = {
            k: str(v)
            for k, v in metadata.items()
            if not k.startswith("_") and isinstance(v, str | int | float | bool)
        }
        sample = Sample(
            conversation=_parse_prompt(raw),
            harms=_read_harms(metadata),
            tags={**tags, "provider": provider},
        )
        responses: list[Response] = []
        judgements: list[Judgement] = []
        for index, row_result in enumerate(group):
            reply = row_result.response or _Reply()
            # `error` of a result also holds the reason of a failed assertion, which is no failed
            # answer.
            error_text = reply.error or (row_result.error if reply.output is None else None) or ""
            responses.append(make_response(index, _output_text(reply.output), provider, error_text))
            judgements += _read_judgements(row_result, index)
        yield Row(sample=sample, responses=tuple(responses), judgements=tuple(judgements))


def build(args: Args) -> ToolResultsDataset:
    """Builds `promptfoo:FILE.json`."""
    return ToolResultsDataset(
        str(args.spec), require_file(args, "promptfoo results"), "promptfoo", read_promptfoo_results
    )
