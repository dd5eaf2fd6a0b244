"""Prices of models, and what answers cost: the file of prices, and the spending of a run.

Money is in the currency of the prices, whichever that is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from msgspec import UNSET, Struct, UnsetType

from truing.core.errors import PlanError, did_you_mean
from truing.core.input_files import describe_unreadable, read_input_text
from truing.core.toml_text import add_lines, parse_toml

CHARACTERS_PER_TOKEN = 4.0
"""Rule of thumb for English text in the tokenizers of current models."""


class Price(Struct, frozen=True, kw_only=True):
    """The price of a million input and a million output tokens, in one currency."""

    input: float
    output: float

    def money(self, read: float, written: float) -> float:
        """Returns what so many tokens read and written cost."""
        return (read * self.input + written * self.output) / 1e6


class Spending(Struct, frozen=True, kw_only=True):
    """What the stored answers of a run cost, without the calls of judges and attacks.

    Tokens of the `estimated` answers, whose endpoint stated no usage, are counted from characters.
    `money` is None without a price. `repeated_read` and `repeated_written` are the part of the
    tokens that went into answers which failed and were asked again; `lost_read` and `lost_written`
    the part that counts as spent for requests whose answers were lost: the most that they may have
    cost.
    """

    answers: int = 0
    estimated: int = 0
    tokens_read: int = 0
    tokens_written: int = 0
    money: float | None = None
    price: Price | None = None
    repeated_read: int | UnsetType = UNSET
    repeated_written: int | UnsetType = UNSET
    lost_read: int | UnsetType = UNSET
    lost_written: int | UnsetType = UNSET

    @property
    def tokens(self) -> int:
        """Tokens read and written."""
        return self.tokens_read + self.tokens_written

    def describe(self) -> str:
        """Returns the spending in words."""
        parts = [f"{self.tokens_read:,} tokens read and {self.tokens_written:,} written"]
        if self.money is not None:
            parts.insert(0, f"{format_money(self.money)} in the currency of the prices")
        text = f"spent on answers: {', '.join(parts)}"
        if self.estimated:
            text += (
                f"; {self.estimated:,} of {self.answers:,} answers state no usage and are estimated"
            )
        if lost := (self.lost_read or 0) + (self.lost_written or 0):
            text += f"; {lost:,} of the tokens are bounds for requests whose answers were lost"
        return text


def format_money(amount: float) -> str:
    """Returns an amount with two decimals, or with two significant digits if it is small."""
    return f"{amount:,.2f}" if amount >= 0.1 or amount == 0 else f"{amount:.2g}"


def estimate_tokens(characters: int) -> int:
    """Returns about how many tokens a text of so many characters has, at least 1 if it has any."""
    return -(-characters // int(CHARACTERS_PER_TOKEN))


def read_prices(path: Path) -> dict[str, Price]:
    """Returns the prices of a TOML file: a table for each model with `input` and `output`, what a
    million tokens cost.

        ["my-model"]
        input = 0.15
        output = 0.6

    Raises PlanError with all faults of the file.
    """
    try:
        text = read_input_text(path)
    except (OSError, UnicodeDecodeError) as error:
        raise PlanError(f"{path}: {describe_unreadable(error)}") from error
    prices: dict[str, Price] = {}
    faults: list[str] = []
    for name, table in parse_toml(text, str(path)).items():
        table_faults = list(_find_price_faults(table))
        faults += [f"{path}: {name}{fault}" for fault in table_faults]
        if not table_faults:
            prices[name] = Price(input=float(table["input"]), output=float(table["output"]))
    if faults:
        raise PlanError(*add_lines(text, str(path), faults))
    return prices


def _find_price_faults(table: Any) -> Iterator[str]:
    """Yields what is wrong with the table of one model, from its key on."""
    keys = Price.__struct_fields__
    if not isinstance(table, dict):
        yield ": expected a table with input and output"
        return
    for key in table:
        if key not in keys:
            yield f".{key}: unknown key{did_you_mean(key, keys)}"
    for key in keys:
        price = table.get(key)
        # A NaN is neither below 0 nor at least 0.
        if (
            isinstance(price, bool)
            or not isinstance(price, int | float)
            or not 0 <= price < float("inf")
        ):
            problem = "missing" if price is None else f"got {price!r}"
            yield f".{key}: expected the price of a million tokens, {problem}"


def find_price(prices: Mapping[str, Price], names: tuple[str, ...]) -> Price | None:
    """Returns the price of the first of some names that has one, or None."""
    return next((prices[name] for name in names if name in prices), None)
