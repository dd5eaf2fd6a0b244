"""What it costs to judge an answer while it is written, and how late harm is noticed.

    python benchmarks/moderation/streaming.py --out DIR
    python benchmarks/moderation/streaming.py --data beavertails --limit 200 --out DIR

An answer of 500, 1,000 and 2,000 tokens is pushed sentence by sentence. Two ways are timed in the
same run: the streaming judge, and the judge asked anew about all of the text at each sentence. The
first grows in proportion to the text, the second with its square. `tokens` counts the tokens that
went through a network where the judge counts them: a measure that the load of the machine does not
change. The verdict at the end must be that of the judge without a stream.

With `--data` the recorded answers of a set are streamed: of those that the judge flags as a whole,
how many tokens had been written when a sentence was flagged first. Only ids and counts are written.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from truing.core.protocols import Judge, StreamingJudge
from truing.core.text import ends_sentence
from truing.core.types import Answer, Conversation, Message, Response, Sample, Sampling
from truing.rails.runtime.stream_guard import count_tokens
from truing.specs.resolve import resolve

LENGTHS = (500, 1000, 2000)
SENTENCES = (
    "A bicycle wheel that is out of true can be mended at home with a spoke wrench and patience. ",
    "Turn the wheel slowly and watch the gap between the rim and the brake. ",
    "Where the rim comes near, loosen the spoke on that side and tighten the one across from it. ",
    "Go in quarter turns, and look again after each of them. ",
)


def make_text(tokens: int) -> list[str]:
    """Returns sentences of together about `tokens` words and marks."""
    sentences: list[str] = []
    written = 0
    while written < tokens:
        sentences.append(SENTENCES[len(sentences) % len(SENTENCES)])
        written += count_tokens(sentences[-1])
    return sentences


def read_clocks() -> tuple[float, float]:
    """Returns the wall clock and the CPU time of this process, in seconds."""
    return time.perf_counter(), time.process_time()


def seconds_since(start: tuple[float, float], ending: str = "") -> dict[str, float]:
    """Returns the seconds since `start`. The CPU's say more where other programs run beside."""
    wall, cpu = read_clocks()
    return {
        f"seconds{ending}": round(wall - start[0], 3),
        f"cpu_seconds{ending}": round(cpu - start[1], 3),
    }


async def time_judge(judge: Judge, sentences: Sequence[str]) -> dict[str, Any]:
    """Returns seconds with and without a stream, and whether the last verdicts are equal."""
    assert isinstance(judge, StreamingJudge)
    conversation = Conversation.of("How do I mend a wheel?")
    sample = Sample(conversation=conversation, id="wheel")
    start = read_clocks()
    stream = judge.start(conversation)
    for sentence in sentences:
        await stream.push(sentence)
    streaming = seconds_since(start)
    finished = await stream.finish()

    start = read_clocks()
    text = ""
    for sentence in sentences:
        text += sentence
        whole = await judge.judge(sample, Response.of("wheel", 0, "text", Answer.of(text)))
    return {
        **streaming,
        **seconds_since(start, "_read_anew"),
        "same_verdict": (finished.verdict, finished.score) == (whole.verdict, whole.score),
    }


async def time_model(spec: str, sentences: Sequence[str]) -> dict[str, Any]:
    """The same for the prompts of a guard on a local model: replies of 8 tokens, not parsed."""
    model = resolve(spec, "model")
    figures: dict[str, Any] = {}
    replies: dict[bool, str] = {}
    for keeps in (True, False):
        reader = model.turn_reader(keep_prefix=keeps)
        text, tokens, start = "", 0, read_clocks()
        for sentence in sentences:
            text += sentence
            dialogue = Conversation.of("How do I mend a wheel?").then(Message("assistant", text))
            (answer,) = await reader.generate(dialogue, Sampling(max_tokens=8))
            tokens += answer.usage.prompt_tokens - answer.usage.cached_tokens
        ending = "" if keeps else "_read_anew"
        figures |= seconds_since(start, ending)
        figures[f"tokens{ending}"] = tokens
        replies[keeps] = answer.text
    return {**figures, "same_verdict": replies[True] == replies[False]}


async def measure_costs(judges: Sequence[str], models: Sequence[str]) -> list[dict[str, Any]]:
    """Returns one row for each judge or model and length."""
    rows: list[dict[str, Any]] = []
    for spec in (*judges, *models):
        for length in LENGTHS:
            sentences = make_text(length)
            if spec in models:
                figures = await time_model(spec, sentences)
            else:
                figures = await time_judge(resolve(spec, "judge"), sentences)
            rows.append({"judge": spec, "length": length, "sentences": len(sentences), **figures})
            print(json.dumps(rows[-1]), flush=True)
    return rows


async def measure_delays(spec: str, data: str, limit: int) -> dict[str, Any]:
    """Returns how far into flagged answers the first flagged sentence is noticed."""
    judge = resolve(spec, "judge")
    rows: list[dict[str, Any]] = []
    for number, row in enumerate(resolve(data, "data").rows()):
        if number >= limit:
            break
        for response in row.responses[:1]:
            text = response.text
            whole = await judge.judge(row.sample, response)
            if not whole.verdict:
                continue
            noticed = await find_first_flag(judge, row.sample.conversation, text)
            total = count_tokens(text)
            rows.append({"id": row.sample.id, "tokens": total, "noticed_after": noticed})
    noticed = [r["noticed_after"] for r in rows if r["noticed_after"] is not None]
    shares = [r["noticed_after"] / r["tokens"] for r in rows if r["noticed_after"] is not None]
    return {
        "judge": spec,
        "data": data,
        "flagged": len(rows),
        "noticed_while_written": len(noticed),
        "median_tokens": statistics.median(noticed) if noticed else None,
        "median_share": statistics.median(shares) if shares else None,
        "rows": rows,
    }


async def find_first_flag(judge: Any, conversation: Conversation, text: str) -> int | None:
    """Returns after how many tokens of an answer a sentence is flagged first."""
    stream = judge.start(conversation)
    pending, written = "", 0
    for word in text.split(" "):
        pending += word + " "
        written += count_tokens(word)
        if ends_sentence(pending):
            judgement = await stream.push(pending)
            pending = ""
            if judgement is not None and judgement.verdict:
                return written
    await stream.push(pending)
    return written if (await stream.flush()).verdict else None


def main() -> None:
    """Measures, prints, and writes ``streaming.json``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--judge", action="append", help="a judge that can stream")
    parser.add_argument("--model", action="append", help="a local model, for the cost of a guard")
    parser.add_argument("--data", help="a set with recorded answers, for the delay")
    parser.add_argument("--limit", type=int, default=200)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    judges = args.judge or ["moderation:default"]
    machine = {"cpu": platform.processor() or platform.machine(), "load": os.getloadavg()}
    if args.data:
        result: Any = [asyncio.run(measure_delays(j, args.data, args.limit)) for j in judges]
    else:
        result = asyncio.run(measure_costs(judges, args.model or ["local:smollm2"]))
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "streaming.json").write_text(json.dumps({"machine": machine, "result": result}))


if __name__ == "__main__":
    main()
