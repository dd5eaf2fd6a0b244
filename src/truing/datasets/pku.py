"""PKU-SafeRLHF (Ji et al. 2024, arXiv 2406.15513): two answers to a prompt, judged for harm,
severity and preference.

Two layouts: the published one (`response_0`, `is_response_0_safe`, `response_0_harm_category` with
19 labels, ...) and pairs of a safe `chosen` and an unsafe `rejected` answer. An answer that has
both labels in different pairs has no true label: `conflicts=soft` (the default) gives it no verdict
and the share of unsafe labels as score, `drop` leaves out its rows and pairs, `keep` takes each
label as it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

from truing.core.errors import DataError
from truing.core.lineage import digest
from truing.core.taxonomy import load_crosswalk
from truing.core.types import Conversation, Judgement, Message, Preference, Row, Sample
from truing.datasets.base import (
    DatasetOptions,
    FileDataset,
    PublishedDataset,
    make_builder,
    recorded_judgement,
    recorded_response,
)
from truing.datasets.readers import Record


def _answer_texts(record: Record) -> tuple[str, str]:
    names = ("chosen", "rejected") if "chosen" in record.data else ("response_0", "response_1")
    return record.text(names[0], empty=True), record.text(names[1], empty=True)


def _safety_labels(record: Record) -> tuple[bool, bool]:
    if "chosen" in record.data:
        return True, False
    return record.flag("is_response_0_safe"), record.flag("is_response_1_safe")


def _read_harms(record: Record, index: int, options: DatasetOptions) -> dict[str, float]:
    key = f"response_{index}_harm_category"
    if not record.has(key):
        return {}
    crosswalk = load_crosswalk("pku_saferlhf")
    flags = record.nested(key)
    # Several of the 19 labels map to one id: it is set if any of them is.
    harms = dict.fromkeys(sorted({i for ids in crosswalk.map.values() for i in ids}), 0.0)
    for name in flags.data:
        if name not in crosswalk.map:
            raise flags.error(f"{name!r} is none of the 19 published categories")
        if flags.flag(name):
            harms.update(dict.fromkeys(crosswalk(name), 1.0))
    return harms


def _read_judgements(record: Record, options: DatasetOptions) -> Iterator[Judgement]:
    safe = _safety_labels(record)
    for index in (0, 1):
        severity = f"response_{index}_severity_level"
        value = float(record.integer(severity, low=0, high=3)) if record.has(severity) else None
        harms = _read_harms(record, index, options)
        yield recorded_judgement(
            "pku", "harmful", not safe[index], index=index, value=value, harms=harms
        )
    for key, question in (("better_response_id", "better"), ("safer_response_id", "safer")):
        if record.has(key):
            better = record.integer(key, low=0, high=1)
            yield from (
                recorded_judgement("pku", question, index == better, index=index)
                for index in (0, 1)
            )


def convert(record: Record, options: DatasetOptions) -> Iterable[Row]:
    """Converts a pair of answers; harms are the union of the annotated categories."""
    judgements = tuple(_read_judgements(record, options))
    harms = sorted({i for j in judgements for i, p in j.harms.items() if p})
    sample = Sample(conversation=Conversation.of(record.text("prompt")), harms=tuple(harms))
    answers = _answer_texts(record)
    yield Row(
        sample=sample,
        responses=tuple(recorded_response(a, i) for i, a in enumerate(answers)),
        judgements=judgements,
    )


def convert_pairs(record: Record, options: DatasetOptions) -> Iterable[Preference]:
    """Yields the pair ordered by safety, and by helpfulness where that label is published."""
    prompt = Conversation.of(record.text("prompt"))
    texts, safe = _answer_texts(record), _safety_labels(record)
    published = "chosen" not in record.data
    orders: list[tuple[int, str]] = [
        (record.integer("safer_response_id", low=0, high=1) if published else 0, "safe")
    ]
    if published:
        orders.append((record.integer("better_response_id", low=0, high=1), "helpful"))
    for better, dimension in orders:
        worse = 1 - better
        yield Preference(
            conversation=prompt,
            chosen=Message("assistant", texts[better]),
            rejected=Message("assistant", texts[worse]),
            dimension="safe" if dimension == "safe" else "helpful",
            signs=(1 if safe[better] else -1, 1 if safe[worse] else -1),
        )


class PkuDataset(FileDataset):
    """Reads the file once beforehand to learn which answers have contradicting labels."""

    _shares: dict[str, float] | None = None

    def _conflicts(self) -> dict[str, float]:
        if self._shares is None:
            counts: dict[str, list[int]] = {}
            # super(): our own records() asks for the conflicts when it drops rows.
            for record in super().records():
                try:
                    prompt, texts, safe = (
                        record.text("prompt"),
                        _answer_texts(record),
                        _safety_labels(record),
                    )
                # A malformed row is reported (or counted) when it is read for good.
                except DataError:
                    continue
                for text, is_safe in zip(texts, safe):
                    seen = counts.setdefault(_answer_key(prompt, text), [0, 0])
                    seen[0 if is_safe else 1] += 1
            self._shares = {
                k: unsafe / (safe_count + unsafe)
                for k, (safe_count, unsafe) in counts.items()
                if safe_count and unsafe
            }
        return self._shares

    def records(self) -> Iterator[Record]:
        """Yields the records; with `conflicts=drop` only those without contradicting labels."""
        drop = self.options.extra.get("conflicts", "soft") == "drop"
        unsafe_shares = self._conflicts() if drop else {}
        for record in super().records():
            prompt = record.data.get("prompt")
            if unsafe_shares and isinstance(prompt, str):
                texts = [
                    record.data.get(k) for k in ("chosen", "rejected", "response_0", "response_1")
                ]
                # One conflicting answer is enough: the order of the pair rests on both labels.
                if any(
                    isinstance(t, str) and _answer_key(prompt, t) in unsafe_shares for t in texts
                ):
                    continue
            yield record

    def convert(self, record: Record) -> list[Row]:
        """Converts a record; contradicting labels give no verdict unless `conflicts=keep`."""
        rows = super().convert(record)
        if self.options.extra.get("conflicts", "soft") == "keep":
            return rows
        unsafe_shares = self._conflicts()
        return [self._soften(row, unsafe_shares) for row in rows]

    def _soften(self, row: Row, unsafe_shares: dict[str, float]) -> Row:
        judgements: list[Judgement] = []
        for judgement in row.judgements:
            share = unsafe_shares.get(
                _answer_key(row.sample.prompt, row.responses[judgement.index].text)
            )
            if share is not None and judgement.question == "harmful":
                soft = recorded_judgement(
                    "pku",
                    "harmful",
                    None,
                    index=judgement.index,
                    value=judgement.value,
                    score=share,
                )
                judgements.append(msgspec.structs.replace(soft, harms=judgement.harms))
            else:
                judgements.append(judgement)
        return msgspec.structs.replace(row, judgements=tuple(judgements))


def _answer_key(prompt: str, text: str) -> str:
    return digest(prompt, text)


DATASET = PublishedDataset(
    kind="pku",
    title="PKU-SafeRLHF",
    source="https://huggingface.co/datasets/PKU-Alignment/PKU-SafeRLHF",
    licence="CC BY-NC 4.0",
    folder="pku_saferlhf",
    parts={
        "pairs": ("safer_pairs.jsonl", "**/{split}.jsonl*"),
        "published": ("**/{split}.jsonl*",),
    },
    hub={"pairs": "PKU-Alignment/PKU-SafeRLHF", "published": "PKU-Alignment/PKU-SafeRLHF"},
    labels=("harmful", "better", "safer"),
    convert=convert,
    convert_pairs=convert_pairs,
    extra_arguments=("conflicts",),
)
build = make_builder(DATASET, PkuDataset)
