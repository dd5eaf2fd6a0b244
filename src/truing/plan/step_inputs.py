"""The inputs of a training step: specs of data sets and of judges, and which rows are used.

`truing train` makes its flags of these fields, and plans their keys.
"""

from __future__ import annotations

from msgspec import Struct


class DataInputs(Struct, frozen=True, kw_only=True):
    """What every kind of step reads: specs of data sets, and which of their rows may be used.

    Attributes:
        data: Specs of data sets.
        limit: Use only the first LIMIT rows (for RL: prompts) of the data.
        allow_red_team: Allow training on red-teaming dialogues.
        allow_measurement_prompts: Train on prompts of the frozen measurement set too; the lineage
            then strikes later figures on it.
    """

    data: tuple[str, ...] = ()
    limit: int | None = None
    allow_red_team: bool = False
    allow_measurement_prompts: bool = False


class ProbeInputs(DataInputs, frozen=True, kw_only=True):
    """The inputs of `truing train probe`.

    Attributes:
        by: Judges whose verdicts are labels where no rater says anything, by the names that they
            have in the data. Default: labels of raters alone.
        limit: Use only the first LIMIT labelled answers of each data set.
    """

    by: tuple[str, ...] = ()


class SupervisedInputs(DataInputs, frozen=True, kw_only=True):
    """The inputs of a supervised step.

    Attributes:
        weight: Weights of the data sets, in the order of --data: how often their rows are drawn.
        chosen: Use the preferred answers of sets of pairs as targets (without it such sets are
            refused).
        test: Sets of pairs to measure the model on; it is never trained on them.
    """

    weight: tuple[float, ...] = ()
    chosen: bool = False
    test: tuple[str, ...] = ()


class SampledInputs(DataInputs, frozen=True, kw_only=True):
    """The inputs of a step on sampled answers (distil, best-of-sft, iterative-dpo).

    `prompt` is the prompt of the teacher (distil). `by` is the judge that chooses the best of `n`
    answers (best-of-sft) or orders them (iterative-dpo); an `n` of 0 is the default of the kind.
    `ceiling` is a second judge whose score of the chosen answer must stay below `below`. `gap` is
    the least difference in score of the two answers of a pair. Each of `rounds` of sampling and
    training starts from the model of the round before. `temperature` is that of sampling.
    """

    prompt: str = "hhh"
    n: int = 0
    max_tokens: int = 64
    temperature: float = 1.0
    by: str = ""
    ceiling: str | None = None
    below: float | None = None
    gap: float = 0.0
    rounds: int = 1


class RLInputs(DataInputs, frozen=True, kw_only=True):
    """The inputs of an RL step: specs of data sets and of the judges that give reward and cost.

    Attributes:
        reward: Specs of judges whose value, probability or verdict is to be raised.
        reward_weight: Weights of the rewards, in the order of --reward.
        cost: Specs of judges whose value, probability or verdict is the cost.
        cost_weight: Weights of the costs, in the order of --cost.
        cost_limit: A further constraint with its own multiplier: NAME,cost=(SPEC),threshold=T, then
            optional kind=mean|cvar, tail, category, expect, rate, window, lambda_init, lambda_lr,
            lambda_max and lambda_min. cost=(length) is the number of tokens.
        ptx_data: Specs of data sets with answers to imitate during the training.
        generator: What samples the answers: local, vllm (in this process; with
            vllm,tensor_parallel=N in N processes together), or the URL of `vllm serve`.
        sample_data: Spec of the data set that the policy answers.
        sample_judge: Spec of the judge that measures the answers; it must have no part in the
            training.
        sample_limit: Rows of the data set.
    """

    reward: tuple[str, ...] = ()
    reward_weight: tuple[float, ...] = ()
    cost: tuple[str, ...] = ()
    cost_weight: tuple[float, ...] = ()
    cost_limit: tuple[str, ...] = ()
    ptx_data: tuple[str, ...] = ()
    generator: str = "local"
    sample_data: str = "builtin:safety"
    sample_judge: str = "moderation:default"
    sample_limit: int = 64
