"""CPU time of one turn as the conversation grows to 100 turns, and as the configuration grows to 1,000 flows.

    python benchmarks/rails/growth.py --peer VENV/bin/python --out growth.json

In process, with a scripted LLM, so that nothing but the runtime is measured; truing and NeMo Guardrails' LLMRails take turns in one run.
Each figure is the median of the repetitions. The peer goes to turn 30 and, with 1,000 flows, one turn (it is slow).
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
    """A configuration of so many intents, messages and flows."""
    rows = []
    for k in range(flows):
        rows += [
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
    return "\n".join(rows)


def configs() -> dict[str, tuple[str, str, list[str]]]:
    """Name -> YAML, Colang, what the LLM says over and over."""
    check = (HERE / "configs/selfcheck/config.yml").read_text()
    return {
        "selfcheck": ("models: []\n" + check[check.index("rails:") :], "", LLM["selfcheck"]),
        "dialog20": (
            "models: []\n",
            (HERE / "configs/dialog20/rails.co").read_text(),
            LLM["dialog20"],
        ),
    }


class Ours:
    """truing, asked turn after turn."""

    def __init__(self, yaml: str, flows: str, said: list[str]) -> None:
        from truing.core.types import Answer, Lineage
        from truing.rails.build import build_runtime
        from truing.rails.config.loader import RailsConfig
        from truing.rails.runtime.app import RuntimeParts
        from truing.rails.runtime.embeddings import LexicalEncoder

        class Script:
            name, lineage, calls = "script", Lineage(name="script"), 0

            async def generate(self, conversation: Any, sampling: Any) -> Any:
                Script.calls += 1
                return (Answer.of(said[(Script.calls - 1) % len(said)]),)

        began = time.process_time()
        self.runtime = build_runtime(
            RailsConfig.from_text(yaml, flows), Script(), RuntimeParts(encoder=LexicalEncoder())
        )
        self.built = time.process_time() - began

    async def ask(self, history: list[dict[str, Any]]) -> dict[str, Any]:
        """The bot's message."""
        return (await self.runtime.run_turn(history)).message


class Theirs:
    """NeMo Guardrails; its embedding model replaced by hashed words, as ours is."""

    def __init__(self, yaml: str, flows: str, said: list[str]) -> None:
        import hashed_words  # noqa: F401 - replaces the embedding model
        from nemoguardrails import LLMRails, RailsConfig
        from nemoguardrails.testing import FakeLLMModel

        began = time.process_time()
        config = RailsConfig.from_content(yaml_content=yaml, colang_content=flows or None)
        self.app = LLMRails(config, llm=FakeLLMModel(responses=said * 200))
        self.built = time.process_time() - began

    async def ask(self, history: list[dict[str, Any]]) -> dict[str, Any]:
        """The bot's message."""
        made: dict[str, Any] = await self.app.generate_async(messages=list(history))
        return made


async def turns(
    kind: type[Ours] | type[Theirs], yaml: str, flows: str, said: list[str], last: int
) -> dict[int, float]:
    """Milliseconds of CPU at each of `TURNS` up to the last."""
    app, history, found = kind(yaml, flows, said), list[dict[str, Any]](), {}
    for at in range(1, last + 1):
        history.append({"role": "user", "content": f"tell me about topic seven {at}"})
        began = time.process_time()
        message = await app.ask(history)
        if at in TURNS:
            found[at] = (time.process_time() - began) * 1000
        history.append(message)
    return found


async def flows_cost(
    kind: type[Ours] | type[Theirs], count: int, repeat: int
) -> tuple[float, float]:
    """Milliseconds of a turn with so many flows, and of building them."""
    app = kind("models: []\n", colang(count), [f"  ask about thing {count // 2}"])
    times = []
    for at in range(repeat):
        began = time.process_time()
        message = await app.ask(
            [{"role": "user", "content": f"tell me about thing {count // 2} {at}"}]
        )
        times.append((time.process_time() - began) * 1000)
        assert message["content"] == f"This is thing {count // 2}.", message
    return statistics.median(times[1:] or times), app.built * 1000


def measure(system: str, repeats: int) -> dict[str, Any]:
    """All figures of one system in this process."""
    kind: Any = Ours if system == "truing" else Theirs
    made: dict[str, Any] = {"system": system}
    for name, (yaml, flows, said) in configs().items():
        last = 100 if system == "truing" else 30
        rounds = [
            asyncio.run(turns(kind, yaml, flows, said, last))
            for _ in range(repeats if system == "truing" else 1)
        ]
        made[name] = {at: round(statistics.median(r[at] for r in rounds), 3) for at in rounds[0]}
    for count in FLOWS:
        repeat = 40 if system == "truing" else (5 if count < 1000 else 2)
        turn, build = asyncio.run(flows_cost(kind, count, repeat))
        made[f"{count} flows"] = {"turn_ms": round(turn, 3), "build_ms": round(build)}
    return made


def main() -> None:
    """Runs this system, or all of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peer", help="python of an environment with nemoguardrails")
    parser.add_argument("--system", choices=["truing", "nemo"])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path)
    a = parser.parse_args()
    if a.system:
        print(json.dumps(measure(a.system, a.repeats)))
        return
    env = {
        **os.environ,
        "NEMO_GUARDRAILS_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "PYTHONPATH": str(HERE / "peers"),
    }
    found = []
    for system, python in (("truing", sys.executable), *([("nemo", a.peer)] if a.peer else [])):
        done = subprocess.run(
            [python, __file__, "--system", system],
            env=env,
            capture_output=True,
            text=True,
            check=True,
        )
        found.append(json.loads(done.stdout.splitlines()[-1]))
        print(json.dumps(found[-1], indent=1))
    if a.out:
        a.out.write_text(json.dumps({"load": os.getloadavg(), "rows": found}, indent=1))


if __name__ == "__main__":
    main()
