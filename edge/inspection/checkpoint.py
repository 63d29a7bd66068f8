"""A checkpoint directory: config, tensors by dtype, and whether `edge convert` understands it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from converters.checkpoint import Checkpoint
from converters.decoder import Decoder
from converters.errors import EdgeError
from converters.models import describe_whole
from converters.multimodal import Multimodal, text_of
from edge.encoder.exporters import is_encoder

_TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "chat_template.jinja",
    "generation_config.json",
)


def inspect(directory: Path) -> dict[str, Any]:
    """Facts of the headers and config.json. A model that cannot be converted is described all the same."""
    with Checkpoint.open(directory) as checkpoint:
        tensors = checkpoint.tensors.values()
        dtypes: dict[str, dict[str, int]] = {}
        parameters = 0
        for tensor in tensors:
            entry = dtypes.setdefault(tensor.dtype, {"tensors": 0, "bytes": 0})
            entry["tensors"] += 1
            entry["bytes"] += tensor.nbytes
            count = 1
            for n in tensor.shape:
                count *= n
            parameters += count
        model, convertible = _encoder(checkpoint) if is_encoder(directory) else _text(checkpoint)
        return {
            "kind": "checkpoint",
            "path": str(directory),
            "model_type": checkpoint.config.get("model_type"),
            "architectures": checkpoint.config.get("architectures"),
            "parameters": parameters,
            "bytes": sum(t.nbytes for t in tensors),
            "files": sorted({t.file.name for t in tensors}),
            "dtypes": dict(sorted(dtypes.items())),
            "tokenizer_files": [n for n in _TOKENIZER_FILES if (directory / n).is_file()],
            "model": model,
            "convertible": convertible,
            "tensors": [
                {"name": t.name, "dtype": t.dtype, "shape": list(t.shape), "bytes": t.nbytes} for t in tensors
            ],
        }


def _text(checkpoint: Checkpoint) -> tuple[dict[str, Any] | None, dict[str, Any]]:
    """Facts of a model that writes text, and whether it can be converted."""
    try:
        return _model(describe_whole(checkpoint)), {"ok": True}
    except EdgeError as error:
        return None, {"ok": False, "cause": error.cause, "hint": error.hint}


def _encoder(checkpoint: Checkpoint) -> tuple[dict[str, Any] | None, dict[str, Any]]:
    config = checkpoint.config
    names = config.get("id2label") if "Classification" in str(config.get("architectures")) else None
    model = {
        "gives": "labels" if names else "vectors",
        "labels": list(names.values()) if isinstance(names, dict) else None,
        "layers": config.get("num_hidden_layers"),
        "hidden_size": config.get("hidden_size"),
        "vocab_size": config.get("vocab_size"),
    }
    return model, {"ok": True, "targets": ["cpu"]}


def _model(model: Decoder | Multimodal) -> dict[str, Any]:
    decoder = text_of(model)
    takes = model.senses if isinstance(model, Multimodal) else ()
    attention, rope = decoder.attention, decoder.rope
    return {
        "architecture": decoder.architecture,
        "takes": ["text", *takes],
        "adapters": [lora.name for lora in decoder.adapters] or None,
        "layers": decoder.depth,
        "hidden_size": decoder.hidden_size,
        "intermediate_size": decoder.intermediate_size,
        "heads": attention.heads,
        "kv_heads": attention.kv_heads,
        "head_dim": attention.head_dim,
        "sliding_window": attention.window,
        "vocab_size": decoder.vocab_size,
        "context_length": decoder.context_length,
        "rope_theta": rope.theta,
        "rope_dim": rope.dim,
        "longrope_from": rope.original_context if rope.is_longrope else None,
        "tied_embeddings": decoder.tied,
    }
