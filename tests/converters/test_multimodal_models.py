"""Multimodal checkpoints described: nothing overlooked, nothing taken for something else."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks.tiny_multimodal_shapes import CONFIGS, native_name
from converters import reference
from converters.checkpoint import Checkpoint
from converters.errors import CheckpointError, EdgeError, UnsupportedError
from converters.models import describe, describe_whole
from converters.multimodal import Multimodal
from tests.checkpoints import ABSENT, altered
from tests.converters.encoder_support import Native

TinyMultimodal = Callable[..., Path]
LAYOUTS = ["phi4mm", "phi4_multimodal", "phi3_v"]


def whole(checkpoint: Checkpoint) -> Multimodal:
    model = describe_whole(checkpoint)
    assert isinstance(model, Multimodal)
    return model


@pytest.fixture
def opened(tiny_multimodal: TinyMultimodal) -> Iterator[Callable[[str], Checkpoint]]:
    with ExitStack() as stack:
        yield lambda layout: stack.enter_context(Checkpoint.open(tiny_multimodal(layout)))


def test_both_layouts_of_one_model_are_the_same(opened: Callable[[str], Checkpoint]) -> None:
    """Every size, every name and every value, those of the adapters too."""
    first, second = opened("phi4mm"), opened("phi4_multimodal")
    ours, theirs = whole(first), whole(second)
    pairs = list(zip(ours.weights(), theirs.weights(), strict=True))
    for a, b in pairs:
        assert a.shape == b.shape
        assert np.array_equal(first.weight_rows(a, 0, a.rows), second.weight_rows(b, 0, b.rows)), a.name
    encoders = [[w.name for m in (x.vision, x.speech) if m for w in m.weights()] for x in (ours, theirs)]
    assert encoders[0] == encoders[1]
    for a_lora, b_lora in zip(ours.decoder.adapters, theirs.decoder.adapters, strict=True):
        assert a_lora.name == b_lora.name
        assert [(p.weight, p.scale) for p in a_lora.pairs] == [(p.weight, p.scale) for p in b_lora.pairs]


def test_each_row_of_a_stacked_update_goes_to_one_weight(opened: Callable[[str], Checkpoint]) -> None:
    """q, k and v share one `a`; their rows of `b` are all of it, in order."""
    for lora in whole(opened("phi4mm")).decoder.adapters:
        by_down: dict[Any, list[Any]] = {}
        for pair in lora.pairs:
            assert pair.scale == 2
            by_down.setdefault(pair.a.parts, []).append(pair)
        assert sorted(len(pairs) for pairs in by_down.values()) == [1, 1, 1, 1, 2, 2, 3, 3]
        for pairs in by_down.values():
            rows = [pair.b.parts[0] for pair in pairs]
            assert [r.start for r in rows] == [0, *(r.stop for r in rows[:-1])]


def test_the_text_part_equals_transformers(tiny_multimodal: TinyMultimodal) -> None:
    """At 1e-4, as every decoder (test_reference.py); without adapters, which transformers never applies."""
    native = Native(tiny_multimodal("phi4_multimodal"))
    ids = np.random.default_rng(0).integers(0, 200000, 20).tolist()
    with Checkpoint.open(tiny_multimodal("phi4mm")) as checkpoint:
        ours = reference.logits(checkpoint, whole(checkpoint).decoder, ids)
    with torch.inference_mode():
        theirs = native.model(torch.tensor([ids])).logits[0].numpy()
    assert np.abs(ours - theirs).max() < 1e-4


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_tensor_has_a_place(
    layout: str, opened: Callable[[str], Checkpoint], tiny_multimodal: TinyMultimodal, tmp_path: Path
) -> None:
    """What is never computed with is the last layer of the vision encoder and what follows it, and no other tensor."""
    checkpoint = opened(layout)
    for weight in whole(checkpoint).weights():
        checkpoint.weight_rows(weight, 0, weight.rows)
    unread = {name.partition("img_processor.")[2] for name in checkpoint.unread()}
    unread = {name.removeprefix("vision_model.") for name in unread}
    assert unread
    assert all(name.startswith(("encoder.layers.2.", "post_layernorm.", "head.")) for name in unread)
    strange = {"model.embed_tokens_extend.image_embed.extra": torch.zeros(3)}
    with (
        Checkpoint.open(altered(tiny_multimodal(layout), tmp_path / "more", tensors=strange)) as more,
        pytest.raises(UnsupportedError, match="extra"),
    ):
        whole(more)


@pytest.mark.parametrize(
    "tensor",
    [
        "model.embed_tokens_extend.image_embed.sub_GN",
        "model.embed_tokens_extend.image_embed.img_processor.encoder.layers.1.mlp.fc2.bias",
        "model.embed_tokens_extend.audio_embed.encoder.encoders.1.conv.glu.b2",
        "model.embed_tokens_extend.audio_embed.audio_projection.vision.2.weight",
        "model.layers.1.mlp.down_proj.lora_B.speech.weight",
    ],
)
@pytest.mark.parametrize("layout", ["phi4mm", "phi4_multimodal"])
def test_a_missing_tensor_is_named(
    layout: str, tensor: str, tiny_multimodal: TinyMultimodal, tmp_path: Path
) -> None:
    if layout == "phi4_multimodal":
        if ".lora_" in tensor:
            return
        tensor = native_name(tensor)
    directory = altered(tiny_multimodal(layout), tmp_path / "less", tensors={tensor: None})
    with (
        Checkpoint.open(directory) as checkpoint,
        pytest.raises(CheckpointError, match=tensor.replace(".", r"\.")),
    ):
        whole(checkpoint)


def _keys(config: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for key, value in config.items():
        if isinstance(value, dict) and not key.startswith(("rope", "activation_checkpointing")):
            yield from _keys(value, (*path, key))
        elif path:
            yield (*path, key)


NO_EFFECT = {
    "activation_checkpointing", "attention_dropout", "cnn_layer_norm", "dp", "dropout_rate",
    "enable_gradient_checkpointing", "initializer_range", "layer", "left_chunk", "model_name", "model_type",
    "nemo_final_size",
}  # fmt: skip
# transformers' class of speech never looks at it; that of vision knows -2.
SILENT = {("audio_config", "feature_layer")}
# Other values of these make other models, which convert as well.
FREE = {"lora_alpha", "image_token_id", "audio_token_id"}
ALSO_FREE = {("vision_config", "num_attention_heads")}


@pytest.mark.parametrize(
    ("layout", "path"), [(layout, path) for layout in LAYOUTS for path in _keys(CONFIGS[layout])]
)
def test_every_key_of_the_encoders_matters_or_is_known(
    layout: str, path: tuple[str, ...], opened: Callable[[str], Checkpoint]
) -> None:
    """Another value of any key is refused, or the tensors no longer fit; an unknown key beside it is refused too."""
    for name in (path[-1], "novel"):
        config = copy.deepcopy(CONFIGS[layout])
        holder = config
        for key in path[:-1]:
            holder = holder[key]
        holder[name] = _another(holder.get(name))
        checkpoint = opened(layout)
        checkpoint.config = config
        if name in NO_EFFECT | FREE or (*path[:-1], name) in SILENT | ALSO_FREE:
            whole(checkpoint)
        else:
            with pytest.raises((UnsupportedError, CheckpointError)):
                whole(checkpoint)


_HOSTILE = (0, -1, 1, 3, 2**52, 2**70, 1e300, float("nan"), True, None, "", "x" * 300, [], [1], {}, {"a": 1})


@pytest.mark.parametrize("layout", LAYOUTS)
@settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_a_hostile_value_is_an_error_that_a_person_can_read(
    layout: str, tiny_multimodal: TinyMultimodal, data: st.DataObject
) -> None:
    """Any key, of the encoders or of the text, with any value: the model is described, or refused by name."""
    config = copy.deepcopy(CONFIGS[layout])
    paths = [*_keys(config), *((key,) for key in config), ("embd_layer", "audio_embd_layer")]
    path = data.draw(st.sampled_from(paths))
    holder = config
    for key in path[:-1]:
        holder = holder.setdefault(key, {})
    holder[path[-1]] = data.draw(st.sampled_from(_HOSTILE))
    with Checkpoint.open(tiny_multimodal(layout)) as checkpoint:
        checkpoint.config = config
        with contextlib.suppress(EdgeError):
            describe_whole(checkpoint)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    "tensor", ["patch_embedding.weight", "position_embedding.weight", "layers.0.mlp.fc1.weight"]
)
@pytest.mark.parametrize(
    "shape", [(), (0,), (0, 0), (1, 64), (2, 3, 0, 0), (64, 3, 14, 14), (10**6, 3, 1, 1)]
)
def test_a_hostile_shape_is_an_error_that_a_person_can_read(
    layout: str, tensor: str, shape: tuple[int, ...], opened: Callable[[str], Checkpoint]
) -> None:
    """The sizes of two of the encoders come from their tensors."""
    checkpoint = opened(layout)
    name = next(name for name in checkpoint.tensors if name.endswith(tensor) and "img_processor" in name)
    if checkpoint.tensors[name].shape == shape:
        return
    checkpoint.tensors = {**checkpoint.tensors, name: replace(checkpoint.tensors[name], shape=shape)}
    with pytest.raises(EdgeError):
        describe_whole(checkpoint)


def _another(value: Any) -> Any:
    if isinstance(value, bool):
        return not value
    return value * 2 if isinstance(value, int | float) else "novel"


def test_an_adapter_folder_need_not_be_there(tiny_multimodal: TinyMultimodal) -> None:
    with Checkpoint.open(tiny_multimodal("phi4_multimodal", adapters=False)) as checkpoint:
        assert whole(checkpoint).decoder.adapters == ()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_model_of_more_than_text_is_not_taken_for_its_text(
    layout: str, opened: Callable[[str], Checkpoint]
) -> None:
    with pytest.raises(UnsupportedError, match=layout):
        describe(opened(layout))


def test_a_key_whose_default_is_another_value_must_be_there(
    tiny_multimodal: TinyMultimodal, tmp_path: Path
) -> None:
    """The original's `conv_glu_type` is a sigmoid where the config does not say swish."""
    audio = copy.deepcopy(CONFIGS["phi4mm"]["audio_processor"])
    audio["config"].pop("conv_glu_type")
    directory = altered(tiny_multimodal("phi4mm"), tmp_path / "less", {"audio_processor": audio, "x": ABSENT})
    with Checkpoint.open(directory) as checkpoint, pytest.raises(CheckpointError, match="conv_glu_type"):
        whole(checkpoint)
