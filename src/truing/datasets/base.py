"""What all adapters share: where the files are, which rows are wanted, ids, halves, and the manifest's facts.

An adapter is a `Published` value and a function from a record to rows. Arguments that every set extra_arguments: `part`, `split`,
`limit`, `half=train|report` (by a hash of the normalised prompt, so that no prompt stands on both sides), `category`,
`language`, `distinct=true` (one row a prompt), `replay=true` (without the recorded answers: the target answers the last
turn), `skip_malformed=true` (count bad rows instead of raising), `taxonomy`, `data_dir`, `revision` (of a hub id).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Literal

import msgspec
from msgspec import Struct, field

from truing.core.errors import DataError, did_you_mean
from truing.core.ids import content_id
from truing.core.lineage import hash_prompt
from truing.core.taxonomy import Taxonomy, load_taxonomy
from truing.core.types import (
    DataInfo,
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


class DatasetOptions(Struct, frozen=True, kw_only=True):
    """Which rows of a set are wanted, and how they are read; `extra` holds an adapter's own arguments."""

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
    """A published set: what it is, where its files stand in a folder and on the hub, and how a record is read.

    `parts` maps a part's name to file patterns, relative to the folder, tried in order (``{split}`` is filled in); the
    first part is the default. `hub` maps a part to the hub id of the published repository.
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
    """An answer that came with the set; its sample id is filled in later."""
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
    """A judgement that came with the set, by people unless `judge` names another; its sample id is filled in later.

    `rater` none is the set's own final label. A judgement with neither verdict nor value is unscored.
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
    """A data set over files: a `truing.core.protocols.Dataset`. `skipped` counts the bad rows of the latest reading."""

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
        """Spec, source, licence."""
        a = self.published
        return DataInfo(
            spec=self._spec,
            title=a.title,
            source=a.source,
            licence=a.licence,
            labels=a.labels,
            red_team=a.red_team,
            imitate=a.imitate,
        )

    def sha256(self) -> str:
        """Of the file's bytes; of the list of the files' hashes where there are several."""
        if not self._sha:
            single = [_hash_file(path) for path in self.files]
            self._sha = (
                single[0]
                if len(single) == 1
                else hashlib.sha256("\n".join(single).encode()).hexdigest()
            )
        return self._sha

    def records(self) -> Iterator[Record]:
        """The rows of the files as they stand; bad ones raise, or are counted in `skipped`."""
        self.skipped = 0
        found = False
        for path in self.files:
            for record in read_records(path, unpack=self.published.unpack):
                found = True
                if isinstance(record, Record):
                    yield record
                else:
                    self._bad(record)
        if not found:
            raise DataError(f"{', '.join(map(str, self.files))}: no rows")

    def _bad(self, fault: DataError) -> None:
        if not self.options.skip_malformed:
            raise fault
        self.skipped += 1

    def convert(self, record: Record) -> list[Row]:
        """The rows of one record; a subclass may use what it learned from the whole file."""
        return list(self.published.convert(record, self.options))

    def rows(self) -> Iterator[Row]:
        """The wanted rows with their ids, which do not depend on what is wanted."""
        seen: dict[str, int] = {}
        prompts: set[str] = set()
        given = 0
        if self.options.limit == 0:
            return
        for record in self.records():
            try:
                made = self.convert(record)
            except DataError as fault:
                self._bad(fault)
                continue
            for row in made:
                named = _assign_ids(row, seen, self._source())
                if not self._wanted(named.sample):
                    continue
                if self.options.distinct:
                    key = hash_prompt(
                        "\n".join(m.content for m in named.sample.conversation.messages)
                    )
                    if key in prompts:
                        continue
                    prompts.add(key)
                yield Row(sample=named.sample) if self.options.replay else named
                given += 1
                if given == self.options.limit:
                    return

    def preferences(self) -> Iterator[Preference]:
        """Pairs in order of preference; nothing for sets without pairs."""
        pairs = self.published.convert_pairs
        if pairs is None or self.options.limit == 0:
            return
        given = 0
        for record in self.records():
            try:
                made = list(pairs(record, self.options))
            except DataError as fault:
                self._bad(fault)
                continue
            for pair in made:
                if self._wanted(
                    Sample(conversation=pair.conversation, harms=pair.harms, tags=pair.tags)
                ):
                    yield msgspec.structs.replace(pair, source=pair.source or self._source())
                    given += 1
                    if given == self.options.limit:
                        return

    def _source(self) -> str:
        return (
            f"{self.published.kind}:{self.options.part}"
            if self.options.part
            else self.published.kind
        )

    def _wanted(self, sample: Sample) -> bool:
        o = self.options
        if o.categories and not set(o.categories) & {
            *sample.harms,
            sample.tags.get("category", ""),
        }:
            return False
        if o.language and sample.tags.get("language", "en") != o.language:
            return False
        return not o.half or self._half(sample) == o.half

    def _half(self, sample: Sample) -> str:
        return assign_half(sample.prompt)


def assign_half(prompt: str) -> Half:
    """The half on which a prompt stands, by its normalised form."""
    return "train" if int(hash_prompt(prompt), 16) % 2 == 0 else "report"


def _assign_ids(row: Row, seen: dict[str, int], source: str) -> Row:
    replace = msgspec.structs.replace
    sample = row.sample if row.sample.source else replace(row.sample, source=source)
    base = name = sample.id or content_id(sample)
    while name in seen:  # a user's own ids may look like numbered ones
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
    whole = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            whole.update(block)
    return whole.hexdigest()


def parse_options(args: Args, about: PublishedDataset) -> DatasetOptions:
    """The common arguments of a spec, checked."""
    parts = list(about.parts)
    part = args.text("part", parts[0] if parts else "")
    if parts and part not in parts:
        raise args.fault(f"part={part!r}{did_you_mean(part, parts)}")
    halves: dict[str, Half] = {"": "", "train": "train", "report": "report"}
    half = halves.get(args.text("half", ""))
    if half is None:
        raise args.fault(f"half={args.text('half')!r} is neither train nor report")
    limit = args.integer("limit")
    if limit is not None and limit < 0:
        raise args.fault(f"limit={limit} is negative")
    known = load_taxonomy(args.text("taxonomy", "beavertails"))
    wanted = args.text("only" if "category" in about.extra_arguments else "category", "")
    return DatasetOptions(
        part=part,
        split=args.text("split", about.split),
        limit=limit,
        half=half,
        categories=tuple(known.find(c.strip()).id for c in wanted.split("|") if c.strip()),
        language=args.text("language", ""),
        distinct=args.flag("distinct"),
        replay=args.flag("replay"),
        skip_malformed=args.flag("skip_malformed"),
        taxonomy=known,
        extra={k: v for k in about.extra_arguments if (v := args.text(k)) is not None},
    )


def make_builder(
    about: PublishedDataset, made: type[FileDataset] = FileDataset
) -> Callable[[Args], FileDataset]:
    """The function that `registry.resolve` calls for a published set."""

    def build(args: Args) -> FileDataset:
        """The set that the spec names, its files found."""
        options = parse_options(args, about)
        patterns = tuple(p.format(split=options.split) for p in about.parts[options.part])
        files = locate_files(
            args,
            FileQuery(
                about.kind, about.folder or about.kind, patterns, about.hub.get(options.part, "")
            ),
        )
        return made(about, files, options, str(args.spec))

    return build
