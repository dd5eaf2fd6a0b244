"""Spec strings such as `openai:NAME,base_url=URL` and the objects that they describe.

`parser` (Spec, parse_spec) is the grammar, `resolve` (resolve, Args) builds objects, `builders` is
the table of built-in kinds, `keys` says which API key goes where.
"""

from __future__ import annotations

from truing.core.lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "": "resolve",
        "builders": "BUILDERS",
        "catalogue": "KINDS",
        "extras": "EXTRA_BY_PACKAGE needs_extra",
        "keys": (
            "VENDOR_HOSTS allow_key_variables describe_unsent_key is_loopback is_vendor_address "
            "read_variables resolve_api_key"
        ),
        "parser": "Spec parse_spec redact_spec",
        "python_objects": "is_async_function load_function",
        "resolve": "Args RoleName check_kind list_kinds load_object share_instances",
    },
)
