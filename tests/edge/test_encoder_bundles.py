"""Encoders from checkpoint to label: graphs that answer as the checkpoint, whatever lies beside a text in its batch.

They need the environment of the extra `encoders`, which `make test` makes.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from transformers import AutoModelForSequenceClassification, RobertaConfig, RobertaModel

from converters.errors import ProofError
from edge import cli
from edge.bundle import load
from edge.encoder import proof
from edge.encoder.convert import convert
from edge.encoder.exporters import EXPORTERS, Exported
from edge.encoder.plan import plan
from edge.encoder.probes import batch, probe_texts, read_tokenizer
from edge.encoder.session import open_classifier, run_graph
from edge.planned import ConvertRequest
from edge.progress import Silent
from edge.sources import resolve
from tests.encoder_checkpoint import write_encoder

pytestmark = pytest.mark.skipif(
    "EDGE_ENCODERS_PYTHON" not in os.environ, reason="EDGE_ENCODERS_PYTHON names no environment with optimum"
)
TEXTS = ["it was good", "a dull film it was the bad", "good", "it was a good film a good film a good film"]


PLAN = """
model = "bert"
text = "lines.jsonl"
[[step]]
do = "distill"
layers = 2
hidden = 16
steps = 2
batch = 2
[[step]]
do = "convert"
targets = ["cpu"]
"""


@pytest.fixture(scope="module")
def shrunk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A narrower TED student and its bundle, by a plan."""
    directory = tmp_path_factory.mktemp("plan")
    write_encoder(directory / "bert", classes=("no", "yes", "perhaps"))
    rows = [json.dumps({"text": text, "label": i % 3}) for i, text in enumerate(TEXTS)]
    (directory / "lines.jsonl").write_text("\n".join(rows))
    (directory / "plan.toml").write_text(PLAN)
    assert cli.main(["shrink", str(directory / "plan.toml"), "-o", str(directory / "out")]) == 0
    return directory / "out"


@pytest.fixture(scope="module")
def checkpoint(shrunk: Path) -> Path:
    return shrunk / "1-distill"


@pytest.fixture(scope="module")
def bundle(shrunk: Path) -> Path:
    return shrunk / "2-convert"


def logits(checkpoint: Path, text: str) -> torch.Tensor:
    """By transformers as it is installed here: another one than the exporter's."""
    ids = read_tokenizer(checkpoint, 32).encode(text).ids
    model = AutoModelForSequenceClassification.from_pretrained(checkpoint).eval()
    with torch.inference_mode():
        return model(input_ids=torch.tensor([ids])).logits[0]


def test_both_graphs_are_proven(bundle: Path) -> None:
    found = json.loads((bundle / "proof.json").read_text())
    assert found["passed"]
    assert found["variants"]["f32"]["max_error"] <= 1e-4
    assert 0 < found["variants"]["int8"]["relative_error"] < 0.2
    operators = [
        {node.op_type for node in onnx.load(bundle / name / "model.onnx").graph.node}
        for name in ("f32", "int8")
    ]
    assert "MatMulInteger" in operators[1] - operators[0]
    manifest = json.loads((bundle / "manifest.json").read_text())
    assert manifest["model"]["labels"] == ["no", "yes", "perhaps"]
    assert cli.main(["verify", str(bundle)]) == 0


def test_probabilities_are_those_of_the_checkpoint_in_any_batch(checkpoint: Path, bundle: Path) -> None:
    classifier = open_classifier(bundle, "f32", 1)
    together = classifier.probabilities(TEXTS)
    for text, row in zip(TEXTS, together, strict=True):
        expected = torch.softmax(logits(checkpoint, text), -1).numpy()
        assert np.abs(row - expected).max() <= 1e-5  # rounding of float32, in another order of sums
        # A text alone has no padding beside it.
        assert np.abs(classifier.probabilities([text])[0] - row).max() <= 1e-6


def test_a_text_longer_than_the_context_is_cut(bundle: Path) -> None:
    classifier = open_classifier(bundle, None, 1)
    long = "good film " * 100
    assert np.allclose(classifier.probabilities([long]), classifier.probabilities([long + "bad"]))


def test_the_command_prints_a_label_a_line(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["classify", str(bundle), *TEXTS[:2], "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["text"] for row in rows] == TEXTS[:2]
    assert cli.main(["classify", str(bundle), *TEXTS[:2]]) == 0
    told = [line.split("\t")[0] for line in capsys.readouterr().out.splitlines()]
    assert told == [max(row["labels"], key=row["labels"].get) for row in rows]


def test_a_bundle_is_proven_anew(bundle: Path, checkpoint: Path) -> None:
    assert proof.prove_anew(load(bundle), checkpoint) == json.loads((bundle / "proof.json").read_text())


def test_an_encoder_without_a_head_gives_hidden_states(tmp_path: Path) -> None:
    """A RoBERTa: its positions begin behind the padding's number."""
    directory = write_encoder(tmp_path / "roberta")
    torch.manual_seed(3)
    RobertaModel(
        RobertaConfig(
            vocab_size=12, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=48,
            max_position_embeddings=34, pad_token_id=0, type_vocab_size=1,
        )
    ).save_pretrained(directory)  # fmt: skip
    source = resolve(str(directory))
    planned = plan(ConvertRequest(str(directory), ("cpu",), output=tmp_path / "out"), source)
    assert (planned.labels, planned.context_length) == ((), 33)
    found = convert(planned, Silent())["proof"]["variants"]
    assert found["f32"]["max_error"] <= 1e-4
    assert 0.9 < found["int8"]["worst_cosine"] < found["f32"]["worst_cosine"] <= 1 + 1e-9
    probes = batch(read_tokenizer(directory, 33), probe_texts(), 0)
    assert run_graph(tmp_path / "out" / "f32", probes).shape == (*probes["input_ids"].shape, 32)


def test_a_graph_that_answers_otherwise_is_not_published(
    checkpoint: Path, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def off_by_little(source: Path, folder: Path, probes: proof.Probes) -> Exported:
        (folder / "model.onnx").write_bytes((bundle / "f32" / "model.onnx").read_bytes())
        return Exported(run_graph(folder, probes) + np.float32(2e-4), {})

    monkeypatch.setitem(EXPORTERS, "bert", off_by_little)
    request = ConvertRequest(str(checkpoint), ("cpu",), precision="f32", output=tmp_path / "out")
    with pytest.raises(ProofError, match=r"the proof of f32 failed: answers 0\.0002"):
        convert(plan(request, resolve(str(checkpoint))), Silent())
    assert not (tmp_path / "out").exists()
