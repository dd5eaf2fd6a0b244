"""Runs generated cases on nemoguardrails, in an environment where that is installed.

Usage: peer_nemo.py CONFORMANCE_FOLDER. Reads cases as JSON lines, writes results as JSON lines.
"""

from __future__ import annotations

import asyncio
import json
import logging
import pathlib
import random
import signal
import sys
import tempfile
from collections import Counter

CONFORMANCE = pathlib.Path(sys.argv[1])
sys.path.insert(0, str(CONFORMANCE))

import adapter_nemo as adapter  # noqa: E402
from nemoguardrails import LLMRails, RailsConfig  # noqa: E402
from nemoguardrails.context import llm_call_info_var  # noqa: E402
from nemoguardrails.testing import FakeLLMModel  # noqa: E402
from nemoguardrails.types import LLMResponse  # noqa: E402
from run import write_config  # noqa: E402

SECONDS_PER_CASE = 25
# Texts and messages are drawn at random: the first is taken on both sides.
random.choice = lambda items: items[0]
TASKS = {
    "generate_user_intent": "intent",
    "generate_next_steps": "next",
    "generate_bot_message": "message",
    "general": "general",
    "generate_value": "value",
    "generate_intent_steps_message": "single",
    "self_check_input": "check",
    "self_check_output": "check",
}


class TaskScriptedModel(FakeLLMModel):
    """Answers by task: the n-th call of a task gets its n-th text."""

    def __init__(self, answers, is_multi_step):
        super().__init__(responses=[])
        self.answers = answers
        self.is_multi_step = is_multi_step
        self.tasks = []
        self.calls = Counter()

    def _next_response(self):
        info = llm_call_info_var.get()
        task = TASKS.get(info.task if info else "", "general")
        if task == "next" and self.is_multi_step:
            task = "multi"
        call = self.calls[task]
        self.calls[task] += 1
        if call >= len(self.answers[task]):
            raise RuntimeError("no more answers")
        self.tasks.append(task)
        self.inference_count += 1
        return LLMResponse(content=self.answers[task][call])


def run_case(case):
    with tempfile.TemporaryDirectory() as folder:
        write_config(case, folder, adapter.ACTIONS_PRELUDE)
        config = RailsConfig.from_path(folder)
        llm = TaskScriptedModel(case["llm"], bool(config.enable_multi_step_generation))
        rails = LLMRails(config, llm=llm)
        history, replies = [], []
        for turn in case["turns"]:
            if "context" in turn:
                history.append({"role": "context", "content": turn["context"]})
            if "event" in turn:
                history.append({"role": "event", "event": turn["event"]})
            else:
                history.append({"role": "user", "content": turn["user"]})
            if "assistant" in turn:
                history.append({"role": "assistant", "content": turn["assistant"]})
            try:
                reply_text, message = run_turn(rails, history, turn)
            except Exception as error:
                replies.append(f"RAISES {type(error).__name__}: {str(error)[:160]}")
                break
            history.append(message)
            replies.append(reply_text)
        return {"replies": replies, "tasks": llm.tasks}


def run_turn(rails, history, turn):
    if turn.get("stream"):
        text = asyncio.run(adapter._collect(rails, list(history)))
        return text, {"role": "assistant", "content": text}
    keywords = {"options": turn["options"]} if "options" in turn else {}
    result = rails.generate(messages=list(history), **keywords)
    return adapter._text(result), adapter._message(result)


class CaseTimeout(BaseException):
    """A case does not end. No `Exception`: nemoguardrails would catch it."""


def raise_timeout(*_):
    raise CaseTimeout


def main():
    signal.signal(signal.SIGALRM, raise_timeout)
    logging.disable(logging.CRITICAL)
    # nemoguardrails prints to stdout, which holds the results.
    results = sys.stdout
    sys.stdout = sys.stderr
    for line in sys.stdin:
        case = json.loads(line)
        signal.alarm(SECONDS_PER_CASE)
        try:
            result = run_case(case)
        except CaseTimeout:
            result = {"slow": True}
        except Exception as error:
            result = {"refused": f"{type(error).__name__}: {str(error)[:200]}"}
        results.write(json.dumps({"id": case["id"], **result}, default=str) + "\n")
        results.flush()
        signal.alarm(0)


if __name__ == "__main__":
    main()
