"""`edge report`: the figures are those of the files, foreign text stays text, and the page fits a phone."""

from __future__ import annotations

import dataclasses
import html
import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from converters.checkpoint import Checkpoint
from converters.errors import BundleError, UnsupportedError
from converters.models import describe
from converters.reference import hidden_states
from edge import bundle as bundles
from edge import cli
from edge.benchmark import Contender, bench
from edge.benchmark import Request as BenchRequest
from edge.convert import ConvertRequest, convert, plan
from edge.evaluation.statistics import Estimate
from edge.progress import Silent
from edge.proof import proof_tokens
from edge.report import Request, gather
from edge.reporting import speed
from edge.reporting.claims import provenance, read_proofs
from edge.reporting.findings import Findings
from edge.reporting.page import render
from edge.reporting.predictions import KL_STEPS, cases, spans
from edge.reporting.sizes import artifact_sizes, place
from edge.reporting.words import estimate
from edge.runtimes import EngineSettings
from quant.recipe import Recipe

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'\u202e\x1b[31m"
VOID = {"meta", "link", "br", "img"}


@pytest.fixture(scope="module")
def checkpoint(tiny: Callable[..., Path]) -> Path:
    return tiny("phi4")


@pytest.fixture(scope="module")
def made(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A proven bundle with both formats. Not to be changed."""
    output = tmp_path_factory.mktemp("report") / "made"
    request = ConvertRequest(str(checkpoint), ("cpu", "android"), context=256, output=output, threads=1)
    convert(plan(request), Silent())
    return output


@pytest.fixture
def copy(made: Path, tmp_path: Path) -> Path:
    """The same, to be damaged."""
    return Path(shutil.copytree(made, tmp_path / "made"))


@pytest.fixture(scope="module")
def measured(made: Path, checkpoint: Path) -> Findings:
    """With the checkpoint."""
    return gather(Request(made, str(checkpoint), windows=1, threads=1), Silent())


@pytest.fixture(scope="module")
def plain(made: Path) -> Findings:
    """From the files alone."""
    return gather(Request(made), Silent())


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


@pytest.mark.parametrize("kind", ["plain", "measured"])
def test_the_page_is_well_formed_and_fetches_nothing(kind: str, request: pytest.FixtureRequest) -> None:
    text = render(request.getfixturevalue(kind))
    page = Page(text)
    assert "script" not in page.tags
    assert page.handlers == []
    assert len(page.ids) == len(set(page.ids))
    # Links inside of the page, and the empty icon that keeps a browser from asking for one.
    assert all(link == "data:," or link.removeprefix("#") in page.ids for link in page.links)
    assert not re.search(r"url\(|@import", text)
    addresses = set(re.findall(r"https?://[^\s\"'<]+", text))
    assert addresses <= {"http://www.w3.org/2000/svg"}


def test_same_findings_same_bytes(measured: Findings) -> None:
    assert render(measured) == render(measured)


def test_without_a_checkpoint_the_page_says_how_to_get_the_rest(plain: Findings) -> None:
    text = Page(render(plain)).text
    assert text.count("--against CHECKPOINT") >= 3
    assert "--bench bench.json" in text


def test_the_page_shows_what_was_found(measured: Findings) -> None:
    text = Page(render(measured)).text
    for each in measured.variants:
        assert each.evaluation is not None
        assert each.evaluation.kl_mean is not None
        assert estimate(each.evaluation.kl_mean) in text
    for word in (
        "Bytes by part",
        "Error of each stored weight",
        "Error of the hidden states",
        "proof passed",
    ):
        assert word in text
    assert all(file.sha256 in text for file in measured.provenance.files)


def test_parts_add_up_to_the_files(made: Path) -> None:
    for variant in bundles.load(made).variants:
        sizes = artifact_sizes(variant)
        files = [variant.path] if variant.path.is_file() else list(variant.path.iterdir())
        assert sizes.total == sum(f.stat().st_size for f in files)
        assert min(sizes.parts.values()) > 0


def test_parts_are_as_large_as_their_format_says(made: Path, checkpoint: Path) -> None:
    gguf = next(v for v in bundles.load(made).variants if v.format == "gguf")
    sizes = artifact_sizes(gguf)
    with Checkpoint.open(checkpoint) as opened:
        decoder = describe(opened)
    # ggml: Q8_0 takes 34 bytes for 32 weights, Q4_0 takes 18.
    assert sizes.parts["embedding"] == decoder.vocab_size * decoder.hidden_size * 34 // 32
    first = decoder.layers[0]
    mlp = sum(w.shape[0] * w.shape[1] for w in (first.gate, first.up, first.down))
    assert [layer["MLP"] for layer in sizes.layers] == [mlp * 18 // 32] * len(decoder.layers)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("blk.12.attn_qkv.weight", (12, "attention")),
        ("blk.0.attn_norm.weight", (0, "norms")),
        ("blk.3.ffn_down.weight", (3, "MLP")),
        ("blk.3.ffn_norm.weight", (3, "norms")),
        ("token_embd.weight", (None, "embedding")),
        ("output_norm.weight", (None, "norms")),
        ("output.weight", (None, "lm_head")),
        ("rope_factors_long.weight", (None, "other")),
        ("layers.7.attention.qkv.codes", (7, "attention")),
        ("layers.7.post_attention_norm", (7, "norms")),
        ("layers.7.mlp.up.scales", (7, "MLP")),
        ("embedding.codes", (None, "embedding")),
        ("lm_head.scales", (None, "lm_head")),
        ("final_norm", (None, "norms")),
        ("rotary.cos", (None, "other")),
    ],
)
def test_tensors_are_counted_where_they_belong(name: str, expected: tuple[int | None, str]) -> None:
    assert place(name) == expected


def test_errors_are_those_of_the_recipe(measured: Findings, checkpoint: Path) -> None:
    """Against a computation of its own: the recipe's round trip of the whole weights, no artifact read."""
    recipe = Recipe.preset("int4")
    with Checkpoint.open(checkpoint) as opened:
        decoder = describe(opened)
        layer = decoder.layers[1]
        raw = opened.weight_rows(layer.down, 0, layer.down.rows)
        ids = proof_tokens(checkpoint, decoder, 256)
        windows = np.asarray([ids], np.int64)
        plain = hidden_states(opened, decoder, windows)
        stored = hidden_states(
            opened,
            decoder,
            windows,
            transform=lambda w, start, r: recipe.decode(recipe.encode(w, r, start=start)),
        )
    lost = recipe.decode(recipe.encode(layer.down, raw)) - raw.astype(np.float32)
    expected = np.linalg.norm(lost) / np.linalg.norm(raw.astype(np.float32))
    final = np.linalg.norm(stored - plain, axis=-1) / np.linalg.norm(plain, axis=-1)
    for each in measured.variants:
        assert each.errors is not None
        assert each.errors.layers[1, 6] == pytest.approx(expected, rel=1e-5)
        # The final norm changes each length but not much the ratio of two: the same size, not the same number.
        assert each.errors.hidden[-1] == pytest.approx(final.mean(), rel=0.3)


def test_finer_storage_has_smaller_errors(checkpoint: Path, measured: Findings, tmp_path: Path) -> None:
    made = tmp_path / "f32"
    request = ConvertRequest(
        str(checkpoint), ("cpu",), precision="f32", context=64, output=made, proof=False, threads=1
    )
    convert(plan(request), Silent())
    found = gather(Request(made, str(checkpoint), windows=1, threads=1), Silent()).variants[0]
    assert found.errors is not None
    assert not found.errors.layers.any()
    assert not found.errors.hidden.any()
    coarse = measured.variants[0].errors
    assert coarse is not None
    assert (coarse.layers > 0.02).all()  # int4: a step of absmax / 8 leaves some percent of the norm
    # The engine and the reference both compute in float32: only rounding is left.
    assert found.evaluation is not None
    assert found.evaluation.kl_mean is not None
    assert found.evaluation.kl_mean.value < 1e-6


def test_a_mixed_recipe_is_shown_as_a_map(checkpoint: Path, tmp_path: Path) -> None:
    rules = [("layers.1.mlp.down", "int8", "rtn"), ("layers.0.*", "f16", "cast"), ("*", "int4", "rtn")]
    keys = ("pattern", "storage", "method")
    file = tmp_path / "recipe.json"
    file.write_text(json.dumps({"name": "mixed", "rules": [dict(zip(keys, r, strict=True)) for r in rules]}))
    made = tmp_path / "mixed"
    request = ConvertRequest(
        str(checkpoint), ("android",), recipe=file, context=64, output=made, proof=False, threads=1
    )
    convert(plan(request), Silent())
    found = gather(Request(made, str(checkpoint), windows=1, threads=1), Silent())
    bits = found.variants[0].bits
    assert bits is not None
    # ggml: 18 and 34 bytes for a block of 32.
    assert bits.tolist() == [[16.0] * 7, [4.5] * 6 + [8.5]]
    text = Page(render(found)).text
    assert "Bits of each weight: gguf-int4" in text
    assert "Bytes by layer: gguf-int4" in text  # the layers differ


def test_the_strip_holds_the_predicted_text_and_shades_by_kl(measured: Findings) -> None:
    evaluation = measured.variants[0].evaluation
    assert evaluation is not None
    positions = evaluation.positions
    assert positions.kl is not None
    shown = spans(evaluation)
    window = int(positions.kl.mean(-1).argmax())
    expected = positions.text(positions.windows.targets[window].tolist())
    assert "".join(s.text for s in shown) == expected
    assert max(s.kl for s in shown) == pytest.approx(float(positions.kl[window].max()))
    for span in shown:
        assert span.step == sum(span.kl >= bound for bound in KL_STEPS)


def test_the_worst_predictions_come_first_with_both_probabilities(measured: Findings) -> None:
    evaluation = measured.variants[0].evaluation
    assert evaluation is not None
    assert evaluation.positions.kl is not None
    worst = cases(evaluation)
    assert worst[0].kl == pytest.approx(float(evaluation.positions.kl.max()), rel=1e-6)
    assert [c.kl for c in worst] == sorted((c.kl for c in worst), reverse=True)
    for case in worst:
        assert [r.original for r in case.rivals] == sorted((r.original for r in case.rivals), reverse=True)
        assert all(0 <= p <= 1 for r in case.rivals for p in (r.original, r.artifact))


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


def test_hostile_text_stays_text(measured: Findings) -> None:
    text = render(hostile(measured))
    page = Page(text)
    assert not page.tags & {"script", "img"}
    assert page.handlers == []
    assert "alert(1)" in page.text
    # Neither a terminal's escapes nor what turns the direction of writing.
    assert not set("\x1b\u202e") & set(html.unescape(text))


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


def test_benchmarks_are_drawn(made: Path, tmp_path: Path) -> None:
    file = tmp_path / "bench.json"
    file.write_text(json.dumps(bench_data()))
    text = Page(render(gather(Request(made, bench=(file,)), Silent()))).text
    assert "Decode speed" in text
    assert "Time to first token" in text
    assert "made/gguf-int4: 40 at 0, 36 to 48" in text
    assert "40 tokens per second at depth 0" in text.replace(
        "tokens per second at depth 0 40", "40 tokens per second at depth 0"
    )


def test_what_edge_bench_writes_is_read(made: Path) -> None:
    variant = next(v for v in bundles.load(made).variants if v.format == "gguf")
    request = BenchRequest(
        (Contender(variant.path, variant.name, 64, EngineSettings()),),
        prompts=(8,),
        depths=(0,),
        runs=1,
        threads=1,
        decoded_tokens=2,
    )
    (found,) = speed.parse(json.loads(json.dumps(bench(request, Silent()).to_data())))
    assert found.name == "gguf-int4"
    assert found.first_token[8].median > 0
    assert found.decode[0].low <= found.decode[0].median <= found.decode[0].high


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"artifacts": 3, "bandwidth": null}', "[" * 100_000])
def test_a_file_that_is_no_benchmark_is_refused(content: str, tmp_path: Path) -> None:
    file = tmp_path / "bench.json"
    file.write_text(content)
    with pytest.raises(UnsupportedError, match=r"bench\.json is no result of"):
        speed.read(file)


