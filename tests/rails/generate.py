"""Random rails configurations with conversations, from a grammar of Colang 1.0: for tests against the peer.

`case(seed)` gives a conformance case (files, actions, turns) whose LLM answers by task: `llm` maps a task to its answers in
order. The same seed gives the same case. What NeMo 0.24.1 refuses or answers by accident (see `QUIRKS`) is left out.
"""

from __future__ import annotations

import random
from typing import Any

QUIRKS = """
`bot "text"` without a name; `create event` as the first step; modifiers before a nameless flow; several matching
`when` branches; `user a or user b`; markdown links in messages;
a quoted line followed by a comment; methods that change their object; an `else` after `when`;
context, events, options or exceptions with passthrough;
the same name in two files (NeMo reads files in the order of the disk);
`user a as $v`, quoted parameters of `do`, indented parameters, `if` in `define bot`.
"""

INTENTS = [
    "express greeting",
    "ask price",
    "give name",
    "feel good",
    "feel bad",
    "ask weather",
    "say bye",
    "agree",
]
DEFINED = [
    "say hello",
    "tell price",
    "ask name",
    "thank user",
    "be sorry",
    "offer help",
    "tell weather",
    "say done",
]
UNDEFINED = ["comment freely", "tell joke"]
NUMBERS = ["n", "m"]
TEXTS = ["name", "mood"]
SUBFLOWS = ["check mood", "greet nicely", "count up"]
WORDS = ["secret", "gold", "hello", "why", "rain", "7", "x"]
ACTIONS: dict[str, dict[str, Any]] = {
    "get_number": {"returns": "3"},
    "get_list": {"returns": "['a', 'b', 'c']"},
    "get_person": {"returns": "{'city': 'Oslo', 'age': 30, 'tags': ['x', 'y']}"},
    "echo text": {"params": {"text": "'none'"}, "returns": "str(text) + '!'"},
    "add": {"params": {"a": "<required>", "b": 1}, "returns": "a + b"},
    "remember": {
        "params": {"value": 5},
        "returns": "'ok'",
        "context_updates": {"n": "value", "mood": "'noted'"},
    },
    "is_allowed": {"params": {"text": "<required>"}, "returns": "'secret' not in text"},
    "shout": {"params": {"text": "<required>"}, "returns": "text.upper()"},
    "broken": {"raises": "boom"},
    "see_context": {
        "params": {"context": None},
        "returns": "str(context.get('last_user_message')) + '/' + str(context.get('n'))",
    },
}


