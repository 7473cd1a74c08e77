"""Whether what links lead to is still what was linked."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import h5py
from h5py import h5i, h5o

from nwbflow.errors import LinkError
from nwbflow.links.compare import ABSENT, show
from nwbflow.links.fingerprint import SMALL, content_bytes, fingerprint_dataset, fingerprint_raw
from nwbflow.links.inventory import LinkEntry, LinkState, entry_of, state_of
from nwbflow.links.places import Rules
from nwbflow.links.problems import misplaced, shown
from nwbflow.links.records import attributes_to_json, type_name
from nwbflow.links.resolve import Key, Spot, name_of
from nwbflow.links.survey import ALLOW, Part, Seen, Survey
from nwbflow.links.targets import attributes_of
from nwbflow.model.links import Fingerprint, LinkKind, LinkRecord

type Compared = Literal["all", "sample", "no"]
"""How much of the content was compared with what was recorded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkCheck:
    """A link that was checked.

    Parameters
    ----------
    entry : LinkEntry
        What it is and where it leads.
    state : LinkState
        What became of it.
    compared : {"all", "sample", "no"}
        Whether its content was compared with the recorded fingerprints: every byte, a sample of 64 blocks (of one
        target at least), or not at all.
    differences : tuple of str
        What is not as recorded.
    notes : tuple of str
        What was left out and why.
    """

    entry: LinkEntry
    state: LinkState
    compared: Compared
    differences: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether it can be read and nothing is known to have changed."""
        return self.state is LinkState.OK

    def to_json(self) -> dict[str, Any]:
        """Return JSON-serialisable values."""
        return {
            **self.entry.to_json(),
            "state": str(self.state),
            "compared": self.compared,
            "differences": list(self.differences),
            "notes": list(self.notes),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckReport:
    """The links of one file, checked.

    Parameters
    ----------
    path : pathlib.Path
        The file.
    links : tuple of LinkCheck
        By path.
    problems : tuple of str
        What could not be read, with its path (damaged files).
    """

    path: Path
    links: tuple[LinkCheck, ...]
    problems: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether every link is all right and everything could be read."""
        return not self.problems and all(link.ok for link in self.links)

    def to_json(self) -> dict[str, Any]:
        """Return JSON-serialisable values."""
        return {
            "path": shown(str(self.path)),
            "ok": self.ok,
            "links": [link.to_json() for link in self.links],
            "problems": [shown(problem) for problem in self.problems],
        }


def check_links(path: str | Path, *, full: bool = False, rules: Rules = ALLOW) -> CheckReport:
    """Check whether what a file's links lead to is there, and still what it was when it was linked.

    Compared are shape, type, attributes and content with what was recorded when the link was made; of a link to a
    group, what is recorded of the links in there. Of links made by
    other programs nothing is recorded: of those it is only checked that the target can be opened and is complete.

    Parameters
    ----------
    path : str or pathlib.Path
        An HDF5 file. It is opened for reading only.
    full : bool
        Also compare content of more than 64 MiB of which every byte was recorded (of large targets, that is not the
        default). What was recorded as a sample of 64 blocks can only be compared as one.
    rules : Rules
        What may be opened on the file's behalf.

    Returns
    -------
    CheckReport
        Link by link.

    Raises
    ------
    nwbflow.errors.LinkError
        If the file itself can't be opened.
    """
    with Survey(path, rules) as survey:
        links = [_checked(seen, survey, full=full) for seen in survey.links()]
        return CheckReport(
            path=survey.path,
            links=tuple(sorted(links, key=lambda c: c.entry.path)),
            problems=tuple(survey.problems),
        )


def _checked(seen: Seen, survey: Survey, *, full: bool) -> LinkCheck:
    entry = entry_of(seen, survey)
    if seen.note:  # the record can't be read
        return LinkCheck(entry=entry, state=LinkState.CHANGED, compared="no", differences=(shown(seen.note),))
    if seen.problem is not None:
        return LinkCheck(entry=entry, state=entry.state, compared="no", differences=(entry.detail,))
    comparison = Comparison(full=full)
    state = LinkState.CHANGED
    try:
        if seen.record is not None:
            comparison.run(seen, seen.record, survey)
        elif seen.kind is LinkKind.EXTERNAL and seen.end is not None:
            comparison.below(seen.end, survey.rules)
    except LinkError as error:
        state = state_of(error.kind)
        comparison.differences.append(str(error))
    return LinkCheck(
        entry=entry,
        state=state if comparison.differences else LinkState.OK,
        compared=comparison.compared,
        differences=tuple(map(shown, comparison.differences)),
        notes=tuple(map(shown, comparison.notes)),
    )


