"""What each built-in kind of spec is, in one line: for `truing list` and for error messages.

A test compares these tables with `BUILDERS`: every kind has its line, and every example resolves
to a kind that exists.
"""

from __future__ import annotations

from msgspec import Struct


class KindDescription(Struct, frozen=True):
    """A kind of spec: an example that can be copied, and what it is in one line."""

    example: str
    title: str


def _kinds(rows: dict[str, tuple[str, str]]) -> dict[str, KindDescription]:
    return {kind: KindDescription(example, title) for kind, (example, title) in rows.items()}


MODEL_KINDS = _kinds(
    {
        "openai": (
            "openai:NAME,base_url=URL,api_key_env=VARIABLE",
            "Any OpenAI-compatible endpoint; without base_url, api.openai.com.",
        ),
        "local": (
            "local:smollm2",
            "A transformers model on this machine: smollm2 (embedded), a folder or a hub id.",
        ),
        "http": ("http:HOST/PATH", "A service that takes and returns JSON."),
        "vllm": ("vllm:NAME", "vLLM in this process; with base_url=, a running `vllm serve`."),
        "pool": ("pool:4,of=(local:NAME)", "Copies of a model, each in a process of its own."),
        "python": ("python:package.module:function", "Your own function."),
        "answers": ("answers:FILE", "Recorded answers: production logs, or an earlier run."),
        "scripted": ("scripted:mixed", "Fixed answers, to try a plan without a model."),
        "prompted": ("prompted:hhh,of=(MODEL)", "A model with a safety prompt before it."),
        "best-of": (
            "best-of:4,by=(moderation:fast),of=(MODEL)",
            "The answer that a judge likes best of several.",
        ),
        "guarded": ("guarded:DIR,of=(MODEL)", "A model behind the rails of a configuration."),
        "agent": (
            "agent,of=(MODEL),tools=mail",
            "A model in a loop with the tools of a simulated world (the sample's, or a named one).",
        ),
        "json-calls": (
            "json-calls,of=(local:NAME)",
            "A model that writes tool calls as plain JSON, to stand in `agent,of=(...)`.",
        ),
        "scripted-agent": (
            "scripted-agent,solve=0.8,follow=0.3",
            "An agent with known behaviour, to try worlds, checks and rails without a model.",
        ),
    }
)

JUDGE_KINDS = _kinds(
    {
        "rules": ("rules:refusal", "Programs: refusal, degenerate, check and others."),
        "moderation": (
            "moderation:default",
            "The shipped classifier of harm in 14 categories, or a folder of your own.",
        ),
        "llm": (
            "llm:harm,model=(MODEL)",
            "A language model with a rubric (harm, refusal) or a policy of your own.",
        ),
        "guard": (
            "guard:llama-guard-3,model=(MODEL)",
            "A published guard model, with its own template and parser.",
        ),
        "panel": ("panel:majority,j1=(JUDGE),j2=(JUDGE)", "Several judges that vote."),
        "tone": ("tone:DIR", "The tone rules of a rails configuration."),
        "openai-moderation": (
            "openai-moderation:omni-moderation-latest",
            "OpenAI's moderation endpoint, or a server with the same API.",
        ),
        "keywords": (
            "keywords:",
            "A list of words, the shipped one or a file of yours: a baseline.",
        ),
        "python": (
            "python:package.module:function,question=harmful",
            "Your own function of prompt and answer.",
        ),
        "reward": ("reward:DIR", "A trained reward model: a value, no verdict."),
        "preference": ("preference:DIR", "The same as reward:DIR."),
        "cost": ("cost:DIR", "A trained cost model: above 0 is harmful."),
        "probe": (
            "probe:DIR,harmful=-1,helpful=1",
            "Linear probes on a model's own states: a value; question=NAME gives a verdict.",
        ),
        "state": (
            "state:harm",
            "What an agent did, by the end state of its world: done, harm or injection.",
        ),
        "transcript": (
            "transcript,of=(JUDGE)",
            "Another judge, on an agent's turns, calls and results in place of its answer.",
        ),
    }
)

ATTACK_KINDS = _kinds(
    {
        "spacing": ("spacing", "Spaces inside words."),
        "homoglyphs": ("homoglyphs", "Letters of other alphabets that look alike."),
        "leet": ("leet", "Digits in place of letters."),
        "base64": ("base64", "The request encoded in base64."),
        "rot13": ("rot13", "The request in rot13."),
        "morse": ("morse", "The request in Morse code."),
        "role-play": ("role-play", "The request as a part in a play."),
        "refusal-suppression": ("refusal-suppression", "Rules that forbid words of refusal."),
        "prefix-injection": ("prefix-injection", "A compliant opening that the answer must use."),
        "past-frame": ("past-frame", "The request about the past, by rule."),
        "past-tense": ("past-tense,model=(MODEL)", "The request about the past, by a model."),
        "many-shot": ("many-shot", "Many harmless questions with compliant answers before it."),
        "shuffle": ("shuffle", "Scrambled letters and random capitals, drawn anew each try."),
        "paraphrase": ("paraphrase,model=(MODEL)", "Other words, by a model."),
        "language": ("language:NAME,model=(MODEL)", "Another language, by a model."),
        "chain": ("chain:a+b", "Several rewrites, one after the other."),
        "pair": ("pair,model=(MODEL),by=(JUDGE)", "An attacker model refines the wording."),
        "tap": ("tap,model=(MODEL),by=(JUDGE)", "The same, as a pruned tree."),
        "crescendo": ("crescendo,model=(MODEL),by=(JUDGE)", "Several turns towards the request."),
        "suffix": ("suffix", "A searched suffix; local models only."),
        "injection-search": (
            "injection-search,model=(MODEL),queries=10",
            "An attacker model words that instruction until the agent follows it.",
        ),
        "injection": (
            "injection:important",
            "An instruction in what an agent's tools return, by six templates at four places.",
        ),
    }
)

SHORT_NAMES: dict[str, dict[str, str]] = {
    "model": {"smollm2": "local:smollm2", "hhh": "prompted:hhh,of=(MODEL)"},
    "judge": {
        "refusal": "rules:refusal",
        "degenerate": "rules:degenerate",
        "harm": "llm:harm,model=(MODEL)",
        "policy": "llm:policy,file=FILE,model=(MODEL)",
        "llama-guard": "guard:llama-guard-3,model=(MODEL)",
        "wildguard": "guard:wildguard,model=(MODEL)",
    },
    "data": {
        name: f"builtin:{name}"
        for name in ("safety", "lookalikes", "helpful", "honest", "support", "pairs", "agents")
    },
    "attack": {},
}
"""Role -> what people type -> the spec that they mean."""

KINDS: dict[str, dict[str, KindDescription]] = {
    "model": MODEL_KINDS,
    "judge": JUDGE_KINDS,
    "attack": ATTACK_KINDS,
}
"""Role -> kind -> its description. Data sets describe themselves (`truing.datasets.catalogue`)."""
