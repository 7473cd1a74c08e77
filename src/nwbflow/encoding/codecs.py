"""What users type for a codec, turned into HDF5 filters.

The filters of a :class:`Codec` are a *request*: the values handed to ``H5Pset_filter`` (or
``H5Pset_deflate`` and its like, which record the same). When a dataset is created, filters
complete their own options: shuffle adds the element size, Blosc the element and chunk size,
szip the chunk's geometry. The file is the authority: encoders are built from what its
creation property list reports afterwards, never from the request.
"""

from __future__ import annotations

import inspect
import math
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nwbflow.encoding import plugin_names as names
from nwbflow.encoding.plugin_names import describe
from nwbflow.errors import ErrorKind, SettingsError, UnsupportedError
from nwbflow.model.layout import Filter, Shape

__all__ = ["Codec", "codec_names", "describe", "is_mandatory", "parse_codec"]

_NO_BYTE_SHUFFLE_OF_THEIR_OWN = ("lz4", "zstd", "bzip2")
_SZIP_MASKS = {"nn": 161, "ec": 133}  # with RAW and K13, as H5Pset_szip records them
_SCALEOFFSET_TYPES = {"u": 2, "i": 2, "f": 0}  # H5Z_SO_INT and H5Z_SO_FLOAT_DSCALE


@dataclass(frozen=True, slots=True)
class Codec:
    """A pipeline of filters, as requested.

    Parameters
    ----------
    filters : tuple of Filter
        In the order in which they are applied when writing, options as they are before
        HDF5 completes them.
    effort : int, str or None
        How hard the encoder works where that is not what `filters` say; ``None`` leaves it
        to the encoder.
    """

    filters: tuple[Filter, ...] = ()
    effort: int | str | None = None


@dataclass(frozen=True, slots=True)
class _Target:
    """The array a codec is meant for, and whether the codec is the whole pipeline."""

    dtype: np.dtype[Any]
    chunks: Shape
    alone: bool


def is_mandatory(item: Filter, /) -> bool:
    """Whether HDF5 is told to fail, rather than skip the filter, where it can't be applied.

    h5py sets fletcher32 so and every other filter as optional; a dataset created with
    ``set_filter(id, FLAG_OPTIONAL or FLAG_MANDATORY, options)`` for each filter in turn has
    the property list that h5py would have made.
    """
    return item.id == names.FLETCHER32


def codec_names() -> tuple[str, ...]:
    """Return every name :func:`parse_codec` takes, whether or not hdf5plugin is installed."""
    return ("none", *_BUILTIN, *sorted(names.PLUGIN_IDS))


def parse_codec(spec: object, *, dtype: np.dtype[Any], chunks: Shape) -> Codec:
    """Return the filters for what a user typed.

    Parameters
    ----------
    spec : object
        One of

        - ``None``, ``False`` or ``"none"``: no filters;
        - a name: ``"gzip"`` (level 4 after a byte shuffle), ``"gzip-fast"`` (readable by all
          as gzip 1, encoded for speed), ``"lzf"``, ``"szip"``, ``"scaleoffset"``, ``"shuffle"``,
          ``"fletcher32"``, or a codec of hdf5plugin, in any case of letters;
        - ``(name, level)`` or ``{"name": name, "level": level, ...}`` with the options of
          the hdf5plugin class; gzip, lzf, szip, lz4, zstd and bzip2 also take ``"shuffle"``;
        - a filter number, ``(number, options)`` or ``{"id": number, "options": [...]}``;
          ``True`` and 0 to 9 mean gzip, as in h5py;
        - an object with ``filter_id`` and ``filter_options``, such as ``hdf5plugin.Zstd(5)``;
        - a list of these: a pipeline in that order, in which gzip brings no shuffle of its own.
    dtype : numpy.dtype
        Type of the stored elements.
    chunks : tuple of int
        Chunk shape in elements.

    Returns
    -------
    Codec
        The request; :func:`describe` puts its filters into words.

    Raises
    ------
    SettingsError
        Of kind ``CODEC`` if the codec or one of its options is unknown or out of range.
    UnsupportedError
        Of kind ``PLUGIN`` if the codec needs hdf5plugin and it is not installed.
    """
    target = _Target(np.dtype(dtype), chunks, alone=not isinstance(spec, list))
    if not isinstance(spec, list):
        codec = _parse_one(spec, target)
    else:
        parts = [_parse_one(item, target) for item in spec]
        efforts = [part.effort for part in parts if part.effort is not None]
        codec = Codec(tuple(item for part in parts for item in part.filters), efforts[0] if efforts else None)
    _check_pipeline(codec.filters, spec)
    return codec


