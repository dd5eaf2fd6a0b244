"""What the readers of published sets share: arguments, selection of rows, ids, halves and hashes.

A published set is a `PublishedDataset` with a function that converts one record into rows.
Arguments that every set takes: `part`, `split`, `limit`, `half=train|report` (by a hash
of the normalised prompt, so that no prompt is in both halves), `category`, `language`,
`distinct=true` (one row a prompt), `replay=true` (without the recorded answers: the target model
answers the last turn), `skip_malformed=true` (count bad rows instead of raising), `taxonomy`,
`data_dir`, `revision` (of a hub id).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Literal, get_args

import msgspec
from msgspec import Struct, field

from truing.core.errors import DataError, did_you_mean
from truing.core.ids import content_id
from truing.core.lineage import hash_prompt
from truing.core.taxonomy import Taxonomy, load_taxonomy
from truing.core.types import (
    DataInfo,
    Expect,
    Failure,
    Judgement,
    Message,
    Preference,
    Response,
    Row,
    Sample,
)
from truing.datasets.file_lookup import FileQuery, locate_files
from truing.datasets.readers import DocumentUnpacker, Record, read_records
from truing.specs.resolve import Args

Half = Literal["", "train", "report"]
EXPECTATIONS: dict[str, Expect] = {name: name for name in get_args(Expect)}


class DatasetOptions(Struct, frozen=True, kw_only=True):
    """Which rows of a set to read and how; `extra` holds the arguments of one set only."""

    part: str = ""
    split: str = ""
    limit: int | None = None
    half: Half = ""
    categories: tuple[str, ...] = ()
    language: str = ""
    distinct: bool = False
    replay: bool = False
    skip_malformed: bool = False
    taxonomy: Taxonomy = field(default_factory=load_taxonomy)
    extra: dict[str, str] = field(default_factory=dict)


RecordConverter = Callable[[Record, DatasetOptions], Iterable[Row]]
PairConverter = Callable[[Record, DatasetOptions], Iterable[Preference]]


class PublishedDataset(Struct, frozen=True, kw_only=True):
    """A published set: its description, where its files are, and how a record is converted.

    `parts` maps a part's name to file patterns, relative to the folder, tried in order (``{split}``
    is filled in); the first part is the default. `hub` maps a part to the hub id of the published
    repository. `extra_arguments` names the arguments that only this set takes.
    """

    kind: str
    title: str
    source: str
    licence: str
    parts: dict[str, tuple[str, ...]]
    convert: RecordConverter
    folder: str = ""
    hub: dict[str, str] = field(default_factory=dict)
    labels: tuple[str, ...] = ()
    convert_pairs: PairConverter | None = None
    unpack: DocumentUnpacker | None = None
    red_team: bool = False
    imitate: bool = True
    split: str = "train"
    extra_arguments: tuple[str, ...] = ()


def recorded_response(text: str, index: int = 0) -> Response:
    """Returns an answer that is published with the set; its sample id is filled in later."""
    return Response(sample_id="", index=index, message=Message("assistant", text))


def recorded_judgement(
    judge: str,
    question: str,
    verdict: bool | None,
    *,
    index: int = 0,
    rater: str | None = None,
    value: float | None = None,
    score: float | None = None,
    harms: dict[str, float] | None = None,
) -> Judgement:
    """Returns a label that is published with the set; its sample id is filled in later.

    The judge is `human:NAME` unless `judge` already has a prefix.

    Without a `rater` it is the final label of the set. A judgement with neither verdict nor value
    is unscored.
    """
    is_open = verdict is None and value is None
    unscored = Failure("judge", "unlabelled", "the label leaves this open") if is_open else None
    return Judgement(
        sample_id="",
        index=index,
        judge=judge if ":" in judge else f"human:{judge}",
        rater=rater,
        question=question,
        verdict=verdict,
        value=value,
        score=score,
        harms=harms or {},
        failure=unscored,
    )


class FileDataset:
    """A `Dataset` over files. `skipped` counts the malformed rows of the latest reading."""

    def __init__(
        self,
        about: PublishedDataset,
        files: tuple[Path, ...],
        options: DatasetOptions,
        spec: str = "",
    ) -> None:
        self.published = about
        self.files = files
        self.options = options
        self.skipped = 0
        self._spec = spec or about.kind
        self._sha = ""

    @property
    def info(self) -> DataInfo:
        """Returns the description of the set: spec, source, licence."""
        published = self.published
        return DataInfo(
            spec=self._spec,
            title=published.title,
            source=published.source,
            licence=published.licence,
            labels=published.labels,
            red_team=published.red_team,
            imitate=published.imitate,
        )

    def sha256(self) -> str:
        """Returns the hash of the file; of several files, the hash of their list of hashes."""
        if not self._sha:
            single = [_hash_file(path) for path in self.files]
            self._sha = (
                single[0]
                if len(single) == 1
                else hashlib.sha256("\n".join(single).encode()).hexdigest()
            )
        return self._sha

    def records(self) -> Iterator[Record]:
        """Yields the records of the files; a malformed one raises or is counted in `skipped`."""
        self.skipped = 0
        has_rows = False
        for path in self.files:
            for record in read_records(path, unpack=self.published.unpack):
                has_rows = True
                if isinstance(record, Record):
                    yield record
                else:
                    self._bad(record)
        if not has_rows:
            raise DataError(f"{', '.join(map(str, self.files))}: no rows")

    def _bad(self, fault: DataError) -> None:
        if not self.options.skip_malformed:
            raise fault
        self.skipped += 1

    def convert(self, record: Record) -> list[Row]:
        """Returns the rows of one record; a subclass may use data of the other records too."""
        return list(self.published.convert(record, self.options))

    def converted(self) -> Iterator[list[Row]]:
        """Yields the rows of each record; a malformed one raises or is counted in `skipped`."""
        for record in self.records():
            try:
                yield self.convert(record)
            except DataError as fault:
                self._bad(fault)

    def rows(self) -> Iterator[Row]:
        """Yields the selected rows; their ids do not depend on the selection."""
        seen: dict[str, int] = {}
        prompts: set[str] = set()
        count = 0
        if self.options.limit == 0:
            return
        for converted in self.converted():
            for row in converted:
                # Before the selection, so that an id does not depend on the arguments.
                identified = _assign_ids(row, seen, self._source())
                if not self._is_selected(identified.sample):
                    continue
                if self.options.distinct:
                    # All messages: dialogues may share their last turn and differ before it.
                    key = hash_prompt(
                        "\n".join(m.content for m in identified.sample.conversation.messages)
                    )
                    if key in prompts:
                        continue
                    prompts.add(key)
                yield Row(sample=identified.sample) if self.options.replay else identified
                count += 1
                if count == self.options.limit:
                    return

    def preferences(self) -> Iterator[Preference]:
        """Yields the selected preference pairs; none for a set without pairs."""
        pairs = self.published.convert_pairs
        if pairs is None or self.options.limit == 0:
            return
        count = 0
        for record in self.records():
            try:
                converted = list(pairs(record, self.options))
            except DataError as fault:
                self._bad(fault)
                continue
            for pair in converted:
                if self._is_selected(
                    Sample(conversation=pair.conversation, harms=pair.harms, tags=pair.tags)
                ):
                    yield msgspec.structs.replace(pair, source=pair.source or self._source())
                    count += 1
                    if count == self.options.limit:
                        return

    def _source(self) -> str:
        return (
            f"{self.published.kind}:{self.options.part}"
            if self.options.part
            else self.published.kind
        )

    def _is_selected(self, sample: Sample) -> bool:
        options = self.options
        if options.categories and not set(options.categories) & {
            *sample.harms,
            sample.tags.get("category", ""),
        }:
            return False
        if options.language and sample.tags.get("language", "en") != options.language:
            return False
        return not options.half or self._half(sample) == options.half

    def _half(self, sample: Sample) -> str:
        # All attacks on one goal go to the same half: their prompts are not independent.
        return assign_half(sample.tags.get("goal") or sample.prompt)


def assign_half(prompt: str) -> Half:
    """Returns the half that a prompt belongs to, by a hash of its normalised form."""
    # By content, not by row number: a prompt that occurs in two sets is in the same half of both.
    return "train" if int(hash_prompt(prompt), 16) % 2 == 0 else "report"


def _assign_ids(row: Row, seen: dict[str, int], source: str) -> Row:
    replace = msgspec.structs.replace
    sample = row.sample if row.sample.source else replace(row.sample, source=source)
    base = name = sample.id or content_id(sample)
    # A user's own ids may look like the numbered ones, hence a loop.
    while name in seen:
        seen[base] += 1
        name = f"{base}-{seen[base]}"
    seen[name] = 0
    sample = replace(sample, id=name)
    return Row(
        sample=sample,
        responses=tuple(replace(r, sample_id=sample.id) for r in row.responses),
        judgements=tuple(replace(j, sample_id=sample.id) for j in row.judgements),
    )


def _hash_file(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        # In blocks: published files reach gigabytes.
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def parse_options(args: Args, about: PublishedDataset) -> DatasetOptions:
    """Reads the arguments that all sets share; raises SpecError for an invalid value."""
    parts = list(about.parts)
    part = args.text("part", parts[0] if parts else "")
    # Sets of a user's own files have no parts.
    if parts and part not in parts:
        raise args.fault(f"part={part!r}{did_you_mean(part, parts)}")
    half_by_argument: dict[str, Half] = {"": "", "train": "train", "report": "report"}
    half = half_by_argument.get(args.text("half", ""))
    if half is None:
        raise args.fault(f"half={args.text('half')!r} is neither train nor report")
    limit = args.integer("limit")
    if limit is not None and limit < 0:
        raise args.fault(f"limit={limit} is negative")
    taxonomy = load_taxonomy(args.text("taxonomy", "beavertails"))
    # `file:` uses `category` as the name of a column, so its filter is called `only`.
    category_names = args.text("only" if "category" in about.extra_arguments else "category", "")
    return DatasetOptions(
        part=part,
        split=args.text("split", about.split),
        limit=limit,
        half=half,
        categories=tuple(
            # "|" and not a comma: a comma separates the arguments of a spec, and ids contain
            # commas.
            taxonomy.find(c.strip()).id
            for c in category_names.split("|")
            if c.strip()
        ),
        language=args.text("language", ""),
        distinct=args.flag("distinct"),
        replay=args.flag("replay"),
        skip_malformed=args.flag("skip_malformed"),
        taxonomy=taxonomy,
        extra={k: v for k in about.extra_arguments if (v := args.text(k)) is not None},
    )


def make_builder(
    about: PublishedDataset, dataset_class: type[FileDataset] = FileDataset
) -> Callable[[Args], FileDataset]:
    """Returns the builder of a published set, as `specs.builders` expects it."""

    def build(args: Args) -> FileDataset:
        """Finds the files that the spec names and returns the set."""
        options = parse_options(args, about)
        patterns = tuple(p.format(split=options.split) for p in about.parts[options.part])
        files = locate_files(
            args,
            FileQuery(
                about.kind, about.folder or about.kind, patterns, about.hub.get(options.part, "")
            ),
        )
        return dataset_class(about, files, options, str(args.spec))

    return build
