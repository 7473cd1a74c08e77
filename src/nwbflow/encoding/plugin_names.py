"""Filters known by name: their numbers, and the words for their options."""

from __future__ import annotations

from nwbflow.model.layout import Filter

DEFLATE, SHUFFLE, FLETCHER32, SZIP, SCALEOFFSET, LZF = 1, 2, 3, 4, 6, 32000
BZIP2, BLOSC, LZ4, BITSHUFFLE, ZSTD, BLOSC2 = 307, 32001, 32004, 32008, 32015, 32026

CRC32C, ZARR_OTHER = 2**16 + 1, 2**16 + 2
"""Codecs of Zarr that HDF5 has no filter for: its checksum, and any not known here. HDF5's numbers end below."""

PLUGIN_IDS: dict[str, int] = {
    "bitshuffle": BITSHUFFLE,
    "blosc": BLOSC,
    "blosc2": BLOSC2,
    "bzip2": BZIP2,
    "fcidecomp": 32018,
    "htj2k": 32033,
    "lz4": LZ4,
    "sperr": 32028,
    "sz": 32017,
    "sz3": 32024,
    "zfp": 32013,
    "zstd": ZSTD,
}
"""Names of the filters that hdf5plugin brings (it calls bitshuffle ``bshuf``)."""

BLOSC_COMPRESSORS = ("blosclz", "lz4", "lz4hc", "snappy", "zlib", "zstd")
"""Blosc's compressors; the index is the code in the filter's options."""

BITSHUFFLE_COMPRESSORS = {0: "", 2: "lz4", 3: "zstd"}
"""Bitshuffle's compressors by code."""

_BLOSC_SHUFFLES = ("", "shuffle", "bitshuffle", "delta", "truncated")
_SIMPLE = {SHUFFLE: "shuffle", FLETCHER32: "fletcher32", LZF: "lzf", CRC32C: "crc32c", ZARR_OTHER: "other Zarr codecs"}
_PLUGIN_NAMES = {number: name for name, number in PLUGIN_IDS.items()}


_LOSSY = frozenset({5, SCALEOFFSET, 32013, 32017, 32019, 32022, 32023, 32024, 32028, ZARR_OTHER})
# N-bit, scale-offset, ZFP, SZ, JPEG, BitGroom, Granular BitRound, SZ3 and Sperr; of unknown codecs nobody can tell
# (https://github.com/HDFGroup/hdf5_plugins/blob/master/docs/RegisteredFilterPlugins.md)
_EXACT_SCALEOFFSET = (2, 0)  # integers, with as many bits as they need


def may_change_values(filters: tuple[Filter, ...]) -> bool:
    """Whether a pipeline may change values on purpose, so that what is decoded can't be compared.

    Parameters
    ----------
    filters : tuple of Filter
        As recorded in a file.
    """
    return any(
        item.id in _LOSSY and not (item.id == SCALEOFFSET and item.options[:2] == _EXACT_SCALEOFFSET)
        for item in filters
    )


def describe(filters: tuple[Filter, ...]) -> str:
    """Return a pipeline in words, such as ``"shuffle + gzip 4"``.

    Parameters
    ----------
    filters : tuple of Filter
        As read from a file, or as requested; any filter is described, known or not.

    Returns
    -------
    str
        ``"none"`` where there are no filters.
    """
    return " + ".join(_describe_one(item) for item in filters) or "none"


def _describe_one(item: Filter) -> str:
    options = item.options
    if item.id in _SIMPLE:
        return _SIMPLE[item.id]
    if item.id == DEFLATE:
        return _join("gzip", *options[:1])
    if item.id == SZIP:
        # NN is bit 5 of the options mask, EC bit 2 (H5Zpublic.h).
        return _join("szip", "ec" if options and options[0] & 4 else "nn", *options[1:2])
    if item.id == SCALEOFFSET:
        return _join("scaleoffset", *options[1:2])
    if item.id in (BLOSC, BLOSC2):
        return _join("blosc" if item.id == BLOSC else "blosc2", *_blosc_words(options))
    if item.id == BITSHUFFLE:
        return _join("bitshuffle", *_bitshuffle_words(options))
    if item.id == ZSTD:
        return _join("zstd", _signed(options[0]) if options else "")
    if item.id in (LZ4, BZIP2):
        return _join(_PLUGIN_NAMES[item.id], *(value for value in options[:1] if value))
    if item.id in _PLUGIN_NAMES:
        return _PLUGIN_NAMES[item.id]
    return _join(f"filter {item.id}", str(options) if options else "")


def blosc_settings(options: tuple[int, ...]) -> tuple[int, int, int]:
    """Return level, shuffle and compressor code of Blosc or Blosc2, with the filter's defaults where absent."""
    level, shuffle, code = (*options[4:7], *(5, 1, 0)[max(0, len(options) - 4) :])
    return level, shuffle, code


def _blosc_words(options: tuple[int, ...]) -> tuple[str | int, ...]:
    level, shuffle, code = blosc_settings(options)
    compressor = BLOSC_COMPRESSORS[code] if code < len(BLOSC_COMPRESSORS) else f"compressor {code}"
    return compressor, level, _BLOSC_SHUFFLES[shuffle] if shuffle < len(_BLOSC_SHUFFLES) else f"filter {shuffle}"


def _bitshuffle_words(options: tuple[int, ...]) -> tuple[str | int, ...]:
    # A request is (block, compressor[, level]); the file has version and element size in front.
    requested = len(options) == 2 or (len(options) == 3 and options[1] == 3)
    own = options if requested else options[3:]
    if len(own) < 2:
        return ()
    return (BITSHUFFLE_COMPRESSORS.get(own[1], f"compressor {own[1]}"), *own[2:3])


def _signed(value: int) -> int:
    return value - (1 << 32) if value >= 1 << 31 else value


def _join(*words: str | int) -> str:
    return " ".join(str(word) for word in words if word != "")
