"""What the tests of `edge report` share: a strict reader of its page, and what strangers may write on it."""

from __future__ import annotations

import dataclasses
import re
from html.parser import HTMLParser

from edge.reporting import speed
from edge.reporting.findings import Findings

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'\u202e\x1b[31m"
VOID = {"meta", "link", "br", "img"}


class Page(HTMLParser):
    """Raises for a tag that is not closed, or closed out of turn; gathers what a browser would fetch or run."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.links: list[str] = []
        self.handlers: list[str] = []
        self.tags: set[str] = set()
        self.ids: list[str] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        for name, value in attrs:
            self.handlers += [name] if name.startswith("on") else []
            self.links += [value or ""] if name in ("href", "src", "xlink:href", "action", "srcset") else []
            self.ids += [value or ""] if name == "id" else []
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.words))


def hostile(found: Findings) -> Findings:
    """Every text that a stranger writes is an attack."""
    origin = dataclasses.replace(
        found.provenance,
        pin=HOSTILE,
        licence=HOSTILE,
        tools={HOSTILE: HOSTILE},
        model={HOSTILE: HOSTILE, "architecture": HOSTILE},
        files=tuple(dataclasses.replace(f, path=HOSTILE, sha256=HOSTILE) for f in found.provenance.files),
    )
    variants = []
    for each in found.variants:
        recipe = {"name": HOSTILE, "rules": [{"pattern": HOSTILE, "storage": HOSTILE, HOSTILE: HOSTILE}]}
        variant = dataclasses.replace(each.variant, name=HOSTILE, targets=(HOSTILE,), recipe=recipe)
        assert each.proof is not None
        assert each.evaluation is not None
        positions = each.evaluation.positions
        pieces = dict.fromkeys(positions.pieces, HOSTILE.encode())
        variants.append(
            dataclasses.replace(
                each,
                variant=variant,
                facts=dataclasses.replace(each.facts, capped=HOSTILE),
                proof=dataclasses.replace(each.proof, runtime=HOSTILE, failures=(HOSTILE,)),
                evaluation=dataclasses.replace(
                    each.evaluation, text=HOSTILE, positions=dataclasses.replace(positions, pieces=pieces)
                ),
            )
        )
    manifest = dict(found.bundle.manifest) | {"name": HOSTILE, "proof": f"unproven: {HOSTILE}"}
    named = dataclasses.replace(found.bundle, manifest=manifest)
    speeds = tuple(
        dataclasses.replace(s, name=HOSTILE, runtime=HOSTILE, system=HOSTILE)
        for s in speed.parse(bench_data())
    )
    return dataclasses.replace(
        found, bundle=named, provenance=origin, variants=tuple(variants), speeds=speeds
    )


def bench_data() -> dict[str, object]:
    """As `edge bench --json` writes it."""

    def spread(middle: float) -> dict[str, object]:
        return {"median": middle, "min": middle * 0.9, "max": middle * 1.2, "samples": [middle]}

    return {
        "machine": {"system": "a computer"},
        "threads": 2,
        "runs": 5,
        "bandwidth": {"bytes_per_s": spread(2e10)},
        "artifacts": [
            {
                "name": "made/gguf-int4",
                "runtime": "llama.cpp",
                "load": {"seconds": spread(0.5)},
                "memory": {"peak_bytes": 123456789},
                "prompts": [{"tokens": n, "first_token_s": spread(n / 100)} for n in (32, 128)],
                "depths": [
                    {"depth": n, "tokens_per_s": spread(40 - n / 100), "bandwidth_share": spread(0.5)}
                    for n in (0, 512)
                ],
            }
        ],
    }
