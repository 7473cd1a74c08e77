"""Codecs as users type them, compared with what h5py and hdf5plugin record."""

import re
import sys

import h5py
import hdf5plugin
import numpy as np
import pytest
from h5py import h5d, h5p, h5s, h5t, h5z

from nwbflow.encoding.codecs import Codec, codec_names, describe, is_mandatory, parse_codec
from nwbflow.errors import ErrorKind, SettingsError, UnsupportedError
from nwbflow.model.layout import Filter

CHUNKS = (16, 8)
SHUFFLED = {"shuffle": True}
INT16 = np.dtype("<i2")


def h5py_request(**settings):
    """The creation property list h5py makes, before and after HDF5 completed the filters' options."""
    dtype = np.dtype(settings.pop("dtype", INT16))
    asked = h5py.filters.fill_dcpl(
        h5p.create(h5p.DATASET_CREATE),
        (32, 8),
        dtype,
        CHUNKS,
        settings.get("compression"),
        settings.get("compression_opts"),
        settings.get("shuffle"),
        settings.get("fletcher32"),
        None,
        settings.get("scaleoffset"),
        None,
    )
    with h5py.File("reference", "w", driver="core", backing_store=False) as file:
        dataset = file.create_dataset("data", (32, 8), dtype, chunks=CHUNKS, **settings)
        return filters_of(asked), filters_of(dataset.id.get_create_plist())


def our_request(codec, dtype):
    """The same from our filters, by hand through the low level."""
    asked = h5p.create(h5p.DATASET_CREATE)
    asked.set_chunk(CHUNKS)
    for item in codec.filters:
        asked.set_filter(item.id, h5z.FLAG_MANDATORY if is_mandatory(item) else h5z.FLAG_OPTIONAL, item.options)
    with h5py.File("ours", "w", driver="core", backing_store=False) as file:
        space = h5s.create_simple((32, 8))
        dataset = h5d.create(file.id, b"data", h5t.py_create(dtype, logical=True), space, asked)
        return filters_of(asked), filters_of(dataset.get_create_plist())


def filters_of(plist):
    return [plist.get_filter(index) for index in range(plist.get_nfilters())]


