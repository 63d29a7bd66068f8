"""Hostile and damaged checkpoints: how each is made, and the one line of cause it must be refused with.

Each is a sound checkpoint of two tensors with one thing done to it. `{dir}` in a cause is the directory.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CONFIG, SINGLE, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")

A = {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}
B = {"dtype": "BF16", "shape": [4], "data_offsets": [24, 32]}
HEADER = {"a": A, "b": B}
DATA = bytes(range(32))


@dataclass(frozen=True)
class Attack:
    name: str
    make: Callable[[Path], Path | None]
    """Fills an empty directory; returns the path to open where that is another."""
    cause: str


def pack(header: Any, data: bytes = DATA, *, length: int | None = None) -> bytes:
    """A safetensors file. `header`: bytes as they are, anything else as JSON."""
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(raw) if length is None else length).to_bytes(8, "little") + raw + data


def write_config(directory: Path, config: bytes = b"{}") -> None:
    (directory / CONFIG).write_bytes(config)


def write_single(directory: Path, content: bytes, config: bytes = b"{}") -> None:
    write_config(directory, config)
    (directory / SINGLE).write_bytes(content)


def write_shards(directory: Path) -> None:
    """Tensor a in the first shard, b in the second, and the index that says so."""
    write_config(directory)
    (directory / SHARDS[0]).write_bytes(pack({"a": A}, DATA[:24]))
    (directory / SHARDS[1]).write_bytes(pack({"b": B | {"data_offsets": [0, 8]}}, DATA[24:]))
    write_index(directory, {"a": SHARDS[0], "b": SHARDS[1]})


def write_index(directory: Path, weight_map: Any) -> None:
    (directory / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


def _file(content: bytes) -> Callable[[Path], None]:
    return lambda directory: write_single(directory, content)


def _tensor_a(**changes: Any) -> Callable[[Path], None]:
    return _file(pack({"a": A | changes, "b": B}))


def _config(config: bytes) -> Callable[[Path], None]:
    return lambda directory: write_single(directory, pack(HEADER), config)


def _index(weight_map: Any) -> Callable[[Path], None]:
    def make(directory: Path) -> None:
        write_shards(directory)
        write_index(directory, weight_map)

    return make


def _shards(change: Callable[[Path], object]) -> Callable[[Path], None]:
    def make(directory: Path) -> None:
        write_shards(directory)
        change(directory)

    return make


def _single(change: Callable[[Path], object]) -> Callable[[Path], None]:
    def make(directory: Path) -> None:
        write_single(directory, pack(HEADER))
        change(directory)

    return make


def _sparse(size: int, name: str = SINGLE, start: bytes = b"") -> Callable[[Path], object]:
    def change(directory: Path) -> None:
        (directory / name).write_bytes(start)
        os.truncate(directory / name, size)

    return change


def _replace(name: str, make: Callable[[Path], object]) -> Callable[[Path], object]:
    def change(directory: Path) -> None:
        (directory / name).unlink()
        make(directory / name)

    return change


def _outside(directory: Path) -> Path:
    outside = directory.parent / f"{directory.name}-outside"
    outside.write_bytes(pack(HEADER))
    return outside


def _only(name: str) -> Callable[[Path], None]:
    def make(directory: Path) -> None:
        write_config(directory)
        (directory / name).write_bytes(b"\x80\x04.")

    return make


def _gguf(directory: Path) -> Path:
    (directory / "x.gguf").write_bytes(b"GGUF")
    return directory / "x.gguf"


def _directory() -> Iterator[Attack]:
    yield Attack("no directory", lambda d: d / "none", '"{dir}/none" does not exist')
    yield Attack("no name at all", lambda d: Path("a\0b"), '"a\\u0000b" does not exist')
    yield Attack("name too long", lambda d: d / ("n" * 300), '"{dir}/nnn* cannot be read: File name too long')
    yield Attack("a file", _gguf, '"{dir}/x.gguf" is a file, not a checkpoint directory')
    yield Attack("empty", lambda d: None, f'{CONFIG}: missing in "{{dir}}"')
    yield Attack("config only", write_config, f'{SINGLE}: missing in "{{dir}}"')
    for pickle in ("pytorch_model.bin", "pytorch_model-00001-of-00002.bin", "model.PT", "last.ckpt"):
        yield Attack(
            f"pickle {pickle}",
            _only(pickle),
            f'"{pickle}": pickled weights can run code when loaded, and are refused',
        )
    yield Attack(
        "pickle with a name that clears the terminal",
        _only("\x1b[2J.pt"),
        '"\\u001b[2J.pt": pickled weights can run code when loaded, and are refused',
    )


def _configs() -> Iterator[Attack]:
    yield Attack("config is not JSON", _config(b"{"), f"{CONFIG}: not valid JSON: *")
    yield Attack("config is empty", _config(b""), f"{CONFIG}: not valid JSON: *")
    yield Attack("config is a list", _config(b"[]"), f"{CONFIG}: not a JSON object")
    yield Attack("config is UTF-16", _config('{"a": 1}'.encode("utf-16")), f"{CONFIG}: not UTF-8 (byte 0)")
    yield Attack(
        "config key twice",
        _config(b'{"rope": {"theta": 1, "theta": 2}}'),
        f'{CONFIG}: not valid JSON: key "theta" stands twice in one object',
    )
    yield Attack("config NaN", _config(b'{"eps": NaN}'), f"{CONFIG}: not valid JSON: NaN is no JSON number")
    yield Attack(
        "config infinite",
        _config(b'{"eps": 1e999}'),
        f'{CONFIG}: not valid JSON: number "1e999" is too large',
    )
    yield Attack(
        "config number of 5000 digits",
        _config(b'{"n": ' + b"9" * 5000 + b"}"),
        f"{CONFIG}: not valid JSON: Exceeds the limit (4300 digits)*",
    )
    yield Attack(
        "config nested 100000 deep",
        _config(b'{"a":' * 100_000),
        f"{CONFIG}: not valid JSON: nested too deep",
    )
    yield Attack(
        "config of 8 million lists",
        _config(b'{"a": [' + b"[]," * 8_000_000 + b"[]]}"),
        f"{CONFIG}: too many JSON values (16000003, at most 1000000)",
    )
    yield Attack(
        "config of a terabyte",
        _single(_sparse(10**12, CONFIG)),
        f"{CONFIG}: 1000000000000 bytes is over the limit of 25000000",
    )
    yield Attack("config is a pipe", _single(_replace(CONFIG, os.mkfifo)), f"{CONFIG}: is not a regular file")
    yield Attack(
        "config is a link to itself",
        _single(_replace(CONFIG, lambda p: p.symlink_to(p))),
        f"{CONFIG}: cannot be opened: *",
    )
    yield Attack(
        "config is a link to /dev/zero",
        _single(_replace(CONFIG, lambda p: p.symlink_to("/dev/zero"))),
        f"{CONFIG}: is a link that leaves the checkpoint directory",
    )


def _headers() -> Iterator[Attack]:
    def bad(name: str, content: bytes, cause: str) -> Attack:
        return Attack(name, _file(content), f"{SINGLE}: {cause}")

    sound = len(pack(HEADER)) - len(DATA) - 8
    yield bad("empty file", b"", "0 bytes is too short for a safetensors file")
    yield bad("seven bytes", bytes(7), "7 bytes is too short for a safetensors file")
    yield bad("no header", bytes(8), "header does not start with '{'")
    yield bad(
        "header length is 2**64 - 1",
        pack(HEADER, length=2**64 - 1),
        "header length 18446744073709551615 is over the limit of 25000000",
    )
    yield bad(
        "header reaches beyond the file",
        pack(HEADER, length=sound + 33),
        f"header length {sound + 33} reaches beyond the file's {sound + 40} bytes",
    )
    yield Attack(
        "header of a terabyte in a file of two",
        _single(_sparse(2 * 10**12, start=(10**12).to_bytes(8, "little"))),
        f"{SINGLE}: header length 1000000000000 is over the limit of 25000000",
    )
    yield bad("header cut", pack(HEADER, length=sound - 1), "not valid JSON: *")
    yield bad("header takes data in", pack(HEADER, length=sound + 8), "not valid JSON: *")
    yield bad("header is a list", pack([]), "header does not start with '{'")
    yield bad(
        "header begins with a space", pack(b" " + json.dumps(HEADER).encode()), "header does not start*"
    )
    yield bad("header is not UTF-8", pack(b'{"\xff": 1}'), "not UTF-8 (byte 2)")
    yield bad(
        "tensor twice",
        pack(b'{"a": %s, "a": %s}' % ((json.dumps(A).encode(),) * 2), DATA[:24]),
        'not valid JSON: key "a" stands twice in one object',
    )
    yield bad("no tensors", pack({}, b""), "holds no tensor")
    yield bad("only metadata", pack({"__metadata__": {"format": "pt"}}, b""), "holds no tensor")
    yield bad("metadata of numbers", pack({"__metadata__": {"a": 1}, **HEADER}), "__metadata__ is not a map*")
    yield bad(
        "metadata is a list", pack({"__metadata__": [], **HEADER}), "__metadata__ is not a map of strings"
    )
    yield bad("git-lfs pointer", b"version https://git-lfs.github.com/spec/v1\n", "header length *")
    for shown, name in {
        '""': "",
        '"\\u001b[2J"': "\x1b[2J",
        '"a\\nb"': "a\nb",
        '"\\ud800"': "\ud800",
    }.items():
        yield bad(
            f"tensor name {shown}",
            pack({name: A, "b": B}),
            f"tensor name {shown} is empty, too long or not printable",
        )
    yield bad(
        "tensor name of 2000 letters", pack({"n" * 2000: A, "b": B}), 'tensor name "nnn* is empty, too*'
    )


def _tensors() -> Iterator[Attack]:
    def bad(name: str, make: Callable[[Path], None], cause: str) -> Attack:
        return Attack(name, make, f"{SINGLE}: {cause}")

    entry = 'tensor "a": header entry is not dtype, shape and data_offsets'
    yield bad("entry is a number", _file(pack({"a": 1})), entry)
    yield bad("entry without shape", _file(pack({"a": {k: v for k, v in A.items() if k != "shape"}})), entry)
    yield bad("entry with a further key", _tensor_a(strides=[1]), entry)
    for dtype in ("I64", "F8_E4M3", "U8", "f32", "F32\n", "", None, ["F32"]):
        text = json.dumps(str(dtype))
        cause = f'tensor "a" has dtype {text}, not one of BF16, F16, F32, F64'
        yield bad(f"dtype {text}", _tensor_a(dtype=dtype), cause)
    for shape in (
        [-2, -3],
        [2.0, 3],
        [True, 6],
        ["2", 3],
        [2**63, 3],
        [10**4000],
        6,
        None,
        [[2, 3]],
        [1] * 9,
    ):
        text = str(shape)[:40]
        yield bad(
            f"shape {text}", _tensor_a(shape=shape), 'tensor "a": shape "* is not up to 8 natural numbers'
        )
    for shape in ([2**62, 0], [2**31, 2**31]):
        yield bad(f"shape {shape}", _tensor_a(shape=shape), f'tensor "a": shape {shape} is absurd')
    for offsets in ([24, 0], [0], [0, 24, 32], [-24, 0], [0.0, 24], [0, 2**63], None, "0", [False, 24]):
        yield bad(
            f"offsets {offsets}",
            _tensor_a(data_offsets=offsets),
            'tensor "a": data_offsets "* are not [begin, end]',
        )
    yield bad(
        "shape larger than bytes",
        _tensor_a(shape=[2, 4]),
        'tensor "a": F32 [2, 4] takes 32 bytes, offsets give 24',
    )
    yield bad(
        "dtype narrower", _tensor_a(dtype="F16"), 'tensor "a": F16 [2, 3] takes 12 bytes, offsets give 24'
    )
    yield bad(
        "overlap",
        _file(pack({"a": A, "b": B | {"data_offsets": [20, 28]}}, DATA[:28])),
        'tensor "b" overlaps tensor "a" by 4 bytes',
    )
    yield bad(
        "same bytes twice",
        _file(pack({"a": A, "c": A}, DATA[:24])),
        'tensor "c" overlaps tensor "a" by 24 bytes',
    )
    yield bad(
        "gap",
        _file(pack({"a": A, "b": B | {"data_offsets": [28, 36]}}, bytes(36))),
        'gap of 4 bytes before tensor "b"',
    )
    yield bad("gap at the start", _file(pack({"b": B})), 'gap of 24 bytes before tensor "b"')
    size = len(pack(HEADER))
    yield bad(
        "truncated by a byte",
        _file(pack(HEADER, DATA[:-1])),
        f'truncated: tensor "b" ends at byte {size}, the file at {size - 1}',
    )
    yield bad(
        "truncated to the header",
        _file(pack(HEADER, b"")),
        f'truncated: tensor "a" ends at byte {size - 8}, the file at {size - 32}',
    )
    big = pack({"a": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}, b"")
    yield bad(
        "four terabytes that are not there",
        _file(big),
        f'truncated: tensor "a" ends at byte {2**42 + len(big)}, the file at {len(big)}',
    )
    yield bad(
        "trailing byte", _file(pack(HEADER, DATA + b"x")), '1 bytes after tensor "b" belong to no tensor'
    )
    yield bad("weights are a directory", _single(_replace(SINGLE, Path.mkdir)), "is not a regular file")
    yield bad("weights are a pipe", _single(_replace(SINGLE, os.mkfifo)), "is not a regular file")
    yield bad(
        "weights are a link out",
        _single(lambda d: _replace(SINGLE, lambda p: p.symlink_to(_outside(d)))(d)),
        "is a link that leaves the checkpoint directory",
    )


def _indexes() -> Iterator[Attack]:
    first, second = SHARDS
    both = {"a": first, "b": second}
    yield Attack(
        "index is not JSON", _shards(lambda d: (d / INDEX).write_text("x")), f"{INDEX}: not valid JSON: *"
    )
    for text in ("{}", '{"weight_map": {}}', '{"weight_map": []}', '{"weight_map": "a"}'):
        yield Attack(
            f"index {text}",
            _shards(lambda d, text=text: (d / INDEX).write_text(text)),
            f"{INDEX}: weight_map is missing, empty or not an object",
        )
    yield Attack(
        "index key twice",
        _shards(lambda d: (d / INDEX).write_text(f'{{"weight_map": {{"a": "{first}", "a": "{second}"}}}}')),
        f'{INDEX}: not valid JSON: key "a" stands twice in one object',
    )
    for shard in (
        f"../{first}", f"/etc/{first}", f"./{first}", f"sub/{first}", f"..\\{first}", f"C:{first}",
        "..", ".", "", "a\0.safetensors", "a\n.safetensors", "n" * 300 + ".safetensors",
        "pytorch_model.bin", 1, None, [first],
    ):  # fmt: skip
        yield Attack(
            f"index leads to {json.dumps(shard)[:30]}",
            _index(both | {"a": shard}),
            f'{INDEX}: tensor "a": shard "* is not a plain name of a .safetensors file in the checkpoint*',
        )
    yield Attack("shard missing", _shards(lambda d: (d / second).unlink()), f'{second}: missing in "{{dir}}"')
    yield Attack(
        "shard is a dangling link",
        _shards(_replace(second, lambda p: p.symlink_to("nowhere"))),
        f'{second}: missing in "{{dir}}"',
    )
    yield Attack(
        "shard is a link out",
        _shards(lambda d: _replace(second, lambda p: p.symlink_to(_outside(d)))(d)),
        f"{second}: is a link that leaves the checkpoint directory",
    )
    yield Attack(
        "shard truncated",
        _shards(lambda d: os.truncate(d / second, (d / second).stat().st_size - 1)),
        f'{second}: truncated: tensor "b" ends at byte *',
    )
    yield Attack(
        "tensor that no shard holds", _index(both | {"c": second}), f'{INDEX}: tensor "c" is not in {second}'
    )
    yield Attack(
        "tensor in the other shard", _index({"a": first, "b": first}), f"{second}: is in the directory but*"
    )
    yield Attack(
        "tensors swapped",
        _index({"a": second, "b": first}),
        f'{INDEX}: tensor "a" is in {first}, not in {second}',
    )
    yield Attack(
        "tensor not in the index",
        _shards(lambda d: (d / second).write_bytes(pack({"b": A, "c": B}))),
        f'{second}: tensor "c" is not in {INDEX}',
    )
    yield Attack(
        "tensor in two shards",
        _shards(lambda d: (d / second).write_bytes(pack({"b": A, "a": B}))),
        f'tensor "a" stands in both {first} and {second}',
    )
    yield Attack("index missing", _shards(lambda d: (d / INDEX).unlink()), f"{INDEX}: missing beside {first}")
    yield Attack(
        "single file beside shards",
        _shards(lambda d: (d / SINGLE).write_bytes(pack(HEADER))),
        f"{SINGLE}: is in the directory but {INDEX} does not name it",
    )
    yield Attack(
        "single file beside shards without index",
        _shards(lambda d: (d / INDEX).rename(d / SINGLE)),
        f'{SINGLE} and {first} both stand in "{{dir}}", without {INDEX}',
    )
    yield Attack(
        "shard left over from another save",
        _shards(lambda d: (d / "model-00003-of-00003.safetensors").write_bytes(pack(HEADER))),
        f"model-00003-of-00003.safetensors: is in the directory but {INDEX} does not name it",
    )


ATTACKS = [*_directory(), *_configs(), *_headers(), *_tensors(), *_indexes()]
