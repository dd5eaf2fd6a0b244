"""Builders of the alignment specs.

prompted:hhh|hhh-long|FILE[,system=TEXT],of=(MODEL)
best-of:N,by=(JUDGE)[,ceiling=(JUDGE)][,below=X],of=(MODEL)
guarded:DIR|builtin:NAME[,trust_code=true],of=(MODEL)
"""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from truing.align.best_of import Direction, best_of
from truing.align.prompted import prompted
from truing.core.errors import SpecError, did_you_mean
from truing.core.protocols import Model
from truing.specs.resolve import Args

_BUILTIN = "builtin:"
_DIRECTIONS: dict[str | None, Direction | None] = {None: None, "high": "high", "low": "low"}


def build_prompted(args: Args) -> Model:
    """Builds `prompted:hhh,of=(...)`: a model with a fixed prefix before every conversation."""
    system = args.text("system")
    if not args.name and system is None:
        raise args.fault(
            "give a prefix (prompted:hhh, prompted:hhh-long, prompted:FILE) or system=TEXT"
        )
    return prompted(args.required("of", "model"), args.name or None, system=system)


def build_best_of(args: Args) -> Model:
    """Builds `best-of:N,by=(...),of=(...)`: a model with best-of-n sampling."""
    try:
        n = int(args.name)
    except ValueError as error:
        raise args.fault("give the number of answers: best-of:4") from error
    prefer = args.text("prefer")
    if prefer not in _DIRECTIONS:
        raise args.fault(f"prefer={prefer!r} is neither 'high' nor 'low'")
    below = args.number("below")
    try:
        return best_of(
            args.required("of", "model"),
            n,
            args.required("by", "judge"),
            ceiling=args.nested("ceiling", "judge"),
            below=below,
            refusal=args.text("refusal"),
            prefer=_DIRECTIONS[prefer],
            temperature=args.number("temperature", 1.0),
        )
    except ValueError as error:
        raise args.fault(str(error)) from error


def build_guarded(args: Args) -> Model:
    """Builds `guarded:DIR,of=(...)`: a model with the guardrails of a configuration folder.

    `guarded:builtin:NAME` takes a configuration of the package. `trust_code=true` lets the folder
    run code, such as its actions.py.
    """
    if not args.name:
        raise SpecError(
            f"spec '{args.spec}': give the folder of the rails configuration: guarded:DIR"
        )
    # The guardrails runtime is large; other specs do not need it.
    from truing.rails.guarded import guard_model

    trust_code = args.flag("trust_code")
    folder = str(_locate_rails(args)) if args.name.startswith(_BUILTIN) else args.name
    return guard_model(args.required("of", "model"), folder, trust_code=trust_code)


def _locate_rails(args: Args) -> Path:
    """Returns the folder of a configuration that comes with the package."""
    root = Path(str(files("truing"))) / "resources" / "rails"
    name = args.name.removeprefix(_BUILTIN)
    shipped = sorted(folder.name for folder in root.iterdir() if folder.is_dir())
    if name not in shipped:
        raise SpecError(
            f"spec '{args.spec}': no rails builtin:{name} come with truing"
            f"{did_you_mean(name, shipped)}"
        )
    return root / name
