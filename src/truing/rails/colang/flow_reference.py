"""How configurations and flows refer to a flow: its name with parameters, `check input $model=x` or `check(a=1)`."""

from __future__ import annotations


def flow_name(text: str) -> str:
    """The name of a flow without its parameters: ``check(a=1)`` and ``check $model=x`` are ``check``."""
    text = text.strip()
    if "(" in text:
        return text.split("(")[0].strip()
    return text.split("$")[0].strip()


def flow_parameters(text: str) -> dict[str, str | None]:
    """The parameters in a flow's name."""
    text = text.strip()
    if "(" in text and ")" in text:
        inner = text.split("(")[1].split(")")[0]
    elif "$" in text:
        inner = text.split("$")[1]
    else:
        return {}
    found: dict[str, str | None] = {}
    for part in inner.split(","):
        name, sign, value = part.strip().partition("=")
        if sign and len(value) > 1 and value[0] == value[-1] and value[0] in "'\"":
            value = value[1:-1]
        found[name] = value if sign else None
    return found
