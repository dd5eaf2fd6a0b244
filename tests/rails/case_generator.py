"""Random rails configurations with conversations, for tests against NeMo Guardrails.

`generate_case(seed)` returns a case in the form of the conformance folder (files, actions, turns),
except that its LLM answers by task: `llm` maps a task to its answers in order. The same seed gives
the same case. What NeMo 0.24.1 refuses or only answers by accident (see `QUIRKS`) is left out.
"""

from __future__ import annotations

import json
from typing import Any

from colang_writer import ACTIONS, NUMBERS, SUBFLOWS, UNDEFINED, WORDS, ColangWriter, indent

QUIRKS = """
`bot "text"` without a name; `create event` as the first step; modifiers before a nameless flow;
several matching `when` branches; `user a or user b`; markdown links in messages;
a quoted line followed by a comment; methods that change their object; an `else` after `when`;
context, events, options or exceptions with passthrough;
the same name in two files (NeMo reads files in the order of the disk);
`user a as $v`, quoted parameters of `do`, indented parameters, `if` in `define bot`.
"""


def build_settings(writer: ColangWriter, has_dialog: bool) -> tuple[dict[str, Any], list[str]]:
    """Returns the configuration as data, and the Colang lines of its rails."""
    config: dict[str, Any] = {"models": []}
    lines: list[str] = []
    rails: dict[str, Any] = {}
    prompts: list[dict[str, str]] = []
    if writer.chance(0.2):
        engine = writer.pick(["gpt-3.5-turbo-instruct", "gpt-4o", "mock"])
        config["models"] = [{"type": "main", "engine": "openai", "model": engine}]
    for stage, probability in (("input", 0.45), ("output", 0.4), ("retrieval", 0.15)):
        names: list[str] = []
        if writer.chance(probability):
            for index in range(writer.random.randint(1, 2)):
                names.append(f"{stage} rail {index}")
                lines += writer.write_rail(names[-1], stage)
        if stage != "retrieval" and writer.chance(0.25):
            names.insert(writer.random.randint(0, len(names)), f"self check {stage}")
            prompts.append({"task": f"self_check_{stage}", "content": f"CHECK {stage}"})
        if names:
            rails[stage] = {"flows": names}
    mode = writer.random.random()
    if has_dialog and mode < 0.1:
        rails["dialog"] = {"single_call": {"enabled": True}}
    elif has_dialog and mode < 0.2:
        embedded: dict[str, Any] = {"embeddings_only": True}
        if writer.chance(0.8):
            embedded["embeddings_only_similarity_threshold"] = 0.6
            embedded["embeddings_only_fallback_intent"] = writer.pick(writer.intents)
        rails["dialog"] = {"user_messages": embedded}
    elif has_dialog and mode < 0.25:
        config["enable_multi_step_generation"] = True
    elif mode < 0.3 and not rails.get("dialog"):
        config["passthrough"] = True
    if writer.chance(0.15) and not config.get("passthrough"):
        config["enable_rails_exceptions"] = True
    if rails:
        config["rails"] = rails
    if prompts:
        config["prompts"] = prompts
    return config, lines


def build_llm_answers(writer: ColangWriter, count: int) -> dict[str, list[str]]:
    """Returns `count` answers for each task, in several of the forms that an LLM writes."""
    quote = ['  "{}"', '"{}"', "{}", '  "{}\nmore"', '  "{}" ']
    intent = ["  {}", "{}", "user {}", "User intent: {}", "  {}\nbot say hello"]
    step = ["bot {}", "bot {}", "bot {}, and so on", 'bot {} "text"', "{}", "Bot intent: {}"]
    chosen = [
        writer.pick(writer.intents) if writer.chance(0.93) else "ask something new"
        for _ in range(count)
    ]
    bots = [writer.pick(writer.bots + UNDEFINED) for _ in range(count)]
    multi = ["bot {}\nbot {}", "bot {}", "bot {}\nif $n\n  bot {}", "bot {}\n$n = 4\nbot {}"]
    return {
        "intent": [writer.pick(intent).format(name) for name in chosen],
        "next": [writer.pick(step).format(bot) for bot in bots],
        "multi": [writer.pick(multi).format(bot, writer.pick(writer.bots)) for bot in bots],
        "message": [writer.pick(quote).format(f"Message {number}") for number in range(count)],
        "general": [
            writer.pick(["Answer {}.", '"Answer {}."', " Answer {} "]).format(number)
            for number in range(count)
        ],
        "value": [
            writer.pick(['"Ann"', "'Ben'", "Cy", '"D"; ', "7", "it's"]) for _ in range(count)
        ],
        "check": [
            writer.pick(["No", "No", "No", "no.", "Yes", "yes, bad", "maybe", "unsafe", "safe"])
            for _ in range(count)
        ],
        "single": [
            f'  {name}\nbot {bot}\n  "Single {number}"'
            for number, (name, bot) in enumerate(zip(chosen, bots, strict=True))
        ],
    }


