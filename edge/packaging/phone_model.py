"""model.json: what the app on the phone must know of a GGUF before it opens it (apps/android/PROTOCOL.md)."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from converters.errors import BundleError, CheckpointError, UnsupportedError
from converters.gguf.reader import Gguf
from edge import bundle as bundles
from edge.fitting import llamacpp
from edge.packaging import turns

FORMAT = 1
FILE = "model.gguf"
_SAMPLING = {
    "temperature": "temperature",
    "top_p": "top_p",
    "top_k": "top_k",
    "min_p": "min_p",
    "repetition_penalty": "repeat_penalty",
}
_INTERLEAVED = ("Q4_0", "Q8_0")
"""Types of which llama.cpp keeps an interleaved copy on arm64 (edge.fitting.llamacpp)."""
_KV_VALUE_BYTES = 2


@dataclass(frozen=True)
class PhoneModel:
    """A GGUF and the text of its model.json."""

    gguf: Path
    description: Mapping[str, Any]

    @property
    def id(self) -> str:
        return str(self.description["id"])

    @property
    def size(self) -> int:
        return int(self.description["size"])

    @property
    def sha256(self) -> str:
        return str(self.description["sha256"])

    @property
    def json(self) -> bytes:
        return (json.dumps(self.description, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()


def load(model: Path, variant: str | None, advance: Callable[[int], None]) -> PhoneModel:
    """The phone's model of a bundle (the GGUF variant, or the one named) or of a GGUF file, every byte hashed.

    Raises BundleError for a bundle that is damaged or holds no such variant, CheckpointError for a damaged GGUF,
    UnsupportedError for a model that the app cannot talk to.
    """
    if bundles.is_bundle(model):
        return _of_bundle(bundles.load(model), variant, advance)
    if not model.is_file():
        raise BundleError(f"{model} is no bundle and no GGUF file", hint="edge convert NAME --target android")
    if variant is not None:
        raise BundleError(f"{model} is no bundle: it has no variants", hint="leave --variant out")
    return PhoneModel(model, _described(model, bundles.sha256(model, advance), name=model.stem))


def size(model: Path) -> int:
    """About how many bytes `load` reads."""
    files = model.glob("*.gguf") if model.is_dir() else [model]
    return sum(file.stat().st_size for file in files if file.is_file())


def _of_bundle(made: bundles.Bundle, variant: str | None, advance: Callable[[int], None]) -> PhoneModel:
    usable = [v for v in made.variants if v.format == "gguf" and variant in (None, v.name)]
    if not usable:
        targets = ", ".join(sorted({t for v in made.variants for t in v.targets}))
        what = "no GGUF variant" if variant is None else f"no GGUF variant '{variant}'"
        raise BundleError(
            f"{made.directory} holds {what}: it is for {targets}",
            hint="the app runs GGUF files: edge convert NAME --target android",
        )
    chosen = usable[0]
    listed = made.manifest["files"].get(chosen.path.relative_to(made.directory).as_posix())
    if listed is None or not chosen.path.is_file():
        raise BundleError(f"{chosen.path} is missing", hint="make the bundle again with `edge convert`")
    digest = bundles.sha256(chosen.path, advance)
    if digest != listed["sha256"]:
        raise BundleError(
            f"{chosen.path} has SHA-256 {digest}, the manifest says {listed['sha256']}",
            hint="make the bundle again with `edge convert`, or copy it again from where it came",
        )
    source, model = made.manifest.get("source", {}), made.manifest.get("model", {})
    description = _described(
        chosen.path,
        digest,
        name=made.name,
        precision=chosen.precision,
        context=chosen.context_length,
        source=source.get("pin"),
        licence=source.get("licence"),
        parameters=model.get("parameters"),
        sampling=_sampling(made.directory / "generation_config.json"),
    )
    return PhoneModel(chosen.path, description)


def _described(
    gguf: Path,
    sha256: str,
    *,
    name: str,
    precision: str = "",
    context: int | None = None,
    source: str | None = None,
    licence: str | None = None,
    parameters: int | None = None,
    sampling: Mapping[str, float] | None = None,
) -> dict[str, Any]:
    with Gguf.open(gguf) as opened:
        numbers = _Numbers(opened)
        limit = numbers.context()
        context = min(context or limit, limit)
        own = "-".join(word for word in (name, precision) if word)
        return {
            "format": FORMAT,
            "id": re.sub(r"[^a-z0-9._-]+", "-", own.lower()).strip("-.")[:80] or "model",
            "name": name,
            "file": FILE,
            "size": gguf.stat().st_size,
            "sha256": sha256,
            "source": source or "",
            "licence": licence or str(opened.metadata.get("general.license", "")),
            "architecture": numbers.architecture,
            "precision": precision,
            "parameters": parameters or numbers.parameters(),
            "context": context,
            "kv_bytes_per_token": numbers.kv_bytes(),
            "work_bytes": numbers.work_bytes(context),
            # The writer puts every end token into the GGUF itself.
            "stop": [],
            "sampling": dict(sampling or {}),
            "turns": numbers.turns(),
        }


class _Numbers:
    """What a GGUF's own header says. Raises CheckpointError that names the key that is missing."""

    def __init__(self, gguf: Gguf) -> None:
        self._gguf = gguf
        self.architecture = str(gguf.metadata.get("general.architecture", ""))

    def context(self) -> int:
        """Tokens; of a LongRoPE model no more than its original context, where one set of factors serves."""
        original = self._gguf.metadata.get(f"{self.architecture}.rope.scaling.original_context_length")
        trained = self._integer("context_length")
        return min(trained, original) if type(original) is int and original > 0 else trained

    def parameters(self) -> int:
        return sum(_count(tensor.shape) for tensor in self._gguf.tensors.values())

    def kv_bytes(self) -> int:
        """Of one token: float16 keys and values of all layers."""
        heads = self._integer("attention.head_count")
        width = self._integer("embedding_length") // max(heads, 1)
        key, value = (self._integer(f"attention.{n}_length", width) for n in ("key", "value"))
        return (
            _KV_VALUE_BYTES
            * self._integer("block_count")
            * self._integer("attention.head_count_kv", heads)
            * (key + value)
        )

    def work_bytes(self, context: int) -> int:
        """What llama.cpp allocates beside the mapped file and the cache, with the interleaved copies of arm64."""
        tensors = self._gguf.tensors
        tied = "output.weight" not in tensors
        copies = sum(
            t.nbytes
            for t in tensors.values()
            if t.type.name in _INTERLEAVED and len(t.shape) == 2 and t.shape[0] % 4 == 0
            and (tied or t.name != "token_embd.weight")
        )  # fmt: skip
        vocabulary = len(self._gguf.metadata.get("tokenizer.ggml.tokens", ()))
        inner, hidden = self._integer("feed_forward_length"), self._integer("embedding_length")
        return (
            copies + llamacpp.workspace(inner, hidden, llamacpp.BATCH, context) + llamacpp.runtime(vocabulary)
        )

    def turns(self) -> dict[str, Any] | None:
        """The chat template as texts between the turns; None for a model without one."""
        template = self._gguf.metadata.get("tokenizer.chat_template")
        if not isinstance(template, str) or not template:
            return None
        return turns.describe(template, bos_token=self._token("bos"), eos_token=self._token("eos"))

    def _token(self, kind: str) -> str:
        tokens = self._gguf.metadata.get("tokenizer.ggml.tokens", [])
        number = self._gguf.metadata.get(f"tokenizer.ggml.{kind}_token_id")
        return str(tokens[number]) if type(number) is int and 0 <= number < len(tokens) else ""

    def _integer(self, key: str, default: int | None = None) -> int:
        name = f"{self.architecture}.{key}"
        value = self._gguf.metadata.get(name, default)
        if type(value) is int and value > 0:
            return value
        if isinstance(value, list):
            raise UnsupportedError(
                f"{self._gguf.path}: '{name}' differs by layer",
                hint="the app takes models whose layers are alike",
            )
        raise CheckpointError(
            f"{self._gguf.path}: key '{name}' is missing or no number", hint="take another copy"
        )


def _count(shape: tuple[int, ...]) -> int:
    product = 1
    for length in shape:
        product *= length
    return product


def _sampling(file: Path) -> dict[str, float]:
    """The model's own way to draw tokens, {} where it names none: greedy."""
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    if not isinstance(config, dict) or config.get("do_sample") is not True:
        return {}
    return {ours: config[key] for key, ours in _SAMPLING.items() if type(config.get(key)) in (int, float)}
