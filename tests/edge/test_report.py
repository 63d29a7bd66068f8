"""`edge report`: the page is well-formed and fetches nothing, foreign text stays text, damage is told."""

from __future__ import annotations

import html
import json
import re
import shutil
from pathlib import Path

import pytest

from converters.errors import BundleError, UnsupportedError
from edge import bundle as bundles
from edge import cli
from edge.progress import Silent
from edge.report import Request, gather
from edge.reporting import speed
from edge.reporting.claims import provenance, read_proofs
from edge.reporting.findings import Findings
from edge.reporting.page import render
from edge.reporting.words import estimate
from tests.edge.report_page import Page, bench_data, hostile


@pytest.fixture
def copy(reported: Path, tmp_path: Path) -> Path:
    """A bundle to be damaged."""
    return Path(shutil.copytree(reported, tmp_path / "made"))


@pytest.fixture(scope="module")
def plain(reported: Path) -> Findings:
    """What is found without the checkpoint."""
    return gather(Request(reported), Silent())


@pytest.mark.parametrize("kind", ["plain", "report_findings"])
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


def test_same_findings_same_bytes(report_findings: Findings) -> None:
    assert render(report_findings) == render(report_findings)


def test_without_a_checkpoint_the_page_says_how_to_get_the_rest(plain: Findings) -> None:
    text = Page(render(plain)).text
    assert text.count("--against CHECKPOINT") >= 3
    assert "--bench bench.json" in text


def test_the_page_shows_what_was_found(report_findings: Findings) -> None:
    text = Page(render(report_findings)).text
    for each in report_findings.variants:
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
    assert all(file.sha256 in text for file in report_findings.provenance.files)


def test_hostile_text_stays_text(report_findings: Findings) -> None:
    text = render(hostile(report_findings))
    page = Page(text)
    assert not page.tags & {"script", "img"}
    assert page.handlers == []
    assert "alert(1)" in page.text
    # Neither a terminal's escapes nor what turns the direction of writing.
    assert not set("\x1b\u202e") & set(html.unescape(text))


def test_benchmarks_are_drawn(reported: Path, tmp_path: Path) -> None:
    file = tmp_path / "bench.json"
    file.write_text(json.dumps(bench_data()))
    text = Page(render(gather(Request(reported, bench=(file,)), Silent()))).text
    assert "Decode speed" in text
    assert "Time to first token" in text
    assert "made/gguf-int4: 40 at 0, 36 to 48" in text
    assert "40 tokens per second at depth 0" in text.replace(
        "tokens per second at depth 0 40", "40 tokens per second at depth 0"
    )


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
    reported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "page.html"
    assert cli.main(["report", str(reported), "-o", str(output)]) == 0
    assert capsys.readouterr().out == f"{output}\n"
    Page(output.read_text(encoding="utf-8"))


def test_command_prints_json(reported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["report", str(reported), "-o", str(tmp_path / "page.html"), "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert {v["name"] for v in data["variants"]} == {"onnx-int4", "gguf-int4"}
    assert data["variants"][0]["proof"]["passed"] is True
    assert data["variants"][0]["errors"] is None