class Writer:
    """Writes one configuration."""

    def __init__(self, seed: int) -> None:
        self.r = random.Random(seed)
        self.used: set[str] = set()
        self.labels = 0
        self.counters = 0
        self.intents = self.r.sample(INTENTS, self.r.choice([2, 3, 3, 4, 5]))
        self.bots = self.r.sample(DEFINED, self.r.choice([3, 4, 5, 8]))

    def some(self, share: float) -> bool:
        return self.r.random() < share

    # -- expressions ---------------------------------------------------------------------------------------------------

    def number(self, depth: int = 0) -> str:
        pick = self.r.randrange(8 if depth < 2 else 4)
        if pick < 2:
            return str(self.r.randrange(-2, 12))
        if pick < 4:
            return f"(${self.r.choice(NUMBERS)} or {self.r.randrange(4)})"
        if pick == 4:
            return f"({self.number(depth + 1)} {self.r.choice(['+', '-', '*'])} {self.number(depth + 1)})"
        if pick == 5:
            return f"len({self.text(depth + 1)})"
        if pick == 6:
            return (
                f"({self.number(depth + 1)} {self.r.choice(['%', '//'])} {self.r.randrange(1, 5)})"
            )
        return f"({self.number(depth + 1)} if {self.condition(depth + 1)} else {self.number(depth + 1)})"

    def text(self, depth: int = 0) -> str:
        pick = self.r.randrange(8 if depth < 2 else 4)
        if pick < 2:
            return f'"{self.r.choice(WORDS)}"'
        if pick < 4:
            return f'(${self.r.choice(TEXTS)} or "{self.r.choice(WORDS)}")'
        if pick == 4:
            return f"({self.text(depth + 1)} + {self.text(depth + 1)})"
        if pick == 5:
            return f"{self.text(depth + 1)}.{self.r.choice(['upper()', 'lower()', 'strip()', 'title()'])}"
        if pick == 6:
            return (
                f'({self.text(depth + 1)} + "ab")[{self.r.choice(["0", "1", "-1", "0:2", "1:"])}]'
            )
        return (
            f"({self.text(depth + 1)} if {self.condition(depth + 1)} else {self.text(depth + 1)})"
        )

    def condition(self, depth: int = 0) -> str:
        pick = self.r.randrange(11 if depth < 2 else 7)
        if pick == 0:
            return f"{self.number(depth + 1)} {self.r.choice(['<', '>', '==', '!=', '<=', '>='])} {self.number(depth + 1)}"
        if pick == 1:
            return (
                f'"{self.r.choice(WORDS)}" {self.r.choice(["in", "not in"])} {self.text(depth + 1)}'
            )
        if pick == 2:
            return f"${self.r.choice(NUMBERS + TEXTS + ['flag'])}"
        if pick == 3:
            return f"${self.r.choice(NUMBERS + TEXTS)} is {self.r.choice(['None', 'not None'])}"
        if pick == 4:
            return f'"{self.r.choice(WORDS)}" in ($last_user_message or "")'
        if pick == 5:
            return self.r.choice(["True", "False", "not $flag"])
        if pick == 6:
            return f"{self.text(depth + 1)} {self.r.choice(['==', '!='])} {self.text(depth + 1)}"
        if pick == 7:
            return f"not ({self.condition(depth + 1)})"
        if pick == 8:
            return f"1 < {self.number(depth + 1)} <= 9"
        return f"({self.condition(depth + 1)}) {self.r.choice(['and', 'or'])} ({self.condition(depth + 1)})"

    # -- steps ---------------------------------------------------------------------------------------------------------

    def assignment(self) -> list[str]:
        pick = self.r.randrange(7)
        name = self.r.choice(NUMBERS)
        if pick == 0:
            return [f"${name} = {self.number()}"]
        if pick == 1:
            return [f"${self.r.choice(TEXTS)} = {self.text()}"]
        if pick == 2:
            return [f"$flag = {self.condition()}"]
        if pick == 3:
            return [
                f"${name} = (${name} or 0)",
                f"${name} {self.r.choice(['+=', '-='])} {self.r.randrange(1, 4)}",
            ]
        if pick == 4:
            return [f"${self.r.choice(TEXTS)} = $last_user_message"]
        if pick == 5:
            return [f"set ${name} = {self.r.randrange(9)}"]
        return [f"${name} = {self.r.randrange(9)}"]

    def execute(self) -> list[str]:
        name = self.r.choice(list(ACTIONS) if self.some(0.9) else ["missing_action"])
        if name in ("broken", "missing_action") and not self.some(0.3):
            name = "get_number"
        self.used.add(name)
        word = self.r.choice(["execute", "execute", "run", "exec"])
        number = self.r.choice(NUMBERS)
        if name == "add":
            first = self.r.choice(["2", f"${number}"])
            set_ = [f"${number} = ${number} or 1"] if first.startswith("$") else []
            return [*set_, f"$m = {word} add(a={first}{self.r.choice(['', ', b=4'])})"]
        if name == "echo text":
            said = self.r.choice(["$last_user_message", '"hey, you"'])
            return [f"$name = {word} echo text(text={said})"]
        if name == "remember":
            return [f"{word} remember(value={self.r.randrange(9)})"]
        if name == "is_allowed":
            return [f"$flag = {word} is_allowed(text=$last_user_message)"]
        if name == "shout":
            return [f'$mood = {word} shout(text="{self.r.choice(WORDS)}")']
        if name == "get_list":
            return [
                f"$xs = {word} get_list",
                f"$name = $xs[{self.r.randrange(3)}]",
                '$flag = "b" in $xs',
                "$n = len($xs)",
            ]
        if name == "get_person":
            return [
                f"$p = {word} get_person",
                self.r.choice(
                    [
                        "$name = $p.city",
                        '$name = $p["city"]',
                        "$n = $p.age",
                        "$mood = $p.tags[1]",
                        "$mood = $p.missing",
                    ]
                ),
            ]
        if name == "see_context":
            return [f"$name = {word} see_context"]
        if name == "broken":
            return [f"{word} broken"]
        return [f"${number} = {word} {name}"]

    def bot(self) -> list[str]:
        if self.some(0.08):
            return [f'${"name"} = $name or "nobody"', "bot $name"]
        if self.some(0.12):
            name = self.r.choice(UNDEFINED)
            return [*(["# say it kindly"] if self.some(0.3) else []), f"bot {name}"]
        name = self.r.choice(self.bots)
        if self.some(0.05):
            return [f'bot say inline {self.r.randrange(3)} "Inline {self.r.randrange(9)}"']
        if self.some(0.03):
            return [f"bot say below {self.r.randrange(3)}", f'  "Below {self.r.randrange(9)}"']
        if self.some(0.03):
            return [f"bot {name} with $name"]
        return [f"bot {name}" + ("  # as it is" if self.some(0.04) else "")]

    def user(self) -> str:
        if self.some(0.02):
            return f"user {self.r.choice(self.intents)} or user {self.r.choice(self.intents)}"
        if self.some(0.03):
            given = self.r.choice(["with $name", "for n=1", '(name="x")'])
            return f"user {self.r.choice(self.intents)} {given}"
        return f"user {self.r.choice(self.intents) if self.some(0.93) else '...'}"

    def step(self, depth: int, loop: bool, rail: bool) -> list[str]:
        pick = self.r.random()
        if pick < 0.34:
            return self.bot()
        if pick < 0.50:
            return self.assignment()
        if pick < 0.60:
            return self.execute()
        if pick < 0.68 and not rail:
            return [self.user()]
        if pick < 0.80 and depth < 3:
            return self.branch(depth, loop, rail)
        if pick < 0.85 and depth < 2:
            return self.loop(depth, rail)
        if pick < 0.90 and depth < 2 and not rail:
            return self.when(depth)
        if pick < 0.945:
            given = (
                self.r.choice(["(n=4)", "(mood=$name)", "(n=2, m=$n)"]) if self.some(0.15) else ""
            )
            return [f"do {self.r.choice(SUBFLOWS)}{given}"]
        if pick < 0.955:
            return [f'$sub = "{self.r.choice(SUBFLOWS)}"', "do $sub"]
        if pick < 0.965 and not rail:
            return ["# the name of the person", f"${self.r.choice(TEXTS)} = ..."]
        if pick < 0.975:
            made = self.r.choice(["Ping(value=1)", "Ping(value=$n)", 'Timer(name="a")', "Ping"])
            word = self.r.choice(["create event", "new event", "infer event", "create"])
            wait = [self.r.choice(["event Ping", "event Ping(value=1)"])] if self.some(0.4) else []
            if wait and self.some(0.5):
                wait.append("$n = $event.value")
            return [*self.bot(), f"{word} {made}", *wait]
        if pick < 0.985:
            return [self.r.choice(["stop", "return", "done"])]
        if loop:
            return [self.r.choice(["break", "continue"])]
        return self.bot()

    def block(
        self, depth: int, loop: bool = False, rail: bool = False, least: int = 1
    ) -> list[str]:
        rows: list[str] = []
        for _ in range(self.r.randint(least, 3 if depth else 4)):
            rows += self.step(depth, loop, rail)
        return rows

    def branch(self, depth: int, loop: bool, rail: bool) -> list[str]:
        rows = [f"if {self.condition()}", *indent(self.block(depth + 1, loop, rail))]
        if self.some(0.25):
            rows += [f"else if {self.condition()}", *indent(self.block(depth + 1, loop, rail))]
        if self.some(0.5):
            rows += ["else", *indent(self.block(depth + 1, loop, rail))]
        return rows

    def loop(self, depth: int, rail: bool) -> list[str]:
        self.counters += 1
        name = f"i{self.counters}"
        body = [f"${name} = ${name} + 1", *self.block(depth + 1, True, rail)]
        return [f"${name} = 0", f"while ${name} < {self.r.randint(1, 3)}", *indent(body)]

    def when(self, depth: int) -> list[str]:
        chosen = [
            f"user {i}"
            for i in self.r.sample(self.intents, self.r.randint(1, min(3, len(self.intents))))
        ]
        if self.some(0.15):
            said = f"bot {self.r.choice(self.bots)}"
            chosen.append(
                self.r.choice([said, "event Ping", 'Timer(name="a")', "event UserSilent"])
            )
        if self.some(0.1):
            chosen = ["user ..."]
        rows: list[str] = []
        for at, head in enumerate(chosen):
            rows += [f"{'when' if at == 0 else 'else when'} {head}", *indent(self.block(depth + 1))]
        return rows

    def jump(self, rows: list[str]) -> list[str]:
        self.labels += 1
        name, label = f"j{self.labels}", f"again {self.labels}"
        return [
            f"${name} = 0",
            f"label {label}",
            *rows,
            f"${name} = ${name} + 1",
            f"if ${name} < 2",
            f"  goto {label}",
        ]

    # -- files ---------------------------------------------------------------------------------------------------------

    def flow(self, at: int) -> list[str]:
        kind = self.r.random()
        modifiers = "".join(
            m for m, share in (("parallel ", 0.05), ("continuous ", 0.05)) if self.some(share)
        )
        name = f" flow {at}" if self.some(0.6) or modifiers else ""
        priority = [f"priority {self.r.choice(['2', '0.5', '10'])}", ""] if self.some(0.12) else []
        if self.some(0.04):
            extension = ["  is_extension: True"] if self.some(0.4) else []
            priority = ["meta", f"  priority: {self.r.choice(['3', '0.7'])}", *extension]
        if kind < 0.70:
            start = [self.user()]
        elif kind < 0.78:
            start, modifiers = [f"bot {self.r.choice(self.bots)}"], modifiers + "extension "
            name = name or f" flow {at}"
        elif kind < 0.83:
            start = [
                f"event {self.r.choice(['UserSilent', 'Ping', 'Timer(name=' + chr(34) + 'a' + chr(34) + ')'])}"
            ]
        elif kind < 0.88:
            start = [*self.assignment(), self.user()]
        elif kind < 0.92:
            start = [f"if {self.condition()}", f"  {self.user()}", *indent(self.bot())]
        elif kind < 0.95:
            self.used.add("get_number")
            start = ["execute get_number"]
        elif kind < 0.97:
            start = [f"bot {self.r.choice([*self.bots, '...'])}"]
        else:
            start = [self.user()]
        body = self.block(0)
        if self.some(0.05):
            body = self.jump(body)
        doc = ['"""What it does."""'] if self.some(0.1) else []
        noise = ["# a comment"] if self.some(0.1) else []
        word = "def" if self.some(0.05) else "define"
        colon = ":" if self.some(0.05) and name else ""
        return [
            f"{word} {modifiers}flow{name}{colon}",
            *indent([*doc, *priority, *start, *noise, *body]),
            "",
        ]

    def messages(self) -> list[str]:
        rows: list[str] = []
        for intent in [i for i in self.intents if self.some(0.8)] or self.intents[:1]:
            second = [f'"{intent} now"'] if self.some(0.5) else []
            rows += [f"define user {intent}", *indent([f'"{intent} please"', *second]), ""]
        forms = [
            "Hello.",
            "It is $n.",
            "Dear {{ name }}",
            "$name: $n",
            "Mood {{ mood or 'none' }}",
            "One\\nTwo",
            "Bye!",
            "{% if n %}n={{ n }}{% else %}no n{% endif %}",
            "City {{ p.city }}",
            "Last: $last_user_message",
        ]
        for bot in DEFINED:
            texts = [self.r.choice(forms) for _ in range(2 if self.some(0.1) else 1)]
            body = [f'"{bot}: {t}"' for t in texts]
            rows += [f"define bot {bot}", *indent(body), ""]
        return rows

    def rail(self, name: str, stage: str) -> list[str]:
        variable = {
            "input": "user_message",
            "output": "bot_message",
            "retrieval": "relevant_chunks",
        }[stage]
        pick = self.r.random()
        word = self.r.choice(WORDS)
        if pick < 0.35:
            said = self.r.choice(["refuse to respond", *self.bots])
            body = [f'if "{word}" in ${variable}', *indent([f"bot {said}", "stop"])]
        elif pick < 0.5:
            self.used.add("is_allowed")
            body = [
                f"$ok = execute is_allowed(text=${variable})",
                "if not $ok",
                "  bot refuse to respond",
                "  stop",
            ]
        elif pick < 0.65:
            body = [f'${variable} = ${variable} + " [{word}]"']
        elif pick < 0.75:
            self.used.add("shout")
            body = [f"${variable} = execute shout(text=${variable})"]
        elif pick < 0.9:
            body = self.block(1, rail=True)
        else:
            body = [*self.assignment(), f"if {self.condition()}", "  done", *self.assignment()]
        if stage == "retrieval":
            body = (
                [f'$relevant_chunks = ($relevant_chunks or "") + "+{word}"']
                if pick < 0.6
                else self.assignment()
            )
        return [f"define {self.r.choice(['flow', 'subflow'])} {name}", *indent(body), ""]


