"""A BERT in experts, from `edge distill` to a proven bundle that classifies. No torch is needed for the second half."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch

from edge import cli
from edge.distilling.moebert import distill
from edge.distilling.moebert_plan import MoebertRequest, plan
from edge.encoder.probes import read_tokenizer
from edge.encoder.session import open_classifier
from edge.progress import Silent
from quant.distill.moebert_model import load_student
from tests.encoder_checkpoint import write_encoder

TEXTS = ["it was good", "a dull film it was the bad", "good"]


def test_a_student_is_converted_proven_and_asked(tmp_path: Path) -> None:
    teacher, lines = write_encoder(tmp_path / "bert", layers=2), tmp_path / "lines.jsonl"
    lines.write_text(
        "\n".join(json.dumps({"text": t, "label": "yes" if "good" in t else "no"}) for t in TEXTS)
    )
    request = MoebertRequest(str(teacher), lines, tmp_path / "student", steps=20, batch=3, rate=1e-3)
    distill(plan(request), Silent())
    assert cli.main(["convert", str(request.output), "-t", "cpu", "-o", str(tmp_path / "bundle")]) == 0
    proof = json.loads((tmp_path / "bundle" / "proof.json").read_text())
    assert proof["passed"]
    assert proof["variants"]["f32"]["max_error"] <= 1e-4
    assert cli.main(["verify", str(tmp_path / "bundle")]) == 0
    student, tokenizer = load_student(request.output), read_tokenizer(request.output, 32)
    found = open_classifier(tmp_path / "bundle", "f32", 1).probabilities(TEXTS)
    for text, row in zip(TEXTS, found, strict=True):
        with torch.inference_mode():
            logits = student(input_ids=torch.tensor([tokenizer.encode(text).ids])).logits[0]
        assert np.abs(row - torch.softmax(logits, -1).numpy()).max() <= 1e-5
