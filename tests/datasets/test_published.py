"""One contract over every adapter: the files of the data folder with the counts of its README, and
own rows in the published layout for the sets whose files are not there.
"""

from __future__ import annotations

import gzip
import json
import lzma
from collections.abc import Iterator
from pathlib import Path

import pytest

from truing.core.errors import DataError
from truing.core.protocols import Dataset
from truing.core.taxonomy import load_taxonomy
from truing.core.types import Row
from truing.datasets.catalogue import CATALOGUE
from truing.specs.resolve import list_kinds, resolve

# Spec (data_dir is added) -> rows, preferences. The counts are those of the folder's README.
COUNTS = {
    "beavertails": (2082, 0),
    "beavertails,part=evaluation": (474, 0),
    "pku": (3516, 3516),
    "hh": (1581, 1581),
    "do-not-answer": (3811, 0),
    "diasafety": (8977, 0),
    "diasafety,split=val": (1093, 0),
    "openai-moderation": (765, 0),
    "toxic-chat": (2794, 0),
    "dices": (983, 0),
    "convabuse": (2501, 0),
    "xstest": (448, 0),
    "xstest,part=completions": (1576, 0),
    "harmbench": (79, 0),
    "jailbreakbench": (195, 0),
    "jailbreakbench,part=artifacts": (1046, 0),
    "ailuminate": (529, 0),
    "refusal-direction": (6264, 0),
    "refusal-direction,part=harmful": (38, 0),
    "real-toxicity": (1183, 0),
    "real-toxicity,part=nontoxic": (1191, 0),
    "toxigen": (4593, 0),
    "bbq": (3680, 0),
    "truthfulqa": (584, 0),
    "model-written": (1997, 0),
    "model-written,part=lm": (3468, 0),
    "model-written,part=few-shot": (40, 0),
    "safetext": (367, 1104),
    "llmbar": (99, 99),
    "prompt-injections": (546, 0),
    "banking77": (10003, 0),
}


def check(dataset: Dataset) -> list[Row]:
    """What holds for every adapter; gives the rows."""
    info = dataset.info
    assert info.licence and info.source and info.title and len(dataset.sha256()) == 64
    stream = dataset.rows()
    assert isinstance(stream, Iterator)
    rows = list(stream)
    ids = [row.sample.id for row in rows]
    assert len(set(ids)) == len(ids) and all(ids)
    assert ids[:500] == [
        row.sample.id for row, _ in zip(dataset.rows(), range(500))
    ]  # read twice, equal
    known = set(load_taxonomy().ids)
    for row in rows:
        sample = row.sample
        assert sample.source and set(sample.harms) <= known
        assert any(m.role == "user" for m in sample.conversation.messages)
        if sample.choices:
            assert len(set(sample.choices)) == len(sample.choices)
            assert sample.answer is None or all(
                0 <= at < len(sample.choices) for at in sample.answer
            )
        assert [r.index for r in row.responses] == list(range(len(row.responses)))
        assert all(r.model == "recorded" and r.sample_id == sample.id for r in row.responses)
        for j in row.judgements:
            assert j.sample_id == sample.id and ":" in j.judge and set(j.harms) <= known
            assert j.index < max(1, len(row.responses))
            assert j.verdict is not None or j.value is not None or j.failure is not None
            assert j.score is None or 0 <= j.score <= 1
    for pair in dataset.preferences():
        assert pair.source and pair.dimension in ("helpful", "safe") and pair.conversation.messages
    return rows


@pytest.mark.parametrize("spec", COUNTS)
def test_files_of_the_data_folder(spec: str, data_dir: Path) -> None:
    dataset = resolve(f"{spec},data_dir={data_dir}", "data")
    rows = check(dataset)
    assert (len(rows), sum(1 for _ in dataset.preferences())) == COUNTS[spec]
    assert dataset.skipped == 0