def indent(rows: list[str]) -> list[str]:
    """Two blanks before each row."""
    return ["  " + row if row else row for row in rows]


def settings(w: Writer, dialog: bool) -> tuple[dict[str, Any], list[str]]:
    """The configuration as data, and the flows of its rails."""
    config: dict[str, Any] = {"models": []}
    rows: list[str] = []
    rails: dict[str, Any] = {}
    prompts: list[dict[str, str]] = []
    if w.some(0.2):
        engine = w.r.choice(["gpt-3.5-turbo-instruct", "gpt-4o", "mock"])
        config["models"] = [{"type": "main", "engine": "openai", "model": engine}]
    for stage, share in (("input", 0.45), ("output", 0.4), ("retrieval", 0.15)):
        names: list[str] = []
        if w.some(share):
            for at in range(w.r.randint(1, 2)):
                names.append(f"{stage} rail {at}")
                rows += w.rail(names[-1], stage)
        if stage != "retrieval" and w.some(0.25):
            names.insert(w.r.randint(0, len(names)), f"self check {stage}")
            prompts.append({"task": f"self_check_{stage}", "content": f"CHECK {stage}"})
        if names:
            rails[stage] = {"flows": names}
    mode = w.r.random()
    if dialog and mode < 0.1:
        rails["dialog"] = {"single_call": {"enabled": True}}
    elif dialog and mode < 0.2:
        embedded: dict[str, Any] = {"embeddings_only": True}
        if w.some(0.8):
            embedded["embeddings_only_similarity_threshold"] = 0.6
            embedded["embeddings_only_fallback_intent"] = w.r.choice(w.intents)
        rails["dialog"] = {"user_messages": embedded}
    elif dialog and mode < 0.25:
        config["enable_multi_step_generation"] = True
    elif mode < 0.3 and not rails.get("dialog"):
        config["passthrough"] = True
    if w.some(0.15) and not config.get("passthrough"):
        config["enable_rails_exceptions"] = True
    if rails:
        config["rails"] = rails
    if prompts:
        config["prompts"] = prompts
    return config, rows