def build_turns(writer: ColangWriter, config: dict[str, Any]) -> list[dict[str, Any]]:
    """Returns the turns of the user: messages or events, with options, context or streaming."""
    turns: list[dict[str, Any]] = []
    has_output_rails = bool(config.get("rails", {}).get("output"))
    # With passthrough, NeMo hands the roles context, event and exception on to the LLM.
    is_plain = not config.get("passthrough")
    for _ in range(writer.random.randint(1, 7)):
        words = [
            writer.pick(writer.intents),
            writer.pick(["please", "now", ""]),
            writer.pick([*WORDS, ""]),
        ]
        turn: dict[str, Any] = {"user": " ".join(words).strip()}
        if writer.chance(0.08) and is_plain:
            turn = {
                "event": {
                    "type": writer.pick(["UserSilent", "Timer", "Other"]),
                    "name": writer.pick(["a", "b"]),
                }
            }
        elif writer.chance(0.08) and is_plain:
            turn["options"] = {
                "rails": writer.pick(
                    [
                        ["input"],
                        ["dialog"],
                        ["input", "output"],
                        ["dialog", "output"],
                        ["input", "dialog", "output", "retrieval"],
                    ]
                )
            }
        elif writer.chance(0.04) and has_output_rails and is_plain:
            turn.update(assistant=f"reply {writer.pick(WORDS)}", options={"rails": ["output"]})
        elif writer.chance(0.06) and not has_output_rails:
            turn["stream"] = True
        if writer.chance(0.1) and "event" not in turn and is_plain:
            turn["context"] = {writer.pick(NUMBERS): writer.random.randrange(5)}
        turns.append(turn)
    return turns


def generate_case(seed: int) -> dict[str, Any]:
    """Returns one configuration and conversation, as a conformance case."""
    writer = ColangWriter(seed)
    has_dialog = writer.chance(0.85)
    config, lines = build_settings(writer, has_dialog)
    if has_dialog:
        lines = writer.write_messages() + lines
        for number in range(writer.random.randint(1, 5)):
            lines += writer.write_flow(number)
    if has_dialog or writer.chance(0.3):
        for name in SUBFLOWS:
            lines += [
                f"define subflow {name}",
                *indent(writer.write_block(1) if has_dialog else writer.write_block(1, rail=True)),
                "",
            ]
    text = "\n".join(lines)
    # Without subflows, calls of them become something else.
    for name in SUBFLOWS:
        if f"do {name}" in text and f"define subflow {name}" not in text:
            text = text.replace(f"do {name}", "bot say hello")
        if f'"{name}"' in text and f"define subflow {name}" not in text:
            text = text.replace(f'$sub = "{name}"', "$sub = 1").replace("do $sub", "bot say hello")
    actions = {name: action for name, action in ACTIONS.items() if name in writer.used}
    files = {"config.yml": json.dumps(config, indent=1), **({"rails.co": text} if text else {})}
    if has_dialog and writer.chance(0.1):
        # A part as YAML, in a second file, or in a folder.
        flow = {
            "id": "from yaml",
            "elements": [
                {"user": writer.intents[0]},
                {"bot": writer.bots[0]},
                {"bot": writer.bots[-1]},
            ],
        }
        second_file = (
            'define user ask more\n  "more of it"\n\n'
            f"define flow more\n  user ask more\n  bot {writer.bots[0]}\n"
        )
        draw = writer.random.randrange(3)
        if draw == 0:
            files["config.yml"] = json.dumps({**config, "flows": [flow]}, indent=1)
        else:
            files["more/extra.co" if draw == 1 else "a.co"] = second_file
    return {
        "id": f"seed-{seed}",
        "files": files,
        "actions": actions,
        "llm": build_llm_answers(writer, 40),
        "turns": build_turns(writer, config),
    }