SAME = {
    "none": (None, {}),
    "False": (False, {}),
    "'none'": ("none", {}),
    "empty list": ([], {}),
    "gzip": ("gzip", {"compression": "gzip", **SHUFFLED}),
    "GZIP": ("GZIP", {"compression": "gzip", **SHUFFLED}),
    "True": (True, {"compression": "gzip", "compression_opts": 4, **SHUFFLED}),
    "7": (7, {"compression": "gzip", "compression_opts": 7, **SHUFFLED}),
    "gzip 6": (("gzip", 6), {"compression": "gzip", "compression_opts": 6, **SHUFFLED}),
    "gzip None": (("gzip", None), {"compression": "gzip", **SHUFFLED}),
    "gzip plain": ({"name": "gzip", "level": 6, "shuffle": False}, {"compression": "gzip", "compression_opts": 6}),
    "gzip numpy level": (
        {"name": "gzip", "level": np.int64(2)},
        {"compression": "gzip", "compression_opts": 2, **SHUFFLED},
    ),
    "gzip-fast": ("gzip-fast", {"compression": "gzip", "compression_opts": 1, **SHUFFLED}),
    "h5py Gzip": (h5py.filters.Gzip(3), {"compression": "gzip", "compression_opts": 3}),
    "lzf": ("lzf", {"compression": "lzf"}),
    "lzf shuffled": ({"name": "lzf", "shuffle": True}, {"compression": "lzf", **SHUFFLED}),
    "szip": ("szip", {"compression": "szip"}),
    "szip ec": (("szip", ("ec", 16)), {"compression": "szip", "compression_opts": ("ec", 16)}),
    "szip dict": (
        {"name": "szip", "method": "nn", "pixels": 4},
        {"compression": "szip", "compression_opts": ("nn", 4)},
    ),
    "shuffle": ("shuffle", SHUFFLED),
    "fletcher32": ("fletcher32", {"fletcher32": True}),
    "scaleoffset": ("scaleoffset", {"scaleoffset": True}),
    "scaleoffset 5": (("scaleoffset", 5), {"scaleoffset": 5}),
    "scaleoffset float": ({"name": "scaleoffset", "level": 3}, {"scaleoffset": 3, "dtype": "<f4"}),
    "raw gzip": ({"id": 1, "options": [5]}, {"compression": "gzip", "compression_opts": 5}),
    "raw": ({"id": 32015, "options": [5]}, {"compression": 32015, "compression_opts": (5,)}),
    "number": (32015, {"compression": 32015}),
    "number and options": ((32015, (5,)), {"compression": 32015, "compression_opts": (5,)}),
    "number and option": ((32015, 5), {"compression": 32015, "compression_opts": (5,)}),
    "list": (
        ["shuffle", ("zstd", 2), "fletcher32"],
        {"compression": hdf5plugin.Zstd(2), "shuffle": True, "fletcher32": True},
    ),
    "gzip in a list": (["shuffle", "gzip", "fletcher32"], {"compression": "gzip", "shuffle": True, "fletcher32": True}),
    "unshuffled gzip in a list": (["gzip"], {"compression": "gzip"}),
    "scaleoffset and gzip": (
        ["scaleoffset", "shuffle", ("gzip", 9)],
        {"scaleoffset": 0, "compression": "gzip", "compression_opts": 9, **SHUFFLED},
    ),
    "zstd level": (("zstd", 9), {"compression": hdf5plugin.Zstd(9)}),
    "zstd negative level": (("zstd", -5), {"compression": hdf5plugin.Zstd(-5)}),
    "zstd shuffled": ({"name": "zstd", "level": 5, "shuffle": True}, {"compression": hdf5plugin.Zstd(5), **SHUFFLED}),
    "blosc": (
        {"name": "Blosc", "cname": "zstd", "level": 3, "shuffle": 2},
        {"compression": hdf5plugin.Blosc("zstd", 3, hdf5plugin.Blosc.BITSHUFFLE)},
    ),
    "blosc snappy": ({"name": "blosc", "cname": "snappy"}, {"compression": hdf5plugin.Blosc("snappy")}),
    "blosc2": (
        {"name": "BLOSC2", "cname": "lz4hc", "clevel": 7, "filters": 2},
        {"compression": hdf5plugin.Blosc2("lz4hc", 7, hdf5plugin.Blosc2.BITSHUFFLE)},
    ),
    "bitshuffle zstd": (
        {"name": "bitshuffle", "cname": "zstd", "level": 1},
        {"compression": hdf5plugin.Bitshuffle(cname="zstd", clevel=1)},
    ),
    "bitshuffle nelems": ({"name": "bitshuffle", "nelems": 256}, {"compression": hdf5plugin.Bitshuffle(nelems=256)}),
    "bshuf": ("bshuf", {"compression": hdf5plugin.Bitshuffle()}),
    "lz4 nbytes": ({"name": "lz4", "nbytes": 4096}, {"compression": hdf5plugin.LZ4(4096)}),
    "bzip2": ({"name": "bzip2", "blocksize": 5}, {"compression": hdf5plugin.BZip2(5)}),
    "zfp": ({"name": "zfp", "accuracy": 0.01}, {"compression": hdf5plugin.Zfp(accuracy=0.01), "dtype": "<f4"}),
    "object": (hdf5plugin.Blosc2(cname="zstd", clevel=5), {"compression": hdf5plugin.Blosc2(cname="zstd", clevel=5)}),
}
SAME |= {
    f"{filter_class.filter_name} by {way}": (
        spec,
        {"compression": filter_class(), "dtype": "<f4" if filter_class.filter_name == "zfp" else "<i2"},
    )
    for filter_class in hdf5plugin.get_filters()
    if filter_class.filter_name not in ("fcidecomp",)
    for way, spec in (("name", filter_class.filter_name.upper()), ("object", filter_class()))
}


@pytest.mark.requirement("C2")
@pytest.mark.parametrize(("spec", "settings"), SAME.values(), ids=SAME)
def test_creation_list_equals_h5py(spec, settings):
    dtype = np.dtype(settings.get("dtype", INT16))
    codec = parse_codec(spec, dtype=dtype, chunks=CHUNKS)
    asked, created = h5py_request(**settings)
    assert [(item.id, item.options) for item in codec.filters] == [(number, options) for number, _, options, _ in asked]
    assert our_request(codec, dtype) == (asked, created)


@pytest.mark.requirement("C2")
def test_every_filter_of_hdf5plugin_has_a_name():
    known = {parse_codec(name, dtype=np.dtype("<u1"), chunks=(64, 64)).filters[0].id for name in hdf5plugin.FILTERS}
    assert known == set(hdf5plugin.FILTERS.values())


def test_every_listed_name_is_taken():
    for name in codec_names():
        assert isinstance(parse_codec(name, dtype=INT16, chunks=CHUNKS), Codec)


def test_only_gzip_fast_asks_for_an_effort():
    assert parse_codec("gzip-fast", dtype=INT16, chunks=CHUNKS).effort == "fast"
    assert parse_codec(["shuffle", "gzip-fast"], dtype=INT16, chunks=CHUNKS).effort == "fast"
    assert parse_codec("gzip", dtype=INT16, chunks=CHUNKS).effort is None


