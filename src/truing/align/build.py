"""Builders of the alignment specs: `prompted:`, `best-of:` and `guarded:`."""

from __future__ import annotations

from truing.align.best_of import Direction, best_of
from truing.align.prompted import prompted
from truing.core.errors import SpecError
from truing.core.protocols import Model
from truing.specs.resolve import Args


def guarded(model: Model, rails: str) -> Model:
    """The model behind the rails of a configuration folder."""
    from truing.rails.guarded import guard_model as behind

    return behind(model, rails)


def build_prompted(args: Args) -> Model:
    """`prompted:hhh,of=(...)`: a fixed prefix before every conversation."""
    system = args.text("system")
    if not args.name and system is None:
        raise args.fault(
            "give a prefix (prompted:hhh, prompted:hhh-long, prompted:FILE) or system=TEXT"
        )
    return prompted(args.required("of", "model"), args.name or None, system=system)


def build_best_of(args: Args) -> Model:
    """`best-of:N,by=(...),of=(...)`: the best of N answers by a judge."""
    try:
        n = int(args.name)
    except ValueError as error:
        raise args.fault("give the number of answers: best-of:4") from error
    ends: dict[str | None, Direction | None] = {None: None, "high": "high", "low": "low"}
    wanted = args.text("prefer")
    if wanted not in ends:
        raise args.fault(f"prefer={wanted!r} is neither 'high' nor 'low'")
    below = args.number("below")
    try:
        return best_of(
            args.required("of", "model"),
            n,
            args.required("by", "judge"),
            ceiling=args.nested("ceiling", "judge"),
            below=below,
            refusal=args.text("refusal"),
            prefer=ends[wanted],
            temperature=args.number("temperature", 1.0),
        )
    except ValueError as error:
        raise args.fault(str(error)) from error


def build_guarded(args: Args) -> Model:
    """`guarded:DIR,of=(...)`: the model behind rails."""
    if not args.name:
        raise SpecError(
            f"spec '{args.spec}': give the folder of the rails configuration: guarded:DIR"
        )
    return guarded(args.required("of", "model"), args.name)
