"""What no parity case covers: hand-computed values, invariances, and the errors of each loss."""

from __future__ import annotations

import math

import pytest

torch = pytest.importorskip("torch")

from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from truing.train import losses as L  # noqa: E402


def logistic(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def test_reward_loss_by_hand() -> None:
    pairs = L.PairScores(torch.tensor([2.0, -1.0]), torch.tensor([0.5, 1.0]))
    want = -(math.log(logistic(1.5)) + math.log(logistic(-2.0))) / 2
    assert float(L.reward_loss(pairs)) == pytest.approx(want, rel=1e-6)
    squares = (4 + 0.25 + 1 + 1) / 4
    assert float(L.reward_loss(pairs, regularization=0.1)) == pytest.approx(
        want + 0.1 * squares, rel=1e-6
    )
    centred = (2.5**2 + 0) / 2
    assert float(L.reward_loss(pairs, center=0.1)) == pytest.approx(want + 0.1 * centred, rel=1e-6)
    margin = -(math.log(logistic(0.5)) + math.log(logistic(-2.5))) / 2
    assert float(L.reward_loss(pairs, margin=torch.tensor([1.0, 0.5]))) == pytest.approx(
        margin, rel=1e-6
    )


def test_the_two_masked_means_differ_with_unequal_rows() -> None:
    x, mask = torch.tensor([[1.0, 3.0], [5.0, 9.0]]), torch.tensor([[1, 1], [1, 0]])
    assert float(L.masked_mean(x, mask)) == pytest.approx((2 + 5) / 2)
    assert float(L.masked_mean(x, mask, "token")) == pytest.approx(3)
    with pytest.raises(ValueError, match="neither 'row' nor 'token'"):
        L.masked_mean(x, mask, "batch")  # type: ignore[arg-type]


def test_nan_behind_the_mask_does_not_leak() -> None:
    x = torch.tensor([[1.0, float("nan")]], requires_grad=True)
    loss = L.masked_mean(x, torch.tensor([[1, 0]]))
    assert float(loss.detach()) == 1.0
    assert torch.autograd.grad(loss, x)[0].tolist() == [[1.0, 0.0]]


def test_end_index_with_padding_on_either_side() -> None:
    assert L.end_index(torch.tensor([[0, 0, 1, 1], [1, 1, 0, 0], [1, 1, 1, 1]])).tolist() == [
        3,
        1,
        3,
    ]


def test_equal_pairs_are_refused() -> None:
    same = torch.tensor([[1, 2], [1, 3]])
    with pytest.raises(ValueError, match=r"equal \(rows \[0\]"):
        L.first_difference(same, torch.tensor([[1, 2], [1, 4]]))


def test_bad_input_of_pairs() -> None:
    pairs = L.PairScores(torch.zeros(2, 3), torch.zeros(2, 3))
    with pytest.raises(ValueError, match="need their mask"):
        L.reward_loss(pairs)
    with pytest.raises(ValueError, match="chosen_ids"):
        L.reward_loss(pairs, level="token")
    flat = L.PairScores(torch.zeros(2), torch.zeros(2))
    with pytest.raises(ValueError, match="neither 'sequence' nor 'token'"):
        L.cost_loss(flat, torch.ones(2, 2), level="word")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="every sign"):
        L.cost_loss(flat, torch.zeros(2, 2))
    with pytest.raises(ValueError, match="expected"):
        L.cost_loss(flat, torch.ones(2))


def test_cost_above_zero_means_unsafe() -> None:
    signs = torch.tensor([[1, -1]])
    right = L.cost_loss(L.PairScores(torch.tensor([-3.0]), torch.tensor([3.0])), signs)
    wrong = L.cost_loss(L.PairScores(torch.tensor([3.0]), torch.tensor([-3.0])), signs)
    assert float(right) < 0.11 < 10 < float(wrong)


@pytest.mark.parametrize("kind", L.DPO_KINDS)
def test_dpo_takes_rows_halves_and_sums(kind: str) -> None:
    torch.manual_seed(0)
    logps, ref = -torch.rand(6, 5, dtype=torch.float64), -torch.rand(6, 5, dtype=torch.float64)
    options = {"kind": kind, "beta": 0.3, "label_smoothing": 0.1}
    whole = L.dpo_loss(logps, ref, **options)
    halves = L.dpo_loss(logps.chunk(2), ref.chunk(2), **options)
    sums = L.dpo_loss(logps.sum(1), ref.sum(1), **options, mask=torch.full((6,), 5))
    torch.testing.assert_close(whole, halves)
    torch.testing.assert_close(whole, sums)


