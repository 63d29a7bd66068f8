"""Adapters as PEFT saves them: a directory with adapter_config.json and adapter_model.safetensors.

Which layers an adapter changes is read from its tensors, not from `target_modules`, which PEFT takes as names,
suffixes, a regular expression or a word. What the keys mean: peft 0.21, tuners/lora/config.py.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from converters.checkpoint import Checkpoint
from converters.checkpoint_files import list_directory, read_json
from converters.decoder import Decoder, Lora, LoraPair, Rows, Weight
from converters.errors import CheckpointError, UnsupportedError
from converters.lora import stacks
from converters.strict_json import shown

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
_PICKLE = "adapter_model.bin"
_PREFIX = "base_model.model."
_TENSOR = re.compile(r"(?P<module>.+)\.lora_(?P<half>[AB])(?:\.default)?\.weight")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_PLAIN = re.compile(r"[A-Za-z0-9_.]+")
_LIMIT = 2**31
_REMAKE = "train it on this model, or merge it into the weights: peft's merge_and_unload()"
_NEUTRAL = frozenset({
    "arrow_config", "auto_mapping", "base_model_name_or_path", "corda_config", "ensure_weight_tying", "eva_config",
    "exclude_modules", "inference_mode", "layers_pattern", "layers_to_transform", "loftq_config", "lora_dropout",
    "lora_ga_config", "megatron_config", "megatron_core", "peft_version", "qalora_group_size", "revision",
    "runtime_config", "target_modules", "task_type", "velora_config",
})  # fmt: skip
"""How an adapter was trained, or what its tensors say themselves."""
_READ = frozenset(
    {
        "alpha_pattern",
        "bias",
        "init_lora_weights",
        "lora_alpha",
        "peft_type",
        "r",
        "rank_pattern",
        "use_rslora",
    }
)
_SOUND_STARTS = (True, False, "gaussian", "eva")
"""Ways to begin a training that leave the base weights as they are; the others (pissa, olora, loftq ...) change
them, and what is saved then fits the changed ones."""


def attach(checkpoint: Checkpoint, decoder: Decoder, directory: Path, name: str) -> Decoder:
    """`decoder` with the adapter in `directory` as its last, called `name`; its tensors are opened beside the
    checkpoint's, as NAME:TENSOR.

    CheckpointError when files are missing, damaged, or of another base model (a shape that does not fit);
    UnsupportedError, which names the key or tensor, for an adapter that is more than low-rank updates of the
    linear layers in the decoder, and for a name that cannot be one of a file.
    """
    if not _NAME.fullmatch(name) or name == "none":
        raise UnsupportedError(
            f"an adapter cannot be called {shown(name)}",
            hint="--adapter NAME=DIR, the name of letters, digits, dots and dashes",
        )
    if not directory.is_dir():
        raise CheckpointError(
            f"adapter {name}: {shown(directory)} is no directory",
            hint="give the one that peft's save_pretrained made: --adapter DIR",
        )
    directory, present = list_directory(directory)
    if WEIGHTS not in present and _PICKLE in present:
        raise CheckpointError(
            f"{_PICKLE}: pickled weights can run code when loaded, and are refused",
            hint="re-save the adapter where you trust it: model.save_pretrained(DIR, safe_serialization=True)",
        )
    config = read_json(directory, CONFIG)
    _check_config(config)
    checkpoint.attach(name, directory, WEIGHTS)
    return replace(decoder, adapters=(*decoder.adapters, _describe(checkpoint, decoder, config, name)))


def _check_config(config: Mapping[str, Any]) -> None:
    if config.get("peft_type") != "LORA":
        raise UnsupportedError(
            f"{CONFIG}: peft_type is {shown(config.get('peft_type'))}, not LORA", hint=_REMAKE
        )
    for key, value in config.items():
        if key not in _NEUTRAL | _READ and value:
            raise UnsupportedError(
                f"{CONFIG}: {shown(key)} = {shown(value)} is not understood, and may change what the adapter does",
                hint=_REMAKE,
            )
    if config.get("bias", "none") != "none":
        raise UnsupportedError(f"{CONFIG}: bias = {shown(config['bias'])} trains biases too", hint=_REMAKE)
    start = config.get("init_lora_weights", True)
    if start not in _SOUND_STARTS:
        raise UnsupportedError(
            f"{CONFIG}: init_lora_weights = {shown(start)} changes the base weights before training",
            hint="save it with path_initial_model_for_weight_conversion=..., which makes it a plain adapter (peft)",
        )


def _describe(checkpoint: Checkpoint, decoder: Decoder, config: Mapping[str, Any], name: str) -> Lora:
    prefix = f"{name}:"
    halves: dict[str, dict[str, str]] = {}
    for tensor in checkpoint.tensors:
        if tensor.startswith(prefix):
            match = _TENSOR.fullmatch(tensor.removeprefix(prefix))
            if match is None:
                raise UnsupportedError(
                    f"adapter {name}: tensor {shown(tensor.removeprefix(prefix))} is no half of a low-rank update",
                    hint=_REMAKE,
                )
            halves.setdefault(match["module"], {})[match["half"]] = tensor
    linear = _linear_layers(decoder)
    pairs: list[LoraPair] = []
    for module, tensors in halves.items():
        target = module.removeprefix(_PREFIX)
        if len(tensors) < 2:
            missing = "B" if "A" in tensors else "A"
            raise CheckpointError(
                f"adapter {name}: {target} has no lora_{missing}", hint="save the adapter again"
            )
        weights = linear.get(f"{target}.weight", [])
        if not weights:
            raise UnsupportedError(
                f"adapter {name} changes {shown(target)}, which is no linear layer of {decoder.architecture} that an "
                "adapter can change",
                hint=_REMAKE,
            )
        pairs += _pairs(checkpoint, config, name, target, weights, tensors["A"], tensors["B"])
    order = {weight.name: i for i, weight in enumerate(decoder.weights())}
    return Lora(name, tuple(sorted(pairs, key=lambda pair: order[pair.weight])))


def _linear_layers(decoder: Decoder) -> dict[str, list[tuple[Weight, Rows]]]:
    """By tensor of the checkpoint, the matrices of the layers that are rows of it."""
    found: dict[str, list[tuple[Weight, Rows]]] = {}
    for layer in decoder.layers:
        for weight in (weight for stack in stacks(layer) for weight in stack.weights):
            if len(weight.parts) == 1:
                found.setdefault(weight.parts[0].tensor, []).append((weight, weight.parts[0]))
    return found


def _pairs(
    checkpoint: Checkpoint,
    config: Mapping[str, Any],
    name: str,
    target: str,
    weights: Sequence[tuple[Weight, Rows]],
    a: str,
    b: str,
) -> list[LoraPair]:
    rank = int(_at(config, "rank_pattern", "r", target))
    alpha = _at(config, "alpha_pattern", "lora_alpha", target)
    shape = (max(rows.stop for _, rows in weights), weights[0][0].shape[1])
    found = (checkpoint.tensors[b].shape, checkpoint.tensors[a].shape)
    if found != ((shape[0], rank), (rank, shape[1])):
        raise CheckpointError(
            f"adapter {name}: {target} has B {list(found[0])} and A {list(found[1])}, this model and rank {rank} want "
            f"{[shape[0], rank]} and {[rank, shape[1]]}",
            hint="it was trained on another model: convert the one that its adapter_config.json names",
        )
    scale = alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)
    down = Weight(f"{name}:{target}.lora_A", (rank, shape[1]), (Rows(a, 0, rank),))
    return [
        LoraPair(
            weight.name,
            down,
            Weight(f"{name}:{weight.name}.lora_B", (weight.rows, rank), (Rows(b, rows.start, rows.stop),)),
            scale,
        )
        for weight, rows in weights
    ]


def _at(config: Mapping[str, Any], patterns: str, key: str, target: str) -> float:
    """The number that holds for `target`: of the first pattern that its name ends with, else the common one.

    PEFT takes the patterns as regular expressions; names are what people write, and a hostile expression could
    run for ever.
    """
    found = config.get(key)
    for pattern, value in (config.get(patterns) or {}).items():
        plain = pattern.removeprefix("^").replace("\\.", ".")
        if not _PLAIN.fullmatch(plain):
            raise UnsupportedError(
                f"{CONFIG}: {patterns}: {shown(pattern)} is more than the end of a name",
                hint="write one entry for each layer, by its whole name",
            )
        if f".{target}".endswith(f".{plain}"):
            found = value
            break
    if isinstance(found, bool) or not isinstance(found, int | float) or not 0 < found < _LIMIT:
        raise CheckpointError(
            f"{CONFIG}: {key} must be a positive number, not {shown(found)}", hint="save the adapter again"
        )
    return found
