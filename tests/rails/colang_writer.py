"""Writes random Colang 1.0 code from a grammar of the language, for the tests against NeMo."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any, TypeVar

T = TypeVar("T")

MAX_DEPTH = 2  # of nested expressions

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


class ColangWriter:
    """Writes the flows of one configuration; equal seeds write equal flows."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.used: set[str] = set()
        self.labels = 0
        self.counters = 0
        self.intents = self.random.sample(INTENTS, self.pick([2, 3, 3, 4, 5]))
        self.bots = self.random.sample(DEFINED, self.pick([3, 4, 5, 8]))

    def chance(self, probability: float) -> bool:
        return self.random.random() < probability

    def pick(self, items: Sequence[T]) -> T:
        return self.random.choice(items)

    # -- expressions -------------------------------------------------------------------------------
    # From `MAX_DEPTH` on only the first alternatives, which are leaves, so that this ends.

    def write_number(self, depth: int = 0) -> str:
        inner = depth + 1
        draw = self.random.randrange(8 if depth < MAX_DEPTH else 4)
        if draw < 2:
            return str(self.random.randrange(-2, 12))
        if draw < 4:
            return f"(${self.pick(NUMBERS)} or {self.random.randrange(4)})"
        if draw == 4:
            left, operator = self.write_number(inner), self.pick(["+", "-", "*"])
            return f"({left} {operator} {self.write_number(inner)})"
        if draw == 5:
            return f"len({self.write_text(inner)})"
        if draw == 6:
            left, operator = self.write_number(inner), self.pick(["%", "//"])
            return f"({left} {operator} {self.random.randrange(1, 5)})"
        body, condition = self.write_number(inner), self.write_condition(inner)
        return f"({body} if {condition} else {self.write_number(inner)})"

    def write_text(self, depth: int = 0) -> str:
        inner = depth + 1
        draw = self.random.randrange(8 if depth < MAX_DEPTH else 4)
        if draw < 2:
            return f'"{self.pick(WORDS)}"'
        if draw < 4:
            return f'(${self.pick(TEXTS)} or "{self.pick(WORDS)}")'
        if draw == 4:
            return f"({self.write_text(inner)} + {self.write_text(inner)})"
        if draw == 5:
            text = self.write_text(inner)
            return f"{text}.{self.pick(['upper()', 'lower()', 'strip()', 'title()'])}"
        if draw == 6:
            text = self.write_text(inner)
            return f'({text} + "ab")[{self.pick(["0", "1", "-1", "0:2", "1:"])}]'
        body, condition = self.write_text(inner), self.write_condition(inner)
        return f"({body} if {condition} else {self.write_text(inner)})"

    def write_condition(self, depth: int = 0) -> str:
        inner = depth + 1
        draw = self.random.randrange(11 if depth < MAX_DEPTH else 7)
        if draw == 0:
            left, operator = self.write_number(inner), self.pick(["<", ">", "==", "!=", "<=", ">="])
            return f"{left} {operator} {self.write_number(inner)}"
        if draw == 1:
            word, operator = self.pick(WORDS), self.pick(["in", "not in"])
            return f'"{word}" {operator} {self.write_text(inner)}'
        if draw == 2:
            return f"${self.pick([*NUMBERS, *TEXTS, 'flag'])}"
        if draw == 3:
            return f"${self.pick([*NUMBERS, *TEXTS])} is {self.pick(['None', 'not None'])}"
        if draw == 4:
            return f'"{self.pick(WORDS)}" in ($last_user_message or "")'
        if draw == 5:
            return self.pick(["True", "False", "not $flag"])
        if draw == 6:
            left, operator = self.write_text(inner), self.pick(["==", "!="])
            return f"{left} {operator} {self.write_text(inner)}"
        if draw == 7:
            return f"not ({self.write_condition(inner)})"
        if draw == 8:
            return f"1 < {self.write_number(inner)} <= 9"
        left, operator = self.write_condition(inner), self.pick(["and", "or"])
        return f"({left}) {operator} ({self.write_condition(inner)})"

    # -- steps -------------------------------------------------------------------------------------

    def write_assignment(self) -> list[str]:
        draw = self.random.randrange(7)
        name = self.pick(NUMBERS)
        if draw == 0:
            return [f"${name} = {self.write_number()}"]
        if draw == 1:
            return [f"${self.pick(TEXTS)} = {self.write_text()}"]
        if draw == 2:
            return [f"$flag = {self.write_condition()}"]
        if draw == 3:
            return [
                f"${name} = (${name} or 0)",
                f"${name} {self.pick(['+=', '-='])} {self.random.randrange(1, 4)}",
            ]
        if draw == 4:
            return [f"${self.pick(TEXTS)} = $last_user_message"]
        if draw == 5:
            return [f"set ${name} = {self.random.randrange(9)}"]
        return [f"${name} = {self.random.randrange(9)}"]

    def write_execute(self) -> list[str]:
        name = self.pick(list(ACTIONS) if self.chance(0.9) else ["missing_action"])
        if name in ("broken", "missing_action") and not self.chance(0.3):
            name = "get_number"
        self.used.add(name)
        keyword = self.pick(["execute", "execute", "run", "exec"])
        number = self.pick(NUMBERS)
        if name == "add":
            value = self.pick(["2", f"${number}"])
            default = [f"${number} = ${number} or 1"] if value.startswith("$") else []
            second = self.pick(["", ", b=4"])
            return [*default, f"$m = {keyword} add(a={value}{second})"]
        if name == "echo text":
            text = self.pick(["$last_user_message", '"hey, you"'])
            return [f"$name = {keyword} echo text(text={text})"]
        if name == "remember":
            return [f"{keyword} remember(value={self.random.randrange(9)})"]
        if name == "is_allowed":
            return [f"$flag = {keyword} is_allowed(text=$last_user_message)"]
        if name == "shout":
            return [f'$mood = {keyword} shout(text="{self.pick(WORDS)}")']
        if name == "get_list":
            return [
                f"$xs = {keyword} get_list",
                f"$name = $xs[{self.random.randrange(3)}]",
                '$flag = "b" in $xs',
                "$n = len($xs)",
            ]
        if name == "get_person":
            return [
                f"$p = {keyword} get_person",
                self.pick(
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
            return [f"$name = {keyword} see_context"]
        if name == "broken":
            return [f"{keyword} broken"]
        return [f"${number} = {keyword} {name}"]

    def write_bot(self) -> list[str]:
        if self.chance(0.08):
            return [f'${"name"} = $name or "nobody"', "bot $name"]
        if self.chance(0.12):
            name = self.pick(UNDEFINED)
            return [*(["# say it kindly"] if self.chance(0.3) else []), f"bot {name}"]
        name = self.pick(self.bots)
        if self.chance(0.05):
            return [
                f'bot say inline {self.random.randrange(3)} "Inline {self.random.randrange(9)}"'
            ]
        if self.chance(0.03):
            return [
                f"bot say below {self.random.randrange(3)}",
                f'  "Below {self.random.randrange(9)}"',
            ]
        if self.chance(0.03):
            return [f"bot {name} with $name"]
        return [f"bot {name}" + ("  # as it is" if self.chance(0.04) else "")]

    def write_user(self) -> str:
        if self.chance(0.02):
            return f"user {self.pick(self.intents)} or user {self.pick(self.intents)}"
        if self.chance(0.03):
            parameters = self.pick(["with $name", "for n=1", '(name="x")'])
            return f"user {self.pick(self.intents)} {parameters}"
        return f"user {self.pick(self.intents) if self.chance(0.93) else '...'}"

    def write_step(self, depth: int, loop: bool, rail: bool) -> list[str]:
        draw = self.random.random()
        if draw < 0.34:
            return self.write_bot()
        if draw < 0.50:
            return self.write_assignment()
        if draw < 0.60:
            return self.write_execute()
        if draw < 0.68 and not rail:
            return [self.write_user()]
        if draw < 0.80 and depth < 3:
            return self.write_branch(depth, loop, rail)
        if draw < 0.85 and depth < 2:
            return self.write_loop(depth, rail)
        if draw < 0.90 and depth < 2 and not rail:
            return self.write_when(depth)
        if draw < 0.945:
            parameters = (
                self.pick(["(n=4)", "(mood=$name)", "(n=2, m=$n)"]) if self.chance(0.15) else ""
            )
            return [f"do {self.pick(SUBFLOWS)}{parameters}"]
        if draw < 0.955:
            return [f'$sub = "{self.pick(SUBFLOWS)}"', "do $sub"]
        if draw < 0.965 and not rail:
            return ["# the name of the person", f"${self.pick(TEXTS)} = ..."]
        if draw < 0.975:
            event = self.pick(["Ping(value=1)", "Ping(value=$n)", 'Timer(name="a")', "Ping"])
            keyword = self.pick(["create event", "new event", "infer event", "create"])
            wait = [self.pick(["event Ping", "event Ping(value=1)"])] if self.chance(0.4) else []
            if wait and self.chance(0.5):
                wait.append("$n = $event.value")
            return [*self.write_bot(), f"{keyword} {event}", *wait]
        if draw < 0.985:
            return [self.pick(["stop", "return", "done"])]
        if loop:
            return [self.pick(["break", "continue"])]
        return self.write_bot()

    def write_block(
        self, depth: int, loop: bool = False, rail: bool = False, least: int = 1
    ) -> list[str]:
        lines: list[str] = []
        for _ in range(self.random.randint(least, 3 if depth else 4)):
            lines += self.write_step(depth, loop, rail)
        return lines

    def write_branch(self, depth: int, loop: bool, rail: bool) -> list[str]:
        lines = [f"if {self.write_condition()}", *indent(self.write_block(depth + 1, loop, rail))]
        if self.chance(0.25):
            lines += [
                f"else if {self.write_condition()}",
                *indent(self.write_block(depth + 1, loop, rail)),
            ]
        if self.chance(0.5):
            lines += ["else", *indent(self.write_block(depth + 1, loop, rail))]
        return lines

    def write_loop(self, depth: int, rail: bool) -> list[str]:
        self.counters += 1
        name = f"i{self.counters}"
        body = [f"${name} = ${name} + 1", *self.write_block(depth + 1, True, rail)]
        return [f"${name} = 0", f"while ${name} < {self.random.randint(1, 3)}", *indent(body)]

    def write_when(self, depth: int) -> list[str]:
        chosen = [
            f"user {i}"
            for i in self.random.sample(
                self.intents, self.random.randint(1, min(3, len(self.intents)))
            )
        ]
        if self.chance(0.15):
            bot_message = f"bot {self.pick(self.bots)}"
            chosen.append(
                self.pick([bot_message, "event Ping", 'Timer(name="a")', "event UserSilent"])
            )
        if self.chance(0.1):
            chosen = ["user ..."]
        lines: list[str] = []
        for index, head in enumerate(chosen):
            lines += [
                f"{'when' if index == 0 else 'else when'} {head}",
                *indent(self.write_block(depth + 1)),
            ]
        return lines

    def write_jump(self, lines: list[str]) -> list[str]:
        self.labels += 1
        name, label = f"j{self.labels}", f"again {self.labels}"
        return [
            f"${name} = 0",
            f"label {label}",
            *lines,
            f"${name} = ${name} + 1",
            f"if ${name} < 2",
            f"  goto {label}",
        ]

    # -- files -------------------------------------------------------------------------------------

    def write_flow(self, number: int) -> list[str]:
        draw = self.random.random()
        modifiers = "".join(
            modifier for modifier in ("parallel ", "continuous ") if self.chance(0.05)
        )
        name = f" flow {number}" if self.chance(0.6) or modifiers else ""
        priority = [f"priority {self.pick(['2', '0.5', '10'])}", ""] if self.chance(0.12) else []
        if self.chance(0.04):
            extension = ["  is_extension: True"] if self.chance(0.4) else []
            priority = ["meta", f"  priority: {self.pick(['3', '0.7'])}", *extension]
        if draw < 0.70:
            start = [self.write_user()]
        elif draw < 0.78:
            start, modifiers = [f"bot {self.pick(self.bots)}"], modifiers + "extension "
            name = name or f" flow {number}"
        elif draw < 0.83:
            start = ["event " + self.pick(["UserSilent", "Ping", 'Timer(name="a")'])]
        elif draw < 0.88:
            start = [*self.write_assignment(), self.write_user()]
        elif draw < 0.92:
            start = [
                f"if {self.write_condition()}",
                f"  {self.write_user()}",
                *indent(self.write_bot()),
            ]
        elif draw < 0.95:
            self.used.add("get_number")
            start = ["execute get_number"]
        elif draw < 0.97:
            start = [f"bot {self.pick([*self.bots, '...'])}"]
        else:
            start = [self.write_user()]
        body = self.write_block(0)
        if self.chance(0.05):
            body = self.write_jump(body)
        doc = ['"""What it does."""'] if self.chance(0.1) else []
        noise = ["# a comment"] if self.chance(0.1) else []
        define = "def" if self.chance(0.05) else "define"
        colon = ":" if self.chance(0.05) and name else ""
        return [
            f"{define} {modifiers}flow{name}{colon}",
            *indent([*doc, *priority, *start, *noise, *body]),
            "",
        ]

    def write_messages(self) -> list[str]:
        lines: list[str] = []
        for intent in [i for i in self.intents if self.chance(0.8)] or self.intents[:1]:
            second = [f'"{intent} now"'] if self.chance(0.5) else []
            lines += [f"define user {intent}", *indent([f'"{intent} please"', *second]), ""]
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
            texts = [self.pick(forms) for _ in range(2 if self.chance(0.1) else 1)]
            body = [f'"{bot}: {t}"' for t in texts]
            lines += [f"define bot {bot}", *indent(body), ""]
        return lines

    def write_rail(self, name: str, stage: str) -> list[str]:
        variable = {
            "input": "user_message",
            "output": "bot_message",
            "retrieval": "relevant_chunks",
        }[stage]
        draw = self.random.random()
        word = self.pick(WORDS)
        if draw < 0.35:
            message = self.pick(["refuse to respond", *self.bots])
            body = [f'if "{word}" in ${variable}', *indent([f"bot {message}", "stop"])]
        elif draw < 0.5:
            self.used.add("is_allowed")
            body = [
                f"$ok = execute is_allowed(text=${variable})",
                "if not $ok",
                "  bot refuse to respond",
                "  stop",
            ]
        elif draw < 0.65:
            body = [f'${variable} = ${variable} + " [{word}]"']
        elif draw < 0.75:
            self.used.add("shout")
            body = [f"${variable} = execute shout(text=${variable})"]
        elif draw < 0.9:
            body = self.write_block(1, rail=True)
        else:
            body = [
                *self.write_assignment(),
                f"if {self.write_condition()}",
                "  done",
                *self.write_assignment(),
            ]
        if stage == "retrieval":
            body = (
                [f'$relevant_chunks = ($relevant_chunks or "") + "+{word}"']
                if draw < 0.6
                else self.write_assignment()
            )
        return [f"define {self.pick(['flow', 'subflow'])} {name}", *indent(body), ""]


def indent(lines: list[str]) -> list[str]:
    """Indents each line by two spaces."""
    return ["  " + line if line else line for line in lines]