def answers(w: Writer, count: int) -> dict[str, list[str]]:
    """What the LLM says, by task."""
    quote = ['  "{}"', '"{}"', "{}", '  "{}\nmore"', '  "{}" ']
    intent = ["  {}", "{}", "user {}", "User intent: {}", "  {}\nbot say hello"]
    step = ["bot {}", "bot {}", "bot {}, and so on", 'bot {} "text"', "{}", "Bot intent: {}"]
    chosen = [w.r.choice(w.intents) if w.some(0.93) else "ask something new" for _ in range(count)]
    bots = [w.r.choice(w.bots + UNDEFINED) for _ in range(count)]
    multi = ["bot {}\nbot {}", "bot {}", "bot {}\nif $n\n  bot {}", "bot {}\n$n = 4\nbot {}"]
    return {
        "intent": [w.r.choice(intent).format(i) for i in chosen],
        "next": [w.r.choice(step).format(b) for b in bots],
        "multi": [w.r.choice(multi).format(b, w.r.choice(w.bots)) for b in bots],
        "message": [w.r.choice(quote).format(f"Message {i}") for i in range(count)],
        "general": [
            w.r.choice(["Answer {}.", '"Answer {}."', " Answer {} "]).format(i)
            for i in range(count)
        ],
        "value": [w.r.choice(['"Ann"', "'Ben'", "Cy", '"D"; ', "7", "it's"]) for _ in range(count)],
        "check": [
            w.r.choice(["No", "No", "No", "no.", "Yes", "yes, bad", "maybe", "unsafe", "safe"])
            for _ in range(count)
        ],
        "single": [
            f'  {i}\nbot {b}\n  "Single {k}"'
            for k, (i, b) in enumerate(zip(chosen, bots, strict=True))
        ],
    }