def test_dpo_bad_input() -> None:
    x = torch.zeros(4)
    with pytest.raises(ValueError, match="none of sigmoid"):
        L.dpo_loss(x, x, kind="dpo")
    with pytest.raises(ValueError, match="chosen rows first"):
        L.dpo_loss(torch.zeros(3), torch.zeros(3))
    with pytest.raises(ValueError, match="length"):
        L.dpo_loss(x, x, kind="ipo")
    with pytest.raises(ValueError, match="label_smoothing"):
        L.dpo_loss(x, x, kind="exo_pair")


def test_dpo_at_the_reference_is_log_2_and_raises_the_chosen() -> None:
    logps = torch.full((2, 3), -1.0, requires_grad=True)
    loss = L.dpo_loss(logps, logps.detach(), beta=0.5)
    assert float(loss.detach()) == pytest.approx(math.log(2))
    gradient = torch.autograd.grad(loss, logps)[0]
    assert gradient[0].tolist() == pytest.approx([-0.25] * 3)
    assert gradient[1].tolist() == pytest.approx([0.25] * 3)


def test_kto_reference_point_is_never_negative_and_has_no_gradient() -> None:
    kl = torch.tensor([-4.0, -5.0], requires_grad=True)
    logps = torch.tensor([-1.0, -2.0], requires_grad=True)
    loss = L.kto_loss(
        logps,
        torch.tensor([-1.0, -2.0]),
        torch.tensor([True, False]),
        kl,
        torch.tensor([-1.0, -1.0]),
    )
    assert float(loss.detach()) == pytest.approx(0.5)
    assert torch.autograd.grad(loss, kl, allow_unused=True)[0] is None
    with pytest.raises(ValueError, match="mismatched"):
        L.kto_loss(logps, logps, torch.tensor([True, False]))


def test_distillation_is_zero_at_the_teacher_and_masked() -> None:
    torch.manual_seed(1)
    teacher = torch.randn(2, 4, 7, dtype=torch.float64)
    mask = torch.tensor([[1, 1, 0, 0], [1, 1, 1, 1]])
    for kind in ("forward", "reverse"):
        assert float(L.distillation_loss(teacher, teacher, mask, kind=kind)) == pytest.approx(
            0, abs=1e-12
        )
    student = teacher.clone()
    student[0, 3] += torch.randn(7, dtype=torch.float64)  # behind the mask
    assert float(L.distillation_loss(student, teacher, mask)) == pytest.approx(0, abs=1e-12)
    student[1, 0, 2] += 1
    p, q = teacher[1, 0].softmax(-1), student[1, 0].softmax(-1)
    want = float((p * (p / q).log()).sum()) / 4 / 2
    assert float(L.distillation_loss(student, teacher, mask)) == pytest.approx(want, rel=1e-9)


def test_distillation_gives_the_teacher_no_gradient() -> None:
    teacher = torch.randn(1, 2, 3, requires_grad=True)
    student = torch.randn(1, 2, 3, requires_grad=True)
    loss = L.distillation_loss(student, teacher, torch.ones(1, 2))
    assert torch.autograd.grad(loss, teacher, allow_unused=True)[0] is None


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(-4, 4), min_size=1, max_size=8))
def test_k3_is_never_negative_and_agrees_with_k1_in_the_mean(xs: list[float]) -> None:
    x = torch.tensor(xs, dtype=torch.float64)
    assert bool((L.kl_estimate(x, "k3") >= -1e-12).all())
    torch.testing.assert_close(L.kl_estimate(x, "k2"), x * x / 2)


def test_kl_estimates_are_unbiased_on_a_known_distribution() -> None:
    p = torch.tensor([0.7, 0.2, 0.1], dtype=torch.float64)
    q = torch.tensor([0.3, 0.3, 0.4], dtype=torch.float64)
    exact = float((p * (p / q).log()).sum())
    ratio = (p / q).log()
    for kind in ("k1", "k3"):
        assert float((p * L.kl_estimate(ratio, kind)).sum()) == pytest.approx(exact, rel=1e-12)
    with pytest.raises(ValueError, match="none of k1"):
        L.kl_estimate(ratio, "k4")  # type: ignore[arg-type]


def test_gae_with_lambda_one_is_the_return_minus_the_value() -> None:
    values, rewards = torch.tensor([[0.5, 0.2, 0.1]]), torch.tensor([[1.0, 2.0, 3.0]])
    advantages, returns = L.gae(values, rewards, torch.ones(1, 3), 0, gamma=1.0, lam=1.0)
    assert returns.tolist()[0] == pytest.approx([6.0, 5.0, 3.0])
    assert advantages.tolist()[0] == pytest.approx([5.5, 4.8, 2.9])
    with pytest.raises(ValueError, match="behind the last"):
        L.gae(values, rewards, torch.ones(1, 3), 3)


