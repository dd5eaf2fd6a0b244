"""Markdown chunks, and their search."""

from __future__ import annotations

import asyncio

import pytest

from truing.rails.runtime.embeddings import EmbeddingCache, LexicalEncoder
from truing.rails.runtime.knowledge_base import KnowledgeBase, split_markdown

DOCUMENT = """# Zoo

## Lions

They eat at noon.

## Parking

Four coins.
Pay at the gate.
"""


def test_a_document_is_split_at_headings_whose_titles_are_joined() -> None:
    assert split_markdown(DOCUMENT) == [
        ("Zoo - Lions", "They eat at noon."),
        ("Zoo - Parking", "Four coins.\nPay at the gate."),
    ]


def test_a_heading_of_a_higher_level_replaces_those_below() -> None:
    titles = [title for title, _ in split_markdown("# A\n## B\nx\n# C\ny\n")]
    assert titles == ["A - B", "C"]


def test_long_sections_are_split_at_blank_lines() -> None:
    paragraph = "word " * 10
    chunks = split_markdown(f"# T\n{paragraph}\n\n{paragraph}\n\n{paragraph}", chunk_characters=40)
    assert [title for title, _ in chunks] == ["T", "T", "T"]
    assert split_markdown(f"# T\n{paragraph}\n\n{paragraph}", chunk_characters=400) == [
        ("T", f"{paragraph}\n\n{paragraph.strip()}")
    ]


def test_metadata_is_left_out_and_must_be_yaml() -> None:
    assert split_markdown("```yaml\nname: x\n```\n# T\nbody") == [("T", "body")]
    assert split_markdown("```\nno end\n# T") != []
    with pytest.raises(Exception, match=r".+"):
        split_markdown("```\n[unclosed\n```\n# T\nbody")


def test_the_nearest_chunks_come_first() -> None:
    kb = KnowledgeBase([DOCUMENT], EmbeddingCache(LexicalEncoder()))
    first, second = asyncio.run(kb.search_relevant_chunks("when do the lions eat", 2))
    assert first == {"title": "Zoo - Lions", "body": "They eat at noon."}
    assert second["title"] == "Zoo - Parking"
    assert len(asyncio.run(kb.search_relevant_chunks("lions", 1))) == 1
