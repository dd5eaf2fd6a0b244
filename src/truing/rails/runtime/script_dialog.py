"""Answers a turn by the script of a configuration: Colang 2 flows that react to exact words.

Of a conversation only the user's messages and what could not be foreseen (results of actions,
draws) are kept, so that the flows can run again from the beginning. Where a turn follows on the
last one, the flows go on as they are.
"""

from __future__ import annotations

from random import Random
from typing import Any

from truing.rails.actions import ActionResult
from truing.rails.runtime.chat_messages import content_text
from truing.rails.runtime.conversation_state import OneUse
from truing.rails.runtime.event_types import BotMessage, UserMessage
from truing.rails.runtime.interpreter import FlowError
from truing.rails.runtime.script_runner import ScriptRunner
from truing.rails.runtime.turn_context import TurnContext

MAX_ACTIONS = 100  # of one turn


class _Outcomes:
    """Results of actions and draws of one utterance: those of an earlier turn, then new ones."""

    def __init__(self, turn: TurnContext, recorded: tuple[Any, ...], random: Random) -> None:
        self.turn = turn
        self.random = random
        self.values: list[Any] = []
        self._recorded = list(reversed(recorded))

    def draw(self, count: int) -> int:
        """Returns an index below a number."""
        if not self._recorded:
            self.values.append(self.random.randrange(count))
        else:
            self.values.append(self._recorded.pop())
        return int(self.values[-1])

    async def call_action(self, name: str, arguments: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        """Returns the result of an action and the variables that it sets; it runs once."""
        if len(self.values) >= MAX_ACTIONS:
            raise FlowError(f"more than {MAX_ACTIONS} actions in one turn")
        if self._recorded:
            self.values.append(self._recorded.pop())
        else:
            self.values.append(await self.turn.services.run_action(self.turn, name, arguments))
        value, variables = self.values[-1]
        return value, variables


async def answer_by_script(turn: TurnContext) -> ActionResult | None:
    """Returns what the flows say to the user's last message.

    None if no flow waited for it and the configuration leaves such messages to the LLM. Raises
    FlowError where the flows come to no end.
    """
    script = turn.services.config.script
    assert script is not None, "called where the configuration has a script"
    texts = [
        content_text(event.text)
        for event in turn.state.history
        if isinstance(event, UserMessage) and not event.is_placeholder
    ]
    log = turn.state.script_log
    start = len(texts) - 1
    runner = turn.state.script_runner.take() if [row[0] for row in log] == texts[:start] else None
    if runner is None:
        runner, start = ScriptRunner(script, turn.services.config.raw, lambda count: 0), 0
    bot_texts: list[str] = []
    new_log = list(log[:start])
    for index, text in enumerate(texts[start:], start):
        is_known = index < len(log) and log[index][0] == text
        recorded = log[index][1] if is_known else ()
        outcomes = _Outcomes(turn, recorded, Random(f"{turn.sampling.seed}:{index}"))
        runner.draw = outcomes.draw
        bot_texts = await runner.hear(text, outcomes.call_action)
        new_log.append((text, tuple(outcomes.values)))
    turn.state.script_log = tuple(new_log)
    turn.state.script_runner = OneUse(runner)
    if not runner.was_handled and not bot_texts and script.continues:
        return None
    return ActionResult(events=[BotMessage("\n".join(bot_texts))] if bot_texts else [])
