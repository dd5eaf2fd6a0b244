"""`attacked:NAME,of=(DATA),tries=K`: a data set with K attacked versions of each prompt.

Best-of-n jailbreaking (Hughes et al. 2024, arXiv:2412.03556) is
`attacked:shuffle,of=(...),tries=25`: the model answers all K versions, and hit@k for every k <= K
is estimated from them without bias (Chen et al. 2021, arXiv:2107.03374).
"""

from __future__ import annotations

from collections.abc import Iterator

from msgspec.structs import replace

from truing.attacks.base import ChainedAttack, RewriteAttack, is_attackable
from truing.attacks.injections import InjectionAttack, is_injectable, make_injection
from truing.attacks.rewrites import REWRITES
from truing.core.errors import did_you_mean
from truing.core.protocols import Dataset
from truing.core.types import DataInfo, Preference, Row, Sample
from truing.specs.resolve import Args

_MAX_TRIES = 1000


def make_rewrite(name: str, seed: int = 0) -> RewriteAttack:
    """Returns the rewrite of that name (a key of `REWRITES`)."""
    change, paper = REWRITES[name]
    return RewriteAttack(name, change, paper=paper, seed=seed)


def make_rewrites(args: Args, seed: int) -> list[RewriteAttack]:
    """Returns the rewrites of a spec's name, joined by `+` (`role-play+base64`)."""
    names = args.name.split("+")
    for name in names:
        if name not in REWRITES:
            raise args.fault(f"there is no rewrite {name!r}{did_you_mean(name, REWRITES)}")
    return [make_rewrite(name, seed) for name in names]


class AttackedDataset:
    """A data set with its prompts attacked; `plain` keeps the original samples too.

    Prompts about minors and the benign prompts of pairs are left out; of injections, all samples
    but agents' tasks with an injection.
    """

    def __init__(
        self,
        dataset: Dataset,
        attack: RewriteAttack | ChainedAttack | InjectionAttack,
        *,
        tries: int = 1,
        plain: bool = True,
    ) -> None:
        self._dataset = dataset
        self._attack = attack
        self._tries = tries
        self._plain = plain

    @property
    def info(self) -> DataInfo:
        """The original data set's, with the attack in spec and title."""
        original = self._dataset.info
        spec = f"attacked:{self._attack.name},tries={self._tries},of=({original.spec})"
        return replace(
            original, spec=spec, title=f"{original.title}, attacked by {self._attack.name}"
        )

    def sha256(self) -> str:
        """Returns the original data set's hash; the attack is part of the spec."""
        return self._dataset.sha256()

    def rows(self) -> Iterator[Row]:
        """Yields each original sample (if `plain`), followed by its attacked versions."""
        for row in self._dataset.rows():
            sample = row.sample
            if not self._is_attacked(sample):
                continue
            if self._plain:
                yield Row(sample=sample)
            for attempt in range(self._tries):
                yield Row(sample=self._attack.attack_once(sample, attempt))

    def _is_attacked(self, sample: Sample) -> bool:
        if isinstance(self._attack, InjectionAttack):
            return is_injectable(sample)
        # A benign prompt has no refusal that an attack could overcome.
        return sample.expect != "comply" and is_attackable(sample)

    def preferences(self) -> Iterator[Preference]:
        """Yields nothing: an attacked data set has no pairs."""
        return iter(())


def build(args: Args) -> AttackedDataset:
    """Builds `attacked:NAME,of=(DATA)`; the name may be a chain, `role-play+base64`, or
    `injection`.
    """
    seed, tries = args.integer("seed", 0), args.integer("tries", 1)
    if not 1 <= tries <= _MAX_TRIES:
        raise args.fault(f"tries={tries}: from 1 to {_MAX_TRIES}")
    plain = args.flag("plain", True)
    if args.name == "injection":
        dataset = args.required("of", "data")
        return AttackedDataset(dataset, make_injection(args), tries=tries, plain=plain)
    rewrites = make_rewrites(args, seed)
    attack = rewrites[0] if len(rewrites) == 1 else ChainedAttack(*rewrites)
    return AttackedDataset(args.required("of", "data"), attack, tries=tries, plain=plain)
