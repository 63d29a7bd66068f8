"""Which kind of model a config is of, and encoders that have no classes yet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from converters.errors import UnsupportedError
from quant.distill.cut import Kind

ENCODERS = ("bert", "deberta-v2", "electra", "roberta", "xlm-roberta")
"""Model types that a new head can be put on."""


def architecture_of(config: Mapping[str, Any]) -> str:
    return str((config.get("architectures") or ["nothing"])[0])


def is_headless(config: Mapping[str, Any]) -> bool:
    """Whether it is an encoder without classes: a bare one, or one that fills the gaps of a text."""
    bare = architecture_of(config).endswith(("Model", "ForMaskedLM"))
    return bare and config.get("model_type") in ENCODERS


def with_head(config: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """The config as that of a classifier of these classes."""
    architecture = architecture_of(config).removesuffix("Model").removesuffix("ForMaskedLM")
    return {
        **config,
        "architectures": [f"{architecture}ForSequenceClassification"],
        "id2label": {str(i): name for i, name in enumerate(names)},
    }


def kind_of(name: str, config: Mapping[str, Any]) -> Kind:
    """What kind of model a config is of. Raises UnsupportedError for one that is not distilled."""
    architecture = architecture_of(config)
    if str(config.get("model_type")).endswith("_moebert"):
        raise UnsupportedError(
            f"{name} is in experts already, and a dense model is what is distilled",
            hint="give the model that it was made of",
        )
    if architecture == "Phi3ForCausalLM":
        return "decoder"
    if architecture.endswith("ForSequenceClassification"):
        return "encoder"
    raise UnsupportedError(
        f"{name} is a {architecture}; distilled are Phi3ForCausalLM and ..ForSequenceClassification",
        hint="an encoder needs its classification head: --method ft gives it one and trains it"
        if is_headless(config)
        else "give a Phi-3-layout decoder, or an encoder with its classification head",
    )
