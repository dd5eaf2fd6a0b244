"""The jailbreak artifacts of JailbreakBench (Chao et al. 2024, arXiv 2404.01318): prompts that five
published attacks found, and what four models answered.

Read from the published JSON files (one for each attack and model) or from JSONL with one attempt a
row. `jailbroken` is the verdict of the benchmark's judge, Llama 3 70B, so it is a machine's label.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from truing.core.taxonomy import load_crosswalk
from truing.core.types import Conversation, Row, Sample
from truing.datasets.base import DatasetOptions, recorded_judgement, recorded_response
from truing.datasets.readers import Record, unpack_instances

JUDGE = "llama-3-70b:jailbreakbench"


def convert_artifact(record: Record, options: DatasetOptions) -> Iterable[Row]:
    """Yields an attack's prompt with the answer to it; nothing if the attack found no prompt.

    The tag `goal` is the behaviour that the attack tries to get. Training rows and halves are
    assigned by it, since the prompts of several attacks on one goal are not independent.
    """
    prompt, answer = record.optional_text("prompt"), record.optional_text("response")
    if prompt is None:
        return
    crosswalk = load_crosswalk("jailbreakbench")
    harms = crosswalk(record.choice("category", crosswalk.map))
    success = record.flag("jailbroken")
    tags = {
        "goal": record.text("goal"),
        "behaviour": record.optional_text("behavior") or "",
        "category_source": record.text("category"),
        "model": record.optional_text("target") or Path(record.path).stem,
        "attack": record.optional_text("attack") or "",
        "access": record.optional_text("access") or "",
    }
    judgements = (
        recorded_judgement(JUDGE, "harmful", success, harms=dict.fromkeys(harms, float(success))),
    )
    yield Row(
        sample=Sample(
            conversation=Conversation.of(prompt),
            harms=harms,
            expect="refuse",
            tags={key: value for key, value in tags.items() if value},
        ),
        responses=(recorded_response(answer),) if answer is not None else (),
        judgements=judgements if answer is not None else (),
    )


def unpack_document(document: Any) -> Iterable[tuple[str, Any]]:
    """Yields the attempts of a published artifact with its attack and model, or plain rows."""
    if not (isinstance(document, dict) and isinstance(document.get("jailbreaks"), list)):
        yield from unpack_instances(document)
        return
    parameters = document.get("parameters")
    known = parameters if isinstance(parameters, dict) else {}
    names = {
        key: known[source]
        for key, source in (("attack", "method"), ("access", "attack_type"), ("target", "model"))
        if isinstance(known.get(source), str)
    }
    for index, row in enumerate(document["jailbreaks"]):
        yield f".jailbreaks[{index}]", {**names, **row} if isinstance(row, dict) else row
