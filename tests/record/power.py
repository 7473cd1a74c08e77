"""Kill rigs at random times, and cut the power of the disk they record to; used by tests and, at length, by hand.

``python tests/record/power.py kills 500`` and ``python tests/record/power.py cuts 60`` (or ``cuts 60 xfs``) print how
it went; ``no-journal`` behind it records without one.
"""

import contextlib
import fcntl
import os
import random
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "faults"))

import rig
from reader import Reader
from writer import Writer

import nwbflow
from nwbflow.errors import TargetError

SHUTDOWN, NO_LOG_FLUSH = 0x8004587D, 2  # EXT4_IOC_SHUTDOWN and EXT4_GOING_FLAGS_NOLOGFLUSH, linux/ext4.h; XFS's too
KINDS = {"ext4": (96 * 2**20, "-F"), "xfs": (320 * 2**20, "-f")}
FILE = "session.nwb"


class NoDiskError(Exception):
    """A disk whose power can be cut can't be made here; the text says why."""


class Disk:
    """A file system in a file, whose power can be cut.

    Parameters
    ----------
    folder : pathlib.Path
        Where the file and the mount point are made.
    kind : {"ext4", "xfs"}
        Which one.
    """

    def __init__(self, folder: Path, kind: str = "ext4") -> None:
        self.mount_point = folder / "disk"
        self._image = folder / "image"
        if os.geteuid() != 0 or shutil.which(f"mkfs.{kind}") is None or shutil.which("mount") is None:
            raise NoDiskError(f"cutting a disk's power needs root, mount and mkfs.{kind}")
        size, force = KINDS[kind]
        self.mount_point.mkdir()
        with self._image.open("wb") as file:
            file.truncate(size)
        self._run(f"mkfs.{kind}", "-q", force, str(self._image))
        self.plug_in()

    def _run(self, *command: str) -> None:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise NoDiskError(f"{' '.join(command)} failed here: {done.stderr.strip()}")

    def plug_in(self) -> None:
        """Mount it; the file system replays its log."""
        self._run("mount", "-o", "loop", str(self._image), str(self.mount_point))

    def cut(self) -> None:
        """Stop the file system as it is on the disk: nothing that is not synced gets there any more."""
        handle = os.open(self.mount_point, os.O_RDONLY)
        try:
            fcntl.ioctl(handle, SHUTDOWN, struct.pack("I", NO_LOG_FLUSH))
        except OSError as error:
            raise NoDiskError(f"the power of this file system can't be cut: {error}") from error
        finally:
            os.close(handle)

    def unplug(self) -> None:
        """Unmount it."""
        subprocess.run(["umount", str(self.mount_point)], capture_output=True, check=True)


def told_in(acks: Path) -> dict[str, int]:
    """Return what was acknowledged until now.

    Not what a process says after the power was cut: a sync that is under way while the file system is shut down may
    return as if it had done its work. A plain loop of pwrite and fdatasync shows that as well, once in 60 cuts. No loss
    of power lets a process live on and hear it.
    """
    lines = [line.split() for line in acks.read_text().splitlines(keepends=True) if line.endswith("\n")]
    return {name: int(rows) for name, rows in lines}


def problems_after(path: Path, layout: str, acknowledged: dict, reader: Reader) -> tuple[list[str], bool]:
    """Recover, and return what is wrong with the result, and whether there was something to recover."""
    try:
        recovery = nwbflow.recover(path)
    except TargetError as error:
        return ([str(error)] if acknowledged else []), False  # it had not begun
    wrong = rig.violations(reader.open(path, data=True), layout, acknowledged)
    left = [
        p.name for p in path.parent.iterdir() if p.name.startswith(FILE + ".journal") or p.name == FILE + ".partial"
    ]
    return [*wrong, *(f"{name} is left" for name in left)], bool(recovery.datasets)


def kills(count: int, folder: Path, reader: Reader, seed: int, *, journal: bool = True) -> tuple[list[str], int]:
    """Kill so many rigs; return what went wrong, and how many were killed while there was something to recover."""
    chance = random.Random(seed)
    problems, recovered = [], 0
    with Writer(script=rig.__file__) as process:
        for number in range(count):
            path = folder / f"{number}" / FILE
            path.parent.mkdir()
            layout, sync = chance.choice(list(rig.LAYOUTS)), chance.choice(["process", "full"])
            request = {"sync": sync, "blocks": 400, "rows": 40, "segment": 2**18, "together": bool(number % 2)}
            process.start(path, layout, journal=journal, **request)
            process.wait_for("recording" if number % 4 else "started")
            threading.Event().wait(chance.uniform(0, 0.5))
            process.send(signal.SIGKILL)
            end = process.end()
            wrong, had = problems_after(path, layout, end.said.get("acknowledged", {}), reader)
            recovered += had
            problems += [f"kill {number} ({layout}, {sync}): {text}" for text in wrong]
            shutil.rmtree(path.parent)
    return problems, recovered


def cuts(
    count: int,
    folder: Path,
    reader: Reader,
    seed: int,
    kind: str = "ext4",
    sync: str = "full",
    *,
    journal: bool = True,
) -> tuple[list[str], int]:
    """Cut the power so often; return what went wrong, and how often there was something to recover."""
    chance = random.Random(seed)
    disk = Disk(folder, kind)
    problems, recovered = [], 0
    try:
        with Writer(script=rig.__file__) as process:
            for number in range(count):
                path = disk.mount_point / f"{number}" / FILE
                path.parent.mkdir()
                os.sync()
                layout = chance.choice(list(rig.LAYOUTS))
                acks = folder / f"acks{number}"
                acks.touch()
                request = {"acks": str(acks), "blocks": 400, "rows": 40, "segment": 2**18, "together": bool(number % 2)}
                process.start(path, layout, sync=sync, journal=journal, **request)
                process.wait_for("recording" if number % 4 else "started")
                threading.Event().wait(chance.uniform(0, 0.6))
                acknowledged = told_in(acks)  # before: see told_in
                disk.cut()
                process.send(signal.SIGKILL)
                process.end()
                disk.unplug()
                disk.plug_in()
                if not path.parent.exists() or (not path.exists() and not any(path.parent.iterdir())):
                    wrong, had = [f"nothing is there, of {acknowledged}"] if acknowledged else [], False
                else:
                    wrong, had = problems_after(path, layout, acknowledged, reader)
                recovered += had
                problems += [f"cut {number} ({layout}): {text}" for text in wrong]
                shutil.rmtree(path.parent, ignore_errors=True)
    finally:
        with contextlib.suppress(subprocess.CalledProcessError):
            disk.unplug()
    return problems, recovered


if __name__ == "__main__":
    given = [word for word in sys.argv[1:] if word != "no-journal"]
    what, times, with_journal = given[0], int(given[1]), "no-journal" not in sys.argv
    with tempfile.TemporaryDirectory() as scratch, Reader() as stock:
        found, had_something = {"kills": kills, "cuts": cuts}[what](
            times, Path(scratch), stock, 1, *given[2:], journal=with_journal
        )
    print(f"{times} {what}, {had_something} with something to recover, {len(found)} problems", *found, sep="\n")
