"""A tiny random BERT that classifies, with a WordPiece tokenizer of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertForSequenceClassification

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "good", "bad", "film", "a", "the", "it", "was", "dull"]


def write_encoder(
    directory: Path, *, layers: int = 4, classes: tuple[str, ...] = ("no", "yes"), **more: Any
) -> Path:
    """The checkpoint in `directory`, the same for the same arguments."""
    torch.manual_seed(5)
    config = BertConfig(
        vocab_size=len(WORDS),
        hidden_size=32,
        num_hidden_layers=layers,
        num_attention_heads=2,
        intermediate_size=48,
        max_position_embeddings=32,
        id2label=dict(enumerate(classes)),
        label2id={name: i for i, name in enumerate(classes)},
        **more,
    )
    BertForSequenceClassification(config).save_pretrained(directory)
    tokenizer = Tokenizer(models.WordPiece({w: i for i, w in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    tokenizer.save(str(directory / "tokenizer.json"))
    return directory
