"""A blend of two classifiers: its logits by hand, its lineage, and members that do not fit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.train.moderation.builders import make_settings, make_training_set

from truing.core.errors import PlanError, UserError
from truing.judges.moderation.inputs import ModerationInput
from truing.judges.moderation.scorer import ModerationScorer
from truing.train.moderation.blend import blend_classifiers
from truing.train.moderation.run import train_moderation


@pytest.fixture(scope="module")
def members(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two classifiers that were trained alike, but for the seed."""
    folder = tmp_path_factory.mktemp("members")
    for name, seed in (("one", 0), ("two", 1)):
        settings = make_settings(tiny_bert, folder / name, folds=3, held=1, whole=True, seed=seed)
        train_moderation(settings, [make_training_set(90)])
    return [folder / "one", folder / "two"]


def load(folder: Path) -> ModerationScorer:
    return ModerationScorer(folder, engine="torch", dtype="float32")


def test_the_logits_of_a_blend_are_the_weighed_logits_of_its_members(
    members: list[Path], tmp_path: Path
) -> None:
    out = tmp_path / "both"
    result = blend_classifiers(members, [make_training_set(90)], out)
    assert "one and two" in result.card.method and 0 < result.card.n < 90
    one, two, both = load(members[0]), load(members[1]), load(out)
    assert both.hash == result.card.judge_hash

    inputs = [ModerationInput(("tell me",), "so i bake it")]
    z_one, z_two, z_both = (scorer.logits(scorer.rows(inputs[0]))[0] for scorer in (one, two, both))
    stored: dict[str, Any] = json.loads((out / "blend.json").read_text())
    w_one, w_two = stored["weights"]
    for k in range(4):
        expected = w_one[k] * z_one[k] + w_two[k] * z_two[k] + stored["bias"][k]
        if k == 3:  # the first category also has a gate of the harmful logit
            expected += stored["gate"][0] * z_one[0]
        assert z_both[k] == pytest.approx(expected, abs=1e-4)
    # What either of them learned from the blend must never measure.
    assert both.settings.lineage.prompts == one.settings.lineage.prompts

    (out / "blend.json").write_text(json.dumps({**stored, "bias": [0.0]}))
    with pytest.raises(UserError, match="must hold 2 rows of 17 weights"):
        load(out)


def test_members_that_do_not_fit_are_refused(members: list[Path], tmp_path: Path) -> None:
    out, sources = tmp_path / "x", [make_training_set(90)]
    with pytest.raises(PlanError, match="both called one"):
        blend_classifiers([members[0], members[0]], sources, out)
    with pytest.raises(PlanError, match="other data than"):
        blend_classifiers(members, [make_training_set(60)], out)
    with pytest.raises(PlanError, match="two members, not 1"):
        blend_classifiers(members[:1], sources, out)
    with pytest.raises(PlanError, match="no training run"):
        blend_classifiers([members[0], tmp_path / "none"], sources, out)


def test_members_of_other_folds_are_refused(
    members: list[Path], trained: Path, tmp_path: Path
) -> None:
    with pytest.raises(PlanError, match="were trained with other folds, held"):
        blend_classifiers([members[0], trained], [make_training_set(90)], tmp_path / "x")