class Comparison:
    """Compares one target with its record.

    Parameters
    ----------
    full : bool
        Whether large content is read too.
    """

    def __init__(self, *, full: bool) -> None:
        self.differences: list[str] = []
        self.notes: list[str] = []
        self._full = full
        self._methods: list[str] = []

    @property
    def compared(self) -> Compared:
        """How much of the content was compared."""
        if not self._methods or self.notes:
            return "no"
        return "sample" if "sampled" in self._methods else "all"

    def run(self, seen: Seen, record: LinkRecord, survey: Survey) -> None:
        """Compare what a link leads to."""
        end = seen.end
        if end is None or h5i.get_type(end.id) != h5i.DATASET:
            self.differences.append("it was a dataset and is a group now")
            return
        dataset = survey.dataset(end)
        alike = self.structure(dataset, record)
        if seen.kind is LinkKind.EXTERNAL:
            self.attributes(dataset, record)
            print_ = one_print(record, seen.parts[0].key)
            if print_ is not None and alike:
                self.content(dataset, print_, "")
        elif seen.kind is LinkKind.VIRTUAL:
            self._parts(seen, record, survey, self._source)
        elif seen.kind is LinkKind.RAW:
            self._parts(seen, record, survey, self._stretch)

    def below(self, end: Spot, rules: Rules) -> None:
        """Compare what is recorded in a linked group, and in the groups that it links to."""
        places, met = _groups(end), set[Key]()
        while places:
            file, path, key = places.pop()
            if key in met:
                continue
            met.add(key)
            with Survey(file, rules) as survey:
                start = survey.at(survey.main, path)
                for seen in survey.links(h5py.Group(h5o.open(start.id, b"."))):
                    if seen.kind is LinkKind.EXTERNAL and seen.end is not None:
                        places += _groups(seen.end)
                    self._inside(seen, survey, path)

    def _inside(self, seen: Seen, survey: Survey, group: str) -> None:
        """Compare one link of a linked group, if something is recorded of it."""
        if seen.record is None and not seen.note:
            return
        at = len(self.differences)
        if seen.problem is not None:
            self.differences.append(seen.problem.reason)
        elif seen.record is None:
            self.differences.append(seen.note)
        else:
            self.run(seen, seen.record, survey)
        where = f"{survey.path}:{group.rstrip('/')}{seen.member.path}"
        self.differences[at:] = [f"{where}: {text}" for text in self.differences[at:]]

    def structure(self, dataset: h5py.Dataset, record: LinkRecord) -> bool:
        """Compare shape and type; return whether they are the same."""
        shape, dtype = tuple(int(n) for n in dataset.shape or ()), type_name(dataset.dtype)
        if shape != record.shape:
            self.differences.append(f"shape was {record.shape}, is {shape}")
        if dtype != record.dtype:
            self.differences.append(f"type was {record.dtype}, is {dtype}")
        return (shape, dtype) == (record.shape, record.dtype)

    def attributes(self, dataset: h5py.Dataset, record: LinkRecord) -> None:
        """Compare attributes."""
        now = attributes_to_json(attributes_of(dataset))
        for name in sorted({*record.attributes, *now}):
            was, is_ = record.attributes.get(name, ABSENT), now.get(name, ABSENT)
            if was is ABSENT or is_ is ABSENT or was != is_:
                self.differences.append(f"attribute {name} was {show(was)}, is {show(is_)}")

    def content(self, dataset: h5py.Dataset, recorded: Fingerprint, name: str) -> None:
        """Compare a dataset's content."""
        if self._worth(recorded, content_bytes(dataset), name):
            self._judge(recorded, fingerprint_dataset(dataset, _method(recorded)), name)

    def raw(self, path: Path, part: Part, recorded: Fingerprint) -> None:
        """Compare a stretch of a raw file."""
        if self._worth(recorded, part.nbytes, part.key):
            self._judge(recorded, fingerprint_raw(path, part.offset, part.nbytes, _method(recorded)), part.key)

    def _parts(self, seen: Seen, record: LinkRecord, survey: Survey, compare: Any) -> None:
        for part in seen.parts:
            print_ = record.fingerprints.get(part.key)
            if print_ is None:
                self.notes.append(f"{part.key}: its content is not recorded")
                continue
            try:
                compare(survey, part, print_)
            except LinkError as error:
                self.differences.append(f"{part.key}: {error}")
            survey.let_go()  # of many sources, not all can be open

    def _source(self, survey: Survey, part: Part, recorded: Fingerprint) -> None:
        self.content(survey.dataset(survey.end_of(part, LinkKind.VIRTUAL)), recorded, part.key)

    def _stretch(self, survey: Survey, part: Part, recorded: Fingerprint) -> None:
        place = survey.place(part, LinkKind.RAW)
        if place.path is None:
            self.differences.append(misplaced(place))
        else:
            self.raw(place.path, part, recorded)

    def _worth(self, recorded: Fingerprint, nbytes: int, name: str) -> bool:
        """Return whether content is to be read: not if its length already says that it is another one."""
        if nbytes != recorded.nbytes:
            text = f"its content is not what it was ({recorded.nbytes} bytes then, {nbytes} now)"
            self.differences.append(_of(name, text))
            return False
        if recorded.method == "full" and recorded.nbytes > SMALL and not self._full:
            self.notes.append(_of(name, f"its {recorded.nbytes} bytes were not compared; pass full=True to do that"))
            return False
        return True

    def _judge(self, recorded: Fingerprint, now: Fingerprint, name: str) -> None:
        self._methods.append(now.method)
        if now != recorded:
            self.differences.append(_of(name, "its content is not what it was"))


def one_print(record: LinkRecord, key: str) -> Fingerprint | None:
    """Return the fingerprint of the one target a link has, also where its name was changed by another program."""
    prints: Iterable[Fingerprint] = record.fingerprints.values()
    return record.fingerprints.get(key) or next(iter(prints), None)


def _groups(end: Spot) -> list[tuple[str, str, Key]]:
    """Return file, path and key of what a link leads to, if that is a group."""
    if h5i.get_type(end.id) not in (h5i.GROUP, h5i.FILE):
        return []
    return [(end.held.name, name_of(end.held, end.id), end.key)]


def _method(recorded: Fingerprint) -> Literal["full", "sampled"]:
    return "full" if recorded.method == "full" else "sampled"


def _of(name: str, text: str) -> str:
    return f"{name}: {text}" if name else text
