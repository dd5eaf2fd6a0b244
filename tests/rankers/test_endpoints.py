"""Ranking a model behind an endpoint: by echoed log-probabilities where it has them, a clear word
where it has none.
"""

from __future__ import annotations

from typing import Any

import pytest
from tests.rankers.rank_parts import ListDataset, choice
from tests.servers import Request, serving

from truing.rankers import PromptForm, RankingOptions, rank_choices
from truing.specs.resolve import resolve

ROWS = ListDataset([choice("q1", "a kettle is", ("hot", "cold and blue"), [0])])


def model(url: str) -> Any:
    return resolve(f"openai:tiny,base_url={url},retries=0", "model")


async def echo(r: Request) -> None:
    if "messages" in r.json:
        await r.send_completion("B.")
        return
    prompt = r.json["prompt"]
    tokens = [" " + w if i else w for i, w in enumerate(prompt.split(" "))]
    offsets = [sum(map(len, tokens[:i])) for i in range(len(tokens))]
    scored = {
        "tokens": tokens,
        "text_offset": offsets,
        "token_logprobs": [None, *[-1.0] * (len(tokens) - 1)],
    }
    await r.send(200, {"choices": [{"text": prompt, "logprobs": scored}]})


def test_as_plain_text_by_likelihood() -> None:
    with serving(echo) as server:
        (result,) = rank_choices(
            model(server.url),
            ROWS,
            None,
            RankingOptions(how=("likelihood",), form=PromptForm(plain=True)),
        )
    assert result.unscored == 0
    assert result.find("sum").value.estimate == 1.0  # type: ignore[union-attr]  # one word is likelier than three
    assert result.find("token").value.estimate == 0.5  # type: ignore[union-attr]


def test_a_chat_template_that_nobody_knows_is_said() -> None:
    with serving(echo) as server:
        (result,) = rank_choices(model(server.url), ROWS, None, RankingOptions(how=("likelihood",)))
        (written,) = rank_choices(
            model(server.url), ROWS, None, RankingOptions(how=("generation",))
        )
    assert result.unscored == 1
    assert "rank with --plain, or --by generation" in next(iter(result.reasons))
    assert written.unscored == 0


@pytest.mark.parametrize(
    "answer",
    [
        {"choices": [{"text": "x"}]},
        {"choices": []},
        {"choices": [{"logprobs": {"text_offset": [0], "token_logprobs": [-1.0]}}]},
    ],
)
def test_an_endpoint_without_log_probabilities_is_said(answer: dict[str, Any]) -> None:
    async def handler(r: Request) -> None:
        await r.send(200, answer)

    with serving(handler) as server:
        (result,) = rank_choices(
            model(server.url),
            ROWS,
            None,
            RankingOptions(how=("likelihood",), form=PromptForm(plain=True)),
        )
    assert result.unscored == 1
    assert "log-probabilities" in next(iter(result.reasons))
