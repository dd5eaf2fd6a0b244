"""Attacks on other machines: somebody answers for them, in the manifest, and they are slow."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from tests.model_stand_ins import EvenJudge, MemoryDataset
from tests.servers import Request, serving

from truing.align import Prompted
from truing.core.errors import PlanError
from truing.core.types import Message
from truing.evaluation.evaluate import evaluate, select_rate_limits
from truing.evaluation.options import EvaluateOptions
from truing.http.client import Endpoint, find_endpoints
from truing.models.cached_model import CachedModel
from truing.plan import parse_plan, run_plan
from truing.specs.resolve import resolve

FAR = "openai:m,base_url=http://models.example.org/v1"
NEAR = "openai:m,base_url=http://127.0.0.1:9/v1"


@pytest.mark.parametrize(
    ("url", "remote"),
    [
        ("http://127.0.0.1:8000/v1", False),
        ("http://localhost/v1", False),
        ("http://[::1]:1/v1", False),
        ("http://x.localhost/v1", False),
        ("http://192.0.2.2/v1", True),
        ("https://api.example.org/v1", True),
        ("http://localhost.example.org", True),
        ("http://0.0.0.0:8000", True),
    ],
)
def test_what_is_another_machine(url: str, remote: bool) -> None:
    assert Endpoint(url).remote is remote


@pytest.mark.parametrize(
    "spec",
    [
        FAR,
        "http:models.example.org/ask",
        "vllm:m,base_url=http://models.example.org/v1",
        f"best-of:2,by=(rules:refusal),of=(prompted:hhh,of=({FAR}))",
    ],
)
def test_an_attack_on_another_machine_needs_a_name(spec: str, tmp_path: Path) -> None:
    model, attack = resolve(spec, "model"), resolve("base64:", "attack")
    with pytest.raises(
        PlanError,
        match=r"answers at models\.example\.org, which is not this machine: .*--authorised WHO",
    ):
        evaluate(model, MemoryDataset.of_size(2), [EvenJudge()], tmp_path / "run", attack=attack)
    assert not (tmp_path / "run").exists()
    with pytest.raises(PlanError, match="--authorised"):
        evaluate(
            model, MemoryDataset.of_size(2, "attacked:base64"), [EvenJudge()], tmp_path / "run"
        )
    rates = select_rate_limits(
        model, EvaluateOptions(authorised="A. Person, ticket 7"), attacked=True
    )
    assert set(rates.values()) == {5.0}
    assert select_rate_limits(model, EvaluateOptions(), attacked=False) == {}


def test_this_machine_needs_none() -> None:
    for spec in (NEAR, "scripted:mixed", f"prompted:hhh,of=({NEAR})"):
        assert select_rate_limits(resolve(spec, "model"), EvaluateOptions(), attacked=True) == {}
    with pytest.raises(PlanError, match="rate: 0 is no rate"):
        select_rate_limits(resolve(NEAR, "model"), EvaluateOptions(rate=0), attacked=False)
    assert set(
        select_rate_limits(resolve(NEAR, "model"), EvaluateOptions(rate=2), attacked=False).values()
    ) == {2}


def test_endpoints_are_found_behind_wrappers() -> None:
    model = CachedModel(Prompted(resolve(FAR, "model"), [Message("system", "Be brief.")], name="p"))
    assert {str(e.url) for e in find_endpoints(model)} == {
        "http://models.example.org/v1/chat/completions",
        "http://models.example.org/v1/completions",
    }


def test_the_name_and_the_rate_stand_in_the_manifest_and_the_rate_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    came: list[float] = []

    async def answer(request: Request) -> None:
        came.append(time.monotonic())
        await request.send_completion("hello")

    monkeypatch.setattr(Endpoint, "remote", property(lambda self: True))
    with serving(answer) as server:
        model = resolve(f"openai:m,base_url={server.url}/v1", "model")
        options = EvaluateOptions(authorised="A. Person", rate=40.0, concurrency=8)
        run = evaluate(
            model,
            MemoryDataset.of_size(12),
            [],
            tmp_path / "run",
            attack=resolve("base64:", "attack"),
            options=options,
        )
        assert run.manifest.notes == {
            "authorised": "A. Person",
            "rate": "at most 40 requests a second",
        }
        again = EvaluateOptions(authorised="B. Person", concurrency=8)
        evaluate(
            model,
            MemoryDataset.of_size(12),
            [EvenJudge()],
            tmp_path / "run",
            attack=resolve("base64:", "attack"),
            options=again,
        )
    assert run.manifest.notes["authorised"] == "A. Person; B. Person"
    assert len(came) == 12
    # The requests are spaced where they are sent; on a busy machine they arrive closer together.
    assert came[-1] - came[0] >= 11 / 40 * 0.8


def test_a_plan_says_so_before_its_first_run(tmp_path: Path) -> None:
    text = f"""
        models = {{ near = "scripted:mixed", far = "{FAR}" }}
        [data]
        plain = "builtin:safety"
        hard = {{ spec = "builtin:safety", attack = "base64:", limit = 2 }}
        [run]
        limit = 2
    """
    with pytest.raises(
        PlanError, match=r"models\.far, data\.hard: openai:m answers at models\.example\.org"
    ):
        run_plan(parse_plan(text), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    plan = parse_plan(text + '\n        authorised = "A. Person"\n        rate = 2\n')
    assert (plan.run.authorised, plan.run.rate) == ("A. Person", 2)
