"""Runs generated cases on truing, with results in the form of `peer_nemo`."""

from __future__ import annotations

import asyncio
import tempfile
from collections import Counter
from typing import Any
from unittest.mock import patch

from adapter_truing import ACTIONS_PRELUDE, BagOfWordsEncoder, run_turn, user_messages_of
from rails_cases import write_config

from truing.core.errors import PlanError, TruingError
from truing.core.types import Answer, Conversation, Lineage, Sampling
from truing.rails.build import build_runtime
from truing.rails.config.loader import RailsConfig
from truing.rails.runtime.app import Runtime, RuntimeParts

# A phrase of each built-in prompt -> the task of the call.
_PROMPT_PHRASES = {
    "Answer with the canonical form": "intent",
    "Continue with the bot's next step": "next",
    "Write the text of the bot's message": "message",
    "write three lines": "single",
    "Write only the value": "value",
    "CHECK input": "check",
    "CHECK output": "check",
}


class FirstChoice:
    """A random generator whose choice is always the first item."""

    def __init__(self, seed: object = None) -> None:
        pass

    def choice(self, items: Any) -> Any:
        return items[0]


class TaskScriptedModel:
    """Answers by task: the n-th call of a task gets its n-th text.

    A prompt without a known phrase is one that was passed through; it counts as `default_task`.
    """

    name = "by-task"
    lineage = Lineage(name="by-task")

    def __init__(self, answers: dict[str, list[str]], is_multi_step: bool) -> None:
        self.answers = answers
        self.is_multi_step = is_multi_step
        self.tasks: list[str] = []
        self.calls: Counter[str] = Counter()
        self.default_task = "general"

    def for_messages(self) -> TaskScriptedModel:
        """Returns a model for bot messages that shares the counts with this one."""
        model = TaskScriptedModel(self.answers, self.is_multi_step)
        model.tasks, model.calls = self.tasks, self.calls
        model.default_task = "message"
        return model

    async def generate(self, conversation: Conversation, sampling: Sampling) -> tuple[Answer, ...]:
        prompt = conversation.messages[-1].content
        task = self.default_task
        for phrase, phrase_task in _PROMPT_PHRASES.items():
            if phrase in prompt:
                task = phrase_task
                break
        if task == "next" and self.is_multi_step:
            task = "multi"
        call = self.calls[task]
        self.calls[task] += 1
        if call >= len(self.answers[task]):
            return (Answer.failed("exhausted", "no more answers"),)
        self.tasks.append(task)
        return (Answer.of(self.answers[task][call]),)


def run_generated_case(case: dict[str, Any]) -> dict[str, Any]:
    """Returns the replies of truing and the tasks of its LLM calls, or why it refuses the case."""
    with (
        tempfile.TemporaryDirectory() as folder,
        # NeMo's `random.choice` is patched the same way in `peer_nemo`.
        patch("truing.rails.runtime.turn_context.Random", FirstChoice),
    ):
        write_config(case, folder, ACTIONS_PRELUDE)
        try:
            config = RailsConfig.load(folder, trust_code=True)
            model = TaskScriptedModel(case["llm"], config.multi_step)
            models = {"generate_bot_message": model.for_messages()}
            parts = RuntimeParts(encoder=BagOfWordsEncoder(), models=models)
            runtime = build_runtime(config, model, parts)
            runtime.input_gate.joins_turns = False  # as in `adapter_truing`
        except PlanError as error:
            return {"id": case["id"], "refused": str(error)}
        replies = asyncio.run(_run_turns(runtime, case["turns"]))
        return {"id": case["id"], "replies": replies, "tasks": model.tasks}


async def _run_turns(runtime: Runtime, turns: list[dict[str, Any]]) -> list[str]:
    history: list[dict[str, Any]] = []
    replies: list[str] = []
    for turn in turns:
        history += user_messages_of(turn)
        try:
            reply_text, message = await run_turn(runtime, history, turn)
        except TruingError as error:
            replies.append(f"RAISES {type(error).__name__}: {str(error)[:160]}")
            break
        history.append(message)
        replies.append(reply_text)
    return replies
