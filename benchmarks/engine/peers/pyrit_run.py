"""PyRIT on the same work: prompt sending, a substring scorer, its SQLite memory (or `--memory InMemory`)."""

from __future__ import annotations

import asyncio
import logging
import os

from arguments import arguments, prompts
from pyrit.executor.attack import AttackExecutor, AttackScoringConfig, PromptSendingAttack
from pyrit.prompt_target import OpenAIChatTarget
from pyrit.score import SubStringScorer
from pyrit.setup import initialize_pyrit_async

a = arguments(("--memory", {"default": "SQLite", "choices": ("SQLite", "InMemory")}))
logging.disable(logging.WARNING)


async def main() -> None:
    """Sends everything."""
    where = {"db_path": os.path.join(a.out, "pyrit.db")} if a.memory == "SQLite" else {}
    await initialize_pyrit_async(a.memory, load_defaults=False, silent=True, env_files=[], **where)
    target = OpenAIChatTarget(endpoint=a.base_url, api_key="none", model_name="mock")
    scorer = SubStringScorer(substring="overview of the topic", categories=["bench"])
    attack = PromptSendingAttack(
        objective_target=target, attack_scoring_config=AttackScoringConfig(objective_scorer=scorer)
    )
    texts = [row["prompt"] for row in prompts(a)]
    made = await AttackExecutor(max_concurrency=a.concurrency).execute_attack_async(
        attack=attack, objectives=texts, return_partial_on_failure=True
    )
    assert len(made.completed_results) == len(texts), made.exceptions[:1]


asyncio.run(main())
