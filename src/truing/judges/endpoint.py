"""`openai-moderation:MODEL`: OpenAI's moderation API, and servers that speak it (`truing serve` among them).

Request and reply: https://platform.openai.com/docs/api-reference/moderations. Categories are mapped onto the taxonomy by
the crosswalk `openai_moderation_api`; of several labels for one category the highest score counts. The API judges a text
by itself: with `prompt=true` the prompt goes before the answer. Arguments as of `openai:` (`base_url`, `api_key_env`, ...).
"""

from __future__ import annotations

import math

import msgspec
from msgspec import Struct, field

from truing.core.lineage import digest
from truing.core.taxonomy import Crosswalk, load_crosswalk
from truing.core.types import Failure, Judgement, Lineage, Response, Sample
from truing.http.client import Endpoint, read_budget, validate_url
from truing.http.retry import RetryPolicy
from truing.judges.verdicts import no_answer, opinion, unscored
from truing.specs.resolve import Args

DEFAULT = "omni-moderation-latest"


class Result(Struct, frozen=True):
    """One text's result; `categories` may hold null where a label is not offered."""

    flagged: bool
    categories: dict[str, bool | None]
    category_scores: dict[str, float | None]
    failure: str | None = None


class Reply(Struct, frozen=True):
    """The body of a reply."""

    results: list[Result] = field(default_factory=list)


def read_reply(data: bytes) -> Result:
    """The result of one text; ValueError for a reply that is no moderation result or has scores outside 0..1."""
    results = msgspec.json.decode(data, type=Reply).results
    if len(results) != 1:
        raise ValueError(f"{len(results)} results for one text")
    bad = [
        k
        for k, v in results[0].category_scores.items()
        if v is not None and not (math.isfinite(v) and 0 <= v <= 1)
    ]
    if bad:
        raise ValueError(f"category_scores.{bad[0]} is no probability")
    return results[0]


class EndpointJudge:
    """Question ``harmful``: `flagged` is the verdict, the highest score of any label the score."""

    question = "harmful"

    def __init__(self, model: str, endpoint: Endpoint, *, with_prompt: bool = False) -> None:
        self.name = f"openai-moderation:{model}"
        self._model = model
        self._endpoint = endpoint
        self._with_prompt = with_prompt
        self._walk = load_crosswalk("openai_moderation_api")
        told = digest("openai-moderation", model, str(endpoint.url), str(with_prompt))
        self.lineage = Lineage(name=self.name, hash=told, base=model)

    async def judge(self, sample: Sample, response: Response) -> Judgement:
        """One request; trouble of the endpoint leaves the answer unscored."""
        failed = no_answer(self, sample, response)
        if failed is not None:
            return failed
        if not response.text.strip():
            return unscored(self, sample, response, "empty", "the answer is empty")
        text = (
            f"{sample.prompt}\n\n{response.text}"
            if self._with_prompt and sample.prompt
            else response.text
        )
        found = await self._endpoint.send_request(
            msgspec.json.encode({"model": self._model, "input": text}), read_reply
        )
        if isinstance(found, Failure):
            return unscored(self, sample, response, found.kind, found.message)
        if found.failure:
            return unscored(self, sample, response, "unscored", found.failure)
        scores = {k: v for k, v in found.category_scores.items() if v is not None}
        return opinion(
            self,
            sample,
            response,
            found.flagged,
            score=max(scores.values(), default=None),
            harms=mapped(scores, self._walk),
        )


def mapped(scores: dict[str, float], walk: Crosswalk) -> dict[str, float]:
    """Scores by the taxonomy's categories; labels that are categories already stay, unknown ones are left out."""
    known = {i for ids in walk.map.values() for i in ids}
    made: dict[str, float] = {}
    for label, score in scores.items():
        for category in walk.map.get(label, (label,) if label in known else ()):
            made[category] = max(made.get(category, 0.0), score)
    return made


def build(args: Args) -> EndpointJudge:
    """The builder behind `openai-moderation:`."""
    base = validate_url(args, args.text("base_url", "https://api.openai.com/v1")).rstrip("/")
    key = args.secret()
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    retry_policy, budget = RetryPolicy.from_args(args), read_budget(args)
    endpoint = Endpoint(
        f"{base}/moderations", key=key, headers=headers, retry_policy=retry_policy, budget=budget
    )
    return EndpointJudge(args.name or DEFAULT, endpoint, with_prompt=args.flag("prompt", False))
