"""DPO and KTO: input forms, values by hand, and bad input."""

from __future__ import annotations

import math

import pytest
import torch

from truing.train import losses as L


@pytest.mark.parametrize("kind", L.DPO_KINDS)
def test_rows_pairs_and_sums_give_the_same_dpo_loss(kind: str) -> None:
    torch.manual_seed(0)
    logps = -torch.rand(6, 5, dtype=torch.float64)
    ref_logps = -torch.rand(6, 5, dtype=torch.float64)
    options = {"kind": kind, "beta": 0.3, "label_smoothing": 0.1}
    of_rows = L.dpo_loss(logps, ref_logps, **options)
    of_pairs = L.dpo_loss(logps.chunk(2), ref_logps.chunk(2), **options)
    lengths = torch.full((6,), 5)
    of_sums = L.dpo_loss(logps.sum(1), ref_logps.sum(1), **options, mask=lengths)
    torch.testing.assert_close(of_rows, of_pairs)
    torch.testing.assert_close(of_rows, of_sums)


def test_dpo_at_the_reference_is_log_2_and_raises_the_chosen_answer() -> None:
    logps = torch.full((2, 3), -1.0, requires_grad=True)
    loss = L.dpo_loss(logps, logps.detach(), beta=0.5)
    assert float(loss.detach()) == pytest.approx(math.log(2))
    gradient = torch.autograd.grad(loss, logps)[0]
    assert gradient[0].tolist() == pytest.approx([-0.25] * 3)
    assert gradient[1].tolist() == pytest.approx([0.25] * 3)


def test_ipo_divides_by_the_lengths_of_the_mask() -> None:
    logps, ref_logps = torch.tensor([[-1.0, -1.0], [-4.0, 0.0]]), torch.zeros(2, 2)
    mask = torch.tensor([[1, 1], [1, 0]])
    loss = L.dpo_loss(logps, ref_logps, kind="ipo", beta=0.5, mask=mask)
    assert float(loss) == pytest.approx((-2 / 2 - -4 / 1 - 1 / (2 * 0.5)) ** 2)


def test_a_mask_with_one_more_column_is_shifted() -> None:
    logps, ref_logps = torch.tensor([[-1.0, -1.0], [-4.0, 0.0]]), torch.zeros(2, 2)
    mask = torch.tensor([[1, 1], [1, 0]])
    unshifted = torch.cat([torch.ones(2, 1, dtype=torch.long), mask], 1)
    losses = [L.dpo_loss(logps, ref_logps, kind="ipo", mask=m) for m in (mask, unshifted)]
    assert losses[0] == losses[1]


def test_direct_rewards_are_scaled_log_ratios() -> None:
    logps, ref_logps = torch.tensor([[-1.0, -2.0], [-3.0, -1.0]]), torch.full((2, 2), -2.0)
    chosen, rejected = L.direct_rewards(logps, ref_logps, beta=0.5)
    assert (chosen.tolist(), rejected.tolist()) == ([0.5], [0.0])


def test_bad_input_of_dpo() -> None:
    logps = torch.zeros(4)
    with pytest.raises(ValueError, match="none of sigmoid"):
        L.dpo_loss(logps, logps, kind="dpo")
    with pytest.raises(ValueError, match="chosen rows first"):
        L.dpo_loss(torch.zeros(3), torch.zeros(3))
    with pytest.raises(ValueError, match="length"):
        L.dpo_loss(logps, logps, kind="ipo")
    with pytest.raises(ValueError, match="label_smoothing"):
        L.dpo_loss(logps, logps, kind="exo_pair")


def test_the_reference_point_of_kto_is_not_negative_and_has_no_gradient() -> None:
    logps = torch.tensor([-1.0, -2.0], requires_grad=True)
    kl_logps = torch.tensor([-4.0, -5.0], requires_grad=True)
    ref_logps, ref_kl_logps = torch.tensor([-1.0, -2.0]), torch.tensor([-1.0, -1.0])
    labels = torch.tensor([True, False])
    loss = L.kto_loss(logps, ref_logps, labels, kl_logps, ref_kl_logps)
    assert float(loss.detach()) == pytest.approx(0.5)
    assert torch.autograd.grad(loss, kl_logps, allow_unused=True)[0] is None


