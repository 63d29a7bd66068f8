"""What is proven, and over which text."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer

from converters.decoder import Decoder
from converters.errors import CheckpointError
from edge.targets import Limits
from quant.recipe import Recipe

TEXT = Path(__file__).parent.with_name("proof.txt")
TOKENS = 256
MAX_LOGIT_BYTES = 64 << 20


@dataclass(frozen=True)
class Subject:
    """What is proven: one artifact, how its weights were encoded, and what it must reach."""

    name: str
    format: str
    path: Path
    recipe: Recipe
    context_length: int
    limits: Limits
    source: str | None = None
    """The variant that this one was compiled from: its weights can be read, those of a compiled one cannot."""
    tokens: int = TOKENS
    """At most so many are run: an emulated NPU takes seconds for one."""
    approximate: bool = False
    """Whether it says of itself that it is (`converters.rewriting`): only then may it differ from the model as much."""


def proof_tokens(directory: Path, decoder: Decoder, context_length: int) -> list[int]:
    """Token ids of the shipped text under the checkpoint's own tokenizer, with the special tokens (BOS) that it
    adds: at most TOKENS, fewer for a huge vocabulary (MAX_LOGIT_BYTES of float32 logits) or a short context."""
    ids: list[int] = tokenizer(directory).encode(text()).ids
    if max(ids, default=0) >= decoder.vocab_size:
        raise CheckpointError(
            f"{directory / 'tokenizer.json'} gives the id {max(ids)}, the embedding has {decoder.vocab_size} rows",
            hint="fetch the checkpoint again: the tokenizer belongs to another model",
        )
    most = min(TOKENS, MAX_LOGIT_BYTES // (4 * decoder.vocab_size), context_length)
    return ids[: max(most, 1)]


def tokenizer(directory: Path) -> Tokenizer:
    """The checkpoint's own. CheckpointError when it has none."""
    path = directory / "tokenizer.json"
    if not path.is_file():
        raise CheckpointError(f"{path} is missing: the proof needs it", hint="fetch the checkpoint again")
    return Tokenizer.from_file(str(path))


def text() -> str:
    """The shipped text."""
    return TEXT.read_text(encoding="utf-8")
