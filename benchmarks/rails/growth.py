"""CPU time of a turn for conversations up to 100 turns and configurations up to 1,000 flows.

    python benchmarks/rails/growth.py --peer VENV/bin/python --out growth.json

In process, with a scripted LLM, so that nothing but the runtime is measured; truing and the
LLMRails class of NeMo Guardrails run one after the other. Each figure is the median of the
repetitions. The peer is measured up to turn 30, with fewer repetitions, because it is slow.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
TURNS = (1, 2, 5, 10, 20, 30, 60, 100)
FLOWS = (10, 100, 1000)
LLM = {"selfcheck": ["No", "Hi", "No"], "dialog20": ["  ask about topic seven"]}


def colang(flows: int) -> str:
    """Returns a configuration with this number of intents, bot messages and flows."""
    lines = []
    for k in range(flows):
        lines += [
            f"define user ask about thing {k}",
            f'  "tell me about thing {k}"',
            f"define bot answer thing {k}",
            f'  "This is thing {k}."',
            f"define flow thing {k}",
            f"  user ask about thing {k}",
            f"  bot answer thing {k}",
            "  user express thanks",
            f"  bot answer thing {k}",
            "",
        ]
    return "\n".join(lines)


def configs() -> dict[str, tuple[str, str, list[str]]]:
    """Returns for each name the YAML, the Colang, and the LLM's replies, which repeat."""
    check = (HERE / "configs/selfcheck/config.yml").read_text()
    return {
        "selfcheck": ("models: []\n" + check[check.index("rails:") :], "", LLM["selfcheck"]),
        "dialog20": (
            "models: []\n",
            (HERE / "configs/dialog20/rails.co").read_text(),
            LLM["dialog20"],
        ),
    }


class TruingRuntime:
    """The runtime of truing."""

    def __init__(self, yaml: str, flows: str, replies: list[str]) -> None:
        from truing.core.types import Answer, Lineage
        from truing.rails.build import build_runtime
        from truing.rails.config.loader import RailsConfig
        from truing.rails.runtime.app import RuntimeParts
        from truing.rails.runtime.embeddings import LexicalEncoder

        class Script:
            name, lineage, calls = "script", Lineage(name="script"), 0

            async def generate(self, conversation: Any, sampling: Any) -> Any:
                # By the prompt and not in turn: joined texts are checked by calls of their own.
                asks_verdict = "should the" in conversation.last.content.lower()
                answers = [reply for reply in replies if (reply == "No") == asks_verdict]
                Script.calls += 1
                return (Answer.of(answers[Script.calls % len(answers)]),)

        started = time.process_time()
        self.runtime = build_runtime(
            RailsConfig.from_text(yaml, flows), Script(), RuntimeParts(encoder=LexicalEncoder())
        )
        self.build_s = time.process_time() - started

    async def run_turn(self, history: list[dict[str, Any]]) -> dict[str, Any]:
        """Returns the bot's message."""
        return (await self.runtime.run_turn(history)).message


class NemoRuntime:
    """NeMo Guardrails, with hashed words for its embedding model, as in truing."""

    def __init__(self, yaml: str, flows: str, replies: list[str]) -> None:
        import hashed_words  # noqa: F401 - replaces the embedding model
        from nemoguardrails import LLMRails, RailsConfig
        from nemoguardrails.testing import FakeLLMModel

        started = time.process_time()
        config = RailsConfig.from_content(yaml_content=yaml, colang_content=flows or None)
        self.app = LLMRails(config, llm=FakeLLMModel(responses=replies * 200))
        self.build_s = time.process_time() - started

    async def run_turn(self, history: list[dict[str, Any]]) -> dict[str, Any]:
        """Returns the bot's message."""
        message: dict[str, Any] = await self.app.generate_async(messages=list(history))
        return message


async def time_turns(
    kind: type[TruingRuntime] | type[NemoRuntime],
    yaml: str,
    flows: str,
    replies: list[str],
    last: int,
) -> dict[int, float]:
    """Returns the CPU milliseconds of each turn in `TURNS` up to the last."""
    runtime, times = kind(yaml, flows, replies), {}
    history: list[dict[str, Any]] = []
    for turn in range(1, last + 1):
        history.append({"role": "user", "content": f"tell me about topic seven {turn}"})
        started = time.process_time()
        message = await runtime.run_turn(history)
        if turn in TURNS:
            times[turn] = (time.process_time() - started) * 1000
        history.append(message)
    return times


async def time_flows(
    kind: type[TruingRuntime] | type[NemoRuntime], count: int, repeat: int
) -> tuple[float, float]:
    """Returns the CPU milliseconds of a turn with `count` flows, and of building the runtime."""
    runtime = kind("models: []\n", colang(count), [f"  ask about thing {count // 2}"])
    times = []
    for repetition in range(repeat):
        started = time.process_time()
        message = await runtime.run_turn(
            [{"role": "user", "content": f"tell me about thing {count // 2} {repetition}"}]
        )
        times.append((time.process_time() - started) * 1000)
        assert message["content"] == f"This is thing {count // 2}.", message
    return statistics.median(times[1:] or times), runtime.build_s * 1000


def measure(system: str, repeats: int) -> dict[str, Any]:
    """Measures one system in this process."""
    kind: Any = TruingRuntime if system == "truing" else NemoRuntime
    figures: dict[str, Any] = {"system": system}
    for name, (yaml, flows, replies) in configs().items():
        last = 100 if system == "truing" else 30
        rounds = [
            asyncio.run(time_turns(kind, yaml, flows, replies, last))
            for _ in range(repeats if system == "truing" else 1)
        ]
        figures[name] = {
            turn: round(statistics.median(times[turn] for times in rounds), 3) for turn in rounds[0]
        }
    for count in FLOWS:
        repeat = 40 if system == "truing" else (5 if count < 1000 else 2)
        turn, build = asyncio.run(time_flows(kind, count, repeat))
        figures[f"{count} flows"] = {"turn_ms": round(turn, 3), "build_ms": round(build)}
    return figures


def main() -> None:
    """Runs each system in a process of its own; with --system, that one in this process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peer", help="python of an environment with nemoguardrails")
    parser.add_argument("--system", choices=["truing", "nemo"])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    if arguments.system:
        print(json.dumps(measure(arguments.system, arguments.repeats)))
        return
    env = {
        **os.environ,
        "NEMO_GUARDRAILS_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "PYTHONPATH": str(HERE / "peers"),
    }
    rows = []
    for system, python in (
        ("truing", sys.executable),
        *([("nemo", arguments.peer)] if arguments.peer else []),
    ):
        process = subprocess.run(
            [python, __file__, "--system", system],
            env=env,
            capture_output=True,
            text=True,
            check=True,
        )
        rows.append(json.loads(process.stdout.splitlines()[-1]))
        print(json.dumps(rows[-1], indent=1))
    if arguments.out:
        arguments.out.write_text(json.dumps({"load": os.getloadavg(), "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
