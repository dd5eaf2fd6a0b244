"""`truing redteam generate`: a model writes red-team prompts for harm categories."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from cyclopts import Parameter

from truing.cli.parameters import Flag, OptionalStrings
from truing.cli.tables import make_console, make_table, print_json, print_text
from truing.core.errors import PlanError, RunError
from truing.core.private_files import replace_file
from truing.core.protocols import Closeable, Model
from truing.specs.parser import redact_spec

if TYPE_CHECKING:
    from truing.attacks.generate import Diversity, GeneratedPrompts
    from truing.core.taxonomy import HarmCategory

MAX_PROMPTS = 500
"""Prompts of a category; measuring their diversity takes time quadratic in their number."""


def command(
    *,
    model: str,
    out: Path,
    count: int = 20,
    category: OptionalStrings = None,
    taxonomy_name: Annotated[str, Parameter(name="--taxonomy")] = "beavertails",
    seed: int = 0,
    json: Flag = False,
) -> int:
    """Lets a model write red-team prompts by category, and measures how different they are.

    The file is a data set: `truing evaluate --data file:OUT`. The figures are written next to it,
    with the ending .diversity.json. No prompts about children are requested, and no text is
    printed.

    Parameters
    ----------
    model
        Spec of the model that writes. Aligned models often refuse; a base model writes more.
    out
        The JSONL file to write; it must not exist.
    count
        Distinct prompts in each category; fewer if the model repeats itself.
    category
        Short names of categories, such as privacy_violation; several may follow. Default: all.
    taxonomy_name
        A taxonomy by name, or the path of your own (.toml).
    seed
        Seed of the model's sampling.
    json
        Print the figures as JSON.
    """
    from truing.attacks.generate import measure_diversity
    from truing.specs.resolve import resolve

    # All of this is checked before the model is loaded or paid for.
    if not 1 <= count <= MAX_PROMPTS:
        raise PlanError(f"redteam generate: --count must be from 1 to {MAX_PROMPTS}")
    if out.exists():
        raise PlanError(f"--out {out}: exists already; give the name of a new file")
    if not out.absolute().parent.is_dir():
        raise PlanError(f"--out {out}: there is no folder {out.parent}")
    writer: Model = resolve(model, "model")
    categories = _select_categories(category, taxonomy_name)
    generated = asyncio.run(_generate(writer, categories, count, seed))
    prompts = [sample.prompt for part in generated for sample in part.samples]
    if not prompts:
        raise RunError(f"{writer.name} wrote no prompt{_describe_failures(generated)}")
    diversity = measure_diversity(prompts)
    figures = {
        "model": writer.name,
        "spec": redact_spec(model),
        "seed": seed,
        "n": len(prompts),
        "diversity": diversity,
        "by_category": {part.category: _category_figures(part) for part in generated},
    }
    figures_file = out.with_suffix(".diversity.json")
    figures_json = msgspec.json.format(msgspec.json.encode(figures), indent=1)
    # The figures first: if the command is interrupted here, --out does not exist yet, and the same
    # command can be given again.
    replace_file(figures_file, figures_json + b"\n")
    replace_file(out, _encode_rows(generated))
    if json:
        print_json(figures_json)
    else:
        _print_figures(writer.name, generated, diversity)
        print_text(f"prompts: {out}  (figures: {figures_file})")
    return 0


def _select_categories(names: Sequence[str] | None, taxonomy_name: str) -> list[HarmCategory]:
    """Returns the named categories (default: all) without those about children."""
    from truing.core.taxonomy import load_taxonomy

    taxonomy = load_taxonomy(taxonomy_name)
    named = [taxonomy.find(name) for name in names] if names else list(taxonomy.categories)
    categories = [c for c in dict.fromkeys(named) if not c.id.startswith("child")]
    if not categories:
        raise PlanError(
            "redteam generate: no prompts are written about children, "
            "and no other category is named"
        )
    return categories


async def _generate(
    model: Model, categories: Sequence[HarmCategory], count: int, seed: int
) -> list[GeneratedPrompts]:
    from truing.attacks.generate import generate_prompts
    from truing.http.limits import close_connections

    try:
        return await asyncio.gather(
            *(generate_prompts(model, c, count, seed=seed) for c in categories)
        )
    finally:
        if isinstance(model, Closeable):
            await model.close()
        await close_connections()


def _describe_failures(generated: Sequence[GeneratedPrompts]) -> str:
    failures = list(dict.fromkeys(failure for part in generated for failure in part.failures))
    if not failures:
        return ": it repeated itself or refused; try another model or --seed"
    return f" ({'; '.join(failures[:3])})"


def _category_figures(generated: GeneratedPrompts) -> dict[str, Any]:
    from truing.attacks.generate import measure_diversity

    return {
        "diversity": measure_diversity([sample.prompt for sample in generated.samples]),
        "rounds": generated.rounds,
        "repeated": generated.repeated,
        "withheld": generated.withheld,
        "failed": len(generated.failures),
    }


def _encode_rows(generated: Sequence[GeneratedPrompts]) -> bytes:
    """Returns the prompts as JSON lines with the columns that `file:` reads."""
    rows = [
        {
            "id": sample.id,
            "prompt": sample.prompt,
            "category": sample.harms[0],
            "expect": sample.expect,
            "source": sample.source,
        }
        for part in generated
        for sample in part.samples
    ]
    return b"".join(msgspec.json.encode(row) + b"\n" for row in rows)


def _print_figures(model: str, generated: Sequence[GeneratedPrompts], diversity: Diversity) -> None:
    from truing.attacks.generate import measure_diversity
    from truing.report.formatting import category_label

    table = make_table(
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
    for part in generated:
        part_diversity = measure_diversity([sample.prompt for sample in part.samples])
        counts = (str(part.rounds), str(part.repeated), str(len(part.failures)))
        table.add_row(category_label(part.category), *_diversity_cells(part_diversity), *counts)
    table.add_row("all", *_diversity_cells(diversity), "", "", "")
    console = make_console()
    console.print(f"{model} wrote {diversity.n} prompts", markup=False)
    console.print(table)
    console.print(
        "distinct-n: share of different words and pairs of words. overlap: the mean over "
        "prompts of the largest 3-gram similarity to another prompt, 0 = all different.",
        markup=False,
    )


def _diversity_cells(diversity: Diversity) -> tuple[str, ...]:
    return (
        str(diversity.n),
        f"{diversity.distinct_1:.2f}",
        f"{diversity.distinct_2:.2f}",
        f"{diversity.self_overlap:.2f}",
    )
