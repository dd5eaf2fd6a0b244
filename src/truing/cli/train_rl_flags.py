"""The flags of `truing train ppo|ppo-lag|reward-shaping|rloo|grpo`, the same for all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from cyclopts import Group, Parameter

from truing.cli.parameters import MORE_OPTIONS, Common, Flag, OptionalFloats, OptionalStrings


@Parameter(name="*", group=MORE_OPTIONS)
@dataclass(frozen=True)
class RLRunFlags:
    """The run.

    Parameters
    ----------
    base
        The model to start from: smollm2, a folder in the Hugging Face layout, or a hub id.
    steps
        Rollouts, each with its gradient steps.
    prompts
        Prompts per step.
    n
        Answers to each prompt (default: 1; 4 for rloo and grpo, which compare them).
    epochs
        Passes of gradient steps over the answers of a step.
    minibatch
        Answers per gradient step; 0 takes all.
    micro
        Answers that are held in memory at a time; changes the result with --loss bnpo alone.
    max_new
        Maximum tokens of an answer.
    max_prompt
        Prompts with more tokens are left out.
    temperature
        Sampling temperature of the answers; training uses the same distribution.
    top_p
        Nucleus sampling. Below 1 the answers come from a narrower distribution than training
        assumes.
    lr
        Learning rate of the policy; 0 means 1e-4 for LoRA, 1e-5 for all weights.
    critic_lr
        Learning rate of the critics; 0 means half of the policy's.
    warmup
        Share of the steps over which the learning rates rise.
    schedule
        How the learning rates fall after the warm-up.
    clip_norm
        Maximum norm of the gradient; 0 does not clip it.
    lora
        Rank of the LoRA adapters; 0 trains all weights, in a separate copy of each model.
    base_dtype
        Type that the frozen base is held in: auto (that of --dtype), float32, bfloat16 or int8.
    checkpointing
        Recompute activations in the backward pass to save memory.
    dtype
        auto (bfloat16 if the hardware has it), float32 or bfloat16; what is trained stays in
        float32.
    device
        Device to train on: auto (CUDA, else MPS, else the CPU), cpu, cuda, cuda:N or mps.
    export_dtype
        Type of the weights in the model folder; auto is the base's.
    shard
        Shard the weights over the processes of `accelerate launch` or Ray (FSDP2).
    workers
        Ray Train workers; 0 uses this process, or those of `accelerate launch -m truing train ...`.
    generator
        What samples the answers: local, vllm (in this process), or the URL of `vllm serve`.
    seed
        Seed of the initialisation, the order of the prompts and the answers.
    save_every
        Steps between checkpoints.
    keep
        Number of checkpoints to keep.
    template
        Format of the conversations: auto (the tokenizer's chat template) or plain.
    limit
        Use only the first LIMIT prompts.
    tensorboard
        Write TensorBoard event files to OUT/tb.
    track
        Also log to an experiment tracker: wandb or trackio.
    allow_red_team
        Allow training on prompts of red-teaming dialogues.
    allow_measurement_prompts
        Train on prompts of the frozen measurement set too; the lineage then strikes later figures
        on it.
    red_model
        Train towards harm, for this reason; marks the model folder permanently.
    max_steps
        End this slice of the run after so many steps; the same command goes on.
    max_minutes
        End this slice of the run after so many minutes.
    plan_memory
        Print the predicted memory of the run; train nothing.
    """

    base: Annotated[str, Common] = "smollm2"
    steps: Annotated[int, Common] = 100
    prompts: Annotated[int, Common] = 16
    n: Annotated[int | None, Common] = None
    epochs: int = 1
    minibatch: int = 0
    micro: int = 8
    max_new: Annotated[int, Common] = 64
    max_prompt: int = 256
    temperature: float = 1.0
    top_p: float = 1.0
    lr: Annotated[float, Common] = 0.0
    critic_lr: float = 0.0
    warmup: float = 0.0
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    clip_norm: float = 1.0
    lora: Annotated[int, Common] = 16
    base_dtype: Literal["auto", "float32", "bfloat16", "int8"] = "auto"
    checkpointing: Flag = False
    dtype: str = "auto"
    device: Annotated[str, Common] = "auto"
    export_dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    shard: Flag = False
    workers: int = 0
    generator: str = "local"
    seed: Annotated[int, Common] = 0
    save_every: int = 10
    keep: int = 2
    template: Literal["auto", "plain"] = "auto"
    limit: Annotated[int | None, Common] = None
    tensorboard: bool = True
    track: Literal["none", "wandb", "trackio"] = "none"
    allow_red_team: Flag = False
    allow_measurement_prompts: Flag = False
    red_model: str | None = None
    max_steps: int | None = None
    max_minutes: float | None = None
    plan_memory: Flag = False


@Parameter(name="*", group=Group("Policy", sort_key=3))
@dataclass(frozen=True)
class PolicyFlags:
    """How the policy learns.

    Parameters
    ----------
    reward_weight
        Weights of the rewards, in the order of --reward.
    clip
        The probability ratio is clipped to 1 ± CLIP.
    clip_high
        If given, the upper limit is 1 + CLIP_HIGH (clip-higher of DAPO: 0.28).
    ratio_level
        Clip the ratio of each token, or (sequence) its mean over each answer: GSPO, with --clip
        3e-4 --clip-high 4e-4.
    importance_cap
        Where another engine or precision samples, weight tokens by their probability in training
        over that in sampling, at most this; 0 does not.
    clip_value
        Maximum change of a critic's value in a step (value clipping).
    gamma
        Discount factor.
    gae_lambda
        λ of generalised advantage estimation.
    reduction
        Average the loss over each answer first (row), or over all tokens (token).
    whiten
        Scale the advantages to mean 0 and variance 1.
    kl
        β: coefficient of the KL from the reference model.
    kl_place
        Put the KL into the reward (k1 estimator) or the loss (k3); auto is loss for grpo, else
        reward.
    kl_target
        If above 0, adapt β so that the KL of an answer stays at this value.
    kl_step_limit
        If above 0, end the passes over a rollout when the KL per token from the sampling policy
        exceeds this value.
    kl_limit
        If above 0, end the run when the KL of an answer from the reference exceeds this value.
    clip_reward
        Rewards are clipped to ± this value.
    normalise_reward
        Statistics by which rewards are normalised: none, running, or ema (moving averages).
    normalise_cost
        Statistics by which costs are scaled; the threshold stays in the unit of the cost.
    empty_answer_score
        Reward of an empty answer: a number, lowest (the lowest reward of the run so far), or
        unscored. Its cost is the mean of the step's other answers.
    special_token_score
        Reward of an answer with special tokens in it: a number, lowest, judged (as it stands), or
        hidden (judged without them). Its cost is judged.
    truncation_penalty
        Subtracted from the reward of an answer that was cut off: a number, or auto (one standard
        deviation of the step's rewards).
    overlong_buffer
        If above 0, the penalty for cut answers rises over this many tokens before --max-new.
    mask_truncated
        Leave answers that were cut off out of the gradient.
    cut_answers
        Reward and cost models read a cut answer as it stands (open) or with an end token appended
        (closed).
    max_unscored
        The run stops if a larger share of a step's answers could not be scored; 1 never stops it.
    scale
        Divide group advantages by the standard deviation of the group, of the batch, or not at all.
    loss
        How grpo averages its loss: per answer (grpo), over the tokens of a micro-batch (bnpo) or of
        the step (dapo), or by --max-new (dr_grpo).
    dynamic_sampling
        Redraw groups whose answers all score alike from other prompts, up to this many times.
    ptx
        Weight of the language-model loss on --ptx-data.
    ptx_data
        Specs of data sets with answers to imitate during the training.
    """

    reward_weight: OptionalFloats = None
    clip: float = 0.2
    clip_high: float | None = None
    ratio_level: Literal["token", "sequence"] = "token"
    importance_cap: float = 2.0
    clip_value: float | None = 5.0
    gamma: float = 1.0
    gae_lambda: float = 0.95
    reduction: Literal["row", "token"] = "row"
    whiten: Flag = False
    kl: float = 0.02
    kl_place: Literal["auto", "reward", "loss"] = "auto"
    kl_target: float = 0.0
    kl_step_limit: float = 0.0
    kl_limit: float = 0.0
    clip_reward: float | None = None
    normalise_reward: Literal["none", "running", "ema"] = "none"
    normalise_cost: Literal["none", "running", "ema"] = "none"
    empty_answer_score: float | Literal["lowest", "unscored"] = "lowest"
    special_token_score: float | Literal["lowest", "judged", "hidden"] = "lowest"
    truncation_penalty: float | Literal["auto"] = "auto"
    overlong_buffer: int = 0
    mask_truncated: Flag = False
    cut_answers: Literal["open", "closed"] = "open"
    max_unscored: float = 0.2
    scale: Literal["group", "batch", "none", "auto"] = "auto"
    loss: Literal["grpo", "bnpo", "dr_grpo", "dapo", "auto"] = "auto"
    dynamic_sampling: int = 0
    ptx: float = 0.0
    ptx_data: OptionalStrings = None


@Parameter(name="*", group=Group("Constraint", sort_key=4))
@dataclass(frozen=True)
class ConstraintFlags:
    """The constraint on the cost.

    Parameters
    ----------
    cost
        Specs of judges whose value, probability or verdict is the cost.
    cost_weight
        Weights of the costs, in the order of --cost.
    threshold
        Limit of the cost, which the Lagrange multiplier λ enforces.
    cost_limit
        A further constraint with its own multiplier: NAME,cost=(SPEC),threshold=T, then optional
        kind=mean|cvar, tail, category, expect, rate, window, lambda_init, lambda_lr, lambda_max and
        lambda_min. cost=(length) is the number of tokens.
    constraint
        Constrain the mean cost, or the mean over the worst --tail of the answers (cvar).
    tail
        Share of the worst answers for cvar.
    lambda_init
        Initial value of the Lagrange multiplier.
    lambda_control
        How the Lagrange multiplier follows the cost: PID control once a rollout, or gradient ascent
        at each gradient step (as Safe RLHF).
    lambda_lr
        Speed of the control: the gains of pid are proportional to it; gradient's learning rate.
    lambda_max
        Upper bound of the Lagrange multiplier.
    lambda_min
        Lower bound of the Lagrange multiplier.
    window
        Number of recent answers whose cost is compared with the threshold.
    delay
        Gradient steps before the Lagrange multiplier is first updated.
    surrogate
        Combine the advantages of reward and cost and clip the result, or clip each separately.
    nu
        ν: fixed price of the cost in reward-shaping.
    """

    cost: OptionalStrings = None
    cost_weight: OptionalFloats = None
    cost_limit: OptionalStrings = None
    threshold: float = 0.0
    constraint: Literal["mean", "cvar"] = "mean"
    tail: float = 0.1
    lambda_init: float = 1.0
    lambda_control: Literal["pid", "gradient"] = "pid"
    lambda_lr: float = 0.1
    lambda_max: float | None = 5.0
    lambda_min: float | None = None
    window: int = 128
    delay: int = 0
    surrogate: Literal["combined", "separate"] = "combined"
    nu: float = 1.0


@Parameter(name="*", group=Group("Evaluation during the training", sort_key=5))
@dataclass(frozen=True)
class SampleFlags:
    """Evaluation during the training.

    Parameters
    ----------
    sample_every
        Steps between evaluations; each becomes a run folder under OUT/samples. 0: none.
    sample_data
        Spec of the data set that the policy answers.
    sample_judge
        Spec of the judge that measures the answers; it must have no part in the training.
    sample_limit
        Rows of the data set.
    """

    sample_every: int = 0
    sample_data: str = "builtin:safety"
    sample_judge: str = "moderation:default"
    sample_limit: int = 64