def test_single_bytes_are_shuffled_only_on_request():
    assert parse_codec("gzip", dtype=np.dtype("u1"), chunks=CHUNKS).filters == (Filter(1, (4,)),)
    asked = parse_codec({"name": "gzip", "shuffle": True}, dtype=np.dtype("u1"), chunks=CHUNKS)
    assert asked.filters == (Filter(2), Filter(1, (4,)))


def test_a_codec_is_its_own_spec_and_mappings_stay_untouched():
    spec = {"name": "zstd", "level": 5, "shuffle": True}
    codec = parse_codec(spec, dtype=INT16, chunks=CHUNKS)
    assert spec == {"name": "zstd", "level": 5, "shuffle": True}
    assert parse_codec(codec, dtype=INT16, chunks=CHUNKS) == codec
    assert hash(codec) == hash(Codec(codec.filters))


WRONG = {
    "unknown name": ("zstandard", "codec 'zstandard' is unknown", "gzip-fast", "blosc2", "'id': 32015"),
    "dashed level": ("gzip-6", "codec 'gzip-6' is unknown"),
    "gzip level": (("gzip", 10), "codec 'gzip': level=10", "0 to 9"),
    "gzip level word": (("gzip", 2.5), "codec 'gzip': level=2.5 must be an integer"),
    "gzip option": ({"name": "gzip", "clevel": 3}, "'gzip' has no option 'clevel'", "level, shuffle"),
    "gzip shuffle": ({"name": "gzip", "shuffle": 2}, "shuffle=2 must be True or False"),
    "lzf level": (("lzf", 3), "'lzf' has no option 'level'"),
    "bare option": ({"name": "shuffle", "size": 2}, "'shuffle' has no option 'size'; it takes no options"),
    "szip method": (("szip", ("xx", 8)), "method 'xx'", "'nn', 'ec'"),
    "szip odd": (("szip", ("nn", 7)), "pixels=7 must be even"),
    "szip pixels": (("szip", ("nn", 34)), "pixels=34", "2 to 32"),
    "zstd level": (("zstd", 23), "codec 'zstd' (clevel=23)", "[-131072, 22]"),
    "blosc level": ({"name": "blosc", "level": 10}, "codec 'blosc' (clevel=10)", "[0, 9]"),
    "blosc compressor": ({"name": "blosc", "cname": "lzma"}, "cname 'lzma'", "blosclz, lz4, lz4hc, snappy, zlib, zstd"),
    "blosc2 compressor": ({"name": "blosc2", "cname": "snappy"}, "cname 'snappy'", "blosclz, lz4, lz4hc, zlib, zstd"),
    "blosc2 shuffle": ({"name": "blosc2", "shuffle": 2}, "'blosc2' has no option 'shuffle'", "cname, level, filters"),
    "bitshuffle level": (("bitshuffle", 3), "level has a meaning with cname='zstd' only"),
    "bitshuffle nelems": ({"name": "bitshuffle", "nelems": 12}, "codec 'bitshuffle' (nelems=12)", "multiple of 8"),
    "lz4 option": ({"name": "lz4", "level": 3}, "'lz4' has no option 'level'", "nbytes, shuffle"),
    "sz options": (
        {"name": "sz", "absolute": 1.0, "relative": 1.0},
        "codec 'sz' (absolute=1.0, relative=1.0)",
        "at most one",
    ),
    "no name": ({"level": 3}, 'has no "name"', "gzip"),
    "name and id": ({"id": 1, "level": 3}, "'filter 1' has no option 'level'", "id, options"),
    "big number": (70000, "filter number 70000", "1 to 65535"),
    "negative option": ({"id": 32015, "options": [-1]}, "options (-1,)", "0 to 4294967295"),
    "word option": ({"id": 32015, "options": "5"}, "options ('5',)"),
    "class": (hdf5plugin.Zstd, "Zstd is a class; write Zstd()"),
    "number": (3.5, "codec 3.5 is not understood", "gzip"),
    "tuple of names": (("shuffle", "gzip"), "as a list"),
    "long tuple": (("shuffle", "gzip", "fletcher32"), "is not understood"),
    "twice": (["gzip", ("gzip", 3)], "gzip 4 appears more than once"),
    "inside a list": (["shuffle", "zap"], "codec 'zap' is unknown"),
    "checksum before loss": (["scaleoffset", "fletcher32"], "fletcher32 can't be combined with scaleoffset"),
    "none with options": ({"name": "none", "level": 1}, "'none' has no option 'level'"),
}


@pytest.mark.parametrize("case", WRONG.values(), ids=WRONG)
def test_errors_name_the_codec_and_the_way_out(case):
    spec, *texts = case
    with pytest.raises(SettingsError) as caught:
        parse_codec(spec, dtype=INT16, chunks=CHUNKS)
    assert caught.value.kind is ErrorKind.CODEC
    for text in texts:
        assert text in str(caught.value)