def _parse_one(spec: Any, target: _Target) -> Codec:
    if spec is None or spec is False:
        return Codec()
    if isinstance(spec, Codec):
        return spec
    if hasattr(spec, "filter_id") and hasattr(spec, "filter_options"):
        return _parse_object(spec)
    if spec is True:
        return _named("gzip", {}, target)
    if isinstance(spec, str):
        return _named(spec, {}, target)
    if isinstance(spec, Mapping):
        return _parse_mapping(spec, target)
    if isinstance(spec, tuple) and len(spec) == 2:
        return _parse_pair(spec[0], spec[1], target)
    if _is_int(spec):
        number = operator.index(spec)
        # h5py reads 0 to 9 as gzip levels.
        return _named("gzip", {"level": number}, target) if 0 <= number < 10 else _raw(number, ())
    raise _error(f"codec {spec!r} is not understood; {_ways()}")


def _parse_object(spec: Any) -> Codec:
    if isinstance(spec, type):
        raise _error(f"codec {spec.__name__} is a class; write {spec.__name__}()")
    return _raw(spec.filter_id, tuple(spec.filter_options or ()))


def _parse_pair(first: Any, second: Any, target: _Target) -> Codec:
    if _is_int(first):
        return _raw(first, (second,) if _is_int(second) else second or ())
    if not isinstance(first, str) or isinstance(second, str):
        raise _error(f"codec {(first, second)!r} is not understood; write several filters as a list; {_ways()}")
    if first.lower() == "szip" and isinstance(second, Sequence) and len(second) == 2:
        return _named(first, {"method": second[0], "pixels": second[1]}, target)
    return _named(first, {} if second is None else {"level": second}, target)


def _parse_mapping(spec: Mapping[Any, Any], target: _Target) -> Codec:
    options = dict(spec)
    if "id" in options:
        number, values = options.pop("id"), options.pop("options", ())
        _no_more(f"filter {number}", options, ("id", "options"))
        return _raw(number, values)
    name = options.pop("name", None)
    if not isinstance(name, str):
        raise _error(f'codec {dict(spec)!r} has no "name"; {_ways()}')
    return _named(name, options, target)


def _named(name: str, options: dict[str, Any], target: _Target) -> Codec:
    key = {"bshuf": "bitshuffle", "deflate": "gzip"}.get(name.lower(), name.lower())
    if key == "none":
        _no_more(key, options, ())
        return Codec()
    if key in _BUILTIN:
        return _BUILTIN[key](options, target)
    return _plugin(key, options)


def _gzip(options: dict[str, Any], target: _Target) -> Codec:
    level = _ranged("gzip", "level", options.pop("level", 4), 0, 9)
    # Shuffling single bytes changes nothing, so it is added only where it was asked for.
    shuffle = _flag("gzip", options.pop("shuffle", target.alone and target.dtype.itemsize > 1))
    _no_more("gzip", options, ("level", "shuffle"))
    return Codec((*_shuffle(shuffle), Filter(names.DEFLATE, (level,))))


def _gzip_fast(options: dict[str, Any], target: _Target) -> Codec:
    shuffle = _flag("gzip-fast", options.pop("shuffle", target.alone and target.dtype.itemsize > 1))
    _no_more("gzip-fast", options, ("shuffle",))
    return Codec((*_shuffle(shuffle), Filter(names.DEFLATE, (1,))), effort="fast")


