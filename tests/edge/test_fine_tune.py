"""`edge distill --method ft` gives an encoder without classes a head; what published encoders bring along is met."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer

from converters.checkpoint import Checkpoint
from edge import cli
from edge.distilling.data import read_labelled
from tests.encoder_checkpoint import write_encoder

ROWS = [("it was good", "praise"), ("it was a dull film", "blame"), ("a bad film", "blame")]


def bare(directory: Path) -> Path:
    """As published: no head, positions as a tensor, a tokenizer that pads to 16 tokens."""
    write_encoder(directory, layers=2)
    config = json.loads((directory / "config.json").read_text())
    config |= {"architectures": ["BertModel"]}
    del config["id2label"], config["label2id"]
    (directory / "config.json").write_text(json.dumps(config))
    tensors = load_file(directory / "model.safetensors")
    kept = {n.removeprefix("bert."): t for n, t in tensors.items() if n.startswith("bert.")}
    kept["embeddings.position_ids"] = torch.arange(32)[None]
    save_file(kept, directory / "model.safetensors", metadata={"format": "pt"})
    tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
    tokenizer.enable_padding(length=16)
    tokenizer.save(str(directory / "tokenizer.json"))
    return directory


def test_the_head_has_the_texts_classes(tmp_path: Path) -> None:
    teacher, lines = bare(tmp_path / "bare"), tmp_path / "lines.jsonl"
    lines.write_text("".join(json.dumps({"text": t, "label": n}) + "\n" for t, n in ROWS * 4))
    words = ("--text", str(lines), "--method", "ft", "--steps", "2", "--batch", "2")
    assert cli.main(["distill", str(teacher), *words, "-o", str(tmp_path / "tuned")]) == 0
    config = json.loads((tmp_path / "tuned" / "config.json").read_text())
    assert config["architectures"] == ["BertForSequenceClassification"]
    assert config["id2label"] == {"0": "blame", "1": "praise"}
    record = json.loads((tmp_path / "tuned" / "shrink.json").read_text())
    assert record["new_head"] == ["blame", "praise"]
    with Checkpoint.open(tmp_path / "tuned") as checkpoint:
        found = sum(int(np.prod(t.shape)) for t in checkpoint.tensors.values())
    assert record["student_parameters"] == found
    # What has a head keeps it: a student of half the layers.
    half = ["distill", str(tmp_path / "tuned"), *words[:2], "--layers", "1", "--steps", "1", "--batch", "2"]
    assert cli.main([*half, "-o", str(tmp_path / "half")]) == 0
    assert json.loads((tmp_path / "half" / "config.json").read_text())["id2label"] == config["id2label"]


def test_a_tokenizers_own_padding_is_no_text(tmp_path: Path) -> None:
    teacher, lines = bare(tmp_path / "bare"), tmp_path / "lines.jsonl"
    lines.write_text("".join(json.dumps({"text": t, "label": i % 2}) + "\n" for i, (t, _) in enumerate(ROWS)))
    ids, _ = read_labelled(lines, teacher, {}, 32)
    assert (ids >= 0).sum(1).tolist() == [5, 7, 5]  # words, and a token before and after them
