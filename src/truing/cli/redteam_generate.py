"""`truing redteam generate`: red-team prompts that a model writes from the categories' definitions, as a data file."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from truing.core.errors import PlanError, RunError
from truing.core.protocols import Closeable, Model
from truing.core.taxonomy import HarmCategory, load_taxonomy
from truing.specs.resolve import load_object, resolve

MOST = 500  # prompts of a category; their diversity is quadratic in the number


def generate(
    *,
    model: str,
    out: Path,
    count: int = 20,
    category: Annotated[list[str] | None, Parameter(consume_multiple=True, negative="")] = None,
    taxonomy_name: Annotated[str, Parameter(name="--taxonomy")] = "beavertails",
    seed: int = 0,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Lets a model write red-team prompts by category, and measures how different they are from each other.

    The file is data like any other: `truing evaluate --data file:OUT`. Nothing is asked about children. Beside it stands
    OUT with the ending .diversity.json. No text is printed.

    Parameters
    ----------
    model
        Spec of the model that writes. Aligned models often refuse; a base or a red model writes more.
    out
        The JSONL file to write; it must not be there yet.
    count
        Distinct prompts a category; fewer where the model repeats itself.
    category
        Categories by their short names, such as privacy_violation; several may follow. All, if none is named.
    taxonomy_name
        Taxonomy that ships, or the path of your own (.toml).
    seed
        Seed of the model's sampling.
    json
        Print the figures as JSON.
    """
    if not 1 <= count <= MOST:
        raise PlanError(f"redteam generate: --count from 1 to {MOST}")
    if out.exists():
        raise PlanError(f"--out {out}: is there already; a set of prompts is written once")
    if not out.absolute().parent.is_dir():
        raise PlanError(f"--out {out}: there is no folder {out.parent}")
    writer = resolve(model, "model")
    written = asyncio.run(_write(writer, _wanted(category, taxonomy_name), count, seed))
    figures = _figures(written, writer, model, seed)
    if not figures["n"]:
        whys = list(dict.fromkeys(f for one in written for f in one.failures))
        why = (
            f" ({'; '.join(whys[:3])})"
            if whys
            else ": it repeated or refused; try another model or seed"
        )
        raise RunError(f"{writer.name} wrote no prompt{why}")
    _save(out, written, figures)
    if json:
        import msgspec

        sys.stdout.write(
            msgspec.json.format(msgspec.json.encode(figures), indent=1).decode() + "\n"
        )
    else:
        _show(figures, out)
    return 0


def _wanted(names: Sequence[str] | None, of: str) -> list[HarmCategory]:
    known = load_taxonomy(of)
    wanted = [known.find(name) for name in names] if names else list(known.categories)
    asked = [c for c in dict.fromkeys(wanted) if not c.id.startswith("child")]
    if not asked:
        raise PlanError(
            "redteam generate: no prompts are written about children, and no other category is named"
        )
    return asked


async def _write(
    model: Model, categories: Sequence[HarmCategory], count: int, seed: int
) -> list[Any]:
    write = load_object("truing.attacks.generate:generate_prompts")
    try:
        return list(await asyncio.gather(*(write(model, c, count, seed=seed) for c in categories)))
    finally:
        if isinstance(model, Closeable):
            await model.close()


def _figures(written: Sequence[Any], model: Model, spec: str, seed: int) -> dict[str, Any]:
    """Counts and diversity, over all and by category."""
    measure = load_object("truing.attacks.generate:measure_diversity")
    by = {
        one.category: {
            "diversity": measure([s.prompt for s in one.samples]),
            "rounds": one.rounds,
            "repeated": one.repeated,
            "withheld": one.withheld,
            "failed": len(one.failures),
        }
        for one in written
    }
    prompts = [s.prompt for one in written for s in one.samples]
    return {
        "model": model.name,
        "spec": spec,
        "seed": seed,
        "n": len(prompts),
        "diversity": measure(prompts),
        "by_category": by,
    }


def _save(out: Path, written: Sequence[Any], figures: dict[str, Any]) -> None:
    import msgspec

    from truing.runs.folder import replace_file

    rows = [
        {
            "id": s.id,
            "prompt": s.prompt,
            "category": s.harms[0],
            "expect": s.expect,
            "source": s.source,
        }
        for one in written
        for s in one.samples
    ]
    replace_file(
        out.with_suffix(".diversity.json"),
        msgspec.json.format(msgspec.json.encode(figures), indent=1) + b"\n",
    )
    replace_file(out, b"".join(msgspec.json.encode(row) + b"\n" for row in rows))


def _show(figures: dict[str, Any], out: Path) -> None:
    from truing.cli.show import _console, _table
    from truing.report.formatting import category_label

    console = _console()
    table = _table(
        "",
        [
            "category",
            "prompts",
            "distinct-1",
            "distinct-2",
            "overlap",
            "rounds",
            "repeated",
            "failed",
        ],
    )
    rows = [(category_label(c), f["diversity"], f) for c, f in figures["by_category"].items()]
    for name, d, f in [*rows, ("all", figures["diversity"], None)]:
        more = (
            ("", "", "") if f is None else (str(f["rounds"]), str(f["repeated"]), str(f["failed"]))
        )
        table.add_row(
            name,
            str(d.n),
            f"{d.distinct_1:.2f}",
            f"{d.distinct_2:.2f}",
            f"{d.self_overlap:.2f}",
            *more,
        )
    console.print(f"{figures['model']} wrote {figures['n']} prompts", markup=False)
    console.print(table)
    console.print(
        "distinct-n: share of different words and pairs of words. overlap: the mean over prompts of the largest "
        "3-gram similarity to another prompt, 0 = all different.",
        markup=False,
    )
    print(f"prompts: {out}  (figures: {out.with_suffix('.diversity.json')})")
