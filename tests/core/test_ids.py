"""Ids of samples and seeds of random streams."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from truing.core.ids import content_id, stream_seed, with_ids
from truing.core.types import Conversation, Sample

texts = st.text(st.characters(codec="utf-8"), max_size=30)


def test_ids_derive_from_content_and_occurrence() -> None:
    first, second = (Sample(conversation=Conversation.of(t)) for t in ("a", "b"))
    samples = list(with_ids([first, second, first]))
    assert samples[0].id == content_id(first)
    assert samples[2].id == f"{content_id(first)}-1"
    assert len({s.id for s in samples}) == 3
    assert content_id(samples[0]) == content_id(first)
    assert content_id(first, 2) == f"{content_id(first)}-2"


def test_an_existing_id_is_kept() -> None:
    sample = Sample(conversation=Conversation.of("a"), id="mine")
    assert next(with_ids([sample])).id == "mine"


@given(st.integers(0, 2**32), texts, st.integers(0, 100))
def test_stream_seeds_fit_in_63_bits_and_depend_on_every_part(
    seed: int, sample_id: str, index: int
) -> None:
    value = stream_seed(seed, sample_id, index)
    assert 0 <= value < 2**63
    assert value == stream_seed(seed, sample_id, index)
    assert value != stream_seed(seed, sample_id, index + 1)
    assert value != stream_seed(seed + 1, sample_id, index)
