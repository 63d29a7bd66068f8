"""Which prompt lengths and depths the contexts of the artifacts hold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from converters.errors import UnsupportedError
from edge.benchmarking.subject import Subject
from edge.progress import Progress

PROMPTS = (32, 128, 512)
DEPTHS = (0, 512, 2048)


@dataclass(frozen=True)
class Lengths:
    """Both ascending, without repetitions. A prompt has at least one token, a depth may be 0."""

    prompts: tuple[int, ...]
    depths: tuple[int, ...]


def fitting(
    subjects: Sequence[Subject],
    prompts: Sequence[int] | None,
    depths: Sequence[int] | None,
    decoded_tokens: int,
    progress: Progress,
) -> Lengths:
    """The asked ones; in place of None, those of the defaults that fit, and a note about the others.

    At a depth one token warms up and `decoded_tokens` are timed. UnsupportedError when an asked length does not
    fit; it names the longest that does.
    """
    tight = min(subjects, key=lambda subject: subject.context_length)
    longest = tight.context_length
    deepest = longest - 1 - decoded_tokens
    left_out = [f"prompt {n}" for n in PROMPTS if n > longest and prompts is None]
    left_out += [f"depth {n}" for n in DEPTHS if n > deepest and depths is None]
    chosen = Lengths(
        tuple(sorted({n for n in PROMPTS if n <= longest} if prompts is None else {*prompts})),
        tuple(sorted({n for n in DEPTHS if n <= deepest} if depths is None else {*depths})),
    )
    where = f"the context of {tight.name} is {longest} tokens"
    if chosen.prompts and chosen.prompts[-1] > longest:
        raise UnsupportedError(
            f"a prompt of {chosen.prompts[-1]} does not fit: {where}", hint=f"--prompts {longest}"
        )
    if chosen.depths and chosen.depths[-1] > deepest:
        raise UnsupportedError(
            f"depth {chosen.depths[-1]} and {decoded_tokens + 1} more tokens do not fit: {where}",
            hint=f"--depths {deepest}, or a larger --context" if deepest >= 0 else "fewer --tokens",
        )
    if not chosen.prompts and not chosen.depths:
        raise UnsupportedError(
            f"nothing to measure: {where}",
            hint=f"--prompts {longest} --depths 0 --tokens {max(1, longest - 1)}",
        )
    if left_out:
        progress.note(f"left out, as {where}: {', '.join(left_out)}")
    return chosen
