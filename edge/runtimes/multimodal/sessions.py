"""onnxruntime sessions of a multimodal folder, and the decoder's with its KV cache."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from converters.errors import MachineError, UnsupportedError
from edge.engine_settings import EngineSettings

SPEECH_ALONE, SPEECH_BESIDE_IMAGE = 2, 3
"""onnxruntime-genai's numbers for the projection of speech."""


def open_session(file: Path, settings: EngineSettings) -> Any:
    """An InferenceSession on the CPU. UnsupportedError when onnxruntime refuses the graph."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    if settings.threads is not None:
        options.intra_op_num_threads = settings.threads
    if settings.spinning is not None:
        options.add_session_config_entry("session.intra_op.allow_spinning", str(int(settings.spinning)))
    try:
        return onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors have no base class of their own
        cause = str(error).splitlines()[0]
        raise UnsupportedError(
            f"{file}: onnxruntime cannot load it: {cause}", hint=f"edge inspect {file.parent}"
        ) from None


class Decoder:
    """One decoder graph over a KV cache that is allocated once, for `context_length` tokens."""

    def __init__(self, file: Path, context_length: int, settings: EngineSettings) -> None:
        import onnxruntime

        self._session = open_session(file, settings)
        # An OrtValue refers to its array without holding it. Pages are taken when they are written to.
        self._arrays = {
            given.name: np.zeros([1, given.shape[1], context_length, given.shape[3]], np.float32)
            for given in self._session.get_inputs()
            if given.name.startswith("past_key_values.")
        }
        values = {
            name: onnxruntime.OrtValue.ortvalue_from_numpy(array) for name, array in self._arrays.items()
        }
        self._binding = self._session.io_binding()
        for name, value in values.items():
            # One buffer is read and written, which is what GroupQueryAttention takes for a cache that has room.
            self._binding.bind_ortvalue_input(name, value)
            self._binding.bind_ortvalue_output(name.replace("past_key_values", "present"), value)

    def run(self, embedded: NDArray[np.float32], position: int) -> NDArray[np.float32]:
        """Run [1, tokens, hidden] after the first `position` tokens of the cache: logits [tokens, vocabulary]."""
        mask = np.ones((1, position + embedded.shape[1]), np.int64)
        self._binding.bind_cpu_input("inputs_embeds", np.ascontiguousarray(embedded))
        self._binding.bind_cpu_input("attention_mask", mask)
        self._binding.bind_output("logits")
        try:
            self._session.run_with_iobinding(self._binding)
        except Exception as error:  # as above
            raise MachineError(f"onnxruntime: {str(error).splitlines()[0]}", hint="edge doctor") from None
        logits: NDArray[np.float32] = self._binding.get_outputs()[-1].numpy()[0]
        return logits


def open_encoder(folder: Path, kind: str, settings: EngineSettings) -> Any:
    """The session of the encoder for a kind of media."""
    return open_session(folder / {"image": "vision.onnx", "audio": "speech.onnx"}[kind], settings)


def encode(
    session: Any, kind: str, inputs: Mapping[str, NDArray[Any]], *, beside_image: bool
) -> NDArray[np.float32]:
    """Features [rows, hidden] of one image or recording; speech is projected otherwise beside an image."""
    feeds = dict(inputs)
    if kind == "audio":
        mode = SPEECH_BESIDE_IMAGE if beside_image else SPEECH_ALONE
        feeds["audio_projection_mode"] = np.array([mode], np.int64)
    try:
        features: NDArray[np.float32] = session.run(None, feeds)[0]
    except Exception as error:  # as above
        raise MachineError(f"onnxruntime: {str(error).splitlines()[0]}", hint="edge doctor") from None
    return features
