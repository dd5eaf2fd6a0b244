"""The knowledge base of a configuration (``kb/*.md``): Markdown chunks, searched by similarity."""

from __future__ import annotations

from collections.abc import Sequence

from truing.rails.runtime.embeddings import EmbeddingCache
from truing.rails.runtime.example_index import CreateIndex, ExampleIndex
from truing.rails.yaml_lines import safe_load

CHUNK_CHARACTERS = 400


def split_markdown(
    document: str, chunk_characters: int = CHUNK_CHARACTERS
) -> list[tuple[str, str]]:
    """Splits a Markdown document into (title, body) chunks.

    A chunk ends at a heading, and at a blank line once it has more than `chunk_characters`
    characters. The title joins the headings above the chunk. A leading block of YAML metadata in
    ``` fences is left out.
    """
    lines = _without_metadata(document.strip().split("\n"))
    chunks: list[tuple[str, str]] = []
    headings: list[str] = []
    body: list[str] = []
    size = 0

    def finish_chunk() -> None:
        nonlocal size
        text = "\n".join(body).strip()
        if text:
            chunks.append((" - ".join(headings), text))
        body.clear()
        size = 0

    for line in lines:
        if line.startswith("#"):
            finish_chunk()
            level = len(line) - len(line.lstrip("#"))
            del headings[level - 1 :]
            headings.append(line.lstrip("#").strip())
        elif not line.strip():
            body.append("")
            if size > chunk_characters:
                finish_chunk()
        else:
            body.append(line)
            size += len(line)
    finish_chunk()
    return chunks


def _without_metadata(lines: list[str]) -> list[str]:
    if not lines or not lines[0].startswith("```"):
        return lines
    end = next((i for i, line in enumerate(lines[1:], 1) if line.startswith("```")), None)
    if end is None:
        return lines
    safe_load("\n".join(lines[1:end]))  # raises for a block that is not YAML
    return lines[end + 1 :]


class KnowledgeBase:
    """The chunks of all documents; actions get it as `kb`."""

    def __init__(
        self,
        documents: Sequence[str],
        embeddings: EmbeddingCache,
        create_index: CreateIndex | None = None,
    ) -> None:
        chunks = [chunk for document in documents for chunk in split_markdown(document)]
        # The title is part of the searched text, but comes apart from the body in the result.
        self._index = ExampleIndex(
            embeddings,
            [(f"# {title}\n\n{body}", {"title": title, "body": body}) for title, body in chunks],
            create_index,
        )

    async def search_relevant_chunks(self, text: str, max_results: int = 3) -> list[dict[str, str]]:
        """Returns the nearest chunks as {title, body}, best first."""
        matches = await self._index.search(text, max_results)
        return [chunk for _, _, chunk in matches]