def test_every_kind_is_in_the_catalogue_and_in_a_test() -> None:
    kinds_ = {a.kind.split(":")[0] for a in CATALOGUE}
    aliases = {
        "pku_saferlhf",
        "hh_rlhf",
        "do_not_answer",
        "openai_moderation",
        "toxic_chat",
        "real_toxicity_prompts",
        "model_written_evals",
        "prompt_injections",
        "refusal_direction",
    }
    ours = {k for k, path in list_kinds("data").items() if path.startswith("truing.datasets.")}
    made = {"pairs", "run", "trl"}  # no published sets: test_training_sets.py has theirs
    assert kinds_ == ours - aliases - made
    tested = {s.split(",")[0] for s in COUNTS} | {s.split(":")[0].split(",")[0] for s in LAYOUTS}
    # These have files of tests of their own.
    of_agents = {"agents", "agentdojo", "agentharm", "bipia", "injecagent"}
    assert kinds_ - tested == {"file", "builtin"} | of_agents


# Rows of our own in the published layout: spec head -> file name, rows, number of rows and of
# pairs.
_PKU = {
    "prompt": "How do I fold a map?",
    "response_0": "Along its creases.",
    "response_1": "Badly.",
    "prompt_source": "own",
    "response_0_source": "m",
    "response_1_source": "m",
    "is_response_0_safe": True,
    "is_response_1_safe": False,
    "response_0_harm_category": {"Animal Abuse": False, "White-Collar Crime": False},
    "response_1_harm_category": {"Animal Abuse": False, "White-Collar Crime": True},
    "response_0_severity_level": 0,
    "response_1_severity_level": 2,
    "better_response_id": 1,
    "safer_response_id": 0,
}
_HH = {
    "chosen": "\n\nHuman: Hello\n\nAssistant: Hi\n\nHuman: A tip?\n\nAssistant: Sleep well.",
    "rejected": "\n\nHuman: Hello\n\nAssistant: Hi\n\nHuman: A tip?\n\nAssistant: No.",
}
_ATTEMPT = {
    "min_harmlessness_score_transcript": -1.5,
    "num_params": "52B",
    "model_type": "rlhf",
    "rating": 3.0,
    "transcript": "\n\nHuman: Be rude\n\nAssistant: I would rather not.",
    "task_description": "own",
    "task_description_harmlessness_score": 0.25,
    "red_team_member_id": 7,
    "is_upworker": False,
    "tags": ["own", "row"],
}
_BAD = (
    "text:hello bot\\nhello human\\nwhat is new\\nnot "
    "much\tlabels:__ok__\tepisode_done:True\tdialogue_id:4\t"
    "round_id:2\tspeaker_to_eval:bot\tbot_persona:your persona: I like tea.\n"
    "text:you are a silly tin\tlabels:__notok__\tepisode_done:True\tspeaker_to_eval:human\n"
)
_WILD = {
    "prompt": "Tell me of a port",
    "adversarial": False,
    "response": "Antwerp.",
    "prompt_harm_label": "unharmful",
    "response_refusal_label": "compliance",
    "response_harm_label": "unharmful",
    "prompt_harm_agreement": "3/3",
    "subcategory": "benign",
}
_HATE = (
    ",functionality,case_id,test_case,label_gold,target_ident,direction,focus_words,focus_lemma,ref_case_id,"
    "ref_templ_id,templ_id\n0,own_h,1,I like women who sail.,non-hateful,women,general,,,,,1\n"
    "1,own_h,2,All sailors from there are bad.,hateful,own,general,,,,,2\n"
)
_DICES = (
    "rater_id,rater_gender,item_id,context,response,Q_overall\n"
    '1,W,9,"USER: hi\nLAMDA: hello\nUSER: who are you",A friend.,No\n2,M,9,"USER: hi\nLAMDA: '
    'hello\nUSER: who are you",'
    "A friend.,Yes\n1,W,8,USER: hi,Go away.,Unsure\n"
)
_RM = {
    "id": "own_1",
    "prompt": "Two and two?",
    "chosen": ["4", "It is 4.", "**4**"],
    "rejected": ["5", "It is 5.", "**5**"],
    "domain": "math",
    "num_pairs": 3,
}
_BT = {
    "prompt": "How do I knit?",
    "response": "With needles.",
    "is_safe": True,
    "category": dict.fromkeys(load_taxonomy().ids, False),
}
_AEGIS = {
    "id": "own1",
    "reconstruction_id_if_redacted": None,
    "prompt": "How do I oil a hinge?",
    "response": "With a drop of oil.",
    "prompt_label": "safe",
    "response_label": "safe",
    "violated_categories": "",
    "prompt_label_source": "human",
    "response_label_source": "llm_jury",
}
_AEGIS_UNSAFE = {
    "id": "own2",
    "prompt": "Own words?",
    "response": None,
    "prompt_label": "unsafe",
    "response_label": None,
    "violated_categories": "Fraud/Deception, Needs Caution",
    "response_label_source": None,
}
_REWARDBENCH = {
    "id": "own-1",
    "prompt": "Two and two?",
    "chosen": ["4"],
    "rejected": ["5", "6", "7"],
    "num_correct": 1,
    "num_incorrect": 3,
    "total_completions": 4,
    "models": ["own"] * 4,
    "subset": "Math",
    "additional_metadata": None,
}
_ARTIFACT = {
    "index": 3,
    "goal": "Tell of own locks",
    "behavior": "Own",
    "category": "Privacy",
    "prompt": "Pretend to be a lock. Tell of yourself",
    "response": "I would rather not.",
    "number_of_queries": 2,
    "queries_to_jailbreak": None,
    "prompt_tokens": 9,
    "response_tokens": 5,
    "jailbroken": False,
}
_JBB = "Index,Goal,Target,Behavior,Category,Source\n1,Tell of own locks,Sure,Own,Privacy,Original\n"
LAYOUTS: dict[str, tuple[str, object, int, int]] = {
    "beavertails": ("round0/30k/train.jsonl.gz", [_BT, _BT], 2, 0),
    "beavertails,split=test": ("round0/330k/test.jsonl.xz", [_BT], 1, 0),
    "pku,part=published": ("data/Alpaca-7B/train.jsonl", [_PKU], 1, 2),
    "hh,part=helpful": ("helpful-base/train.jsonl.gz", [_HH], 1, 1),
    "hh,split=test": ("harmless-base/test.jsonl.gz", [_HH], 1, 1),
    "red-team-attempts": ("red-team-attempts/red_team_attempts.jsonl.gz", "array", 1, 0),
    "bad": ("train.txt", _BAD, 2, 0),
    "wildguard": ("wildguard_test.jsonl", [_WILD], 1, 0),
    "hatecheck": ("test_suite_cases.csv", _HATE, 2, 0),
    "dices": ("990/diverse_safety_adversarial_dialog_990.csv", _DICES, 2, 0),
    "rm-bench": ("total_dataset.json", "rm", 1, 9),
    "safetybench": ("test_en.json", "safetybench", 1, 0),
    "safetybench,part=dev-zh": ("dev_zh.json", "safetybench-dev", 1, 0),
    "simple-safety-tests": (
        "sst.csv",
        "id,harm_area,category,prompt\na,Scams and Fraud,Own,Own words?\n",
        1,
        0,
    ),
    "strongreject": (
        "strongreject_dataset.csv",
        "category,source,forbidden_prompt\nViolence,own,Own words?\n",
        1,
        0,
    ),
    "jailbreakbench": ("data/harmful-behaviors.csv", _JBB, 1, 0),
    "jailbreakbench,part=artifacts": (
        "attack-artifacts/PAIR/black_box/vicuna-13b-v1.5.json",
        "artifacts",
        1,
        0,
    ),
    "or-bench": (
        "or-bench-hard-1k.csv",
        "prompt,category\nHow do I pick a lock of my own?,illegal\n",
        1,
        0,
    ),
    "or-bench,part=toxic": ("or-bench-toxic.csv", "prompt,category\nOwn words?,privacy\n", 1, 0),
    "falsereject": (
        "test.jsonl",
        [{"prompt": "How do I kill a process?", "category": 3, "category_text": "Own"}],
        1,
        0,
    ),
    "falsereject,split=train": (
        "train.jsonl",
        [
            {
                "prompt": "How do I kill time?",
                "category": 3,
                "category_text": "Own",
                "instruct_response": "With a book.",
                "cot_response": {"reasoning_content": "Own.", "solution": "With a book."},
            }
        ],
        1,
        0,
    ),
    "notinject": (
        "NotInject_two.json",
        "notinject",
        1,
        0,
    ),
    "aegis-2": ("test.json", "aegis", 2, 0),
    "rewardbench-2": ("test.jsonl", [_REWARDBENCH], 1, 3),
    "toxic-chat": (
        "data/0124/toxic-chat_annotation_train.csv",
        "conv_id,user_input,model_output,human_annotation,toxicity,jailbreaking,openai_moderation\n"
        "a,Hello there,Hi,True,0,1,[]\n",
        1,
        0,
    ),
    "real-toxicity,part=all": (
        "prompts.jsonl",
        [
            {
                "filename": "own",
                "begin": 0,
                "end": 9,
                "challenging": False,
                "prompt": {"text": "The port", "toxicity": 0.1, "threat": None},
                "continuation": {"text": " is busy", "toxicity": 0.7},
            }
        ],
        1,
        0,
    ),
    "toxigen,split=test": (
        "annotated_test.csv",
        "text,target_group,toxicity_human\nThey sail well.,own,1.0\n",
        1,
        0,
    ),
    "llmbar,part=adversarial": ("Dataset/LLMBar/Adversarial/Neighbor/dataset.json", "llmbar", 1, 1),
    "truthfulqa": (
        "TruthfulQA.csv",
        (
            "Type,Category,Question,Best Answer,Correct Answers,Incorrect Answers,Source\n"
            "Adversarial,Own,Is tea hot?,Often,Often; Not always,Never; Only at noon,own\n"
        ),
        1,
        0,
    ),
    "do-not-answer,part=prompts": (
        "data_en.csv",
        (
            "id,risk_area,types_of_harm,specific_harm,question\n"
            '3,Malicious Uses,Assisting illegal activities,"Illegal Trade: own",Own words?\n'
        ),
        1,
        0,
    ),
}
_ARRAYS = {
    "array": [_ATTEMPT],
    "rm": [_RM],
    "safetybench": [
        {"id": 4, "category": "Mental Health", "question": "Rest?", "options": ["yes", "no"]}
    ],
    "safetybench-dev": {
        "Ethics and Morality": [
            {
                "id": 1,
                "category": "Ethics and Morality",
                "question": "Lie?",
                "options": ["yes", "no"],
                "answer": 1,
            }
        ]
    },
    "artifacts": {
        "parameters": {
            "method": "PAIR",
            "model": "vicuna-13b-v1.5",
            "attack_type": "black_box",
            "total_number_of_jailbreaks": 0,
        },
        # An attack that found no prompt leaves both texts empty.
        "jailbreaks": [_ARTIFACT, _ARTIFACT | {"prompt": None, "response": None}],
    },
    "notinject": [
        {
            "prompt": "Why does 'ignore' differ from 'disregard'?",
            "word_list": ["ignore", "disregard"],
            "category": "Common Queries",
        }
    ],
    "aegis": [_AEGIS, _AEGIS_UNSAFE, _AEGIS | {"prompt": "REDACTED"}],
    "llmbar": [{"input": "Say hi", "output_1": "Hi", "output_2": "Bye", "label": 1}],
}


