"""Zarr stores: writing against hdmf-zarr and tensorstore, number of files, size, and reading parts back."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
from hdmf.data_utils import GenericDataChunkIterator

import nwbflow
from benchmarks.data import nwbfile, simulated
from benchmarks.timing import Figures, interleave, table
from nwbflow.planning.shards import plan_shards

CHUNKS = (30000, 64)
RATE = 30000


class Iterator(GenericDataChunkIterator):
    """What hdmf-zarr needs to use several processes; the data are in a file, so that nothing large is pickled."""

    def __init__(self, path: str, shape: tuple[int, ...]) -> None:
        self.path, self.data_shape = path, shape
        self.array = np.memmap(path, "i2", "r", shape=shape)
        super().__init__(buffer_shape=(CHUNKS[0] * 4, shape[1]), chunk_shape=CHUNKS)

    def _get_data(self, selection: tuple[slice, ...]) -> np.ndarray:
        return np.asarray(self.array[selection])

    def _get_maxshape(self) -> tuple[int, ...]:
        return self.data_shape

    def _get_dtype(self) -> np.dtype:
        return np.dtype("i2")

    def _to_dict(self) -> dict:
        return {"path": self.path, "shape": self.data_shape}

    @staticmethod
    def _from_dict(dictionary: dict) -> Iterator:
        return Iterator(dictionary["path"], tuple(dictionary["shape"]))


def files_and_bytes(store: Path) -> tuple[int, int]:
    """Return the number of files of a store, and their size together."""
    sizes = [file.stat().st_size for file in store.rglob("*") if file.is_file()]
    return len(sizes), sum(sizes)


def by_hdmf_zarr(data: object, store: Path, jobs: int = 1, **settings: object) -> Callable[[], int]:
    """Write with hdmf-zarr."""
    from hdmf_zarr import NWBZarrIO, ZarrDataIO

    def run() -> int:
        fresh = data() if callable(data) else data
        with NWBZarrIO(str(store), mode="w") as io:
            io.write(nwbfile(ZarrDataIO(fresh, **settings) if settings else fresh), number_of_jobs=jobs)
        return files_and_bytes(store)[1]

    return run


def by_nwbflow(data: np.ndarray, store: Path, **options: object) -> Callable[[], int]:
    """Write with nwbflow."""

    def run() -> int:
        wrapped = nwbflow.DataIO(data, chunks=CHUNKS)
        nwbflow.write(nwbfile(wrapped), store, overwrite=True, **{"progress": False, **options})
        return files_and_bytes(store)[1]

    return run


def by_tensorstore(data: np.ndarray, store: Path, shards: tuple[int, ...]) -> Callable[[], int]:
    """Write the bare array, without any NWB around it, with tensorstore and the same codec and shards."""
    import tensorstore as ts

    blosc = {"typesize": 2, "cname": "zstd", "clevel": 1, "shuffle": "bitshuffle", "blocksize": 2**20}
    inner = [
        {"name": "bytes", "configuration": {"endian": "little"}},
        {"name": "blosc", "configuration": blosc},
    ]
    sharded = {"name": "sharding_indexed", "configuration": {"chunk_shape": list(CHUNKS), "codecs": inner}}
    spec = {
        "driver": "zarr3",
        "kvstore": {"driver": "file", "path": str(store)},
        "metadata": {
            "shape": list(data.shape),
            "data_type": "int16",
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": list(shards)}},
            "codecs": [sharded],
        },
    }

    def run() -> int:
        array = ts.open(spec, create=True, delete_existing=True).result()
        for start in range(0, len(data), shards[0]):
            part = slice(start, min(start + shards[0], len(data)))
            array[part].write(data[part]).result()
        return files_and_bytes(store)[1]

    return run


def writing(data: np.ndarray, folder: Path, rounds: int) -> dict[str, Figures]:
    """Compare the writers."""
    from zarr.codecs import BloscCodec

    shards = plan_shards(CHUNKS, data.shape, data.dtype) or CHUNKS
    raw = folder.parent / "raw.bin"
    data.tofile(raw)

    def iterator() -> Iterator:
        return Iterator(str(raw), data.shape)

    same = {"compressors": BloscCodec(cname="zstd", clevel=1, shuffle="bitshuffle", blocksize=2**20, typesize=2)}
    stores = {
        "hdmf-zarr, its defaults": by_hdmf_zarr(data, folder / "a.zarr"),
        "hdmf-zarr, its defaults, 2 jobs": by_hdmf_zarr(iterator, folder / "b.zarr", 2),
        "hdmf-zarr, same codec, sharded": by_hdmf_zarr(data, folder / "c.zarr", chunks=CHUNKS, shards=shards, **same),
        "hdmf-zarr, same codec, sharded, 2 jobs": by_hdmf_zarr(
            iterator, folder / "d.zarr", 2, chunks=CHUNKS, shards=shards, **same
        ),
        "tensorstore, same codec, no NWB, not synced": by_tensorstore(data, folder / "e.zarr", shards),
        "nwbflow, 1 worker": by_nwbflow(data, folder / "f.zarr", workers=1),
        "nwbflow, 2 workers": by_nwbflow(data, folder / "g.zarr", workers=2),
        "nwbflow fast, 2 workers": by_nwbflow(data, folder / "h.zarr", workers=2, profile="fast"),
        "nwbflow, 2 workers, verify no": by_nwbflow(data, folder / "i.zarr", workers=2, verify="no"),
    }
    figures = interleave(stores, rounds, folder)
    table("Zarr stores, written", figures, "hdmf-zarr, its defaults", data.nbytes)
    raw.unlink()
    return figures


def reading(data: np.ndarray, folder: Path, rounds: int) -> None:
    """Count files, and read a second of all channels, and one channel of all seconds, with zarr-python."""
    import zarr

    stores = {
        "hdmf-zarr, its defaults": by_hdmf_zarr(data, folder.parent / "one.zarr"),
        "nwbflow, default": by_nwbflow(data, folder.parent / "two.zarr"),
    }
    arrays = {}
    for name, write in stores.items():
        write()
        store = folder.parent / ("one.zarr" if name.startswith("hdmf") else "two.zarr")
        print(f"  {name}: {files_and_bytes(store)[0]} files")
        arrays[name] = zarr.open_group(store, mode="r")["acquisition/series/data"]
    middle = len(data) // 2
    parts = {"one second": np.s_[middle : middle + RATE], "one channel": np.s_[:, 100]}
    for what, part in parts.items():

        def reader(array: object, part: object = part) -> Callable[[], int]:
            return lambda: array[part].nbytes

        contenders = {name: reader(array) for name, array in arrays.items()}
        size = data[part].nbytes
        table(f"Zarr stores, {what} read", interleave(contenders, rounds, folder), "hdmf-zarr, its defaults", size)
    for name in ("one.zarr", "two.zarr"):
        shutil.rmtree(folder.parent / name)


def run(folder: Path, seconds: float, rounds: int) -> None:
    """Run both."""
    place = folder / "zarr" / "in"
    place.mkdir(parents=True)
    data = simulated(seconds)
    writing(data, place, rounds)
    reading(data, place, rounds)
    shutil.rmtree(folder / "zarr")
