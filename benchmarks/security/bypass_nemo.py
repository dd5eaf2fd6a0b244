"""The bypass matrix on NeMo Guardrails, in an environment where that is installed.

    VENV/bin/python benchmarks/security/bypass_nemo.py [--longest 4] [--sample 1.0]

Prints the counts as JSON, by (entry, rails, place). The entries are those of its Python API:
`generate_async`, `stream_async`, and a check by `options={"rails": [...]}`, which is how its server
checks. A conversation that it does not take is an error, and counts as neither passed nor refused.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import random
import sys
from collections import Counter
from pathlib import Path
from typing import Any

os.environ["NEMO_GUARDRAILS_NO_USAGE_STATS"] = "1"
os.environ["DO_NOT_TRACK"] = "1"
sys.path.insert(0, str(Path(__file__).parent))

from bypass_cells import UNSAFE, cells, is_covered, tool_call  # noqa: E402
from langchain_core.language_models import BaseChatModel  # noqa: E402
from langchain_core.messages import AIMessage, AIMessageChunk  # noqa: E402
from langchain_core.outputs import (  # noqa: E402
    ChatGeneration,
    ChatGenerationChunk,
    ChatResult,
)
from nemoguardrails import LLMRails, RailsConfig  # noqa: E402
from nemoguardrails.embeddings.providers import fastembed  # noqa: E402

logging.disable(logging.CRITICAL)
RAILS = {
    "input": "  input: {flows: [read input]}\n",
    "output": "  output: {flows: [read output]}\n",
    "retrieval": "  retrieval: {flows: [read chunks]}\n",
    "all": "  input: {flows: [read input]}\n  output: {flows: [read output]}\n"
    "  retrieval: {flows: [read chunks]}\n",
}
REFUSE = "  if $found\n    bot refuse to respond\n    stop\n"
COLANG = (
    'define bot refuse to respond\n  "I can not respond to that."\n\n'
    "define subflow read input\n  $found = execute find_marker(text=$user_message)\n"
    f"{REFUSE}\ndefine subflow read output\n  $found = execute find_marker(text=$bot_message)\n"
    f"{REFUSE}\ndefine subflow read chunks\n  $found = execute find_marker(text=$relevant_chunks)\n"
    '  if $found\n    $relevant_chunks = ""\n'
)
STREAMING = ", streaming: {enabled: true, chunk_size: 2, context_size: 2}}"


async def find_marker(text: Any = "") -> bool:
    """Returns whether a text holds the marker."""
    return bool(UNSAFE.search(str(text)))


class MarkerModel(BaseChatModel):
    """Answers with the text of the current cell; notes whether a call showed the marker."""

    answer: Any = None
    saw_marker: bool = False

    @property
    def _llm_type(self) -> str:
        return "marker"

    def _read(self, messages: Any) -> None:
        shown = [str(message.content) for message in messages]
        text = "\n".join(shown)
        # Roles stand between messages where a conversation is one text.
        bare = text.replace("\nUser: ", "\n").replace("\nAssistant: ", "\n")
        if UNSAFE.search(text) or UNSAFE.search(bare) or UNSAFE.search(bare.replace("\n", "")):
            self.saw_marker = True

    def _generate(self, messages: Any, *args: Any, **kwargs: Any) -> ChatResult:
        self._read(messages)
        return ChatResult(generations=[ChatGeneration(message=self.answer)])

    async def _agenerate(
        self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any
    ) -> ChatResult:
        text = str(self.answer.content)
        for start in range(0, len(text) if run_manager is not None else 0, 4):
            token = text[start : start + 4]
            chunk = ChatGenerationChunk(message=AIMessageChunk(content=token))
            await run_manager.on_llm_new_token(token, chunk=chunk)
        return self._generate(messages)


def _without_download(self: Any, embedding_model: str, **kwargs: Any) -> None:
    self.model, self.embedding_size = None, 4


async def _encode(self: Any, documents: list[str]) -> list[list[float]]:
    return [[1.0, 0.0, 0.0, 0.0] for _ in documents]


def make_app(rails: str, model: MarkerModel) -> LLMRails:
    """Returns the guardrails of a configuration."""
    stages = RAILS[rails].replace("[read output]}", "[read output]" + STREAMING)
    config = RailsConfig.from_content(
        colang_content=COLANG, yaml_content=f"models: []\npassthrough: false\nrails:\n{stages}"
    )
    app = LLMRails(config, llm=model)
    app.register_action(find_marker, "find_marker")
    return app


async def run_cell(app: LLMRails, model: MarkerModel, entry: str, cell: Any) -> str:
    """Returns "passed", "refused" or "error"."""
    rows = cell.messages()
    if cell.context():
        rows = [{"role": "context", "content": cell.context()}, *rows]
    calls = [{"name": "look_up", "args": {"q": f"{cell.word}"}, "id": "call_1"}]
    has_calls = cell.place == "answer arguments"
    model.answer = AIMessage("", tool_calls=calls) if has_calls else AIMessage(cell.answer())
    model.saw_marker = False
    if entry == "check":
        return await _check(app, cell, rows)
    shown = ""
    if entry == "stream":
        async for chunk in app.stream_async(messages=rows):
            shown += str(chunk)
    else:
        reply = await app.generate_async(messages=rows)
        shown = json.dumps(reply, ensure_ascii=False)
    if cell.unsafe:
        return "passed" if model.saw_marker or UNSAFE.search(shown) else "refused"
    is_whole = has_calls or cell.answer() in shown
    return "passed" if is_whole else "refused"


async def _check(app: LLMRails, cell: Any, rows: list[dict[str, Any]]) -> str:
    """A check refuses if its reply is the refusal."""
    if not cell.is_input:
        answer: dict[str, Any] = {"role": "assistant", "content": cell.answer()}
        if cell.place == "answer arguments":
            answer = {"role": "assistant", "content": "", "tool_calls": [tool_call(cell.word)]}
        rows = [*rows, answer]
    stage = "output" if rows[-1]["role"] == "assistant" else "input"
    reply = await app.generate_async(messages=rows, options={"rails": [stage]})
    return "refused" if "can not respond" in str(reply.response) else "passed"


async def main() -> None:
    """Runs the matrix and prints its counts."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--longest", type=int, default=4)
    parser.add_argument("--sample", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    fastembed.FastEmbedEmbeddingModel.__init__ = _without_download
    fastembed.FastEmbedEmbeddingModel.encode_async = _encode
    drawn = random.Random(arguments.seed)
    counts: dict[tuple[str, str, str], Counter[str]] = {}
    for rails in RAILS:
        model = MarkerModel()
        app = make_app(rails, model)
        for cell in cells(arguments.longest):
            for entry in ("generate", "stream", "check"):
                if not is_covered(cell, rails, entry) or drawn.random() >= arguments.sample:
                    continue
                try:
                    outcome = await asyncio.wait_for(run_cell(app, model, entry, cell), 20)
                except Exception:
                    outcome = "error"
                row = counts.setdefault((entry, rails, cell.place), Counter())
                row["unsafe" if cell.unsafe else "benign"] += 1
                if outcome == "error":
                    row["errors"] += 1
                elif cell.unsafe and outcome == "passed":
                    row["holes"] += 1
                elif not cell.unsafe and outcome == "refused":
                    row["refused"] += 1
    print(json.dumps([{"cell": key, **row} for key, row in counts.items()]))


if __name__ == "__main__":
    asyncio.run(main())