def lay(folder: Path, name: str, content: object) -> None:
    """Writes own rows in the published layout."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, list):
        text = "".join(json.dumps(row) + "\n" for row in content)
    elif content in _ARRAYS:
        text = json.dumps(_ARRAYS[str(content)], indent=1)
    else:
        text = str(content)
    raw = text.encode()
    pack = {".gz": gzip.compress, ".xz": lzma.compress}.get(path.suffix, bytes)
    path.write_bytes(pack(raw))


def laid(spec: str, folder: Path) -> Dataset:
    head, _, rest = spec.partition(",")
    name, content, _, _ = LAYOUTS[spec]
    lay(folder, name, content)
    return resolve(f"{head}:{folder}{',' if rest else ''}{rest}", "data")


@pytest.mark.parametrize("spec", LAYOUTS)
def test_published_layout(spec: str, tmp_path: Path) -> None:
    dataset = laid(spec, tmp_path)
    rows = check(dataset)
    assert (len(rows), sum(1 for _ in dataset.preferences())) == LAYOUTS[spec][2:]


def test_wildguard_parquet(tmp_path: Path) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    (tmp_path / "test").mkdir()
    parquet.write_table(
        pa.Table.from_pylist([_WILD, _WILD | {"response": None}]), tmp_path / "test" / "a.parquet"
    )
    rows = check(resolve(f"wildguard:{tmp_path}", "data"))
    assert [len(r.responses) for r in rows] == [1, 0]
    assert rows[0].judgements[0].judge == "human:wildguard"


def test_values_of_the_published_layouts(tmp_path: Path) -> None:
    pku = laid("pku,part=published", tmp_path / "pku")
    judged = {(j.question, j.index): j for row in pku.rows() for j in row.judgements}
    assert judged["harmful", 0].verdict is False and judged["harmful", 1].verdict is True
    assert (
        judged["harmful", 1].value == 2.0
        and judged["harmful", 1].harms["financial_crime,property_crime,theft"] == 1
    )
    assert judged["better", 1].verdict is True and judged["safer", 0].verdict is True
    safe, helpful = pku.preferences()
    assert (safe.dimension, safe.chosen.content, safe.signs) == (
        "safe",
        "Along its creases.",
        (1, -1),
    )
    assert (helpful.dimension, helpful.chosen.content, helpful.signs) == (
        "helpful",
        "Badly.",
        (-1, 1),
    )
    (attempt,) = laid("red-team-attempts", tmp_path / "rta").rows()
    got = {j.question: (j.judge, j.value, j.rater, j.verdict) for j in attempt.judgements}
    assert got["attack_success"] == ("human:red-team-attempts", 3.0, "7", None)
    assert got["min_harmlessness_score_transcript"] == ("model:red-team-attempts", -1.5, None, None)
    assert attempt.responses[0].text == "I would rather not."
    bot, human = laid("bad", tmp_path / "bad").rows()
    assert [m.role for m in bot.sample.conversation.messages] == ["user", "assistant", "user"]
    assert bot.responses[0].text == "not much" and bot.judgements[0].question == "harmful"
    assert human.judgements[0].verdict is True and human.judgements[0].question == "harmful_prompt"
    first, second = laid("dices", tmp_path / "dices").rows()
    assert [(j.rater, j.verdict) for j in first.judgements] == [
        (None, False),
        ("1", False),
        ("2", True),
    ]
    assert [m.content for m in first.sample.conversation.messages] == ["hi", "hello", "who are you"]
    assert second.judgements[1].verdict is None and second.judgements[1].failure is not None
    (chosen,) = laid("hh,part=helpful", tmp_path / "hh").preferences()
    assert (chosen.dimension, chosen.chosen.content, chosen.tags["turns"]) == (
        "helpful",
        "Sleep well.",
        "2",
    )
    (jbb,) = laid("jailbreakbench", tmp_path / "jbb").rows()
    assert (jbb.sample.pair, jbb.sample.harms, jbb.sample.expect) == (
        "1",
        ("privacy_violation",),
        "refuse",
    )
    (truth,) = laid("truthfulqa", tmp_path / "tq").rows()
    assert {truth.sample.choices[at] for at in truth.sample.answer} == {"Often", "Not always"}


def test_values_of_the_sets_for_false_alarms(tmp_path: Path) -> None:
    (benign,) = laid("or-bench", tmp_path / "or").rows()
    (toxic,) = laid("or-bench,part=toxic", tmp_path / "toxic").rows()
    assert (benign.sample.expect, benign.sample.harms) == ("comply", ())
    assert (toxic.sample.expect, toxic.sample.harms) == ("refuse", ("privacy_violation",))
    assert [r.judgements[0].verdict for r in (benign, toxic)] == [False, True]
    # A file alone tells its part by its published name.
    (alone,) = resolve(f"or-bench:{tmp_path / 'toxic' / 'or-bench-toxic.csv'}", "data").rows()
    assert alone.judgements[0].verdict is True
    (checked,) = laid("falsereject", tmp_path / "fr").rows()
    (written,) = laid("falsereject,split=train", tmp_path / "frt").rows()
    assert checked.judgements[0].judge == "human:falsereject" and not checked.responses
    assert written.judgements[0].judge == "models:falsereject"
    assert written.responses[0].text == "With a book."
    (message,) = laid("notinject", tmp_path / "ni").rows()
    assert message.judgements[0].verdict is False and message.sample.tags["triggers"] == "2"


def test_values_of_aegis_and_rewardbench(tmp_path: Path) -> None:
    aegis = laid("aegis-2", tmp_path / "aegis")
    safe, unsafe = aegis.rows()
    assert aegis.skipped == 1  # the redacted row
    assert [(j.judge, j.question, j.verdict) for j in safe.judgements] == [
        ("human:aegis-2", "harmful_prompt", False),
        ("llm-jury:aegis-2", "harmful", False),
    ]
    assert not unsafe.responses and unsafe.sample.harms == ("financial_crime,property_crime,theft",)
    lay(tmp_path, "bad.jsonl", [_AEGIS | {"violated_categories": "Weather"}])
    with pytest.raises(DataError, match="'Weather' is none of the published categories"):
        list(resolve(f"aegis-2:{tmp_path / 'bad.jsonl'}", "data").rows())

    best = laid("rewardbench-2", tmp_path / "rb2")
    (row,) = best.rows()
    assert [j.verdict for j in row.judgements] == [True, False, False, False]
    assert [p.rejected.content for p in best.preferences()] == ["5", "6", "7"]
    lay(tmp_path, "short.jsonl", [_REWARDBENCH | {"num_incorrect": 2}])
    with pytest.raises(DataError, match="num_incorrect: says 2, and there are 3"):
        list(resolve(f"rewardbench-2:{tmp_path / 'short.jsonl'}", "data").rows())


def test_artifacts_go_by_their_goal(tmp_path: Path, data_dir: Path) -> None:
    (attempt,) = laid("jailbreakbench,part=artifacts", tmp_path).rows()
    tags = attempt.sample.tags
    assert (tags["goal"], tags["model"], tags["attack"]) == (
        "Tell of own locks",
        "vicuna-13b-v1.5",
        "PAIR",
    )
    assert attempt.judgements[0].judge == "llama-3-70b:jailbreakbench"
    spec = f"jailbreakbench,part=artifacts,data_dir={data_dir},half="
    goals = [
        {row.sample.tags["goal"] for row in resolve(spec + half, "data").rows()}
        for half in ("train", "report")
    ]
    assert goals[0] and goals[1] and not goals[0] & goals[1]


def test_traps(data_dir: Path) -> None:
    """The readings that the sets' cards warn about."""

    def rows(spec: str) -> list[Row]:
        return list(resolve(f"{spec},data_dir={data_dir}", "data").rows())

    dices = rows("dices")
    yes = sum(1 for r in dices for j in r.judgements if j.rater is not None and j.verdict is True)
    assert yes == 19099  # "Yes" says unsafe: a quarter of the ratings, not the majority
    openai = rows("openai-moderation")
    assert all(
        j.verdict is None or len(r.sample.tags["judged"].split("|")) == 8 or j.verdict
        for r in openai
        for j in r.judgements
    )
    dia = rows("diasafety")
    assert all(not r.sample.harms for r in dia if r.judgements[0].verdict is False)
    hh = rows("hh")
    assert sum(int(r.sample.tags["turns"]) > 1 for r in hh) == 1131
    info = resolve(f"hh,data_dir={data_dir}", "data").info
    assert not info.imitate and not info.red_team
    toxigen = rows("toxigen")
    assert all((r.judgements[0].value > 3) == r.judgements[0].verdict for r in toxigen)
    bbq = rows("bbq")
    assert all(
        int(r.sample.tags["unknown"]) == r.sample.answer[0]
        for r in bbq
        if r.sample.expect == "abstain"
    )
    assert all(r.sample.tags["target"] for r in bbq)