def turns(w: Writer, config: dict[str, Any]) -> list[dict[str, Any]]:
    """What the user does."""
    made: list[dict[str, Any]] = []
    output = bool(config.get("rails", {}).get("output"))
    plain = not config.get(
        "passthrough"
    )  # NeMo hands the roles context, event and exception on to the LLM
    for _ in range(w.r.randint(1, 7)):
        said = f"{w.r.choice(w.intents)} {w.r.choice(['please', 'now', ''])} {w.r.choice([*WORDS, ''])}".strip()
        turn: dict[str, Any] = {"user": said}
        if w.some(0.08) and plain:
            turn = {
                "event": {
                    "type": w.r.choice(["UserSilent", "Timer", "Other"]),
                    "name": w.r.choice(["a", "b"]),
                }
            }
        elif w.some(0.08) and plain:
            turn["options"] = {
                "rails": w.r.choice(
                    [
                        ["input"],
                        ["dialog"],
                        ["input", "output"],
                        ["dialog", "output"],
                        ["input", "dialog", "output", "retrieval"],
                    ]
                )
            }
        elif w.some(0.04) and output and plain:
            turn.update(assistant=f"reply {w.r.choice(WORDS)}", options={"rails": ["output"]})
        elif w.some(0.06) and not output:
            turn["stream"] = True
        if w.some(0.1) and "event" not in turn and plain:
            turn["context"] = {w.r.choice(NUMBERS): w.r.randrange(5)}
        made.append(turn)
    return made