def test_scaleoffset_is_for_numbers_and_floats_say_how_much_to_keep():
    with pytest.raises(SettingsError, match="needs the decimals to keep"):
        parse_codec("scaleoffset", dtype=np.dtype("<f4"), chunks=CHUNKS)
    with pytest.raises(SettingsError, match="not complex64"):
        parse_codec("scaleoffset", dtype=np.dtype("<c8"), chunks=CHUNKS)


def test_szip_blocks_fit_into_the_chunk():
    with pytest.raises(SettingsError, match="at most the 6 elements"):
        parse_codec("szip", dtype=INT16, chunks=(3, 2))


@pytest.mark.parametrize("spec", ["zstd", ("blosc", 3), 32015, {"id": 32026, "options": []}])
def test_without_hdf5plugin_the_way_out_is_named(monkeypatch, spec):
    monkeypatch.setitem(sys.modules, "hdf5plugin", None)
    with pytest.raises(UnsupportedError, match=re.escape('pip install "nwbflow[codecs]"')) as caught:
        parse_codec(spec, dtype=INT16, chunks=CHUNKS)
    assert caught.value.kind is ErrorKind.PLUGIN


def test_without_hdf5plugin_the_rest_works(monkeypatch):
    monkeypatch.setitem(sys.modules, "hdf5plugin", None)
    assert parse_codec("lzf", dtype=INT16, chunks=CHUNKS).filters == (Filter(32000),)
    assert parse_codec({"id": 40000, "options": [1]}, dtype=INT16, chunks=CHUNKS).filters == (Filter(40000, (1,)),)
    with pytest.raises(SettingsError, match="'zap' is unknown"):
        parse_codec("zap", dtype=INT16, chunks=CHUNKS)


def test_a_codec_newer_than_the_installed_hdf5plugin(monkeypatch):
    monkeypatch.delitem(hdf5plugin.FILTERS, "htj2k", raising=False)
    with pytest.raises(
        UnsupportedError, match=f"'htj2k' is not in hdf5plugin {re.escape(hdf5plugin.version)}"
    ) as caught:
        parse_codec("htj2k", dtype=INT16, chunks=CHUNKS)
    assert caught.value.kind is ErrorKind.PLUGIN


WORDS = {
    "none": {},
    "shuffle + gzip 4": {"compression": "gzip", **SHUFFLED},
    "gzip 9 + fletcher32": {"compression": "gzip", "compression_opts": 9, "fletcher32": True},
    "lzf": {"compression": "lzf"},
    "szip nn 8": {"compression": "szip"},
    "szip ec 16": {"compression": "szip", "compression_opts": ("ec", 16)},
    "scaleoffset 5": {"scaleoffset": 5},
    "zstd 3": {"compression": hdf5plugin.Zstd()},
    "zstd -7": {"compression": hdf5plugin.Zstd(-7)},
    "zstd": {"compression": 32015},
    "lz4": {"compression": hdf5plugin.LZ4()},
    "lz4 4096": {"compression": hdf5plugin.LZ4(4096)},
    "bzip2 9": {"compression": hdf5plugin.BZip2()},
    "blosc lz4 5 shuffle": {"compression": hdf5plugin.Blosc()},
    "blosc blosclz 5 shuffle": {"compression": 32001},
    "blosc2 zstd 5 bitshuffle": {"compression": hdf5plugin.Blosc2("zstd", 5, 2)},
    "blosc2 lz4 1": {"compression": hdf5plugin.Blosc2("lz4", 1, 0)},
    "bitshuffle": {"compression": hdf5plugin.Bitshuffle(cname="none")},
    "bitshuffle lz4": {"compression": hdf5plugin.Bitshuffle()},
    "bitshuffle zstd 1": {"compression": hdf5plugin.Bitshuffle(cname="zstd", clevel=1)},
    "sz3": {"compression": hdf5plugin.SZ3(absolute=1.0)},
}


@pytest.mark.parametrize(("words", "settings"), WORDS.items(), ids=WORDS)
def test_pipelines_in_words_from_the_file_and_from_the_request(words, settings):
    for filters in h5py_request(**settings):
        assert describe(tuple(Filter(number, options) for number, _, options, _ in filters)) == words


def test_bare_bitshuffle_number_and_unknown_filters_in_words():
    recorded = h5py_request(compression=32008)[1]
    assert describe(tuple(Filter(number, options) for number, _, options, _ in recorded)) == "bitshuffle"
    assert describe((Filter(40000, (1, 2)), Filter(40001))) == "filter 40000 (1, 2) + filter 40001"
    assert describe((Filter(32001, (2, 2, 2, 64, 5, 9, 77)),)) == "blosc compressor 77 5 filter 9"
