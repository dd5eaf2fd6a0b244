"""The bypass matrix: no text of a client reaches the model, and no answer the client, unread.

    python benchmarks/security/bypass.py [--longest 4] [--sample 1.0] [--json FILE]

Every entry x every sequence of up to four roles x every stage x every place of a marker word, and
the same with a harmless word. An unsafe cell passes if the model sees the marker, if the client
does, or if a check allows it; a benign twin fails if it is refused. Models and judges are scripted:
what is measured is whether the rails read the text.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Sequence
from pathlib import Path
from typing import Any

from litestar.testing import TestClient

sys.path.insert(0, str(Path(__file__).parent))

from bypass_cells import (
    APART_PLACES,
    DEFINITION_PLACES,
    PATTERN,
    UNSAFE,
    Cell,
    cells,
    cells_apart,
    is_covered,
    tool_call,
)

from truing.core.types import Answer, Conversation, Lineage, Message, Sampling, Tool, ToolCall
from truing.evaluation.evaluate import evaluate
from truing.rails.guarded import GuardedModel
from truing.serve.openai.app import chat_app
from truing.serve.openai.limits import ServerLimits
from truing.serve.openai.model_router import ModelRouter
from truing.specs.resolve import resolve

STAGE_RAILS = {
    "input": "input: {flows: [regex check input]}",
    "output": "output: {flows: [regex check output]}",
    "retrieval": "retrieval: {flows: [regex check retrieval]}",
    "tool_input": "tool_input: {flows: [read result]}",
    "tool_output": "tool_output: {flows: [read calls]}",
}
SELF_CHECK = "input: {flows: [self check input]}, output: {flows: [self check output]}"
RAILS = (*STAGE_RAILS, "self check", "all")
PROMPTS = (
    'prompts:\n  - {task: self_check_input, content: "CHECK {{ user_input }}"}\n'
    '  - {task: self_check_output, content: "CHECK {{ bot_response }}"}\n'
)
COLANG = """
define subflow read result
  if "FORBIDDEN" in $tool_message or ("CLOSED" in $tool_message and "GATE" in $tool_message)
    bot refuse to respond
    stop

define subflow read calls
  if "FORBIDDEN" in $tool_calls[0]["function"]["arguments"]
    bot refuse to respond
    stop
