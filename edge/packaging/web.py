"""`--app web`: a static folder that chats in a browser, and without a network after the first visit.

index.html, css/, js/      apps/android/www, the page    shell: kept by the service worker when it is installed
host/, js/bridge.js, ..    apps/web, what is behind it
README.md, licences/       for whoever puts it on a server
sw.js                      BUILD and apps/web/sw.js
build.json                 the files with size and SHA-256, and model.json (apps/android/PROTOCOL.md)
wllama/                    @wllama/wllama: llama.cpp in WebAssembly; compat.* for browsers without 64-bit memory
model/                     the bundle's GGUF in shards, which browsers and static hosts take
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from converters.errors import UnsupportedError
from converters.gguf.reader import Gguf
from converters.gguf.split import assign, split
from edge.bundle import hash_files, write_json
from edge.packaging import parts, phone_model, web_model, web_page
from edge.packaging.app_folder import app_folder, copy_licences, sources
from edge.packaging.packaged import Packaged
from edge.progress import Progress
from edge.units import size

HOST_BYTES = 100_000_000
"""What GitHub Pages takes a file."""
SHARD_BYTES = 64_000_000
"""One tensor may be larger."""
MAX_FILE_BYTES = (1 << 31) - 1
"""wllama reads a file's position as a signed 32-bit number."""
MAX_MEMORY_BYTES = 4 << 30
"""Of WebAssembly in a browser: weights, cache and workspace together."""
MIN_CONTEXT = 512
_GROUPS = {"model/": "model", "wllama/compat.": "compat", "licences/": "about", "README.md": "about"}


def package(model: Path, output: Path, variant: str | None, progress: Progress) -> Packaged:
    """Build the folder. Raises what `phone_model.load` and `parts.fetch` raise, BundleError for a place that cannot be
    written, and UnsupportedError for a model that is too large for a browser."""
    with app_folder(output, "web") as folder:
        progress.stage("read the model", phone_model.size(model))
        loaded = phone_model.load(model, variant, progress.advance)
        context, largest = _context(loaded.description), _largest(loaded.gguf)
        own, page = sources("web"), sources("android") / "www"
        engine, compat = parts.fetch("wllama", progress), parts.fetch("wllama-compat", progress)
        shutil.copytree(page, folder, dirs_exist_ok=True)
        shutil.copytree(own, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("sw.js", "screen.png"))
        web_page.rewrite(folder / "index.html")
        write_json(folder / "app.webmanifest", _webmanifest(loaded.description["name"]))
        _copy_engine(folder / "wllama", engine, compat)
        shutil.copyfile(engine / "package/LICENCE", folder / "licences" / "wllama.txt")
        copy_licences(model, folder / "licences")
        (folder / "model").mkdir()
        progress.stage("split the model", loaded.size)
        stem = loaded.sha256[:12]
        shards = split(loaded.gguf, folder / "model", stem, shard_bytes=SHARD_BYTES, advance=progress.advance)
        progress.done()
        files = {name: {**entry, "group": _group(name)} for name, entry in hash_files(folder).items()}
        description = {**loaded.description, **web_model.describe(loaded.gguf), "context": context}
        write_json(folder / "build.json", {"files": files, "model": description})
        files |= {n: {**e, "group": "shell"} for n, e in hash_files(folder).items() if n == "build.json"}
        (folder / "sw.js").write_text(
            _build(files) + (own / "sw.js").read_text(encoding="utf-8"), encoding="utf-8"
        )
        found = _sizes(folder)
    figures = {"context": context, "shards": len(shards), "largest_file": largest}
    notes = _notes(loaded.description, context, largest)
    return Packaged("web", output, found, figures, notes)


def _context(description: Mapping[str, Any]) -> int:
    """The model's context, or as much of it as fits in a browser's memory beside the weights."""
    context, token = int(description["context"]), int(description["kv_bytes_per_token"])
    rest = MAX_MEMORY_BYTES - int(description["size"]) - int(description["work_bytes"])
    while context > MIN_CONTEXT and context * token > rest:
        context = max(context // 2, MIN_CONTEXT)
    if context * token > rest:
        raise UnsupportedError(
            f"{description['name']} has {size(description['size'])} of weights: with its workspace that is over the "
            f"{size(MAX_MEMORY_BYTES)} that WebAssembly gets in a browser",
            hint="fewer bits a weight, a smaller model, or `--app android`",
        )
    return context


def _largest(gguf: Path) -> int:
    """Bytes of tensors in the largest shard. Raises UnsupportedError for one that no browser reads."""
    with Gguf.open(gguf) as file:
        shards = assign(list(file.tensors.values()), SHARD_BYTES)
    largest = max(sum(tensor.nbytes for tensor in shard) for shard in shards)
    if largest > MAX_FILE_BYTES:
        raise UnsupportedError(
            f"a tensor of {gguf.name} makes a file of {size(largest)}, a browser reads {size(MAX_FILE_BYTES)}",
            hint="fewer bits a weight, or `--app android`",
        )
    return largest


def _copy_engine(folder: Path, engine: Path, compat: Path) -> None:
    folder.mkdir()
    shutil.copyfile(engine / "package/esm/index.min.js", folder / "index.js")
    shutil.copyfile(engine / "package/esm/wasm/wllama.wasm", folder / "wllama.wasm")
    shutil.copyfile(compat / "package/wasm/wllama.js", folder / "compat.js")
    shutil.copyfile(compat / "package/wasm/wllama.wasm", folder / "compat.wasm")


def _group(name: str) -> str:
    """When a file is fetched: with the page, by every browser, by one of the two kinds, or never by the app."""
    for start, group in _GROUPS.items():
        if name.startswith(start):
            return group
    return "engine" if name.endswith(".wasm") else "shell"


def _build(files: Mapping[str, Mapping[str, Any]]) -> str:
    """The first line of sw.js, which makes it another one for every build."""
    text = json.dumps(files, sort_keys=True, separators=(",", ":"))
    version = hashlib.sha256(text.encode()).hexdigest()[:16]
    return f'const BUILD = {{"version":"{version}","files":{text}}};\n'


def _webmanifest(name: str) -> dict[str, Any]:
    return {
        "name": name,
        "short_name": name[:24],
        "start_url": "./",
        "scope": "./",
        "display": "standalone",
        "background_color": "#ffffff",
        "theme_color": "#0b67a5",
        "icons": [{"src": "icon.svg", "sizes": "any", "type": "image/svg+xml"}],
    }


def _sizes(folder: Path) -> dict[str, int]:
    found = dict.fromkeys(("model", "engine", "engine for other browsers", "page"), 0)
    names = {"model": "model", "engine": "engine", "compat": "engine for other browsers"}
    for name, entry in hash_files(folder).items():
        found[names.get(_group(name), "page")] += entry["size"]
    return found


def _notes(description: Mapping[str, Any], context: int, largest: int) -> tuple[str, ...]:
    notes = []
    if context != description["context"]:
        notes.append(f"a browser's memory holds a context of {context} tokens, not {description['context']}")
    if largest > HOST_BYTES:
        notes.append(
            f"the largest file has {size(largest)}: some hosts of static files take {size(HOST_BYTES)}"
        )
    notes.append("serve it over https: browsers keep no app that comes over http, but from localhost")
    return tuple(notes)
