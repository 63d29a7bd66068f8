"""What the tests of encoders share: inputs of every awkward size, and transformers asked the same."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers.models.phi4_multimodal.modeling_phi4_multimodal as native
from numpy.typing import NDArray
from torch.nn import functional
from transformers import CLIPVisionConfig, CLIPVisionModel, Phi4MultimodalForCausalLM

from converters.encoders import Speech, Vision

Floats = NDArray[np.float32]
Images = tuple[Floats, NDArray[np.int64], NDArray[np.bool_] | None]
Grids = Sequence[tuple[int, int, int, int]]
"""Of each image: rows and columns of crops, rows and columns of padding patches at the end."""

GRIDS: dict[str, Grids] = {
    "one crop": [(1, 1, 0, 0)],
    "wide, padded below": [(2, 3, 3, 0)],
    "mixed": [(1, 1, 3, 0), (2, 2, 0, 5), (3, 1, 0, 2)],
}


def random_images(vision: Vision, grids: Grids, seed: int = 0) -> Images:
    """Pixels, sizes and, where the encoder takes one, the mask of patches; images with fewer crops are filled up."""
    rng, side = np.random.default_rng(seed), vision.side
    crops = 1 + max(rows * columns for rows, columns, *_ in grids)
    pixels = rng.standard_normal((len(grids), crops, 3, vision.crop_size, vision.crop_size), np.float32)
    mask = np.ones((len(grids), crops, side, side), np.bool_)
    for i, (rows, columns, below, right) in enumerate(grids):
        whole = np.ones((rows * side, columns * side), np.bool_)
        whole[rows * side - below :] = False
        whole[:, columns * side - right :] = False
        tiles = whole.reshape(rows, side, columns, side).swapaxes(1, 2).reshape(-1, side, side)
        mask[i, 1 : 1 + rows * columns] = tiles
    sizes = np.array([(rows, columns) for rows, columns, *_ in grids], np.int64) * vision.crop_size
    return pixels, sizes, mask if vision.patch_mask else None


def random_clips(
    speech: Speech, lengths: Sequence[int], seed: int = 0
) -> tuple[Floats, NDArray[np.int64], NDArray[np.bool_]]:
    """Frames, sizes and mask of clips of `lengths` frames, padded with zeros to the longest."""
    rng = np.random.default_rng(seed)
    mask = np.arange(max(lengths)) < np.array(lengths)[:, None]
    frames = rng.standard_normal((*mask.shape, speech.mel_bins), np.float32) * mask[..., None]
    sizes = np.array([speech.positions(n) for n in lengths], np.int64)
    return frames.astype(np.float32), sizes, mask


class Native:
    """transformers' Phi4MultimodalForCausalLM in float32, with the original's mask of padding (see `_masked`)."""

    def __init__(self, checkpoint: Path) -> None:
        torch.set_num_threads(1)
        self.model = Phi4MultimodalForCausalLM.from_pretrained(
            checkpoint, dtype=torch.float32, attn_implementation="eager"
        ).eval()
        extend = self.model.model.embed_tokens_extend
        self._image, self._audio = extend.image_embed, extend.audio_embed
        encoder: Any = self._audio.encoder
        embeddings, later = encoder.forward_embeddings, encoder.calculate_hs_mask

        def forward_embeddings(*inputs: Any) -> Any:
            states, seen, mask = embeddings(*inputs)
            return states, _masked(seen), mask

        encoder.forward_embeddings = forward_embeddings
        encoder.calculate_hs_mask = lambda *inputs: _masked(later(*inputs))

    @torch.inference_mode()
    def image_features(self, images: Images, count: int) -> Floats:
        pixels, sizes, mask = (torch.from_numpy(array) for array in images if array is not None)
        ids, embedded = self._places(count, 200010)
        return np.asarray(self._image(ids, embedded, pixels, sizes, mask)[0])

    @torch.inference_mode()
    def speech_features(
        self, frames: Floats, sizes: NDArray[np.int64], mask: NDArray[np.bool_] | None, projection: str
    ) -> Floats:
        ids, embedded = self._places(int(sizes.sum()), 200011)
        padding = None if mask is None else torch.from_numpy(mask)
        return np.asarray(
            self._audio(ids, embedded, torch.from_numpy(frames), sizes.tolist(), padding, projection)[0]
        )

    def _places(self, count: int, token: int) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.full((1, count), token), torch.zeros(1, count, self.model.config.hidden_size)


def _masked(seen: torch.Tensor) -> torch.Tensor:
    """transformers adds the mask itself to the scores, 1.0 where a key is seen; the original leaves the others out."""
    return torch.where(seen, 0.0, torch.finfo(torch.float32).min)


def _unfold(states: torch.Tensor, length: int) -> torch.Tensor:
    """transformers' own cannot view what it permuted, once there is more than one clip."""
    return states.reshape(-1, length, states.shape[-1])


native.unfold_tensor = _unfold


@torch.inference_mode()
def clip_features(vision: Vision, images: Images, read: Callable[[str], NDArray[Any]]) -> Floats:
    """Phi-3-vision's features by transformers' CLIP and the steps of its modeling_phi3_v.py. `read`: a tensor below
    model.vision_embed_tokens, by name."""
    prefix = "img_processor.vision_model."
    inner = read(f"{prefix}encoder.layers.0.mlp.fc1.weight").shape[0]
    config = CLIPVisionConfig(
        hidden_size=vision.hidden_size,
        intermediate_size=inner,
        num_hidden_layers=len(vision.layers) + 1,
        num_attention_heads=vision.heads,
        image_size=vision.crop_size,
        patch_size=vision.patch_size,
        hidden_act="quick_gelu",
        attn_implementation="eager",
    )
    tower = CLIPVisionModel(config).eval()
    names = [name for name in tower.state_dict() if not name.endswith("position_ids")]
    state = {
        n: torch.tensor(read(prefix + n.removeprefix("vision_model.")).astype(np.float32)) for n in names
    }
    tower.load_state_dict(state, strict=False)

    def tensor(name: str) -> torch.Tensor:
        return torch.tensor(read(name).astype(np.float32))

    pixels, sizes, _ = images
    side, wide, features = vision.side, 4 * vision.hidden_size, []
    for crops, (height, width) in zip(torch.from_numpy(pixels), sizes.tolist(), strict=True):
        h, w = height // vision.crop_size, width // vision.crop_size
        states = tower(crops, output_hidden_states=True).hidden_states[-2][:, 1:]
        grid = states.reshape(-1, side // 2, 2, side // 2, 2, vision.hidden_size)
        grid = grid.permute(0, 1, 3, 2, 4, 5).reshape(-1, side // 2, side // 2, wide)
        ends = tensor("sub_GN")

        def rows(image: torch.Tensor, ends: torch.Tensor = ends) -> torch.Tensor:
            return torch.cat([image, ends.repeat(1, image.shape[1], 1, 1)], dim=2).reshape(1, -1, wide)

        sub = grid[1 : 1 + h * w].reshape(1, h, w, side // 2, side // 2, wide)
        sub = sub.permute(0, 1, 3, 2, 4, 5).reshape(1, h * side // 2, w * side // 2, wide)
        features.append(torch.cat([rows(sub), tensor("glb_GN"), rows(grid[:1])], dim=1)[0])
    hidden = torch.cat(features)
    hidden = functional.linear(hidden, tensor("img_projection.0.weight"), tensor("img_projection.0.bias"))
    hidden = functional.gelu(hidden)
    return np.asarray(
        functional.linear(hidden, tensor("img_projection.2.weight"), tensor("img_projection.2.bias"))
    )
