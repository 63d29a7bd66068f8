"""Write a tiny random multimodal checkpoint: `python -m benchmarks.tiny_multimodal phi4mm DIR`.

Three layouts: `phi4mm` as Microsoft published Phi-4-multimodal, `phi4_multimodal` the same values as transformers
lays them out (adapters in PEFT folders), `phi3_v` as Phi-3-vision and Phi-3.5-vision. The names of the tensors and the
keys of the config are those of the real models; the sizes are small, but for the vocabulary of Phi-4-multimodal, whose
code has the ids of image and speech in it.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from benchmarks.random_checkpoint import write_header
from benchmarks.tiny_multimodal_shapes import (
    ADAPTERS,
    CROP,
    Shapes,
    Tower,
    config_of,
    full_config,
    native_name,
    phi3_v_shapes,
    phi4mm_shapes,
)
from benchmarks.toy_tokenizers import Kind, write_tokenizer

Layout = Literal["phi4mm", "phi4_multimodal", "phi3_v"]


def write_multimodal(
    directory: Path,
    layout: Layout,
    *,
    seed: int = 0,
    adapters: bool = True,
    crop: int = CROP,
    vocab_size: int | None = None,
    full_layers: int | None = None,
    tower: Tower | None = None,
    **text: Any,
) -> None:
    """Write config, bf16 safetensors and tokenizer files into `directory` (made if missing). The same arguments give
    the same bytes. `adapters`: of no effect but for phi4_multimodal, which can do without. `crop`: pixels of a crop's
    side; 448 in Phi-4-multimodal and 336 in Phi-3-vision. `vocab_size`: a small one, of phi4_multimodal alone, whose
    config says the ids of image and speech: then the last two. `full_layers`: phi4mm at its true width, with so many
    layers in each part. `tower`: sizes of Phi-4's vision encoder. `text`: other keys of the config."""
    directory.mkdir(parents=True, exist_ok=True)
    config, tower = config_of(layout, crop) | text, tower or Tower()
    if full_layers is not None:
        if layout != "phi4mm":
            raise ValueError("only phi4mm is known at its true width")
        config, tower = full_config(full_layers)
    kind: Kind = "spm" if layout == "phi3_v" else "bpe" if vocab_size else "bpe-multimodal"
    ids = write_tokenizer(directory, kind)
    ends = [ids["<|end|>"], ids["<|endoftext|>"]]
    if layout == "phi4_multimodal":
        sizes = {"hidden_size": tower.channels, "intermediate_size": tower.inner}
        config["vision_config"] |= sizes | {"num_hidden_layers": tower.layers}
    if vocab_size:
        config |= {"vocab_size": vocab_size, "eos_token_id": ends}
        config |= {"bos_token_id": ends[1], "pad_token_id": ends[1]}
        config["vision_config"]["image_token_id"] = vocab_size - 2
        config["audio_config"]["audio_token_id"] = vocab_size - 1
    _dump(directory / "config.json", config)
    _dump(directory / "generation_config.json", {"eos_token_id": ends, "pad_token_id": ends[1]})
    if layout == "phi3_v":
        shapes = phi3_v_shapes(config)
    else:
        original = config_of("phi4mm", crop) | {"vocab_size": config["vocab_size"]} | text
        shapes = phi4mm_shapes(config if layout == "phi4mm" else original, tower)
    if layout != "phi4_multimodal":
        _write(directory / "model.safetensors", shapes, dict(zip(shapes, shapes, strict=True)), seed)
        return
    names = {name: native_name(name) for name in shapes if ".lora_" not in name}
    _write(directory / "model.safetensors", shapes, names, seed)
    for name, (rank, alpha) in ADAPTERS.items() if adapters else ():
        folder = directory / f"{name}-lora"
        folder.mkdir(exist_ok=True)
        names = {
            tensor: f"base_model.model.{tensor.replace(f'.{name}.weight', '.weight')}"
            for tensor in shapes
            if tensor.endswith(f".{name}.weight")
        }
        _write(folder / "adapter_model.safetensors", shapes, names, seed)
        _dump(folder / "adapter_config.json", {"peft_type": "LORA", "r": rank, "lora_alpha": alpha})


def values(name: str, shape: tuple[int, ...], seed: int) -> NDArray[np.float32]:
    """Lively random values of one tensor, float32: of its own generator, so that every layout has the same."""
    rng = np.random.default_rng([seed, *name.encode()])
    if len(shape) == 1 and name.endswith(("weight", "global_invstd")):
        return rng.uniform(0.5, 1.5, shape).astype(np.float32)
    unit = rng.standard_normal(shape, np.float32)
    if name.endswith(("bias", ".b1", ".b2", "global_mean")):
        return unit * np.float32(0.1)
    if name.endswith(("_GN", "class_embedding", "probe")):
        return unit
    return unit / np.float32(math.sqrt(math.prod(shape[1:])))


def _write(path: Path, shapes: Shapes, names: Mapping[str, str], seed: int) -> None:
    """`names`: what each tensor is called in this file."""
    with path.open("wb") as file:
        write_header(file, {names[name]: ("BF16", shapes[name], 2) for name in names})
        for name in names:
            file.write(values(name, shapes[name], seed).astype(ml_dtypes.bfloat16).view(np.uint8).data)


def _dump(path: Path, data: dict[str, Any]) -> None:
    path.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description="Write a tiny random multimodal checkpoint.")
    parser.add_argument("layout", choices=get_args(Layout))
    parser.add_argument("directory", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--crop", type=int, default=CROP, help="pixels of a crop's side")
    parser.add_argument(
        "--full-layers", type=int, help="phi4mm at true width, with so many layers in each part"
    )
    options = parser.parse_args()
    write_multimodal(
        options.directory,
        options.layout,
        seed=options.seed,
        crop=options.crop,
        full_layers=options.full_layers,
    )
    print(options.directory)


if __name__ == "__main__":
    main()
