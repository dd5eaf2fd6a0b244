"""Runs generated cases on nemoguardrails, in its own environment: cases as JSON lines in, results as JSON lines out."""

from __future__ import annotations

import asyncio
import json
import logging
import pathlib
import random
import signal
import sys
import tempfile

CONFORMANCE = pathlib.Path(sys.argv[1])
sys.path.insert(0, str(CONFORMANCE))

import adapter_nemo as adapter  # noqa: E402
from nemoguardrails import LLMRails, RailsConfig  # noqa: E402
from nemoguardrails.context import llm_call_info_var  # noqa: E402
from nemoguardrails.testing import FakeLLMModel  # noqa: E402
from nemoguardrails.types import LLMResponse  # noqa: E402
from run import write_config  # noqa: E402

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


class Scripted(FakeLLMModel):
    """Answers by task."""

    def __init__(self, answers, multi):
        super().__init__(responses=[])
        self.answers, self.multi, self.tasks, self.counts = answers, multi, [], {}

    def _next_response(self):
        info = llm_call_info_var.get()
        task = TASKS.get(info.task if info else "", "general")
        if task == "next" and self.multi:
            task = "multi"
        at = self.counts[task] = self.counts.get(task, -1) + 1
        if at >= len(self.answers[task]):
            raise RuntimeError("no more answers")
        self.tasks.append(task)
        self.inference_count += 1
        return LLMResponse(content=self.answers[task][at])


def run(case):
    with tempfile.TemporaryDirectory() as folder:
        write_config(case, folder, adapter.ACTIONS_PRELUDE)
        config = RailsConfig.from_path(folder)
        llm = Scripted(case["llm"], bool(config.enable_multi_step_generation))
        app = LLMRails(config, llm=llm)
        history, said = [], []
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
                if turn.get("stream"):
                    text = asyncio.run(adapter._collect(app, list(history)))
                    history.append({"role": "assistant", "content": text})
                else:
                    kw = {"options": turn["options"]} if "options" in turn else {}
                    result = app.generate(messages=list(history), **kw)
                    text = adapter._text(result)
                    history.append(adapter._message(result))
            except Exception as error:
                said.append(f"RAISES {type(error).__name__}: {str(error)[:160]}")
                break
            said.append(text)
        return {"said": said, "tasks": llm.tasks}


class TooLong(BaseException):
    """The peer does not come to an end."""


def _too_long(*_):
    raise TooLong


def main():
    signal.signal(signal.SIGALRM, _too_long)
    logging.disable(logging.CRITICAL)
    out = sys.stdout
    sys.stdout = sys.stderr
    for line in sys.stdin:
        case = json.loads(line)
        signal.alarm(25)
        try:
            result = run(case)
        except TooLong:
            result = {"slow": True}
        except Exception as error:
            result = {"refused": f"{type(error).__name__}: {str(error)[:200]}"}
        out.write(json.dumps({"id": case["id"], **result}, default=str) + "\n")
        out.flush()
        signal.alarm(0)


if __name__ == "__main__":
    main()
