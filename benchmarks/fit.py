"""The memory that edge predicts beside what the engines take: `python -m benchmarks.fit [--work DIR] [--quick]`.

Models are converted to both formats, and each artifact fills its context in a process of its own
(benchmarks.engine_peak), whose high-water mark the kernel tells. The constants of edge/fitting are fitted to what
this prints. Random models have the embedded default's tokenizer, whose 49,152 tokens they therefore all have.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.engine_peak import peak
from benchmarks.random_checkpoint import write_checkpoint
from benchmarks.shapes import SHAPES
from edge.convert import convert
from edge.fit import device_memory
from edge.plan import plan
from edge.planned import ConvertRequest
from edge.progress import Silent
from edge.sources import resolve

_16K = {"max_position_embeddings": 16384, "original_max_position_embeddings": 16384, "sliding_window": None}
_IDS = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2}


@dataclass(frozen=True)
class Model:
    """`shape` is hub layout, None for the embedded default."""

    name: str
    shape: dict[str, Any] | None
    precisions: tuple[str, ...]
    contexts: tuple[int, ...]


def _shape(
    hidden: int, inner: int, layers: int, heads: int, kv: int, vocab: int, **more: Any
) -> dict[str, Any]:
    return {
        **SHAPES["phi4"],
        **_16K,
        **_IDS,
        "hidden_size": hidden,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv,
        "vocab_size": vocab,
        **more,
    }


ALL = ("int4", "int8", "f16")
MODELS = (
    Model("default", None, ALL, (512, 2048, 4096, 8192)),
    Model("many heads", _shape(768, 2048, 8, 12, 12, 49152), ALL, (512, 2048)),
    Model("wide", _shape(1024, 4096, 4, 8, 2, 49152), ALL, (512, 2048)),
    Model("deep", _shape(512, 1024, 24, 16, 4, 49152, tie_word_embeddings=True), ALL, (512, 2048)),
    Model("0.9B", {**SHAPES["1b"], **_IDS}, ("int4",), (512, 2048)),
)
QUICK = (Model("default", None, ("int4",), (512, 4096)),)


def rows(models: tuple[Model, ...], work: Path) -> Iterator[tuple[str, str, int, int, int]]:
    """(model, variant, context, predicted, measured) in bytes."""
    for model in models:
        checkpoint = _checkpoint(model, work)
        for precision in model.precisions:
            bundle = work / f"{model.name}-{precision}".replace(" ", "-")
            request = ConvertRequest(
                checkpoint, ("cpu", "android"), precision, max(model.contexts), bundle, proof=False
            )
            planned = plan(request)
            convert(planned, Silent())
            for variant in planned.variants:
                for context in (c for c in model.contexts if c <= variant.context_length):
                    found = device_memory(variant.format, planned.decoder, variant.recipe, context)
                    measured = peak(bundle / variant.relative_path, context)
                    yield model.name, variant.name, context, found.total, measured
            shutil.rmtree(bundle)


def _checkpoint(model: Model, work: Path) -> str:
    """Random weights under the embedded default's tokenizer: a vocabulary of a real one's size."""
    if model.shape is None:
        return "smollm2-135m-instruct"
    directory = work / model.name.replace(" ", "-")
    write_checkpoint(directory, model.shape, tokenizer=None)
    source = resolve("smollm2-135m-instruct").directory
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copyfile(source / name, directory / name)
    return str(directory)


def main() -> None:
    parser = argparse.ArgumentParser(description="Predicted and measured memory of the engines.")
    parser.add_argument("--work", type=Path, help="directory for models. [default: a temporary one]")
    parser.add_argument("--quick", action="store_true", help="only the embedded default in int4")
    parser.add_argument("--json", action="store_true", help="rows as JSON")
    options = parser.parse_args()
    errors = []
    if not options.json:
        print(f"{'model':<12}{'variant':<12}{'context':>8}{'predicted':>11}{'measured':>10}  MB    error")
    with tempfile.TemporaryDirectory(dir=options.work) as work:
        for name, variant, context, predicted, measured in rows(
            QUICK if options.quick else MODELS, Path(work)
        ):
            error = predicted / measured - 1
            errors.append(abs(error))
            if options.json:
                row = (name, variant, context, predicted, measured)
                print(
                    json.dumps(
                        dict(zip(("model", "variant", "context", "predicted", "measured"), row, strict=True))
                    )
                )
            else:
                figures = f"{predicted / 1e6:>11.1f}{measured / 1e6:>10.1f}"
                print(f"{name:<12}{variant:<12}{context:>8}{figures}  {error:>+9.1%}", flush=True)
    if not options.json:
        print(f"largest error {max(errors):.1%}, median {statistics.median(errors):.1%}")


if __name__ == "__main__":
    main()
