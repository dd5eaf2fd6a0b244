"""Fills the placeholders of published prompt templates."""

from __future__ import annotations

import re
from collections.abc import Mapping

_PLACEHOLDER = re.compile(r"\{([a-z]+)\}")


def fill_placeholders(template: str, values: Mapping[str, str]) -> str:
    """Returns the template with each ``{name}`` of `values` replaced, in one pass.

    A user's text that contains ``{response}`` stays as it is: what is filled in is not read again.
    """
    return _PLACEHOLDER.sub(lambda match: values.get(match[1], match[0]), template)
