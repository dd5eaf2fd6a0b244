"""All guards of `guard:` by name, and the formats of those that have settings of their own.

`guard_formats.py`, `guard_formats_multilingual.py`, `guard_formats_nvidia.py` and `guard_policy.py`
hold the prompts and parsers, with their sources.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from truing.core.errors import did_you_mean
from truing.core.input_files import read_input_text
from truing.core.lineage import digest
from truing.judges.guard_encoders import ENCODERS
from truing.judges.guard_formats import FORMATS, GuardFormat
from truing.judges.guard_formats_multilingual import POLYGUARD, SEVERITIES, make_qwen_format
from truing.judges.guard_formats_nvidia import (
    CONTENT_SAFETY,
    make_reasoning_format,
    make_topic_format,
)
from truing.judges.guard_policy import EFFORTS, make_policy_format
from truing.specs.resolve import Args

PLAIN_FORMATS: dict[str, GuardFormat] = {
    **FORMATS,
    "nemoguard-content-safety": CONTENT_SAFETY,
    "polyguard": POLYGUARD,
}
"""Guards without settings."""


def _qwen3guard(args: Args) -> tuple[str, GuardFormat]:
    mode = args.text("mode", "strict")
    for severity in SEVERITIES:
        if severity == mode:
            name = args.name if mode == "strict" else f"{args.name},mode={mode}"
            return name, make_qwen_format(severity)
    raise args.fault(f"mode={mode!r} is neither strict nor loose{did_you_mean(mode, SEVERITIES)}")


def _nemotron_reasoning(args: Args) -> tuple[str, GuardFormat]:
    reasons = args.flag("reasoning")
    name = f"{args.name},reasoning=true" if reasons else args.name
    return name, make_reasoning_format(thinks=reasons)


def _topic_control(args: Args) -> tuple[str, GuardFormat]:
    rules = _read_policy(args)
    if rules is None:
        raise args.fault("policy=RULES.md is missing: the topics that are allowed and not allowed")
    return f"{args.name},policy={digest(rules)[:8]}", make_topic_format(rules)


def _gpt_oss_safeguard(args: Args) -> tuple[str, GuardFormat]:
    policy = _read_policy(args)
    effort = args.text("effort", "medium")
    for known in EFFORTS:
        if known == effort:
            name = args.name if effort == "medium" else f"{args.name},effort={effort}"
            name = name if policy is None else f"{name},policy={digest(policy)[:8]}"
            return name, make_policy_format(policy, known)
    raise args.fault(f"effort={effort!r} is none of {', '.join(EFFORTS)}")


def _read_policy(args: Args) -> str | None:
    """Returns the text of the file `policy=`, or None without one."""
    file = args.text("policy")
    if file is None:
        return None
    try:
        policy = read_input_text(Path(file))
    except (OSError, UnicodeDecodeError) as error:
        raise args.fault(f"cannot read the policy {file}: {error}") from error
    if not policy.strip():
        raise args.fault(f"the policy {file} is empty")
    return policy


_BUILDERS: dict[str, Callable[[Args], tuple[str, GuardFormat]]] = {
    "qwen3guard": _qwen3guard,
    "gpt-oss-safeguard": _gpt_oss_safeguard,
    "nemotron-reasoning": _nemotron_reasoning,
    "nemoguard-topic-control": _topic_control,
}

GUARD_NAMES = sorted([*PLAIN_FORMATS, *_BUILDERS, *ENCODERS, "beaver-dam", "nemoguard-jailbreak"])
"""All names of `guard:`."""


def find_format(args: Args) -> tuple[str, GuardFormat]:
    """Returns the name and the format of a guard.

    The name contains the settings that differ from the defaults. Raises SpecError for a wrong
    setting, and KeyError for a guard that is not generative (a classifier or a service).
    """
    if args.name in PLAIN_FORMATS:
        return args.name, PLAIN_FORMATS[args.name]
    return _BUILDERS[args.name](args)
