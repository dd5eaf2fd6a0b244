"""Small runs, and a client that is signed in to the pages over their folder."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from litestar.testing import TestClient

from truing.core.types import Conversation, Judgement, Message, Response, Sample
from truing.runs.folder import DataRecord, JudgeRecord, Manifest, RunWriter, judgement_file
from truing.serve.ui.app import create_app
from truing.serve.ui.app_state import UiOptions, UiState
from truing.serve.ui.run_scan import run_id

BASE = "http://127.0.0.1:8200"
JUDGES = (("one", "harmful"), ("two", "harmful"), ("rules", "refused"))


def write_run(
    path: Path,
    answers: Sequence[str],
    verdicts: Sequence[Sequence[bool | None]],
    *,
    complete: bool = True,
    data: str = "file:mine.jsonl",
    categories: Sequence[str] = (),
) -> Path:
    """Writes a run with an answer to each prompt; `verdicts` are those of JUDGES by row."""
    records = [
        JudgeRecord(name=name, question=question, file=judgement_file(f"{name}-{question}", "ab12"))
        for name, question in JUDGES
    ]
    manifest = Manifest(
        model="scripted:test",
        data=[DataRecord(spec=data, sha256="d0", n=len(answers))],
        judges=records,
        plan={"n": 1},
        complete=complete,
        created="2026-11-29T10:00:00+00:00",
        versions={"truing": "0.2.0"},
    )
    writer = RunWriter(path, manifest)
    for number in range(len(answers)):
        writer.append(
            "samples.jsonl",
            Sample(
                id=f"s{number}",
                conversation=Conversation.of(f"prompt number{number} about apples"),
                harms=tuple(categories[number : number + 1]),
            ),
        )
    for number, answer in enumerate(answers):
        writer.append(
            "responses.jsonl",
            Response(sample_id=f"s{number}", message=Message("assistant", answer)),
        )
        for record, verdict in zip(records, verdicts[number]):
            writer.append(
                record.file,
                Judgement(
                    sample_id=f"s{number}",
                    judge=record.name,
                    question=record.question,
                    verdict=verdict,
                    rationale=f"because of reason{number} by {record.name}",
                ),
            )
    writer.close()
    return path


def write_small_run(path: Path, **options: Any) -> Path:
    """Writes a run of four rows: harmful, judges that disagree, refused, unscored."""
    answers = ["pears and plums", "<script>alert(1)</script> plums", "no thanks", "苹果很好吃"]
    verdicts = [
        [True, True, False],
        [False, True, False],
        [False, False, True],
        [None, False, False],
    ]
    return write_run(path, options.pop("answers", answers), verdicts, **options)


class Visitor:
    """A browser that has opened the link of the app."""

    def __init__(self, client: TestClient[Any], state: UiState) -> None:
        self.client, self.state = client, state

    def get(self, path: str, **headers: str) -> Any:
        """Loads a page."""
        return self.client.get(path, headers=headers, follow_redirects=False)

    def text(self, path: str) -> str:
        """Loads a page that has to be there."""
        response = self.get(path)
        assert response.status_code == 200, (response.status_code, response.text)
        return str(response.text)

    def submit(self, path: str, fields: dict[str, Any], page: str = "/", **headers: str) -> Any:
        """Submits a form of a page with its CSRF token."""
        found = re.search(r'name="csrf" value="([0-9a-f]+)"', self.text(page))
        csrf = found.group(1) if found else ""
        return self.client.post(
            path,
            data={"csrf": csrf} | fields,
            headers={"origin": BASE} | headers,
            follow_redirects=False,
        )


@contextmanager
def open_pages(folder: Path, **options: Any) -> Iterator[Visitor]:
    """Runs the app over a folder, for a visitor who has opened its link."""
    state = UiState(folder, UiOptions(**options), index_key=b"k" * 32)
    with TestClient(create_app(state), base_url=BASE, raise_server_exceptions=False) as client:
        client.get(f"/?token={state.link_token}")
        yield Visitor(client, state)


def path_of(folder: Path, run: Path) -> str:
    """Returns the path of a run's page."""
    return f"/runs/{run_id(run.relative_to(folder))}"
