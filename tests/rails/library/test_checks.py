"""Self checks: verdicts, variants, facts, hallucination."""

from __future__ import annotations

import asyncio
import re

import pytest

from truing.core.errors import PlanError
from truing.core.types import Answer, Conversation, Sampling
from truing.models.scripted import ScriptedModel
from truing.rails.config.loader import RailsConfig
from truing.rails.guarded import GuardedModel
from truing.rails.runtime.app import RuntimeParts
from truing.rails.runtime.embeddings import LexicalEncoder


def run_turn(yaml: str, replies: dict[str, str], colang: str = "") -> Answer:
    """The answer to "hello" of a model that replies by the first key that its prompt contains."""

    def reply(conversation: Conversation, sampling: Sampling) -> str:
        prompt = conversation.last.content
        return next((text for key, text in replies.items() if key in prompt), "an answer")

    parts = RuntimeParts(encoder=LexicalEncoder())
    model = GuardedModel(RailsConfig.from_text(yaml, colang), ScriptedModel(reply), parts=parts)
    return asyncio.run(model.answer(Conversation.of("hello"), Sampling()))


INPUT_CHECK = (
    "prompts: [{task: self_check_input, content: 'CHECK {{ user_input }}'}]\n"
    "rails: {input: {flows: [self check input]}}\n"
)


@pytest.mark.parametrize(
    ("verdict", "ruling", "reason"),
    [
        ("No", "allow", "the LLM has nothing to object"),
        ("Yes, it is harmful", "block", "the LLM objects"),
        ("unsafe", "block", "the LLM objects"),
        ("Hm.", "block", "the LLM's verdict is unclear, which counts as no"),
        ("", "block", "the LLM's verdict is unclear, which counts as no"),
        ("not safe", "block", "the LLM's verdict is unclear, which counts as no"),
        ('{"safe": false}', "block", "the LLM's verdict is unclear, which counts as no"),
        ("No, block it!", "block", "the LLM's verdict is unclear, which counts as no"),
    ],
)
def test_anything_but_a_clear_no_blocks(verdict: str, ruling: str, reason: str) -> None:
    answer = run_turn(INPUT_CHECK, {"CHECK hello": verdict})
    assert (answer.rulings[0].ruling, answer.rulings[0].reason) == (ruling, reason)
    assert (answer.text == "an answer") is (ruling == "allow")


@pytest.mark.parametrize("task", ["strict", "self_check_input $variant=strict"])
def test_a_variant_has_a_prompt_of_its_own(task: str) -> None:
    yaml = (
        f"prompts: [{{task: '{task}', content: STRICT}}]\n"
        'rails: {input: {flows: ["self check input $variant=strict"]}}\n'
    )
    answer = run_turn(yaml, {"STRICT": "Yes"})
    assert answer.finish_reason == "blocked"


FACT_FLOW = (
    'define user greet\n  "hello"\n\ndefine flow\n  user greet\n  $check_facts = True\n'
    '  $relevant_chunks = "The zoo opens at nine."\n  bot tell\n'
)


@pytest.mark.parametrize(
    ("verdict", "is_blocked"),
    [("yes", False), ("no", True), ("Maybe", True), ("I cannot tell", True), ("", True)],
)
def test_facts_that_do_not_support_the_answer_block_it(verdict: str, is_blocked: bool) -> None:
    yaml = (
        "prompts: [{task: self_check_facts, content: 'FACTS {{ evidence }} {{ response }}'}]\n"
        "rails: {output: {flows: [self check facts]}, "
        "dialog: {user_messages: {embeddings_only: true}}}\n"
    )
    answer = run_turn(yaml, {"FACTS": verdict, "text of the bot": '"At nine."'}, FACT_FLOW)
    assert (answer.finish_reason == "blocked") is is_blocked
    assert ("At nine." in answer.text) is not is_blocked


@pytest.mark.parametrize(
    ("verdict", "is_blocked"),
    [("yes", False), ("No.", True), ("I cannot tell", True), ("Maybe", True), ("yes and no", True)],
)
def test_an_answer_that_other_draws_contradict_is_blocked(verdict: str, is_blocked: bool) -> None:
    yaml = (
        "prompts: [{task: self_check_hallucination, content: 'AGREE {{ paragraph }}'}]\n"
        "rails: {output: {flows: [self check hallucination]}, "
        "dialog: {user_messages: {embeddings_only: true}}}\n"
    )
    flow = FACT_FLOW.replace("$check_facts", "$check_hallucination")
    replies = {"AGREE At nine.. At nine.": verdict, "text of the bot": '"At nine."'}
    answer = run_turn(yaml, replies, flow)
    assert (answer.finish_reason == "blocked") is is_blocked


def test_an_answer_without_a_prompt_to_draw_others_to_is_not_passed_unchecked() -> None:
    yaml = (
        "prompts: [{task: self_check_hallucination, content: 'AGREE {{ paragraph }}'}]\n"
        "rails: {output: {flows: [mark, self check hallucination]}}\n"
    )
    answer = run_turn(yaml, {}, "define subflow mark\n  $check_hallucination = True\n")
    assert answer.finish_reason == "blocked"
    assert "no prompt" in (answer.rulings[-1].reason or "")


@pytest.mark.parametrize(
    ("task", "parser", "message"),
    [
        ("self_check_input", "is_content_save", "did you mean 'is_content_safe'?"),
        ("self_check_input", "nemoguard_parse_prompt_safty", "nemoguard_parse_prompt_safety"),
        ("self_check_input", "user_intent", "gives no verdict"),
        ("self_check_facts", "nemoguard_parse_prompt_safety", "asks for yes or no"),
    ],
)
def test_a_parser_that_cannot_read_the_verdict_is_an_error_at_start(
    task: str, parser: str, message: str
) -> None:
    yaml = f"prompts: [{{task: {task}, content: CHECK, output_parser: {parser}}}]\n"
    with pytest.raises(PlanError, match=r"config.yml:1: .*" + re.escape(message)):
        run_turn(yaml, {})
