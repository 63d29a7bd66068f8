"""How onnxruntime-genai's own preprocessor is told what an encoder takes: the JSON files beside the encoders.

The operators and their attributes are those of onnxruntime-extensions (shared/api), which genai is built with. They
prepare nearly what `edge.media` does: tests/converters/test_processor_files.py holds the differences.
"""

from __future__ import annotations

from typing import Any

# One window of 25 ms every 10 ms, in samples.
_STFT_16K = {"n_fft": 512, "frame_length": 400, "hop_length": 160, "win_fn": "hamming"}
_STFT_8K = {"n_fft": 256, "frame_length": 200, "hop_length": 80, "win_fn": "hamming"}


def phi4mm_vision() -> dict[str, Any]:
    """`vision_processor.json` of a "phi4mm" folder: at most 36 crops of 448 pixels and a thumbnail."""
    side = {"dyhd_base_resolution": 448}
    half = [0.5, 0.5, 0.5]
    return _image_processor(
        [
            _operation("decode_image", "DecodeImage", {"color_space": "RGB"}),
            _operation("crops", "Phi4VisionDynamicPreprocess", {"dynamic_hd": 36, **side}),
            # The mask that comes second waits for the last operation.
            _operation("rescale", "Rescale", inputs=[":0"]),
            _operation("normalize", "Normalize", {"mean": half, "std": half}),
            _operation(
                "pack", "Phi4VisionProcessor", {**side, "interpolation": "CUBIC"}, inputs=[":0", "crops:1"]
            ),
        ],
        output_aligner="phi4-vision-aligner",
    )


def phi3v_vision() -> dict[str, Any]:
    """The vision processor's file of a "phi3v" folder. The operator always makes up to 16 crops of 336 pixels, whatever
    `num_crops` says: it is compiled in."""
    return _image_processor(
        [
            _operation("decode_image", "DecodeImage", {"color_space": "RGB"}),
            _operation("crops", "Phi3ImageTransform", {"num_crops": 16, "num_img_tokens": 144}),
        ]
    )


def phi4mm_speech() -> dict[str, Any]:
    """`speech_processor.json` of a "phi4mm" folder: 80 log-mel bins, a token for every 8 frames.

    `max_samples` 0 is no limit. Without it genai 0.18 cuts every recording at 480,000 samples (30 s) and says nothing;
    Microsoft's own file, made for an older version, is without it.
    """
    mel = {"chunk_size": 30, "n_fft": 512, "n_mel": 80, "feature_first": 0, "no_padding": 1}
    parts: dict[str, dict[str, Any]] = {
        "stft_normal": _STFT_16K,
        "logmel": {**mel, "hop_length": 160},
        "stft_normal_8k": _STFT_8K,
        "logmel_8k": {**mel, "hop_length": 80},
    }
    attributes = {f"{part}/{name}": value for part, values in parts.items() for name, value in values.items()}
    return {
        "feature_extraction": {
            "sequence": [
                _operation(
                    "decode_audio", "AudioDecoderEx", {"target_sample_rates": [8000, 16000], "max_samples": 0}
                ),
                _operation("log_mel", "Phi4AudioEmbed", {"audio_compression_rate": 8, **attributes}),
            ],
            "output_aligner": "phi4-audio-aligner",
        }
    }


def _image_processor(operations: list[dict[str, Any]], **more: str) -> dict[str, Any]:
    return {"processor": {"name": "image_processing", "transforms": operations, **more}}


def _operation(
    name: str, kind: str, attributes: dict[str, Any] | None = None, *, inputs: list[str] | None = None
) -> dict[str, Any]:
    operation: dict[str, Any] = {"name": name, "type": kind}
    if inputs is not None:
        operation["inputs"] = inputs
    if attributes is not None:
        operation["attrs"] = attributes
    return {"operation": operation}
