"""The metrics: tokens and rulings of answers, one registry a server."""

from __future__ import annotations

from truing.core.types import Answer, Message, Ruling, Usage
from truing.serve.openai.metrics import ServerMetrics


def answer(ruling: str, name: str = "own") -> Answer:
    return Answer(
        message=Message("assistant", "fine"),
        usage=Usage(3, 2),
        rulings=(Ruling(name=name, stage="input", ruling=ruling, reason="because"),),  # type: ignore[arg-type]
    )


def test_tokens_and_rulings_are_counted() -> None:
    metrics = ServerMetrics()
    metrics.count_answers((answer("block"), answer("allow"), answer("block", "x" * 500)))
    page = metrics.render().decode()
    assert 'truing_tokens_total{kind="read"} 9.0' in page
    assert 'truing_tokens_total{kind="written"} 6.0' in page
    assert 'truing_rulings_total{rail="own",ruling="block"} 1.0' in page
    assert "allow" not in page
    assert "x" * 61 not in page  # labels are bounded


def test_two_servers_do_not_add_up() -> None:
    first, second = ServerMetrics(), ServerMetrics()
    first.count_answers((answer("block"),))
    assert 'kind="read"} 3.0' in first.render().decode()
    assert 'kind="read"}' not in second.render().decode()
