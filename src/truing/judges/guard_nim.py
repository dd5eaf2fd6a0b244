"""NemoGuard JailbreakDetect: a service that says whether a prompt is an attempt at a jailbreak.

Request and reply: NVIDIA's NIM documentation of ``POST /v1/classify``: ``{"input": TEXT}`` returns
``{"jailbreak": true, "score": S}`` with S between -1 and 1 (a random forest over embeddings;
Galinkin and Sablotny 2024, arXiv:2412.01547). The prompt is unscored if the reply has no verdict,
or a score whose sign contradicts the verdict; NeMo Guardrails lets such a prompt pass.
"""

from __future__ import annotations

import math

import msgspec
from msgspec import Struct

from truing.core.lineage import digest
from truing.core.types import Failure, Judgement, Lineage, Response, Sample
from truing.http.client import Endpoint, bearer_headers, join_url, read_budget, validate_url
from truing.http.retry import RetryPolicy
from truing.judges.verdicts import make_judgement, make_unscored, text_of_message
from truing.specs.resolve import Args

CLASSIFY_PATH = "/v1/classify"


class JailbreakReply(Struct, frozen=True):
    """The body of a reply; a positive `score` means a jailbreak."""

    jailbreak: bool
    score: float | None = None


def read_jailbreak_reply(data: bytes) -> JailbreakReply:
    """Returns the parsed reply. Raises ValueError if it has no verdict or contradicts itself."""
    reply = msgspec.json.decode(data, type=JailbreakReply)
    if reply.score is None:
        return reply
    if not math.isfinite(reply.score) or not -1 <= reply.score <= 1:
        raise ValueError("score is not between -1 and 1")
    if reply.score and (reply.score > 0) != reply.jailbreak:
        raise ValueError(f"jailbreak is {reply.jailbreak}, but the score is {reply.score:g}")
    return reply


class JailbreakDetectJudge:
    """Judges whether the texts of a prompt are a jailbreak; `value` is the service's score."""

    question = "jailbreak"

    def __init__(self, endpoint: Endpoint) -> None:
        self.name = "guard:nemoguard-jailbreak"
        self._endpoint = endpoint
        self.lineage = Lineage(
            name=self.name, hash=digest("nemoguard-jailbreak", endpoint.identity), base=self.name
        )

    def of_prompts(self) -> JailbreakDetectJudge:
        """Returns itself: it judges prompts only."""
        return self

    async def judge(self, sample: Sample, response: Response) -> Judgement:
        """Sends one request for all texts of the prompt."""
        text = "\n\n".join(filter(None, map(text_of_message, sample.conversation.messages)))
        if not text.strip():
            return make_unscored(self, sample, response, "empty", "there is no text to judge")
        reply = await self._endpoint.send_request(
            msgspec.json.encode({"input": text}), read_jailbreak_reply
        )
        if isinstance(reply, Failure):
            return make_unscored(self, sample, response, reply.kind, reply.message)
        return make_judgement(self, sample, response, reply.jailbreak, value=reply.score)


def build_jailbreak_judge(args: Args) -> JailbreakDetectJudge:
    """Returns the judge of `guard:nemoguard-jailbreak,base_url=URL[,path=/v1/classify]`."""
    if args.text("base_url") is None:
        raise args.fault("base_url=http://HOST:PORT is missing: the address of the NIM")
    base = validate_url(args, args.text("base_url", "")).rstrip("/")
    path = args.text("path", CLASSIFY_PATH)
    key = args.api_key(base, default=None)
    endpoint = Endpoint(
        join_url(base, path.lstrip("/")),
        key=key,
        headers=bearer_headers(key),
        retry_policy=RetryPolicy.from_args(args),
        budget=read_budget(args),
    )
    return JailbreakDetectJudge(endpoint)
