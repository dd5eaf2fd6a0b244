"""Language-model losses by hand and against torch."""

from __future__ import annotations

import pytest
import torch

from truing.train import losses as L


def test_token_log_probs_are_shifted_by_one() -> None:
    torch.manual_seed(0)
    logits, ids = torch.randn(2, 4, 5), torch.tensor([[1, 2, 3, 4], [0, 0, 1, 1]])
    log_probs = L.token_log_probs(logits, ids)
    assert log_probs.shape == (2, 3)
    expected = torch.log_softmax(logits[1, 0], -1)[0]  # the second token, given the first
    torch.testing.assert_close(log_probs[1, 0], expected)


def test_sft_loss_is_the_cross_entropy_of_the_labelled_tokens() -> None:
    torch.manual_seed(0)
    logits, labels = torch.randn(1, 4, 5), torch.tensor([[-100, -100, 3, 1]])
    expected = torch.nn.functional.cross_entropy(logits[0, 1:3], torch.tensor([3, 1]))
    torch.testing.assert_close(L.sft_loss(logits, labels), expected)
    torch.testing.assert_close(L.ptx_loss(logits, labels, coefficient=2.0), 2 * expected)


def test_sft_loss_without_labels_is_0() -> None:
    assert float(L.sft_loss(torch.randn(1, 3, 5), torch.full((1, 3), -100))) == 0.0


def test_half_precision_is_computed_in_single() -> None:
    logits, ids = torch.zeros(1, 2, 4, dtype=torch.bfloat16), torch.tensor([[0, 1]])
    assert L.token_log_probs(logits, ids).dtype == torch.float32


@pytest.mark.parametrize("kind", ["forward", "reverse"])
def test_distillation_is_0_at_the_teacher_and_outside_the_mask(kind: str) -> None:
    torch.manual_seed(1)
    teacher = torch.randn(2, 4, 7, dtype=torch.float64)
    mask = torch.tensor([[1, 1, 0, 0], [1, 1, 1, 1]])
    student = teacher.clone()
    student[0, 3] += torch.randn(7, dtype=torch.float64)  # outside the mask
    loss = L.distillation_loss(student, teacher, mask, kind=kind)  # type: ignore[arg-type]
    assert float(loss) == pytest.approx(0, abs=1e-12)


def test_distillation_is_the_kl_divergence() -> None:
    torch.manual_seed(1)
    teacher = torch.randn(1, 2, 7, dtype=torch.float64)
    student = torch.randn(1, 2, 7, dtype=torch.float64)
    mask = torch.tensor([[1, 0]])
    p, q = teacher[0, 0].softmax(-1), student[0, 0].softmax(-1)
    forward, reverse = (p * (p / q).log()).sum(), (q * (q / p).log()).sum()
    torch.testing.assert_close(L.distillation_loss(student, teacher, mask), forward)
    torch.testing.assert_close(L.distillation_loss(student, teacher, mask, kind="reverse"), reverse)


def test_distillation_gives_the_teacher_no_gradient() -> None:
    teacher = torch.randn(1, 2, 3, requires_grad=True)
    student = torch.randn(1, 2, 3, requires_grad=True)
    loss = L.distillation_loss(student, teacher, torch.ones(1, 2))
    assert torch.autograd.grad(loss, teacher, allow_unused=True)[0] is None


def test_bad_kind_of_distillation() -> None:
    logits = torch.zeros(1, 2, 3)
    with pytest.raises(ValueError, match="neither 'forward' nor 'reverse'"):
        L.distillation_loss(logits, logits, torch.ones(1, 2), kind="js")  # type: ignore[arg-type]
