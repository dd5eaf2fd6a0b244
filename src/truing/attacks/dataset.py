"""`attacked:NAME,of=(DATA),tries=K`: a data set of attacked samples, K tries a prompt, for success by number of tries.

Best-of-n jailbreaking (Hughes et al. 2024, arXiv 2412.03556) is `attacked:shuffle,of=(...),tries=25`: all K tries are
asked, and hit@k for every k <= K comes from them without bias (Chen et al. 2021, arXiv 2107.03374).
"""

from __future__ import annotations

from collections.abc import Iterator

from msgspec.structs import replace

from truing.attacks.base import ChainedAttack, RewriteAttack, is_attackable
from truing.attacks.rewrites import REWRITES
from truing.core.errors import did_you_mean
from truing.core.protocols import Dataset
from truing.core.types import DataInfo, Preference, Row
from truing.specs.resolve import Args


def make_rewrite(name: str, seed: int = 0) -> RewriteAttack:
    """The rewrite of a name."""
    change, paper = REWRITES[name]
    return RewriteAttack(name, change, paper=paper, seed=seed)


class AttackedDataset:
    """Wraps a data set; prompts about minors and benign twins are left out. `plain` keeps the parents too."""

    def __init__(
        self,
        dataset: Dataset,
        attack: RewriteAttack | ChainedAttack,
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
        """The wrapped set's, under the attack's name."""
        inner = self._dataset.info
        spec = f"attacked:{self._attack.name},tries={self._tries},of=({inner.spec})"
        return replace(inner, spec=spec, title=f"{inner.title}, attacked by {self._attack.name}")

    def sha256(self) -> str:
        """The wrapped set's; the attack stands in the spec."""
        return self._dataset.sha256()

    def rows(self) -> Iterator[Row]:
        """The plain sample (if wanted), then its tries."""
        for row in self._dataset.rows():
            sample = row.sample
            if sample.expect == "comply" or not is_attackable(sample):
                continue
            if self._plain:
                yield Row(sample=sample)
            for at in range(self._tries):
                yield Row(sample=self._attack.attack_once(sample, at))

    def preferences(self) -> Iterator[Preference]:
        """None: an attacked set has no pairs."""
        return iter(())


def build(args: Args) -> AttackedDataset:
    """The builder behind `attacked:`; the name may be a chain, `role-play+base64`."""
    seed, tries = args.integer("seed", 0), args.integer("tries", 1)
    if not 1 <= tries <= 1000:
        raise args.fault(f"tries={tries}: from 1 to 1000")
    names = args.name.split("+")
    for name in names:
        if name not in REWRITES:
            raise args.fault(f"there is no rewrite {name!r}{did_you_mean(name, REWRITES)}")
    parts = [make_rewrite(name, seed) for name in names]
    attack = parts[0] if len(parts) == 1 else ChainedAttack(*parts)
    return AttackedDataset(
        args.required("of", "data"), attack, tries=tries, plain=args.flag("plain", True)
    )