def test_weights_of_kto() -> None:
    logps, labels = torch.zeros(2), torch.tensor([True, False])
    loss = L.kto_loss(logps, logps, labels, logps, logps, weights=(3.0, 1.0))
    assert float(loss) == pytest.approx((3 * 0.5 + 1 * 0.5) / 2)


def test_bad_input_of_kto() -> None:
    logps, labels = torch.zeros(2), torch.tensor([True, False])
    with pytest.raises(ValueError, match="mismatched"):
        L.kto_loss(logps, logps, labels)
    with pytest.raises(ValueError, match="neither 'kto'"):
        L.kto_loss(logps, logps, labels, kind="dpo")  # type: ignore[arg-type]


# Two pairs: log-probabilities of the tokens after the prompt, chosen rows first.
LOGPS = torch.log(
    torch.tensor([[0.5, 0.8, 1.0], [0.9, 1.0, 1.0], [0.25, 1.0, 1.0], [0.6, 0.4, 0.5]])
)
TOKENS = torch.tensor([[1, 1, 0], [1, 0, 0], [1, 0, 0], [1, 1, 1]])


def means() -> list[float]:
    """The mean log-probability of the tokens of each answer, by hand."""
    return [
        (math.log(0.5) + math.log(0.8)) / 2,
        math.log(0.9),
        math.log(0.25),
        (math.log(0.6) + math.log(0.4) + math.log(0.5)) / 3,
    ]


def test_simpo_by_hand() -> None:
    w1, w2, l1, l2 = means()
    expected = [
        -math.log(1 / (1 + math.exp(-(2.5 * (w - lose) - 0.8)))) for w, lose in ((w1, l1), (w2, l2))
    ]
    loss = L.simpo_loss(LOGPS, TOKENS, beta=2.5, margin=0.8)
    assert float(loss) == pytest.approx(sum(expected) / 2, rel=1e-6)


def test_orpo_by_hand() -> None:
    def log_odds(mean: float) -> float:
        return math.log(math.exp(mean) / (1 - math.exp(mean)))

    w1, w2, l1, l2 = means()
    expected = [
        -w + 0.3 * math.log(1 + math.exp(-(log_odds(w) - log_odds(lose))))
        for w, lose in ((w1, l1), (w2, l2))
    ]
    loss = L.orpo_loss(LOGPS, TOKENS, beta=0.3)
    assert float(loss) == pytest.approx(sum(expected) / 2, rel=1e-6)


def test_the_anchor_is_the_mean_likelihood_of_the_chosen_answers() -> None:
    w1, w2, *_ = means()
    assert float(L.chosen_nll(LOGPS, TOKENS)) == pytest.approx(-(w1 + w2) / 2, rel=1e-6)
    # A mask with the first column, as batches have it, means the same.
    unshifted = torch.cat([torch.zeros(4, 1, dtype=torch.long), TOKENS], 1)
    assert torch.equal(L.chosen_nll(LOGPS, unshifted), L.chosen_nll(LOGPS, TOKENS))


def test_certain_answers_have_a_finite_gradient() -> None:
    """Where both are certain the odds are equal: their ratio counts as 1."""
    logps = torch.zeros(2, 2, requires_grad=True)
    loss = L.orpo_loss(logps, torch.ones(2, 2), beta=0.1)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(0.1 * math.log(2))
    # Half a token's share of -log p, and beta times a half of that of the log odds.
    assert logps.grad.tolist() == [pytest.approx([-0.525] * 2), pytest.approx([0.025] * 2)]


def test_reference_free_losses_prefer_the_chosen_answer() -> None:
    for loss_of in (L.simpo_loss, L.orpo_loss):
        logps = LOGPS.clone().requires_grad_()
        gradient = torch.autograd.grad(loss_of(logps, TOKENS), logps)[0]
        assert bool((gradient[:2][TOKENS[:2].bool()] < 0).all())
        assert bool((gradient[2:][TOKENS[2:].bool()] > 0).all())
        assert gradient[~TOKENS.bool()].abs().sum() == 0
