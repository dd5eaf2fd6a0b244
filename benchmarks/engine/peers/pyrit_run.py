"""PyRIT on the same prompts, with a substring scorer and SQLite (or `--memory InMemory`)."""

from __future__ import annotations

import asyncio
import logging
import os

from arguments import parse_arguments, read_prompts
from pyrit.executor.attack import AttackExecutor, AttackScoringConfig, PromptSendingAttack
from pyrit.prompt_target import OpenAIChatTarget
from pyrit.score import SubStringScorer
from pyrit.setup import initialize_pyrit_async

arguments = parse_arguments(("--memory", {"default": "SQLite", "choices": ("SQLite", "InMemory")}))
logging.disable(logging.WARNING)


async def main() -> None:
    """Sends all prompts."""
    options = (
        {"db_path": os.path.join(arguments.out, "pyrit.db")} if arguments.memory == "SQLite" else {}
    )
    await initialize_pyrit_async(
        arguments.memory, load_defaults=False, silent=True, env_files=[], **options
    )
    target = OpenAIChatTarget(endpoint=arguments.base_url, api_key="none", model_name="mock")
    scorer = SubStringScorer(substring="overview of the topic", categories=["bench"])
    attack = PromptSendingAttack(
        objective_target=target, attack_scoring_config=AttackScoringConfig(objective_scorer=scorer)
    )
    texts = [row["prompt"] for row in read_prompts(arguments)]
    result = await AttackExecutor(max_concurrency=arguments.concurrency).execute_attack_async(
        attack=attack, objectives=texts, return_partial_on_failure=True
    )
    assert len(result.completed_results) == len(texts), result.exceptions[:1]


asyncio.run(main())
