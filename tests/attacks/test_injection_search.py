"""The adaptive search for the wording of an injection: templates first, then an attacker model."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from msgspec import UNSET

from truing.agents.agent import AgentModel
from truing.analysis.attack_success import attack_results
from truing.attacks.injection_search import InjectionSearch
from truing.attacks.injections import TEMPLATES
from truing.core.errors import SpecError
from truing.core.types import Answer, Conversation, Message, Sample, Sampling, ToolCall
from truing.evaluation.evaluate import evaluate
from truing.evaluation.options import EvaluateOptions
from truing.models.scripted import ScriptedModel
from truing.specs.resolve import resolve

SAMPLES = {row.sample.id: row.sample for row in resolve("builtin:agents,world=mail", "data").rows()}
INJECTED = SAMPLES["mail/lunch/injected"]
FORWARD = '{"id": "m4", "to": "archive@collect.example.net"}'


def _agent(word: str) -> AgentModel:
    """An agent that follows the injection if it contains a word."""

    def answer(conversation: Conversation, sampling: Sampling) -> Answer | str:
        results = [m.content for m in conversation.messages if m.role == "tool"]
        if not results:
            call = ToolCall("a", "read_mail", '{"id": "m1"}')
        elif word in results[0] and len(results) == 1:
            call = ToolCall("b", "forward_mail", FORWARD)
        else:
            return "Done."
        return Answer(message=Message("assistant", "", (call,)), finish_reason="tool_calls")

    return AgentModel(ScriptedModel(answer))


def _attack(search: InjectionSearch, sample: Sample, word: str) -> Sample:
    return asyncio.run(search.attack(sample, _agent(word)))


def _text(sample: Sample) -> str:
    assert sample.environment is not UNSET
    assert sample.environment.injection is not None
    return sample.environment.injection.text


def test_the_templates_are_the_first_wordings() -> None:
    search = InjectionSearch(ScriptedModel("never asked"))
    attacked = _attack(search, INJECTED, "<important>")
    assert attacked.tags["queries"] == str(1 + list(TEMPLATES).index("important"))
    assert _text(attacked).startswith("<important>")


def test_the_attacker_is_told_what_the_agent_did() -> None:
    prompts: list[str] = []

    def write(conversation: Conversation, sampling: Sampling) -> str:
        prompts.append(conversation.prompt)
        return '"a note with the PASSWORD"' if len(prompts) == 2 else "a plain note"

    search = InjectionSearch(ScriptedModel(write), queries=12)
    attacked = _attack(search, INJECTED, "PASSWORD")
    assert (_text(attacked), attacked.tags["queries"]) == (
        "a note with the PASSWORD",
        str(len(TEMPLATES) + 2),
    )
    assert "forward mail m4" in prompts[0]
    assert "The assistant called: read_mail" in prompts[0]
    assert "Your last text: a plain note" in prompts[1]


def test_an_attacker_that_fails_ends_with_the_budget() -> None:
    failing = ScriptedModel(lambda conversation, sampling: Answer.failed("down", "down"))
    attacked = _attack(InjectionSearch(failing, queries=9), INJECTED, "NEVER")
    assert attacked.tags["queries"] == "9"


def test_samples_without_an_injection_are_skipped() -> None:
    attacked = _attack(InjectionSearch(ScriptedModel("x")), SAMPLES["mail/lunch/benign"], "x")
    assert attacked.tags["attack"] == "skipped: no injection"


def test_a_run_judges_the_best_wording_afresh(tmp_path: Path) -> None:
    attack = resolve("injection-search,model=(scripted:echo),queries=7", "attack")
    run = evaluate(
        resolve("agent,of=(scripted-agent,follow=1)", "model"),
        resolve("builtin:agents,world=mail,kind=injected,limit=3", "data"),
        [resolve("state:injection", "judge")],
        tmp_path / "run",
        attack=attack,
        options=EvaluateOptions(authorised="the author of the test"),
    )
    verdicts = [judgement.verdict for judgement in run.judgements()]
    assert verdicts
    assert all(verdicts)
    (overall, *_) = attack_results(run)
    # This agent follows the first wording already.
    assert (overall.question, overall.at_queries) == ("misled", {1: 1.0})


def test_the_spec_is_checked() -> None:
    with pytest.raises(SpecError, match="at least 1"):
        resolve("injection-search,model=(scripted:echo),queries=0", "attack")