def _lzf(options: dict[str, Any], _target: _Target) -> Codec:
    shuffle = _flag("lzf", options.pop("shuffle", False))
    _no_more("lzf", options, ("shuffle",))
    return Codec((*_shuffle(shuffle), Filter(names.LZF)))


def _szip(options: dict[str, Any], target: _Target) -> Codec:
    method = options.pop("method", "nn")
    pixels = _ranged("szip", "pixels", options.pop("pixels", 8), 2, 32)
    shuffle = _flag("szip", options.pop("shuffle", False))
    _no_more("szip", options, ("method", "pixels", "shuffle"))
    if method not in _SZIP_MASKS:
        raise _error(f"codec 'szip': method {method!r} is not one of 'nn', 'ec'")
    if pixels % 2 or pixels > math.prod(target.chunks):
        raise _error(
            f"codec 'szip': pixels={pixels} must be even and at most the {math.prod(target.chunks)} elements of a chunk"
        )
    return Codec((*_shuffle(shuffle), Filter(names.SZIP, (_SZIP_MASKS[method], pixels))))


def _scaleoffset(options: dict[str, Any], target: _Target) -> Codec:
    kind = target.dtype.kind
    if kind not in _SCALEOFFSET_TYPES:
        raise _error(f"codec 'scaleoffset' stores integers and floats, not {target.dtype}")
    if kind == "f" and "level" not in options:
        raise _error(
            "codec 'scaleoffset' needs the decimals to keep for floats, e.g. ('scaleoffset', 3); this loses precision"
        )
    factor = _ranged("scaleoffset", "level", options.pop("level", 0), 0, 2**31 - 1)
    _no_more("scaleoffset", options, ("level",))
    return Codec((Filter(names.SCALEOFFSET, (_SCALEOFFSET_TYPES[kind], factor)),))


def _bare(name: str, number: int) -> Callable[[dict[str, Any], _Target], Codec]:
    def parse(options: dict[str, Any], _target: _Target) -> Codec:
        _no_more(name, options, ())
        return Codec((Filter(number),))

    return parse


_BUILTIN: dict[str, Callable[[dict[str, Any], _Target], Codec]] = {
    "gzip": _gzip,
    "gzip-fast": _gzip_fast,
    "lzf": _lzf,
    "szip": _szip,
    "scaleoffset": _scaleoffset,
    "shuffle": _bare("shuffle", names.SHUFFLE),
    "fletcher32": _bare("fletcher32", names.FLETCHER32),
}


def _plugin(name: str, options: dict[str, Any]) -> Codec:
    filter_class = _plugin_class(name)
    taken = tuple(inspect.signature(filter_class).parameters)
    takes_shuffle = name in _NO_BYTE_SHUFFLE_OF_THEIR_OWN
    shuffle = takes_shuffle and _flag(name, options.pop("shuffle", False))
    if "level" in options and "clevel" in taken:
        options["clevel"] = _integer(name, "level", options.pop("level"))
    listed = tuple("level" if key == "clevel" else key for key in taken) + ("shuffle",) * takes_shuffle
    _no_more(name, options, listed, also=taken)
    if name == "bitshuffle" and "clevel" in options and options.get("cname") != "zstd":
        raise _error("codec 'bitshuffle': level has a meaning with cname='zstd' only")
    if name in ("blosc", "blosc2"):
        _check_compressor(name, options.get("cname", "lz4"))
    try:
        made = filter_class(**options)
    except (ValueError, TypeError, KeyError, AssertionError) as error:
        given = ", ".join(f"{key}={value!r}" for key, value in options.items())
        raise _error(f"codec {name!r} ({given}): {str(error) or 'out of range'}") from error
    return Codec((*_shuffle(shuffle), *_parse_object(made).filters))


def _check_compressor(name: str, compressor: Any) -> None:
    # hdf5plugin would raise a bare KeyError.
    known = [known for known in names.BLOSC_COMPRESSORS if name == "blosc" or known != "snappy"]
    if compressor not in known:
        raise _error(f"codec {name!r}: cname {compressor!r} is not one of {', '.join(known)}")