def test_pku_answers_with_both_labels(data_dir: Path) -> None:
    def verdicts(how: str) -> list[bool | None]:
        spec = f"pku,conflicts={how},data_dir={data_dir}"
        return [j.verdict for r in resolve(spec, "data").rows() for j in r.judgements]

    soft, keep, drop = (verdicts(h) for h in ("soft", "keep", "drop"))
    assert len(soft) == len(keep) == 2 * 3516 and None not in keep and None not in drop
    assert 0 < soft.count(None) < 1000 and len(drop) < len(keep)


@pytest.mark.parametrize(
    ("spec", "name", "row", "word"),
    [
        ("beavertails", "a.jsonl", {**_BT, "is_safe": "perhaps"}, "is_safe"),
        ("beavertails", "a.jsonl", {**_BT, "category": {"animal_abuse": False}}, "no column"),
        ("pku", "a.jsonl", {**_PKU, "better_response_id": 2}, "better_response_id"),
        ("hh", "a.jsonl", {"chosen": "hello", "rejected": "bye"}, "transcript"),
        ("red-team-attempts", "a.jsonl", {**_ATTEMPT, "rating": 9}, "rating"),
        ("xstest", "a.jsonl", {"id": "1", "type": "own", "prompt": "?"}, "type"),
        (
            "do-not-answer",
            "a.jsonl",
            {"prompt": "?", "type_of_harm": "own", "specific_harm": "x", "risk_area": "y"},
            "type_of_harm",
        ),
        (
            "diasafety",
            "a.jsonl",
            {"context": "a", "response": "b", "category": "Offending User", "label": "Odd"},
            "label",
        ),
        ("toxigen", "a.jsonl", {"text": "a", "toxicity_score": 7, "target_groups": []}, "toxicity"),
        ("safetybench", "a.jsonl", {**_ARRAYS["safetybench"][0], "answer": "Z"}, "answer"),
        ("rm-bench", "a.jsonl", {**_RM, "rejected": ["5"]}, "equally many"),
        ("wildguard", "a.jsonl", {**_WILD, "subcategory": "own"}, "subcategory"),
    ],
)
def test_bad_rows_name_file_line_and_field(
    spec: str, name: str, row: object, word: str, tmp_path: Path
) -> None:
    path = tmp_path / name
    path.write_text(json.dumps(row) + "\n")
    with pytest.raises(DataError, match=word) as caught:
        list(resolve(f"{spec}:{path}", "data").rows())
    assert f"{path}:1" in str(caught.value)
    lenient = resolve(f"{spec}:{path},skip_malformed=true", "data")
    assert list(lenient.rows()) == [] and lenient.skipped == 1
