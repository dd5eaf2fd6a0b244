"""The flags of `truing moderate` for how rows are read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cyclopts import Parameter

from truing.bulk.row_files import Format
from truing.cli.parameters import Flag

if TYPE_CHECKING:
    from truing.bulk.row_files import RowOptions


@Parameter(name="*")
@dataclass(frozen=True)
class RowFlags:
    """How rows are read.

    Parameters
    ----------
    format
        Format of the input (default: by the ending of --in, else jsonl). The output has the same;
        that of a Parquet input is jsonl.
    prompt
        Name of the column or key with the prompt.
    response
        Name of the column or key with the answer.
    text
        Name of the column or key with a text that is judged alone.
    skip_malformed
        Leave malformed rows out and count them.
    """

    format: Format | None = None
    prompt: str | None = None
    response: str | None = None
    text: str | None = None
    skip_malformed: Flag = False

    @property
    def options(self) -> RowOptions:
        """The same as the options of a reader."""
        from truing.bulk.row_files import RowOptions

        return RowOptions(
            format=self.format,
            prompt=self.prompt,
            response=self.response,
            text=self.text,
            skip_malformed=self.skip_malformed,
        )
