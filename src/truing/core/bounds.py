"""Bounds on what is read from files and endpoints that somebody else wrote.

Those on the replies of endpoints are in `truing.http.bounds`, those on the files of a run folder in
`truing.core.jsonl`.
"""

from __future__ import annotations

MIB = 1 << 20

MAX_JSON_DEPTH = 128
"""Nested arrays and objects of a JSON text. Far below the depth at which Python's recursion ends,
so that whatever passes can be written, compared and shown again.
"""

MAX_ROW_BYTES = 32 * MIB
"""One line of a data file, or one row of a Parquet file: the longest published dialogues have less
than one MiB."""

MAX_DOCUMENT_BYTES = 512 * MIB
"""A file that is one JSON document, which has to be in memory as a whole."""

MAX_EXPANSION = 200
"""Bytes that a compressed file may have for each of its own; JSON rows have about ten."""

MAX_XZ_MEMORY = 128 * MIB
"""Memory of the decoder of an .xz file. The header of the file sets the size of its dictionary, up
to 4 GiB; that of `xz -9` is 64 MiB."""

FREE_EXPANDED_BYTES = 64 * MIB
"""So much a compressed file may expand to in any case: a few repeated rows compress very well."""
