"""Every verb: name -> (dotted path of its function, one line of help). A function returns its exit status."""

from __future__ import annotations

VERBS: dict[str, tuple[str, str]] = {}
