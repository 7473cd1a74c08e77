"""Whether links would lead back to themselves once they have other file names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

import h5py
from h5py import h5d, h5i

from nwbflow.errors import LinkError
from nwbflow.links.resolve import Key, OpenFile, Spot, link_of, root_of
from nwbflow.links.steps import MOST_LINKS
from nwbflow.links.survey import Part, Seen, Survey, encoded, virtual_parts
from nwbflow.links.walk import address
from nwbflow.model.links import LinkKind

type Way = tuple[Key, bytes]
"""What is gone through: a name in a group; a virtual dataset has no name."""


@dataclass(slots=True)
class Renamed:
    """What is to be recorded anew, in all files of a run.

    Parameters
    ----------
    names : dict
        New file names by old ones, by where they are recorded.
    """

    names: dict[Way, Mapping[str, str]] = field(default_factory=dict)

    def add(self, seen: Seen, names: Mapping[str, str], survey: Survey) -> None:
        """Note the new names of a link or virtual dataset; raw files lead nowhere further."""
        if seen.kind is not LinkKind.RAW:
            self.names[_way(seen, survey)] = names

    def leads_back(self, seen: Seen, survey: Survey) -> bool:
        """Return whether a link or virtual dataset would lead to itself, through whatever else.

        Parameters
        ----------
        seen : Seen
            One that was added.
        survey : Survey
            Where it was seen.
        """
        if seen.kind is LinkKind.RAW:
            return False
        goal = _way(seen, survey)
        kind, met = seen.kind, set[Way]()
        waiting = [(self._new(goal, part), kind, survey.main) for part in seen.parts]
        while waiting:
            part, kind, linking = waiting.pop()
            try:
                end = self._end(part, kind, linking, survey, met)
            except LinkError:  # it leads nowhere, so not back; what that means is said elsewhere
                continue
            if end is not None:
                waiting += [(new, LinkKind.VIRTUAL, end.held) for new in self._sources(end, met)]
            if goal in met:
                return True
        return False

    def _new(self, way: Way, part: Part) -> Part:
        return replace(part, file=self.names.get(way, {}).get(part.file, part.file))

    def _end(self, part: Part, kind: LinkKind, linking: OpenFile, survey: Survey, met: set[Way]) -> Spot | None:
        """Go to the end of a path, through links with their new names; note those gone through."""
        here = root_of(survey.file_of(part, kind, linking))
        names, left = _names(part.path), MOST_LINKS
        while names:
            name = names.pop(0)
            link = link_of(here.id, name) if h5i.get_type(here.id) in (h5i.GROUP, h5i.FILE) else None
            if isinstance(link, h5py.HardLink):
                found = survey.step(here, name)
                if not isinstance(found, Spot):
                    return None
                here = found
                continue
            way = (here.key, name)
            left -= 1
            if link is None or left < 0:
                return None
            met.add(way)
            names = _names(link.path) + names
            if isinstance(link, h5py.ExternalLink):
                new = self._new(way, Part(file=str(link.filename), path="", key=""))
                here = root_of(survey.file_of(new, LinkKind.EXTERNAL, here.held))
            elif link.path.startswith("/"):
                here = root_of(here.held)
        return here

    def _sources(self, end: Spot, met: set[Way]) -> Iterator[Part]:
        way = (end.key, b"")
        if h5i.get_type(end.id) != h5i.DATASET or way in met:
            return
        created = end.id.get_create_plist()
        if created.get_layout() == h5d.VIRTUAL:
            met.add(way)
            yield from (self._new(way, part) for part in virtual_parts(created))


def _way(seen: Seen, survey: Survey) -> Way:
    member = seen.member
    if seen.kind is LinkKind.VIRTUAL:
        return (survey.main.identity, address(member.item)), b""
    return (survey.main.identity, address(member.parent)), encoded(member.name)


def _names(path: str) -> list[bytes]:
    return [name for name in encoded(path).split(b"/") if name not in (b"", b".")]
