"""Tiny random BERTs, one that classifies and one for sentence vectors, with a WordPiece tokenizer of their own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertForSequenceClassification, BertModel

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "good", "bad", "film", "a", "the", "it", "was", "dull"]


def write_encoder(
    directory: Path, *, layers: int = 4, classes: tuple[str, ...] = ("no", "yes"), **more: Any
) -> Path:
    """The checkpoint in `directory`, the same for the same arguments."""
    torch.manual_seed(5)
    labels = {"id2label": dict(enumerate(classes)), "label2id": {name: i for i, name in enumerate(classes)}}
    BertForSequenceClassification(_config(layers, **labels, **more)).save_pretrained(directory)
    _write_tokenizer(directory)
    return directory


def write_sentence_encoder(
    directory: Path,
    *,
    modules: tuple[str, ...] = ("Transformer", "Pooling", "Normalize"),
    modes: tuple[str, ...] = ("mean_tokens",),
    **texts: Any,
) -> Path:
    """As sentence-transformers writes one; `texts` go into sentence_bert_config.json."""
    torch.manual_seed(5)
    BertModel(_config(2)).save_pretrained(directory)
    _write_tokenizer(directory)
    paths = ["", *(f"{i}_{name}" for i, name in enumerate(modules[1:], 1))]
    listed = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{name}"}
        for i, (name, path) in enumerate(zip(modules, paths, strict=True))
    ]
    (directory / "modules.json").write_text(json.dumps(listed))
    (directory / "1_Pooling").mkdir()
    pooling = {f"pooling_mode_{mode}": mode in modes for mode in ("cls_token", "mean_tokens", "max_tokens")}
    config = {"word_embedding_dimension": 32, **pooling}
    (directory / "1_Pooling" / "config.json").write_text(json.dumps(config))
    (directory / "sentence_bert_config.json").write_text(json.dumps(texts))
    return directory


def _config(layers: int, **more: Any) -> BertConfig:
    return BertConfig(
        vocab_size=len(WORDS),
        hidden_size=32,
        num_hidden_layers=layers,
        num_attention_heads=2,
        intermediate_size=48,
        max_position_embeddings=32,
        **more,
    )


def _write_tokenizer(directory: Path) -> None:
    tokenizer = Tokenizer(models.WordPiece({w: i for i, w in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    tokenizer.save(str(directory / "tokenizer.json"))
