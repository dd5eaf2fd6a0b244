"""NeMo's guard rails with guards whose published form truing knows, on stand-ins."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from library_cases import KeywordJudge, ask, decisive_ruling, guard, rails

from truing.core.errors import PlanError
from truing.core.types import Answer, Conversation, Sampling
from truing.http.limits import close_connections
from truing.models.scripted import ScriptedModel
from truing.rails.library.guard_models import (
    ask_guard_judge,
    content_safety_check_input,
    find_guard_name,
    guard_key,
)
from truing.rails.runtime.app import RuntimeParts
from truing.rails.runtime.conversation_state import ConversationState
from truing.rails.runtime.turn_context import TurnContext
from truing.specs.resolve import resolve

SAFE_PROMPT, UNSAFE_PROMPT = (
    '{"User Safety": "safe"}',
    ('{"User Safety": "unsafe", "Safety Categories": "Violence, Threat"}'),
)


class GuardStandIn(ScriptedModel):
    """Objects to texts with the word `bad`, in the form of `replies` (safe, unsafe)."""

    def __init__(self, safe: str, unsafe: str) -> None:
        self.asked: list[Conversation] = []

        def reply(conversation: Conversation, sampling: Sampling) -> str:
            self.asked.append(conversation)
            return unsafe if " bad" in conversation.messages[-1].content else safe

        super().__init__(reply, name="guard")


def nim(kind: str, name: str) -> dict[str, Any]:
    parameters = {"base_url": "http://localhost:9/v1"}
    return {"type": kind, "engine": "nim", "model": name, "parameters": parameters}


def guarded(tmp_path: Path, flows: dict[str, list[str]], entry: dict[str, Any], model: Any) -> Any:
    settings = {**rails(**flows), "models": [entry]}
    return guard(tmp_path, settings, parts=RuntimeParts(models={entry["type"]: model}))


@pytest.mark.parametrize(
    ("name", "guard_name"),
    [
        ("nvidia/llama-3.1-nemoguard-8b-content-safety", "nemoguard-content-safety"),
        ("nvidia/llama-3.1-nemotron-safety-guard-8b-v3", "nemoguard-content-safety"),
        ("nvidia/Nemotron-Content-Safety-Reasoning-4B", "nemotron-reasoning"),
        ("Qwen/Qwen3Guard-Gen-0.6B", "qwen3guard"),
        ("openai/gpt-oss-safeguard-20b", "gpt-oss-safeguard"),
        ("gpt-oss-safeguard:20b", "gpt-oss-safeguard"),
        ("ToxicityPrompts/PolyGuard-Qwen-Smol", "polyguard"),
        ("meta-llama/Llama-Guard-4-12B", "llama-guard-4"),
        ("meta-llama/Llama-Guard-3-8B", "llama-guard-3"),
        ("meta-llama/Meta-Llama-Guard-2-8B", "llama-guard-2"),
        ("meta-llama/LlamaGuard-7b", "llama-guard-1"),
        ("allenai/wildguard", "wildguard"),
        ("google/shieldgemma-2b", "shieldgemma"),
        ("ibm-granite/granite-guardian-3.3-8b", "granite-guardian"),
        ("meta/llama-3.3-70b-instruct", None),
        ("nvidia/llama-3.1-nemoguard-8b-topic-control", None),
    ],
)
def test_guards_are_known_by_their_model_names(name: str, guard_name: str | None) -> None:
    assert find_guard_name(name) == guard_name


def test_content_safety_without_a_prompt_is_asked_in_the_published_form(tmp_path: Path) -> None:
    stand_in = GuardStandIn(SAFE_PROMPT, UNSAFE_PROMPT)
    entry = nim("content_safety", "nvidia/llama-3.1-nemoguard-8b-content-safety")
    flows = {"input": ["content safety check input $model=content_safety"]}

    def is_bad(conversation: Conversation, sampling: Sampling) -> str:
        stand_in.asked.append(conversation)
        return UNSAFE_PROMPT if "user: a bad thing" in conversation.prompt else SAFE_PROMPT

    model = guarded(tmp_path, flows, entry, ScriptedModel(is_bad, name="guard"))
    assert ask(model, "hello").text == "hello"
    assert stand_in.asked[0].prompt.startswith("Task: Check if there is unsafe content")
    answer = ask(model, "a bad thing")
    assert answer.finish_reason == "blocked"
    assert "Violence, Threat" in decisive_ruling(answer).reason
    # What blocks for a model stands in its lineage, and does not measure it.
    assert any("nemoguard-content-safety" in j.name for j in model.lineage.judges)


def test_the_output_rail_judges_the_answer(tmp_path: Path) -> None:
    stand_in = GuardStandIn("safe", "unsafe\nS1")
    entry = nim("guard", "meta-llama/Llama-Guard-3-8B")
    flows = {"output": ["content safety check output $model=guard"]}
    model = guarded(tmp_path, flows, entry, stand_in)
    assert ask(model, "hello").text == "hello"
    assert [m.role for m in stand_in.asked[0].messages] == ["user", "assistant"]
    assert decisive_ruling(ask(model, "a bad thing")).stage == "output"


def test_llama_guard_rails(tmp_path: Path) -> None:
    stand_in = GuardStandIn("safe", "unsafe\nS9")
    flows = {"input": ["llama guard check input"], "output": ["llama guard check output"]}
    entry = nim("llama_guard", "meta-llama/Llama-Guard-4-12B")
    model = guarded(tmp_path, flows, entry, stand_in)
    assert ask(model, "hello").text == "hello"
    answer = ask(model, "a bad thing")
    assert answer.finish_reason == "blocked" and "S9" in decisive_ruling(answer).reason


@pytest.mark.parametrize("reply", ["", "I would say safe", "safe\nS1", '{"User Safety": "safe"}'])
def test_what_a_guard_says_unclearly_blocks(tmp_path: Path, reply: str) -> None:
    flows = {"input": ["llama guard check input"]}
    entry = nim("llama_guard", "meta-llama/Llama-Guard-4-12B")
    model = guarded(tmp_path, flows, entry, GuardStandIn(reply, reply))
    answer = ask(model, "hello")
    assert answer.finish_reason == "blocked"
    ruling = decisive_ruling(answer)
    assert ruling.reason == "the guard could not judge it, which counts as an objection"
    assert ruling.evidence and repr(reply) in ruling.evidence


def test_what_a_guard_says_in_its_own_words_is_evidence_and_no_reason(tmp_path: Path) -> None:
    reply = '{"violation": 1, "policy_category": "S1, words of the guard"}'
    policy = tmp_path / "policy.md"
    policy.write_text("# No trains")
    model = ScriptedModel(reply, name="guard")
    judge = resolve(f"guard:gpt-oss-safeguard,policy={policy}", "judge", model=model)
    settings = {
        **rails(input=["jailbreak detection model"]),
        "truing": {"jailbreak": {"judge": "keywords:"}},
    }
    judges = {guard_key("jailbreak detection model"): judge}
    ruling = decisive_ruling(ask(guard(tmp_path / "bot", settings, judges=judges), "hello"))
    assert ruling.ruling == "block"
    assert ruling.reason == "the guard model objects: no known category"
    assert ruling.evidence == "S1, words of the guard"


def test_what_a_guard_says_to_a_prompt_of_the_configuration_is_no_reason(tmp_path: Path) -> None:
    task = "content_safety_check_input $model=guard"
    settings = {
        **rails(input=["content safety check input $model=guard"]),
        "models": [nim("guard", "some/model")],
        "prompts": [{"task": task, "content": "Judge: {{ user_input }}"}],
    }
    parts = RuntimeParts(models={"guard": ScriptedModel("unsafe\nits own words", name="guard")})
    ruling = decisive_ruling(ask(guard(tmp_path, settings, parts=parts), "hello"))
    assert ruling.ruling == "block" and "own words" not in str(ruling.reason)
    assert "own words" in str(ruling.evidence)


@pytest.mark.parametrize(
    ("parser", "reply", "violations"),
    [
        ("is_content_safe", "unsafe\nS1, S3, its own words", ["S1", "unknown"]),
        ("is_content_safe", "unsafe\nS12", ["unknown"]),
        ("nemoguard_parse_prompt_safety", UNSAFE_PROMPT, ["Violence", "unknown"]),
    ],
)
def test_violations_are_labels_of_the_prompt(
    tmp_path: Path, parser: str, reply: str, violations: list[str]
) -> None:
    task = "content_safety_check_input $model=guard"
    settings = {
        **rails(input=["content safety check input $model=guard"]),
        "models": [nim("guard", "some/model")],
        "prompts": [
            {
                "task": task,
                "content": "S1: Violence. S2: Theft. Judge: {{ user_input }}",
                "output_parser": parser,
            }
        ],
    }
    parts = RuntimeParts(models={"guard": ScriptedModel(reply, name="guard")})
    model = guard(tmp_path, settings, parts=parts)
    turn = TurnContext(model.runtime.services, ConversationState(model.runtime.program, {}))
    # The user's own words are no labels, though the prompt shows them.
    turn.state.context.update(user_message="S12 S3 its own words", model="guard")
    outcome = asyncio.run(content_safety_check_input(turn))
    assert outcome.metadata == {"policy_violations": violations}


def test_violations_of_a_published_guard_are_labels_of_its_taxonomy(tmp_path: Path) -> None:
    judge = resolve("guard:llama-guard-3", "judge", model=ScriptedModel("unsafe\nS1,S2"))
    model = guard(tmp_path, rails())
    turn = TurnContext(model.runtime.services, ConversationState(model.runtime.program, {}))
    outcome = asyncio.run(ask_guard_judge(turn, judge, "input", "hello"))
    assert outcome.metadata["policy_violations"]
    assert set(outcome.metadata["policy_violations"]) <= set(judge.labels)


def test_a_prompt_of_the_configuration_goes_first(tmp_path: Path) -> None:
    stand_in = GuardStandIn("safe", "unsafe")
    entry = nim("guard", "meta-llama/Llama-Guard-3-8B")
    settings = {
        **rails(input=["content safety check input $model=guard"]),
        "models": [entry],
        "prompts": [
            {
                "task": "content_safety_check_input $model=guard",
                "content": "My own: {{ user_input }}",
            }
        ],
    }
    model = guard(tmp_path, settings, parts=RuntimeParts(models={"guard": stand_in}))
    assert ask(model, "hello").text == "hello"
    assert stand_in.asked[0].prompt == "My own: hello"


def test_a_model_that_is_no_known_guard_needs_a_prompt(tmp_path: Path) -> None:
    entry = nim("guard", "some/model")
    flows = {"input": ["content safety check input $model=guard"]}
    answer = ask(guarded(tmp_path, flows, entry, GuardStandIn("safe", "unsafe")), "hello")
    assert answer.finish_reason == "blocked"


# -- jailbreaks --------------------------------------------------------------------------------


def jailbreak(tmp_path: Path, **settings: Any) -> Any:
    return guard(tmp_path, {**rails(input=["jailbreak detection model"]), **settings})


def test_the_jailbreak_rail_asks_the_configured_judge(tmp_path: Path) -> None:
    settings = {
        **rails(input=["jailbreak detection model"]),
        "truing": {"jailbreak": {"judge": "keywords:"}},
    }
    judges = {guard_key("jailbreak detection model"): KeywordJudge()}
    model = guard(tmp_path, settings, judges=judges)
    assert ask(model, "hello").text == "hello"
    for text in ("a bad thing", "odd words"):
        assert ask(model, text).finish_reason == "blocked"


def test_the_jailbreak_rail_needs_a_judge_or_a_service(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match="jailbreak detection model' needs"):
        jailbreak(tmp_path)


def test_a_service_that_is_down_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Its judge asks again, with growing pauses.
    monkeypatch.setattr("truing.http.client.backoff_delay", lambda attempt, retry_after: 0.0)
    block = {"nim_base_url": "http://127.0.0.1:9/v1", "nim_server_endpoint": "classify"}
    settings = rails(input=["jailbreak detection model"])
    settings["rails"]["config"] = {"jailbreak_detection": block}
    model = guard(tmp_path, settings)

    async def ask_once() -> Answer:
        (answer,) = await model.generate(Conversation.of("hello"), Sampling())
        await close_connections()
        return answer

    answer = asyncio.run(ask_once())
    assert answer.finish_reason == "blocked"
    assert "could not judge it" in decisive_ruling(answer).reason


@pytest.mark.parametrize("is_parallel", [False, True])
@pytest.mark.parametrize("stage", ["input", "output"])
def test_multilingual_refusals_are_in_the_users_language(
    tmp_path: Path, stage: str, is_parallel: bool
) -> None:
    unsafe = ("bad", "schlecht", "malo")

    def reply(conversation: Conversation, sampling: Sampling) -> str:
        is_bad = any(word in conversation.messages[-1].content for word in unsafe)
        return "unsafe\nS1" if is_bad else "safe"

    entry = nim("guard", "meta-llama/Llama-Guard-3-8B")
    flows = [f"content safety check {stage} $model=guard"]
    messages = {"de": "Darauf antworte ich nicht."}
    settings = rails(**{stage: flows})
    settings["rails"][stage]["parallel"] = is_parallel
    settings["rails"]["config"] = {
        "content_safety": {"multilingual": {"enabled": True, "refusal_messages": messages}}
    }
    models = {"guard": ScriptedModel(reply, name="guard")}
    model = guard(tmp_path, {**settings, "models": [entry]}, parts=RuntimeParts(models=models))
    assert ask(model, "Wie geht es dir heute, mein lieber Freund?").text.startswith("Wie geht")
    refusals = {
        "Warum ist das alles so schlecht, mein lieber Freund?": messages["de"],
        "Por favor, dime por qué todo es tan malo hoy, mi querido amigo": (
            "Lo siento, no puedo responder a eso."
        ),
        "Please tell me why all of this is so bad.": "I'm sorry, I can't respond to that.",
    }
    for question, refusal in refusals.items():
        answer = ask(model, question)
        assert (answer.finish_reason, answer.text) == ("blocked", refusal)