@pytest.mark.parametrize("key", ["source", "tools", "model"])
@pytest.mark.parametrize("value", [None, 3, "text", {"pin": 1}])
def test_a_manifest_of_other_kinds_is_damaged(key: str, value: object, copy: Path) -> None:
    file = copy / "manifest.json"
    manifest = json.loads(file.read_text())
    file.write_text(json.dumps(manifest | {key: value}))
    loaded = bundles.load(copy)
    if (key == "model" and isinstance(value, dict)) or (key == "tools" and isinstance(value, dict)):
        provenance(loaded)
        return
    with pytest.raises(BundleError, match=r"manifest\.json is damaged"):
        provenance(loaded)


@pytest.mark.parametrize("content", ["", "{}", '{"variants": {"x": {}}}', '{"variants": 3}'])
def test_a_damaged_proof_is_told(content: str, copy: Path) -> None:
    (copy / "proof.json").write_text(content)
    with pytest.raises(BundleError, match=r"proof\.json is damaged"):
        read_proofs(bundles.load(copy))


def test_a_variant_that_is_gone_is_told(copy: Path) -> None:
    next(copy.glob("*.gguf")).unlink()
    with pytest.raises(BundleError, match="is missing"):
        gather(Request(copy), Silent())


def test_command_writes_the_page_and_names_it(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "page.html"
    assert cli.main(["report", str(made), "-o", str(output)]) == 0
    assert capsys.readouterr().out == f"{output}\n"
    Page(output.read_text(encoding="utf-8"))


def test_command_prints_json(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["report", str(made), "-o", str(tmp_path / "page.html"), "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert {v["name"] for v in data["variants"]} == {"onnx-int4", "gguf-int4"}
    assert data["variants"][0]["proof"]["passed"] is True
    assert data["variants"][0]["errors"] is None


@pytest.mark.parametrize(
    ("found", "written"),
    [
        (Estimate(0.35312, 0.0123), "0.353 ± 0.012"),
        (Estimate(12.5, 3.2), "12.5 ± 3.2"),
        (Estimate(1232.4, 82.1), "1232 ± 82"),
        (Estimate(0.0, 0.0), "0"),
    ],
)
def test_estimates_are_written_to_the_second_digit_of_their_error(found: Estimate, written: str) -> None:
    assert estimate(found) == written


def browser() -> str | None:
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


# A frame of each width holds the page; the frame around it may run a script, the page may not.
_MEASURE = """<!doctype html><body><iframe id=f style="border:0;width:{width}px;height:900px" srcdoc="{page}"></iframe>
<script>onload = () => {{ const d = f.contentDocument;
const out = [...d.querySelectorAll('svg')].flatMap(s => [...s.querySelectorAll('text')].filter(t => {{
  const a = t.getBoundingClientRect(), b = s.getBoundingClientRect();
  return a.right > b.right + 4 || a.left < b.left - 4;
}}).map(t => t.textContent));
document.body.innerHTML = ''; document.body.append(JSON.stringify(
  {{wide: d.scrollingElement.scrollWidth, charts: d.querySelectorAll('svg').length, out}})); }}</script>"""


@pytest.fixture(scope="module")
def profile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("browser")


@pytest.mark.skipif(browser() is None, reason="no Chromium on this machine (apt-get install chromium)")
@pytest.mark.parametrize("width", [390, 1100])
def test_a_browser_shows_it_without_scrolling_sideways(width: int, measured: Findings, profile: Path) -> None:
    full = dataclasses.replace(measured, speeds=speed.parse(bench_data()))
    file = profile / f"{width}.html"
    file.write_text(_MEASURE.format(width=width, page=html.escape(render(full))), encoding="utf-8")
    flags = ["--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={profile / 'data'}"]
    done = subprocess.run(
        [str(browser()), *flags, "--window-size=1400,1000", "--dump-dom", file.as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
        env=os.environ | {"HOME": str(profile)},
    )
    said = json.loads(html.unescape(re.search(r"<body>(.*)</body>", done.stdout, re.S)[1]))  # type: ignore[index]
    assert said["wide"] <= width
    assert said["charts"] >= 8
    assert said["out"] == []