def _plugin_class(name: str) -> Any:
    plugin = _hdf5plugin(name if name in names.PLUGIN_IDS else None)
    own_name = {"bitshuffle": "bshuf"}.get(name, name)
    if plugin is not None and own_name in plugin.FILTERS:
        return plugin.get_filters(own_name)[0]
    if name in names.PLUGIN_IDS:
        raise UnsupportedError(
            f"codec {name!r} is not in hdf5plugin {plugin.version}, which is installed; "
            "a newer one has it: pip install --upgrade hdf5plugin",
            kind=ErrorKind.PLUGIN,
        )
    raise _error(f"codec {name!r} is unknown; {_ways()}")


def _hdf5plugin(needed_for: str | None) -> Any:
    """Import hdf5plugin, which registers its filters with HDF5; ``None`` if nothing needs it."""
    try:
        import hdf5plugin
    except ImportError as error:
        if needed_for is None:
            return None
        raise UnsupportedError(
            f'codec {needed_for!r} needs hdf5plugin, which is not installed: pip install "nwbflow[codecs]"',
            kind=ErrorKind.PLUGIN,
        ) from error
    return hdf5plugin


def _raw(number: Any, options: Any) -> Codec:
    if not _is_int(number) or not 0 < number < 1 << 16:
        raise _error(f"filter number {number!r} is not an integer from 1 to 65535")
    values = tuple(options) if isinstance(options, Sequence) and not isinstance(options, str) else (options,)
    if not all(_is_int(value) and 0 <= value < 1 << 32 for value in values):
        raise _error(f"filter {number}: options {values!r} are not integers from 0 to {2**32 - 1}")
    if number in names.PLUGIN_IDS.values():
        _hdf5plugin(next(name for name, known in names.PLUGIN_IDS.items() if known == number))
    return Codec((Filter(operator.index(number), tuple(operator.index(value) for value in values)),))


def _check_pipeline(filters: tuple[Filter, ...], spec: object) -> None:
    numbers = [item.id for item in filters]
    # HDF5 completes a filter's options by its number, so a second one would stay incomplete.
    twice = next((item for item in filters if numbers.count(item.id) > 1), None)
    if twice is not None:
        raise _error(f"codec {spec!r}: {names.describe((twice,))} appears more than once in one pipeline")
    if names.FLETCHER32 in numbers and names.SCALEOFFSET in numbers:
        raise _error(f"codec {spec!r}: fletcher32 can't be combined with scaleoffset, which may change values")


def _shuffle(wanted: bool) -> tuple[Filter, ...]:
    return (Filter(names.SHUFFLE),) if wanted else ()


def _no_more(name: str, options: Mapping[str, Any], known: tuple[str, ...], also: tuple[str, ...] = ()) -> None:
    unknown = [key for key in options if key not in known and key not in also]
    if unknown:
        takes = ", ".join(known) if known else "no options"
        raise _error(f"codec {name!r} has no option {', '.join(map(repr, unknown))}; it takes {takes}")


def _flag(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise _error(f"codec {name!r}: shuffle={value!r} must be True or False")
    return value


def _integer(name: str, option: str, value: Any) -> int:
    if not _is_int(value):
        raise _error(f"codec {name!r}: {option}={value!r} must be an integer")
    return operator.index(value)


def _ranged(name: str, option: str, value: Any, low: int, high: int) -> int:
    number = _integer(name, option, value)
    if not low <= number <= high:
        raise _error(f"codec {name!r}: {option}={number} is out of range; it may be {low} to {high}")
    return number


def _is_int(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def _ways() -> str:
    return (
        f"use one of {', '.join(codec_names())}, an hdf5plugin object, "
        "or a filter's number and options such as {'id': 32015, 'options': [5]}"
    )


def _error(message: str) -> SettingsError:
    return SettingsError(message, kind=ErrorKind.CODEC)