def test_the_two_surrogates_agree_while_nothing_is_clipped() -> None:
    torch.manual_seed(2)
    old = -torch.rand(2, 4)
    now, mask = old + 0.01 * torch.randn(2, 4), torch.ones(2, 4)
    a_r, a_c = torch.randn(2, 4), torch.randn(2, 4)
    together = L.ppo_actor_loss(now, old, L.combined_advantage(a_r, a_c, 2.0), mask)
    for side in ("min", "max"):
        apart = L.separate_actor_loss(now, old, (a_r, a_c), 2.0, mask, cost_side=side)
        torch.testing.assert_close(together, apart)


def test_multiplier_rises_falls_and_keeps_its_bounds() -> None:
    m = L.LagrangeMultiplier(1.0, 0.5, 0.0, maximum=2.0, minimum=0.5, window=2)
    assert m.step() == 1.0  # nothing observed yet
    m.observe(torch.tensor([4.0, 4.0]))
    assert [m.step(), m.at_bound] == [pytest.approx(2.0), True]
    m.observe([-9.0, -9.0])
    assert m.episode_cost == -9.0
    m.step()
    assert m.value == pytest.approx(0.5)
    with pytest.raises(ValueError, match="not finite"):
        m.observe([float("nan")])
    with pytest.raises(ValueError, match="above 0"):
        L.LagrangeMultiplier(0.0)
    with pytest.raises(ValueError, match="window"):
        L.LagrangeMultiplier(1.0, window=0)


def test_normalizer_refuses_nan_and_survives_a_batch_of_one() -> None:
    n = L.ScoreNormalizer()
    n.update(torch.tensor([3.0]))
    assert (float(n.mean), float(n.var), n.count.tolist()) == (3.0, 0.0, [1])
    with pytest.raises(ValueError, match="not finite"):
        n.update(torch.tensor([float("inf")]))
    again = L.ScoreNormalizer()
    again.load_state_dict(n.state_dict())
    assert float(again(torch.tensor([3.0]))) == 0.0
    with pytest.raises(ValueError, match="did you mean"):
        L.ScoreNormalizer("RunningMean")
    with pytest.raises(ValueError, match="momentum"):
        L.ScoreNormalizer("ema", momentum=None)


def test_group_advantages_by_hand() -> None:
    r = torch.tensor([1.0, 3.0, 0.0, 0.0])
    assert L.group_advantages(r, None, 2, scale="none").tolist() == [-1.0, 1.0, 0.0, 0.0]
    assert L.group_advantages(r, None, 2, kind="rloo").tolist() == [-2.0, 2.0, 0.0, 0.0]
    std = math.sqrt(2.0)
    assert L.group_advantages(r, None, 2).tolist() == pytest.approx(
        [-1 / (std + 1e-4), 1 / (std + 1e-4), 0, 0]
    )
    some = torch.tensor([[1.0, float("nan")], [3.0, 2.0]])
    assert L.group_advantages(some, torch.tensor([1.0, 0.5]), 2, scale="none").tolist() == [
        -1.5,
        1.5,
    ]
    assert L.group_advantages(torch.tensor([5.0]), None, 1).tolist() == [0.0]
    for bad in (
        {"n": 3},
        {"n": 2, "kind": "ppo"},
        {"n": 2, "scale": "row"},
        {"n": 1, "kind": "rloo"},
    ):
        with pytest.raises(ValueError):
            L.group_advantages(r, None, **bad)


def test_grpo_on_policy_has_the_gradient_of_the_advantage() -> None:
    logps = torch.full((2, 2), -1.0, requires_grad=True)
    loss = L.grpo_loss(logps, None, None, torch.tensor([1.0, -1.0]), torch.tensor([[1, 1], [1, 0]]))
    assert float(loss.detach()) == pytest.approx(0.0)
    assert torch.autograd.grad(loss, logps)[0].tolist() == [[-0.25, -0.25], [0.5, 0.0]]
    with pytest.raises(ValueError, match="ref_log_probs"):
        L.grpo_loss(logps, None, None, torch.ones(2), torch.ones(2, 2), beta=0.1)
    with pytest.raises(ValueError, match="none of grpo"):
        L.grpo_loss(logps, None, None, torch.ones(2), torch.ones(2, 2), kind="ppo")
    with pytest.raises(TypeError, match="epsilom"):
        L.grpo_loss(logps, None, None, torch.ones(2), torch.ones(2, 2), epsilom=0.1)  # type: ignore[call-arg]


def test_whiten() -> None:
    white = L.whiten(torch.tensor([[1.0, 3.0, 99.0]]), torch.tensor([[1, 1, 0]]))
    assert white.tolist()[0] == pytest.approx([-1 / math.sqrt(2), 1 / math.sqrt(2), 0.0], abs=1e-6)
