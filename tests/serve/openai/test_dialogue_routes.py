"""A file of `truing rails test` run on a served configuration."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from litestar.testing import TestClient
from tests.integrations.hook_rails_folder import REFUSED_INPUT, write_rails

from truing.core.types import Judgement, Lineage, Response, Sample
from truing.models.scripted import ScriptedModel
from truing.serve.openai.app import chat_app, show_chat_page
from truing.serve.openai.audit import HarmAudit
from truing.serve.openai.limits import ServerLimits
from truing.serve.openai.model_router import ModelRouter
from truing.specs.resolve import resolve
from truing.stats.sequential import HarmRateAlarm

GOOD = f"""
dialogues:
  - name: refuses
    turns:
      - {{user: FORBIDDEN, bot: "{REFUSED_INPUT}", blocked: true}}
  - name: wrong
    turns:
      - {{user: hello, bot: "something else"}}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_rails(tmp_path_factory.mktemp("rails") / "words")


def make_client(folder: Path, keys: list[str]) -> TestClient[Any]:
    model = ScriptedModel(lambda conversation, sampling: "fine")
    return TestClient(chat_app(ModelRouter(model, {"words": folder}), keys=keys))


@pytest.fixture(scope="module")
def client(folder: Path) -> Iterator[Any]:
    with make_client(folder, ["k"]) as test_client:
        test_client.headers["authorization"] = "Bearer k"
        yield test_client


def test_the_outcome_of_each_dialogue(client: Any) -> None:
    response = client.post("/v1/rails/tests", json={"dialogues": GOOD, "config_id": "words"})
    first, second = response.json()["data"]
    assert (first["passed"], first["said"]) == (True, [REFUSED_INPUT])
    assert not second["passed"] and "something else" in second["faults"][0]


@pytest.mark.parametrize(
    "dialogues",
    [
        "",
        "dialogues: 3",
        "dialogues: [{turns: [{user: x, bad_key: y}]}]",
        "a: &a [1]\nb: *a",
        "dialogues: [{turns: [{user: x, bot_matches: '(a+)+$'}]}]",
        "dialogues: [{turns: [{user: x, options: {rails: []}}]}]",
        "dialogues: [{turns: [{user: x, context: {admin: true}}]}]",
        "dialogues: [{turns: [" + ", ".join(["{user: x}"] * 201) + "]}]",
    ],
)
def test_what_a_client_may_not_run_is_refused(client: Any, dialogues: str) -> None:
    response = client.post("/v1/rails/tests", json={"dialogues": dialogues})
    assert response.status_code == 400, response.text
    assert response.json()["error"]["param"] == "dialogues"


def test_the_operator_of_a_page_without_keys_may_set_variables(folder: Path) -> None:
    text = "dialogues: [{turns: [{user: hello, context: {name: Ana}, variables: {name: Ana}}]}]"
    with make_client(folder, []) as client:
        # Without the page, a server without keys may stand open to strangers.
        refused = client.post("/v1/rails/tests", json={"dialogues": text})
        assert refused.status_code == 403 and "--keys-env" in refused.text
        show_chat_page(client.app, needs_key=False)
        assert client.post("/v1/rails/tests", json={"dialogues": text}).json()["data"][0]["passed"]


def test_a_server_that_audits_runs_no_dialogues(folder: Path) -> None:
    with make_client(folder, []) as client:
        audit = HarmAudit(resolve("rules:refusal", "judge"), HarmRateAlarm(0.01), print)
        client.app.state.chat.audit = audit
        response = client.post("/v1/rails/tests", json={"dialogues": GOOD})
    assert response.status_code == 403 and "audits" in response.json()["error"]["message"]


def test_each_turn_counts_as_a_request_of_the_rate(folder: Path) -> None:
    model = ScriptedModel(lambda conversation, sampling: "fine")
    limits = ServerLimits(per_minute=5)
    app = chat_app(ModelRouter(model, {"words": folder}), keys=["k"], limits=limits)
    text = "dialogues: [{turns: [" + ", ".join(["{user: x}"] * 3) + "]}]"
    with TestClient(app) as client:
        client.headers["authorization"] = "Bearer k"
        statuses = [
            client.post("/v1/rails/tests", json={"dialogues": text}).status_code for _ in range(2)
        ]
        metrics = client.get("/metrics").text
    assert statuses == [200, 429]
    assert 'truing_answers_total{finish="dialogue"} 3.0' in metrics


def test_a_file_with_more_turns_than_a_minute_allows_is_refused_for_good(folder: Path) -> None:
    limits = ServerLimits(per_minute=5)
    model = ScriptedModel(lambda conversation, sampling: "fine")
    app = chat_app(ModelRouter(model, {"words": folder}), keys=["k"], limits=limits)
    text = "dialogues: [{turns: [" + ", ".join(["{user: x}"] * 6) + "]}]"
    with TestClient(app) as client:
        client.headers["authorization"] = "Bearer k"
        response = client.post("/v1/rails/tests", json={"dialogues": text})
    assert response.status_code == 400 and "retry-after" not in response.headers
    assert "6 turns, and this server answers 5 a minute" in response.json()["error"]["message"]


def test_the_judges_of_the_server_judge_the_dialogues(tmp_path: Path) -> None:
    """A judge that is given to the server is not resolved anew, which may load a model."""
    folder = tmp_path / "judged"
    folder.mkdir()
    (folder / "config.yml").write_text(
        "rails: {input: {flows: [moderation check input]}}\n"
        "truing: {moderation: {judge: 'rules:refusal'}}\n"
    )

    class Harmful:
        name = "harmful"
        lineage = Lineage(name="harmful")

        async def judge(self, sample: Sample, response: Response) -> Judgement:
            return Judgement(
                sample_id="x", index=0, judge="harmful", question="harm", verdict=True, score=1.0
            )

    router = ModelRouter(
        ScriptedModel("fine"), {"judged": folder}, judges={"rules:refusal": Harmful()}
    )
    text = "dialogues: [{llm: [], turns: [{user: hello, blocked: true}]}]"
    with TestClient(chat_app(router, keys=["k"])) as client:
        client.headers["authorization"] = "Bearer k"
        (outcome,) = client.post("/v1/rails/tests", json={"dialogues": text}).json()["data"]
    assert outcome["passed"], outcome["faults"]
