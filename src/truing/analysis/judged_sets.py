"""A labelled set and its judges as compact columns: the input of a comparison of judges.

A set is a run folder with recorded answers, labels and judgements. Every array runs over the
answers of `responses.jsonl` in file order ("row"): about 40 bytes for each row, and 9 more for each
judge (a one-byte verdict and a float64 score).
"""

from __future__ import annotations

from array import array
from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING

from msgspec import Struct, field

from truing.analysis.lineage_relations import training_prompts
from truing.analysis.verdict_table import EXPECTS, INAPPLICABLE_KINDS
from truing.core.lineage import find_judge_conflict, hash_prompt, normalise_prompt
from truing.core.measurement_set import count_frozen_by_source, frozen_hashes
from truing.core.types import AnswerIndex, Expect, Failure, Lineage
from truing.runs.folder import JudgeRecord, Run, label_hash
from truing.runs.index import IdIndex, check_cells, max_cells_per_sample
from truing.runs.parts import read_run_records, record_bytes

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

UNLABELLED = -1
# Codes of a verdict. UNSCORED: the judge failed, or has not judged the row (its process may have
# ended early); such rows count in its bounds. SKIPPED: the judge reports that the row does not
# concern it (a judge of answers and an empty answer); only such rows are left out of its figures.
NO, YES, UNSCORED, SKIPPED = 0, 1, 2, 3

PEOPLE, MACHINE, DESIGN = "people", "machine", "design"
"""Where labels come from: people (PEOPLE); a machine whose labels come with a published set
(MACHINE); or the purpose that the prompts were written for, harmful or benign (DESIGN).
"""


class _Message(Struct, frozen=True):
    role: str
    content: str = ""


class _Conversation(Struct, frozen=True):
    messages: tuple[_Message, ...] = ()


class _Sample(Struct, frozen=True):
    id: str
    conversation: _Conversation = _Conversation()
    expect: Expect = "none"
    parent: str | None = None
    tags: dict[str, str] = field(default_factory=dict)


class _Response(Struct, frozen=True):
    sample_id: str
    message: _Message
    index: AnswerIndex = 0
    model: str = "recorded"


class _Judgement(Struct, frozen=True):
    sample_id: str
    question: str
    index: AnswerIndex = 0
    rater: str | None = None
    verdict: bool | None = None
    score: float | None = None
    failure: Failure | None = None


class LabelColumn(Struct, frozen=True):
    """The labels of one question.

    Attributes:
        values: by row, 1, 0 or `UNLABELLED`.
        source: `PEOPLE`, `MACHINE` or `DESIGN`.
        raters: the names of the people or machines that gave the labels.
        undecided: rows whose raters were evenly divided.
        contradicting: rows with an equal prompt and answer that are labelled both ways; they have
            no label here.
    """

    values: NDArray[np.int8]
    source: str
    raters: tuple[str, ...]
    undecided: int
    contradicting: int


class VerdictScores(Struct, frozen=True):
    """The judgements of one judge, by row.

    `verdicts` holds the codes NO, YES, UNSCORED and SKIPPED; `scores` the probabilities of YES, NaN
    where the judge gave none. `invalid_scores` counts the ones outside [0, 1], which become NaN.
    """

    verdicts: NDArray[np.int8]
    scores: NDArray[np.float64]
    invalid_scores: int = 0


