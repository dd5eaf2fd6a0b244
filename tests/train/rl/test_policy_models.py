"""Models that share a backbone: every role learns, and the copy that draws answers is the actor."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")

from truing.distributed.process_group import Pace, World  # noqa: E402
from truing.hf.loading import make_lm_head_contiguous  # noqa: E402
from truing.train.rl.policy_models import ACTOR, CRITICS, WRITER, SharedCrew  # noqa: E402

IDS = torch.tensor([[4, 5, 6, 7], [5, 4, 4, 6]])


def moved(before: dict[str, Any], after: dict[str, Any]) -> set[str]:
    return {k for k in before if not torch.equal(before[k], after[k])}


def test_every_adapter_and_head_learns(trainer: Any, task: Any) -> None:
    """Adapters that are off ask for no gradient: an optimiser that is made then would leave the critics' out."""
    crew = SharedCrew(task.model(0), task.tokenizer(), CRITICS["ppo-lag"], rank=4)
    run = trainer("ppo-lag", crew=crew, lora=4, steps=2, kl=0.1)
    names = (ACTOR, *crew.critics)
    before = {n: {k: v.clone() for k, v in crew.state(n).items()} for n in names}
    frozen = {k: p.detach().clone() for k, p in crew.peft.named_parameters() if ".lora_" not in k}
    run.run()
    for name in names:
        after = crew.state(name)
        assert {k for k in after if "lora_B" in k or "head" in k} <= moved(before[name], after), (
            name
        )
        assert all(p.grad is None for _, p in crew.named(name)), (
            name
        )  # none is left over for the next step
    assert not moved(frozen, {k: p for k, p in crew.peft.named_parameters() if k in frozen})


@pytest.mark.parametrize("half", [torch.float32, None])
def test_the_copy_that_draws_is_the_actor(task: Any, half: Any) -> None:
    crew = SharedCrew(task.model(0), task.tokenizer(), rank=4, half=half)
    with torch.no_grad():
        for k, p in crew.named(ACTOR):
            p.normal_(0, 0.3, generator=torch.Generator().manual_seed(len(k)))
    with crew.role(WRITER) as writer, torch.no_grad():
        drawn = writer(input_ids=IDS).logits.clone()
        assert any("lora" in k for k, _ in writer.named_parameters()) == (
            half is None
        )  # without it: the actor itself
    with torch.no_grad():
        crew.peft.set_adapter(ACTOR)
        torch.testing.assert_close(
            drawn, crew.peft.get_base_model()(input_ids=IDS).logits, rtol=1e-4, atol=1e-4
        )
        for _, p in crew.named(ACTOR):
            p.zero_()
    with crew.role(WRITER) as writer, crew.peft.disable_adapter(), torch.no_grad():
        torch.testing.assert_close(
            writer(input_ids=IDS).logits,
            crew.peft.get_base_model()(input_ids=IDS).logits,
            rtol=1e-4,
            atol=1e-4,
        )


def test_the_head_reads_its_rows_in_one_piece(task: Any) -> None:
    model = task.model(0)
    seen: list[bool] = []
    whole = model(input_ids=IDS).logits[:, -2:]
    make_lm_head_contiguous(model)
    make_lm_head_contiguous(model)  # once is enough
    model.get_output_embeddings().register_forward_pre_hook(
        lambda _, args: seen.append(args[0].is_contiguous())
    )
    torch.testing.assert_close(model(input_ids=IDS, logits_to_keep=2).logits, whole)
    assert seen == [True] and len(model.get_output_embeddings()._forward_pre_hooks) == 2


def test_pace_alone_is_the_items_themselves() -> None:
    assert list(Pace().each([1, 2])) == [1, 2]

    class Three(World):
        """A process whose neighbour makes three passes."""

        def __init__(self) -> None:
            super().__init__()
            self.left = 3

        def sum(self, values: Any) -> Any:
            self.left -= 1
            return values + float(self.left >= 0)

    assert list(Pace(Three()).each([1])) == [1, None, None]


def test_weights_in_pieces_need_prompts_that_divide(
    trainer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from truing.core.errors import PlanError

    monkeypatch.setattr(World, "__init__", lambda self: self.__dict__.update(rank=0, size=3))
    with pytest.raises(PlanError, match=r"shard: prompts = 4 does not divide among 3 processes"):
        trainer("grpo", shard=True)