"""
ENTRIES = (
    "generate",
    "stream",
    "evaluate",
    "chat",
    "chat stream",
    "chat chunks",
    "checks",
    "check",
)


def config_yaml(rails: str, *, chunked: bool = False) -> str:
    """Returns the configuration that has one stage, the self checks, or all stages."""
    if rails == "self check":
        stages, head = SELF_CHECK, PROMPTS
    else:
        names = STAGE_RAILS if rails == "all" else (rails,)
        stages, head = ", ".join(STAGE_RAILS[name] for name in names), ""
    patterns = ", ".join(
        f"{source}: {{patterns: ['{PATTERN}']}}" for source in ("input", "output", "retrieval")
    )
    streaming = ", streaming: {mode: chunked, chunk_size: 1}" if chunked else ""
    return (
        f"{head}rails:\n  config: {{regex_detection: {{{patterns}}}}}\n"
        + "".join(f"  {stage}\n" for stage in stages.replace("}, ", "}\n  ").split("\n  "))
        + f"truing: {{client_options: {{context: [relevant_chunks]}}{streaming}}}\n"
    )


class MarkerModel:
    """Answers with the text of the current cell; self checks by the pattern itself.

    `saw_marker` is set when a call outside of checks shows the marker, in one message or over
    several; of `halves`, if it shows each of them anywhere.
    """

    name = "marker"
    lineage = Lineage(name="marker")

    def __init__(self) -> None:
        self.reply = Answer.of("")
        self.saw_marker = False
        self.halves: tuple[str, ...] = ()

    def _answer(self, conversation: Conversation, sampling: Sampling) -> Answer:
        text = conversation.last.content
        if text.startswith("CHECK"):
            return Answer.of("Yes" if UNSAFE.search(text) else "No")
        shown = [
            part
            for message in conversation.messages
            for part in (message.content, *(call.arguments for call in message.tool_calls))
        ]
        ids = [message.tool_call_id or "" for message in conversation.messages]
        ids += [call.id for message in conversation.messages for call in message.tool_calls]
        if UNSAFE.search("\n".join(ids)):
            self.saw_marker = True
        if UNSAFE.search("".join(shown)) or UNSAFE.search("\n".join(shown)):
            self.saw_marker = True
        names = [call.name for message in conversation.messages for call in message.tool_calls]
        tools = [f"{tool.name} {tool.description} {tool.parameters}" for tool in sampling.tools]
        everything = "\n".join([*shown, *names, *tools])
        if self.halves and all(half in everything for half in self.halves):
            self.saw_marker = True
        return self.reply

    async def generate(self, conversation: Conversation, sampling: Sampling) -> tuple[Answer, ...]:
        return (self._answer(conversation, sampling),)

    async def stream(self, conversation: Conversation, sampling: Sampling) -> AsyncIterator[str]:
        text = self._answer(conversation, sampling).text
        for start in range(0, len(text), 4):  # a marker is split over several chunks
            yield text[start : start + 4]


class Bench:
    """The entries to one configuration."""

    def __init__(self, rails: str, folder: Path) -> None:
        self.rails = rails
        self.model = MarkerModel()
        paths = {}
        for name, chunked in (("hold", False), ("chunked", True)):
            paths[name] = folder / name
            paths[name].mkdir(parents=True)
            (paths[name] / "config.yml").write_text(config_yaml(rails, chunked=chunked))
            (paths[name] / "rails.co").write_text(COLANG)
        self.guarded = GuardedModel(paths["hold"], self.model)
        router = ModelRouter(self.model, paths)
        self.client = TestClient(chat_app(router, limits=ServerLimits(per_minute=0)))

    def run(self, entry: str, cell: Cell) -> str:
        """Returns "passed" or "refused"; an unsafe cell that passed is a hole."""
        rows = cell.messages()
        if cell.place in ("split answer", "split real") and entry not in ("checks", "check"):
            self.model.reply = Answer.of(rows[cell.index + 1]["content"])
            self._answer(entry, cell, rows[: cell.index + 1])
        self.model.saw_marker = False
        self.model.halves = cell.halves if cell.place in APART_PLACES and cell.unsafe else ()
        self.model.reply = _reply_of(cell)
        if entry in ("checks", "check"):
            return "refused" if self._is_denied(entry, cell) else "passed"
        shown, finish_reason = self._answer(entry, cell, rows)
        if cell.unsafe:
            # The record names the configuration's own pattern, in which the marker stands.
            is_hole = self.model.saw_marker or UNSAFE.search(shown.replace("FORBIDDEN|CLOSED", ""))
            return "passed" if is_hole else "refused"
        is_whole = cell.answer() in shown or "PERMITTED" in shown or "tool_calls" in finish_reason
        return "passed" if is_whole and finish_reason in ("stop", "tool_calls") else "refused"

    def _is_denied(self, entry: str, cell: Cell) -> bool:
        """Returns whether a check does not allow the unsafe cell, or forbids the benign one."""
        rows = cell.messages()
        if not cell.is_input:
            answer: dict[str, Any] = {"role": "assistant", "content": cell.answer()}
            if cell.place == "answer arguments":
                answer = {**answer, "content": None, "tool_calls": [tool_call(cell.word)]}
            rows = [*rows, answer]
        if entry == "check":
            conversation = Conversation.from_openai(rows)
            tools = tuple(_tool(definition) for definition in cell.tools())
            check = self.guarded.check(conversation, tools=tools, context=cell.context())
            allowed = asyncio.run(check).allowed
        else:
            guardrails = {"config_id": "hold", "context": cell.context()}
            body = {"messages": rows, "guardrails": guardrails, "tools": cell.tools() or None}
            allowed = self.client.post("/v1/checks", json=body).json()["allowed"]
        return allowed is not True if cell.unsafe else allowed is False

    def _answer(self, entry: str, cell: Cell, rows: list[dict[str, Any]]) -> tuple[str, str]:
        """Returns everything that the client is shown, and the finish reason."""
        if entry in ("generate", "stream"):
            return asyncio.run(self._ask_python(entry, cell, rows))
        is_stream = entry != "chat"
        config_id = "chunked" if entry == "chat chunks" else "hold"
        body = {
            "messages": rows,
            "guardrails": {
                "config_id": config_id,
                "context": cell.context(),
                # The record of decisions must not quote what the rails withhold either.
                "options": {"log": {"activated_rails": True}},
            },
            "stream": is_stream,
            "tools": cell.tools() or None,
        }
        reply = self.client.post("/v1/chat/completions", json=body)
        if not is_stream:
            body = reply.json()
            shown = json.dumps(body, ensure_ascii=False)
            return shown, str(body["choices"][0]["finish_reason"])
        return _read_stream(reply.text)

    async def _ask_python(
        self, entry: str, cell: Cell, rows: list[dict[str, Any]]
    ) -> tuple[str, str]:
        conversation, context = Conversation.from_openai(rows), cell.context()
        sampling = Sampling(tools=tuple(_tool(definition) for definition in cell.tools()))
        if entry == "generate":
            answer = await self.guarded.answer(conversation, sampling, context=context)
            return _shown(answer), answer.finish_reason
        parts = self.guarded.stream_with_answer(conversation, sampling, context=context)
        texts: list[str] = []
        reason = ""
        async for part in parts:
            if isinstance(part, str):
                texts.append(part)
            else:
                texts.append(_shown(part))
                reason = part.finish_reason
        return "".join(texts[:-1]) + "\n" + texts[-1], reason


def _tool(definition: dict[str, Any]) -> Tool:
    function = definition["function"]
    parameters = function.get("parameters", {"type": "object", "properties": {}})
    return Tool(function["name"], function["description"], json.dumps(parameters))


def _reply_of(cell: Cell) -> Answer:
    if cell.place != "answer arguments":
        return Answer.of(cell.answer())
    call = ToolCall.from_openai(tool_call(cell.word))
    return Answer(message=Message("assistant", "", (call,)), finish_reason="tool_calls")


def _shown(answer: Answer) -> str:
    return " ".join([answer.text, *(call.arguments for call in answer.message.tool_calls)])


def _read_stream(text: str) -> tuple[str, str]:
    """Returns the texts and tool calls of a stream as its reader joins them, and its end."""
    shown, reason = "", "none"
    for line in text.split("\n\n"):
        if not line.startswith("data: {"):
            continue
        event = json.loads(line.removeprefix("data: "))
        shown += json.dumps(event["guardrails"]) if "guardrails" in event else ""
        for choice in event.get("choices") or ():
            shown += choice["delta"].get("content") or ""
            calls = choice["delta"].get("tool_calls")
            shown += json.dumps(calls, ensure_ascii=False) if calls else ""
            reason = choice["finish_reason"] or reason
    return shown, reason


# -- the guarded model in an evaluation ------------------------------------------------------------


def evaluate_cells(bench: Bench, chosen: Sequence[Cell], folder: Path) -> list[str]:
    """Runs an evaluation of the guarded model on cells of equal answers; returns their outcomes."""
    folder.mkdir(parents=True)
    rows = [{"id": str(n), "messages": cell.messages()} for n, cell in enumerate(chosen)]
    data = folder / "rows.jsonl"
    data.write_text("\n".join(map(json.dumps, rows)))
    bench.model.reply = _reply_of(chosen[0])
    first = chosen[0]
    bench.model.saw_marker = False
    bench.model.halves = first.halves if first.place in APART_PLACES and first.unsafe else ()
    dataset, judge = resolve(f"file:{data}", "data"), resolve("rules:refusal", "judge")
    run = evaluate(bench.guarded, dataset, [judge], folder / "run")
    outcomes = {}
    for response in run.responses():
        shown = " ".join([response.text, *(c.arguments for c in response.message.tool_calls)])
        cell = chosen[int(response.sample_id)]
        is_open = bool(UNSAFE.search(shown)) if cell.unsafe else True
        is_done = response.finish_reason in ("stop", "tool_calls")
        is_passed = is_open and (cell.unsafe or is_done)
        outcomes[response.sample_id] = "passed" if is_passed else "refused"
    if bench.model.saw_marker:
        outcomes["0"] = "passed"  # one of the cells at least
    return [outcomes[str(n)] for n in range(len(chosen))]


# -- the whole matrix ------------------------------------------------------------------------------


def run_matrix(
    longest: int,
    share: float,
    entries: Iterable[str] = ENTRIES,
    seed: int = 0,
    verbose: bool = False,
) -> dict[tuple[str, str, str], Counter[str]]:
    """Returns, by (entry, rails, place), the counts: unsafe, holes, benign, refused."""
    drawn = random.Random(seed)
    counts: dict[tuple[str, str, str], Counter[str]] = {}
    with tempfile.TemporaryDirectory() as name:
        for rails in RAILS:
            bench = Bench(rails, Path(name) / rails.replace(" ", "_"))
            with bench.client:
                for cell in (*cells(longest), *cells_apart(longest)):
                    for entry in entries:
                        if entry == "evaluate" or not is_covered(cell, rails, entry):
                            continue
                        if drawn.random() < share:
                            row = counts.setdefault((entry, rails, cell.place), Counter())
                            outcome = bench.run(entry, cell)
                            count_outcome(row, cell, outcome)
                            if verbose and (outcome == "passed") is cell.unsafe:
                                print(entry, rails, cell)
                if "evaluate" in entries:
                    chosen = [*cells(longest), *cells_apart(longest)]
                    chosen = [c for c in chosen if is_covered(c, rails, "evaluate")]
                    chosen = [c for c in chosen if _is_row(c) and drawn.random() < share]
                    _evaluate_by_answer(bench, chosen, Path(name) / f"runs_{rails}", counts)
    return counts


def _is_row(cell: Cell) -> bool:
    """Returns whether a data set takes the messages: they ask something, and set no variables."""
    return (
        cell.place not in ("context", "split context", *DEFINITION_PLACES)
        and "user" in cell.shape
        and cell.shape[-1] != "assistant"
    )


def _evaluate_by_answer(
    bench: Bench,
    chosen: Sequence[Cell],
    folder: Path,
    counts: dict[tuple[str, str, str], Counter[str]],
) -> None:
    by_answer: dict[tuple[bool, str, str], list[Cell]] = {}
    for cell in chosen:
        by_answer.setdefault((cell.unsafe, cell.place, cell.answer()), []).append(cell)
    for number, group in enumerate(by_answer.values()):
        outcomes = evaluate_cells(bench, group, folder / str(number))
        for cell, outcome in zip(group, outcomes, strict=True):
            row = counts.setdefault(("evaluate", bench.rails, cell.place), Counter())
            count_outcome(row, cell, outcome)


def count_outcome(row: Counter[str], cell: Cell, outcome: str) -> None:
    """Adds an outcome to the counts of a row."""
    row["unsafe" if cell.unsafe else "benign"] += 1
    if cell.unsafe and outcome == "passed":
        row["holes"] += 1
    if not cell.unsafe and outcome == "refused":
        row["refused"] += 1


def summarise(counts: dict[tuple[str, str, str], Counter[str]], by: int) -> dict[str, Counter[str]]:
    """Returns the counts summed by entry (0), rails (1) or place (2)."""
    sums: dict[str, Counter[str]] = {}
    for key, row in counts.items():
        sums.setdefault(key[by], Counter()).update(row)
    return sums


def main() -> int:
    """Runs the matrix and prints its tables; 2 if anything unsafe passed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--longest", type=int, default=4)
    parser.add_argument("--sample", type=float, default=1.0, help="share of the cells to run")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--verbose", action="store_true", help="print each cell that went wrong")
    arguments = parser.parse_args()
    started = time.perf_counter()
    counts = run_matrix(
        arguments.longest, arguments.sample, seed=arguments.seed, verbose=arguments.verbose
    )
    for by, title in enumerate(("entry", "rails", "place")):
        print(f"| {title} | unsafe | passed | benign | refused |\n|---|---|---|---|---|")
        for name, row in summarise(counts, by).items():
            figures = " | ".join(str(row[key]) for key in ("unsafe", "holes", "benign", "refused"))
            print(f"| {name} | {figures} |")
        print()
    total: Counter[str] = sum(counts.values(), Counter())
    print(f"{dict(total)} in {time.perf_counter() - started:.0f} s")
    if arguments.json:
        rows = [{"cell": key, **row} for key, row in counts.items()]
        arguments.json.write_text(json.dumps(rows, indent=1))
    return 2 if total["holes"] else 0


if __name__ == "__main__":
    sys.exit(main())
