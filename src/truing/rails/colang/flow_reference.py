"""References to flows with parameters, in configurations and in ``do``.

Two notations: ``check input $model=x`` and ``check(a=1)``.
"""

from __future__ import annotations


def parse_flow_name(reference: str) -> str:
    """Returns the flow's name: ``check(a=1)`` and ``check $model=x`` refer to ``check``."""
    delimiter = "(" if "(" in reference else "$"
    return reference.split(delimiter)[0].strip()


def parse_flow_parameters(reference: str) -> dict[str, str | None]:
    """Returns the parameters as text, without quotes; None for one without ``=``."""
    if "(" in reference and ")" in reference:
        arguments = reference.split("(")[1].split(")")[0]
    elif "$" in reference:
        arguments = reference.strip().split("$")[1]
    else:
        return {}
    parameters: dict[str, str | None] = {}
    for argument in arguments.split(","):
        name, equals, value = argument.strip().partition("=")
        is_quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "'\""
        if not equals:
            parameters[name] = None
        else:
            parameters[name] = value[1:-1] if is_quoted else value
    return parameters
