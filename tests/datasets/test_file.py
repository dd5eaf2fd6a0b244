from __future__ import annotations

import json
from pathlib import Path

import pytest

from truing.core.errors import DataError, SpecError
from truing.core.types import Row
from truing.specs.resolve import resolve

TAXONOMY = """
name = "own"
[[category]]
id = "spam"
name = "Spam"
definition = "Unasked-for bulk messages."
"""


def rows(tmp_path: Path, *content: object, more: str = "", name: str = "a.jsonl") -> list[Row]:
    path = tmp_path / name
    path.write_text("".join((c if isinstance(c, str) else json.dumps(c)) + "\n" for c in content))
    return list(resolve(f"file:{path}{more}", "data").rows())


def test_all_columns(tmp_path: Path) -> None:
    (row,) = rows(
        tmp_path,
        {
            "prompt": "Which?",
            "id": "own-1",
            "response": ["a", "b"],
            "category": "self_harm",
            "expect": "refuse",
            "choices": ["x", "y"],
            "answer": 1,
            "pair": "p",
            "language": "de",
            "harmful": True,
            "extra": 3,
        },
    )
    s = row.sample
    assert (s.id, s.prompt, s.harms, s.expect, s.choices, s.answer, s.pair) == (
        "own-1",
        "Which?",
        ("self_harm",),
        "refuse",
        ("x", "y"),
        (1,),
        "p",
    )
    assert s.tags == {"language": "de", "extra": "3"}
    assert [r.text for r in row.responses] == ["a", "b"] and row.responses[1].sample_id == "own-1"
    (judged,) = row.judgements
    assert (judged.judge, judged.question, judged.verdict, judged.harms) == (
        "human:file",
        "harmful",
        True,
        {"self_harm": 1.0},
    )


def test_other_names(tmp_path: Path) -> None:
    more = ",prompt=q,response=a,category=kind,id=n"
    (row,) = rows(
        tmp_path,
        {"q": "Hello", "a": "Hi", "kind": "privacy_violation|self_harm", "n": 7},
        more=more,
    )
    assert row.sample.id == "7" and row.sample.harms == ("privacy_violation", "self_harm")
    assert row.responses[0].text == "Hi"
    with pytest.raises(
        DataError, match=r"a\.jsonl:1: no column 'question'; did you mean 'question_text'"
    ):
        rows(tmp_path, {"question_text": "Hello"}, more=",prompt=question")
    with pytest.raises(DataError, match="no column 'prompt'"):
        rows(tmp_path, {"text": "Hello"})


def test_messages(tmp_path: Path) -> None:
    talk = [
        {"role": "system", "content": "s"},
        {"role": "user", "content": "u"},
        {"role": "assistant", "content": "a"},
    ]
    (row,) = rows(tmp_path, {"messages": talk})
    assert [m.role for m in row.sample.conversation.messages] == ["system", "user"]
    assert row.responses[0].text == "a"
    (row,) = rows(tmp_path, {"prompt": None, "messages": talk[:2]})
    assert row.responses == ()
    with pytest.raises(DataError, match=r"messages\[0\].role"):
        rows(tmp_path, {"messages": [{"role": "robot", "content": "x"}]})
    with pytest.raises(DataError, match="no user turn"):
        rows(tmp_path, {"messages": talk[:1]})


def test_csv_and_own_taxonomy(tmp_path: Path) -> None:
    (tmp_path / "t.toml").write_text(TAXONOMY)
    more = f",taxonomy={tmp_path}/t.toml,only=spam"
    (row,) = rows(
        tmp_path, "prompt,category,answer,choices", "Hi,spam,b,a|b", more=more, name="a.csv"
    )
    assert row.sample.harms == ("spam",) and row.sample.answer == (1,)
    with pytest.raises(DataError, match="there is no category 'spam'"):
        rows(tmp_path, {"prompt": "Hi", "category": "spam"})
    (row,) = rows(tmp_path, {"prompt": "Hi", "category": "spam"}, more=",category=")
    assert row.sample.harms == ()