def case(seed: int) -> dict[str, Any]:
    """One configuration and conversation."""
    import json

    w = Writer(seed)
    dialog = w.some(0.85)
    config, rows = settings(w, dialog)
    if dialog:
        rows = w.messages() + rows
        for at in range(w.r.randint(1, 5)):
            rows += w.flow(at)
    if dialog or w.some(0.3):
        for name in SUBFLOWS:
            rows += [
                f"define subflow {name}",
                *indent(w.block(1) if dialog else w.block(1, rail=True)),
                "",
            ]
    text = "\n".join(rows)
    for name in SUBFLOWS:
        if f"do {name}" in text and f"define subflow {name}" not in text:
            text = text.replace(f"do {name}", "bot say hello")
        if f'"{name}"' in text and f"define subflow {name}" not in text:
            text = text.replace(f'$sub = "{name}"', "$sub = 1").replace("do $sub", "bot say hello")
    actions = {n: a for n, a in ACTIONS.items() if n in w.used}
    files = {"config.yml": json.dumps(config, indent=1), **({"rails.co": text} if text else {})}
    if dialog and w.some(0.1):  # part of it in a second file, in a folder, or as YAML
        flow = {
            "id": "from yaml",
            "elements": [{"user": w.intents[0]}, {"bot": w.bots[0]}, {"bot": w.bots[-1]}],
        }
        more = f'define user ask more\n  "more of it"\n\ndefine flow more\n  user ask more\n  bot {w.bots[0]}\n'
        kind = w.r.randrange(3)
        if kind == 0:
            files["config.yml"] = json.dumps({**config, "flows": [flow]}, indent=1)
        else:
            files["more/extra.co" if kind == 1 else "a.co"] = more
    return {
        "id": f"seed-{seed}",
        "files": files,
        "actions": actions,
        "llm": answers(w, 40),
        "turns": turns(w, config),
    }
