"""What `edge chat` can do to answer sooner, from what a person asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from converters.errors import UnsupportedError
from edge import runtimes
from edge.chat import locate
from edge.chat.drafts import Drafter, DraftModel, PromptLookup, check_vocabulary
from edge.chat.identity import model_hash
from edge.chat.prefix import PrefixCache
from edge.chat.speculation import Speculation
from edge.chat.state_store import StateStore
from edge.runtimes.protocol import Runtime, Stateful
from edge.sources.cache import cache_directory
from edge.targets.settings import settings_for

_MOST = 8
"""Tokens that a draft model guesses ahead at most."""
_LEAST = 0.6
"""How sure a draft model must be of a guess: on a CPU a second row costs half a run or more (benchmarks/draft.md)."""
_LONGEST_SYSTEM = 16 << 20


def system_text(word: str | None) -> str | None:
    """The system message that `word` is, or that is in the file of that name."""
    try:
        file = Path(word) if word else None
        if file is None or not file.is_file():
            return word
        if file.stat().st_size > _LONGEST_SYSTEM:
            raise UnsupportedError(
                f"{file} has more than {_LONGEST_SYSTEM >> 20} MiB", hint="a shorter system message"
            )
        return file.read_text(encoding="utf-8").strip()
    except UnicodeDecodeError:
        raise UnsupportedError(f"{word} is no UTF-8 text", hint="save it as UTF-8") from None
    except (OSError, ValueError):  # no file name: too long, or with a NUL
        return word


def prefix_cache(
    runtime: Runtime, chosen: locate.Chosen, asked: bool | None, note: Callable[[str], None]
) -> PrefixCache | None:
    """None where the engine cannot: told when it was asked for. `asked` False: without a store."""
    if not isinstance(runtime, Stateful):
        if asked:
            note(f"no prefix cache: {runtime.name} has no way to put a KV cache back; a GGUF variant has")
        return None
    store = None if asked is False else StateStore(cache_directory() / "prefixes", note)
    return PrefixCache(store, lambda: model_hash(chosen.path, chosen.sha256), note)


@dataclass(frozen=True)
class Guesses:
    """Who guesses tokens ahead, and at most how many at once."""

    drafter: Drafter
    most: int
    model: Runtime | None = None

    @classmethod
    def choose(
        cls, runtime: Runtime, draft: str | None, lookup: int | None, *, threads: int | None
    ) -> Guesses | None:
        """Raises UnsupportedError when both are asked for, or `draft` cannot draft for `runtime`."""
        if draft is None:
            return cls(PromptLookup(), lookup) if lookup else None
        if lookup:
            raise UnsupportedError("--draft and --prompt-lookup exclude each other", hint="leave one out")
        path = locate.find_model(draft)
        if path is None:
            raise UnsupportedError(
                f"'{draft}' is no bundle, GGUF file or genai folder", hint="--draft ./bundles/a-small-one"
            )
        chosen = locate.choose(path, None)
        model = runtimes.open_runtime(
            chosen.path, threads=threads, settings=settings_for(chosen.path, chosen.targets)
        )
        try:
            check_vocabulary(runtime, model)
        except UnsupportedError:
            model.close()
            raise
        return cls(DraftModel(model, _LEAST), _MOST, model)

    def speculation(self, runtime: Runtime, note: Callable[[str], None], *, exact: bool) -> Speculation:
        return Speculation(runtime, self.drafter, self.most, note, exact=exact)

    def close(self) -> None:
        if self.model is not None:
            self.model.close()
