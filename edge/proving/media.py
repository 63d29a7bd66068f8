"""The proof of a variant's eyes and ears: a picture, a recording, and both, through the runtime and the reference."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from converters.checkpoint import Checkpoint
from converters.errors import EdgeError, MachineError
from converters.feature_error import feature_error
from converters.forward import Floats
from converters.multimodal import Multimodal
from converters.multimodal_reference import logits
from converters.onnx.multimodal.writer import num_crops
from converters.reference import Transform
from converters.speech_reference import speech_features
from converters.verify import divergence
from converters.vision_reference import image_features
from edge.media import phi3v_images, phi4mm_audio, phi4mm_images, read_audio, read_image
from edge.progress import Progress
from edge.proving.judgement import over
from edge.proving.references import through
from edge.proving.samples import write_picture, write_recording
from edge.proving.subject import Subject
from edge.runtimes.isolated import teacher_forced
from edge.runtimes.isolated_encoder import features

TOKENS = 32
"""Of text after the media, whose logits are compared."""
Kind = Literal["image", "audio"]


def prove_media(
    checkpoint: Checkpoint, model: Multimodal, subject: Subject, ids: Sequence[int], progress: Progress
) -> tuple[dict[str, Any], list[str]]:
    """{"encoders": what rounding costs their features, "prompts": {kinds: {tokens, fidelity, quality}}}, and what
    failed. A prompt that the context cannot hold is left out, and says so. `ids`: of a text, of which TOKENS follow
    the media."""
    text = list(ids[:TOKENS])
    failures: list[str] = []
    found: dict[str, Any] = {"encoders": {}, "prompts": {}}
    with tempfile.TemporaryDirectory() as folder:
        shown = _shown(checkpoint, model, Path(folder))
        for kind in shown:
            progress.stage(f"prove {subject.name}: {kind} encoder", 1, "runs")
            try:
                found["encoders"][kind] = _features(checkpoint, model, subject, shown[kind])
            except MachineError:
                raise
            except EdgeError as error:
                failures.append(f"{kind} encoder: {error.cause}")
            progress.advance(1)
        for kinds in [[kind] for kind in shown] + ([list(shown)] if len(shown) > 1 else []):
            name = " and ".join(kinds)
            length = sum(shown[kind].places for kind in kinds) + len(text)
            if length > subject.context_length:
                found["prompts"][name] = {"tokens": length, "left_out": "longer than the context"}
                continue
            progress.stage(f"prove {subject.name}: {name}", len(text), "tokens")
            try:
                prompt, wrong = _prompt(checkpoint, model, subject, [shown[kind] for kind in kinds], text)
            except MachineError:
                raise
            except EdgeError as error:
                wrong = [error.cause]
            else:
                found["prompts"][name] = prompt
            failures += [f"{name}: {line}" for line in wrong]
    return found, failures


@dataclass(frozen=True)
class _Shown:
    """A file, the arrays that its encoder takes, and how many places it has in a prompt."""

    kind: Kind
    file: Path
    inputs: dict[str, NDArray[Any]]
    places: int


def _shown(checkpoint: Checkpoint, model: Multimodal, folder: Path) -> dict[Kind, _Shown]:
    shown: dict[Kind, _Shown] = {}
    if model.vision:
        picture, side = folder / "picture.png", model.vision.crop_size
        write_picture(picture)
        images = (
            phi4mm_images([read_image(picture)], side)
            if model.vision.patch_mask
            else phi3v_images([read_image(picture)], num_crops(checkpoint.directory), side)
        )
        arrays: dict[str, NDArray[Any]] = {
            "pixel_values": images.pixel_values,
            "image_sizes": images.image_sizes,
        }
        if images.image_attention_mask is not None:
            arrays["image_attention_mask"] = images.image_attention_mask
        shown["image"] = _Shown("image", picture, arrays, images.tokens[0])
    if model.speech:
        recording = folder / "recording.wav"
        write_recording(recording)
        clips = phi4mm_audio([read_audio(recording)])
        heard: dict[str, NDArray[Any]] = {
            "audio_embeds": clips.audio_embeds,
            "audio_attention_mask": clips.audio_attention_mask,
            "audio_sizes": clips.audio_sizes,
        }
        shown["audio"] = _Shown("audio", recording, heard, clips.tokens[0])
    return shown


def _reference(
    checkpoint: Checkpoint, model: Multimodal, shown: _Shown, transform: Transform | None, *, beside: bool
) -> Floats:
    """Features of one medium. `beside`: speech in a prompt that has an image too."""
    inputs = shown.inputs
    if shown.kind == "image":
        assert model.vision is not None
        mask = inputs.get("image_attention_mask")
        seen = None if mask is None else mask.astype(np.bool_)
        pixels, sizes = inputs["pixel_values"], inputs["image_sizes"]
        return image_features(checkpoint, model.vision, pixels, sizes, seen, transform=transform)
    assert model.speech is not None
    return speech_features(
        checkpoint,
        model.speech,
        inputs["audio_embeds"],
        inputs["audio_sizes"],
        inputs["audio_attention_mask"],
        projection="vision" if beside else "speech",
        transform=transform,
    )


def _features(checkpoint: Checkpoint, model: Multimodal, subject: Subject, shown: _Shown) -> dict[str, float]:
    """How far the encoder's features are from those of the checkpoint's own weights."""
    made = features(subject.path, shown.kind, shown.inputs)
    error = feature_error(made, _reference(checkpoint, model, shown, None, beside=False))
    return {
        "relative_error": float(f"{error.relative:.4g}"),
        "worst_cosine": float(f"{error.worst_cosine:.6g}"),
    }


def _prompt(
    checkpoint: Checkpoint, model: Multimodal, subject: Subject, media: Sequence[_Shown], text: list[int]
) -> tuple[dict[str, Any], list[str]]:
    measured = teacher_forced(
        subject.path,
        text,
        Path(tempfile.gettempdir()),
        context_length=subject.context_length,
        media=[(each.kind, each.file) for each in media],
    ).logits
    encoders = {"image": model.vision, "audio": model.speech}
    ids: list[int] = []
    for each in media:
        encoder = encoders[each.kind]
        assert encoder is not None
        ids += [-1 if encoder.token_id is None else encoder.token_id] * each.places
    beside = len(media) > 1
    result: dict[str, Any] = {"tokens": len(ids) + len(text)}
    failures: list[str] = []
    for question, transform in (("fidelity", through(subject, model.decoder)), ("quality", None)):
        made = {each.kind: _reference(checkpoint, model, each, transform, beside=beside) for each in media}
        reference = logits(
            checkpoint,
            model,
            [*ids, *text],
            image_features=made.get("image"),
            audio_features=made.get("audio"),
            last=len(text),
            transform=transform,
        )
        found = divergence(reference, np.asarray(measured))
        result[question] = found.to_data()
        failures += over(question, found, subject.limits)
    return result, failures