class JudgedSet:
    """A labelled set: its rows, their labels, and the verdicts of the judges that judged it.

    Attributes:
        spec, licence, sha256: those of the data set.
        size: the number of rows.
        prompts: by row, the number of its cluster, from 0 in the order of first rows. Rows with the
            same prompt, parent sample or attack goal are one cluster: their answers are not
            independent.
        has_answer: by row, whether the answer has text.
        models: the names of the answering models; "" stands for an unnamed one.
        model_of_row: by row, the index into `models`.
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        manifest = run.manifest
        self.manifest = manifest
        record = manifest.data[0]
        self.spec, self.licence, self.sha256 = record.spec, record.licence, record.sha256
        self._read_samples()
        self._read_responses()

    # -- rows

    def _read_samples(self) -> None:
        import numpy as np

        self._ids = IdIndex()
        prompt_keys, prompt_hashes, goal_hashes = array("q"), array("q"), array("q")
        expects = bytearray()
        self._model_numbers: dict[str, int] = {}
        self._model_of_sample = array("q")
        for position, sample in enumerate(
            read_run_records(self._run.path, "samples.jsonl", _Sample)
        ):
            self._ids.add(sample.id, position)
            users = [m.content for m in sample.conversation.messages if m.role == "user"]
            goal = sample.tags.get("goal", "")
            prompt_keys.append(_cluster_key(sample, users, goal))
            prompt_hashes.append(_hash_as_number(users[-1] if users else ""))
            goal_hashes.append(_hash_as_number(goal) if goal else -1)
            expects.append(EXPECTS.index(sample.expect))
            self._model_of_sample.append(self._number_model(sample.tags.get("model", "")))
        self._prompt_keys = np.array(prompt_keys, np.int64)
        self._prompt_hashes = np.array(prompt_hashes, np.int64)
        self._goal_hashes = np.array(goal_hashes, np.int64)
        self._expect_of_sample = np.frombuffer(bytes(expects), np.uint8)

    def _number_model(self, name: str) -> int:
        return self._model_numbers.setdefault(name, len(self._model_numbers))

    def _read_responses(self) -> None:
        import numpy as np

        positions, answer_indexes, text_keys, models = (array("q") for _ in range(4))
        answered = bytearray()
        unnamed = self._model_numbers.get("", -1)
        for response in read_run_records(self._run.path, "responses.jsonl", _Response):
            position = self._ids.get(response.sample_id)
            if position is None:
                continue
            content = response.message.content
            positions.append(position)
            answer_indexes.append(response.index)
            # Equal keys mean an equal prompt and an equal answer (`_drop_contradictions`).
            text_keys.append(hash((int(self._prompt_keys[position]), content)))
            answered.append(bool(content.strip()))
            model = self._model_of_sample[position]
            if model == unnamed and response.model != "recorded":
                model = self._number_model(response.model)
            models.append(model)
        n_samples = len(self._prompt_keys)
        self._per_sample = max(answer_indexes, default=0) + 1
        # A sparse index would make the lookup table below too large for memory.
        path = self._run.path / "responses.jsonl"
        max_cells = max_cells_per_sample(record_bytes(self._run.path, path.name), n_samples)
        check_cells(self._per_sample, max_cells, path)
        self._sample_of_row = np.array(positions, np.int64)
        self._indexes = np.array(answer_indexes, np.int64)
        self._row_of_key = np.full(n_samples * self._per_sample, -1, np.int64)
        keys = self._sample_of_row * self._per_sample + self._indexes
        self._row_of_key[keys] = np.arange(len(keys))
        self._text_keys = np.array(text_keys, np.int64)
        self.has_answer = np.frombuffer(bytes(answered), np.bool_)
        self.models = tuple(self._model_numbers)
        self.model_of_row = np.array(models, np.int64)
        self._expects = self._expect_of_sample[self._sample_of_row]
        # Not in the order of the keys, which are salted for each process: seeded bootstraps draw
        # clusters by number.
        numbers: dict[int, int] = {}
        keys_of_rows = (self._prompt_keys[sample] for sample in positions)
        clusters = array("q", (numbers.setdefault(k, len(numbers)) for k in keys_of_rows))
        self.prompts: NDArray[np.int64] = np.array(clusters, np.int64)

    @property
    def size(self) -> int:
        """The number of rows."""
        return len(self._sample_of_row)

    def find_row(self, sample_id: str, index: int) -> int | None:
        """Returns the row of an answer; None if the set has no such answer."""
        position = self._ids.get(sample_id)
        if position is None or index >= self._per_sample:
            return None
        row = int(self._row_of_key[position * self._per_sample + index])
        return row if row >= 0 else None

    def row_names(self, rows: Collection[int]) -> dict[int, str]:
        """Returns the sample ids of some rows; those of a later answer end in `#INDEX`."""
        positions = {int(self._sample_of_row[row]) for row in rows}
        samples = read_run_records(self._run.path, "samples.jsonl", _Sample)
        ids = {i: sample.id for i, sample in enumerate(samples) if i in positions}
        names = {}
        for row in rows:
            index = int(self._indexes[row])
            name = ids[int(self._sample_of_row[row])]
            names[row] = f"{name}#{index}" if index else name
        return names

    # -- lineage

    def trained_on(self, lineage: Lineage) -> NDArray[np.bool_]:
        """Returns by row whether a judge or one of its ancestors learned its prompt or goal."""
        import numpy as np

        known = np.array([int(h, 16) for h in training_prompts(lineage)], np.int64)
        of_sample = np.isin(self._prompt_hashes, known) | np.isin(self._goal_hashes, known)
        return np.asarray(of_sample[self._sample_of_row])

    def known_prompts(self, rows: NDArray[np.bool_] | None = None) -> tuple[str, ...]:
        """Returns the hashes of the prompts and goals of all or some rows.

        They have the form of `Lineage.prompts`: twelve hex digits each, sorted.
        """
        samples = self._sample_of_row if rows is None else self._sample_of_row[rows]
        hashes = {*self._prompt_hashes[samples].tolist(), *self._goal_hashes[samples].tolist()}
        return tuple(sorted(f"{number:012x}" for number in hashes if number >= 0))

    def frozen_rows(self) -> NDArray[np.bool_]:
        """Returns by row whether its prompt or goal is in the frozen measurement set."""
        import numpy as np

        frozen = np.array([int(h, 16) for h in frozen_hashes()], np.int64)
        of_sample = np.isin(self._prompt_hashes, frozen) | np.isin(self._goal_hashes, frozen)
        return np.asarray(of_sample[self._sample_of_row])

    def conflict(self, lineage: Lineage) -> str | None:
        """Returns why a judge may not measure these answers at all; None if it may.

        It may not if it chose, trained or filtered the answers, or if it learned from prompts of
        the frozen measurement set that come from the same published set as prompts of these rows:
        those prompts are close to these (benign twins, rewordings).
        """
        reason = find_judge_conflict(lineage, self.manifest.lineage)
        if reason is not None:
            return reason
        learned = count_frozen_by_source(training_prompts(lineage))
        if not learned:
            return None
        of_rows = count_frozen_by_source(self.known_prompts())
        shared = sorted(learned.keys() & of_rows.keys())
        if not shared:
            return None
        return f"was trained on prompts of the frozen measurement set ({', '.join(shared)})"

    # -- labels and verdicts

    def labels(self, question: str, labelled: Collection[str]) -> LabelColumn | None:
        """Returns the labels of a question; None if no row has one.

        People's labels count where there are any. Else those of a machine that came with a
        published set, if `labelled` (the set's own questions) names the question; else what the
        prompts were made for (`_design_labels`).
        """
        votes = _Votes(self.size)
        votes.add(self, self._human_records(), question)
        source = PEOPLE
        if not votes.raters and question in labelled:
            source = MACHINE
            machines = [r for r in self._label_records() if not r.name.startswith("human:")]
            votes.add(self, machines, question)
        if votes.raters:
            values, undecided = votes.decide()
        else:
            source, undecided, values = DESIGN, 0, self._design_labels(question)
        values, contradicting = self._drop_contradictions(values)
        if not contradicting and not undecided and not (values != UNLABELLED).any():
            return None
        return LabelColumn(values, source, tuple(votes.raters), undecided, contradicting)

    def _label_records(self) -> list[JudgeRecord]:
        """Returns the labels that came with the set, those of machines included."""
        return [r for r in self.manifest.judges if r.lineage.hash == label_hash(r.name, r.question)]

    def _human_records(self) -> list[JudgeRecord]:
        """Returns the labels of people: those that came with the set and those added later."""
        return [r for r in self.manifest.judges if r.name.startswith("human:")]

    def _design_labels(self, question: str) -> NDArray[np.int8]:
        """Returns the labels that follow from the purpose of the prompts (`expect` of the sample).

        A prompt to be refused is harmful, one to be answered is not. An answer to a prompt that
        should be answered counts as harmless. An answer to one that should be refused counts as
        harmful if people labelled it as no refusal, as harmless if they labelled it as one, and has
        no label otherwise.
        """
        import numpy as np

        comply = self._expects == EXPECTS.index("comply")
        refuse = self._expects == EXPECTS.index("refuse")
        labels = np.full(self.size, UNLABELLED, np.int8)
        if question == "harmful_prompt":
            labels[comply], labels[refuse] = NO, YES
        elif question == "harmful":
            votes = _Votes(self.size)
            votes.add(self, self._human_records(), "refused")
            refused = votes.decide()[0]
            labels[refuse & (refused == YES)] = NO
            labels[refuse & (refused == NO)] = YES
            labels[comply] = NO
            labels[~self.has_answer] = UNLABELLED
        return labels

    def _drop_contradictions(self, labels: NDArray[np.int8]) -> tuple[NDArray[np.int8], int]:
        """Returns the labels without rows of equal text that are labelled both ways, and those
        rows' number.
        """
        import numpy as np

        group = np.unique(self._text_keys, return_inverse=True)[1]
        n_texts = int(group.max()) + 1 if len(group) else 0
        yes = np.bincount(group[labels == YES], minlength=n_texts) > 0
        no = np.bincount(group[labels == NO], minlength=n_texts) > 0
        contradicts = (yes & no)[group] & (labels != UNLABELLED)
        consistent = labels.copy()
        consistent[contradicts] = UNLABELLED
        return consistent, int(contradicts.sum())

    def verdicts(self, judge: str, judge_hash: str, question: str) -> VerdictScores:
        """Returns the verdict and the probability that a judge gave each row."""
        import numpy as np

        verdicts = np.full(self.size, UNSCORED, np.int8)
        scores = np.full(self.size, np.nan)
        records = [
            r for r in self.manifest.judges if r.name == judge and r.lineage.hash == judge_hash
        ]
        invalid = 0
        for row, judgement in self._judgements(records, question):
            if judgement.failure is not None and judgement.failure.kind in INAPPLICABLE_KINDS:
                verdicts[row] = SKIPPED
            if judgement.verdict is None:
                continue
            verdicts[row] = YES if judgement.verdict else NO
            if judgement.score is None:
                continue
            if 0 <= judgement.score <= 1:
                scores[row] = judgement.score
            else:
                invalid += 1
        return VerdictScores(verdicts, scores, invalid)

    def labelled_questions(self) -> tuple[str, ...]:
        """Returns the questions that the labels of the set answer, for error messages."""
        questions: dict[str, None] = {}
        for record in self._label_records():
            for judgement in read_run_records(self._run.path, record.file, _Judgement):
                questions[judgement.question] = None
        return tuple(questions)

    def _judgements(
        self, records: Iterable[JudgeRecord], question: str
    ) -> Iterable[tuple[int, _Judgement]]:
        """Yields (row, judgement) of the answers that the set has."""
        for record in records:
            for judgement in read_run_records(self._run.path, record.file, _Judgement):
                if judgement.question != question:
                    continue
                row = self.find_row(judgement.sample_id, judgement.index)
                if row is not None:
                    yield row, judgement


class _Votes:
    """Votes of raters by row.

    A label without a rater is the final label of the published set: where there is one, the votes
    of single raters do not count. Every vote is +1 (yes) or -1 (no).
    """

    def __init__(self, size: int) -> None:
        import numpy as np

        self.raters: dict[str, None] = {}
        self._final = np.zeros(size, np.int32)  # sum of the final labels
        self._balance = np.zeros(size, np.int32)  # sum of the votes of single raters
        self._has_final = np.zeros(size, bool)
        self._voted = np.zeros(size, bool)

    def add(self, judged: JudgedSet, records: Iterable[JudgeRecord], question: str) -> None:
        """Adds the labels of a question from the records of its raters."""
        for record in records:
            for row, label in judged._judgements([record], question):
                if label.verdict is None:
                    continue
                self.raters[record.name] = None
                vote = 1 if label.verdict else -1
                self._voted[row] = True
                if label.rater is None:
                    self._has_final[row] = True
                    self._final[row] += vote
                else:
                    self._balance[row] += vote

    def decide(self) -> tuple[NDArray[np.int8], int]:
        """Returns the label of each row, and the number of rows whose votes are even."""
        import numpy as np

        balance = np.where(self._has_final, self._final, self._balance)
        values = np.full(len(balance), UNLABELLED, np.int8)
        values[balance > 0], values[balance < 0] = YES, NO
        return values, int((self._voted & (balance == 0)).sum())


def _cluster_key(sample: _Sample, users: list[str], goal: str) -> int:
    """Returns a key that samples share if their answers are not independent."""
    if goal:
        return hash(("goal", normalise_prompt(goal)))
    if sample.parent:
        return hash(("parent", sample.parent))
    return hash(normalise_prompt("\n".join(users)) or ("no prompt", sample.id))


def _hash_as_number(prompt: str) -> int:
    # Twelve hex digits are 48 bits, so an int64 holds them.
    return int(hash_prompt(prompt), 16)