def test_beavertails_shaped_categories(tmp_path: Path) -> None:
    (row,) = rows(
        tmp_path, {"prompt": "Hi", "category": {"self_harm": False, "animal_abuse": True}}
    )
    assert row.sample.harms == ("animal_abuse",)


def test_equal_rows_and_equal_ids_stay_apart(tmp_path: Path) -> None:
    ids = [r.sample.id for r in rows(tmp_path, {"prompt": "a"}, {"prompt": "a"}, {"prompt": "a"})]
    assert ids[1:] == [f"{ids[0]}-1", f"{ids[0]}-2"]
    records = [{"id": i, "prompt": str(n)} for n, i in enumerate(["x", "x", "x-1", "x"])]
    assert [r.sample.id for r in rows(tmp_path, *records)] == ["x", "x-1", "x-1-1", "x-2"]


def test_preferences(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(
        json.dumps({"prompt": "p", "chosen": "c", "rejected": "r"})
        + "\n"
        + json.dumps({"prompt": "q"})
    )
    (pair,) = resolve(f"file:{path},dimension=safe", "data").preferences()
    assert (pair.chosen.content, pair.rejected.content, pair.dimension) == ("c", "r", "safe")


def test_pattern_of_several_files(tmp_path: Path) -> None:
    for n in (1, 2):
        (tmp_path / f"log-{n}.jsonl").write_text(json.dumps({"prompt": f"p{n}"}) + "\n")
    matched = resolve(f"file:{tmp_path}/log-*.jsonl,licence=own", "data")
    assert [r.sample.prompt for r in matched.rows()] == [
        "p1",
        "p2",
    ] and matched.info.licence == "own"
    assert len(matched.sha256()) == 64


@pytest.mark.parametrize(
    ("row", "word"),
    [
        ({"prompt": ""}, "empty text"),
        ({"prompt": 3}, "expected text"),
        ({"prompt": "a", "expect": "obey"}, "expect"),
        ({"prompt": "a", "choices": ["x"], "answer": 4}, "no such choice"),
        ({"prompt": "a", "response": 3}, "text"),
        ({"prompt": "a", "category": "selfharm"}, "did you mean 'self_harm'"),
        ({"prompt": "a", "harmful": "?"}, "true or false"),
    ],
)
def test_bad_rows(row: object, word: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=word) as caught:
        rows(tmp_path, {"prompt": "fine"}, row)
    assert "a.jsonl:2" in str(caught.value)
    assert len(rows(tmp_path, {"prompt": "fine"}, row, more=",skip_malformed=true")) == 1


def test_bad_files(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="give a file"):
        resolve("file", "data")
    for name, word in (
        (f"{tmp_path}/no.jsonl", "no such file"),
        (str(tmp_path), "is a folder"),
        (f"{tmp_path}/*.jsonl", "no such file"),
    ):
        with pytest.raises(DataError, match=word):
            resolve(f"file:{name}", "data")
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"prompt": "\xff"}\n')
    with pytest.raises(DataError, match="a.jsonl:1: invalid UTF-8"):
        list(resolve(f"file:{path}", "data").rows())


def test_signs_and_margin_of_a_pair(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    row = {
        "prompt": "p",
        "chosen": "c",
        "rejected": "r",
        "dimension": "safe",
        "signs": [1, -1],
        "margin": 0.5,
    }
    path.write_text(json.dumps(row) + "\n")
    (pair,) = resolve(f"file:{path}", "data").preferences()
    assert (pair.dimension, pair.signs, pair.margin) == ("safe", (1, -1), 0.5)
    for wrong in ([1], [1, 0], ["1", "-1"], "1,-1", [True, -1]):
        path.write_text(json.dumps(row | {"signs": wrong}) + "\n")
        with pytest.raises(DataError, match=r"pairs\.jsonl:1.*signs"):
            list(resolve(f"file:{path}", "data").preferences())
