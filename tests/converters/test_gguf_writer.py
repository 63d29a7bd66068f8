"""The GGUF file itself: every row where it belongs, once, in the same bytes whatever the order."""

from __future__ import annotations

import dataclasses
import hashlib
import random
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf import GGMLQuantizationType, GGUFReader

from converters import gguf
from converters.checkpoint import Checkpoint
from converters.decoder import Decoder
from converters.errors import UnsupportedError
from converters.models import describe
from quant.recipe import Recipe, Rule
from tests.converters.gguf_support import bare_decoder, llama, write_gguf

Tiny = Callable[..., Path]
STORAGES = ["f32", "f16", "bf16", "int8", "int5", "int4", "int4_asym"]


def uniform(storage: Any) -> Recipe:
    method = "rtn" if storage.startswith("int") else "cast"
    return Recipe(storage, (Rule("*", storage, method),))


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("shape", ["phi3-medium", "phi4-mini", "odd-vocab"])
def test_every_row_reads_back_as_it_was_encoded(tiny: Tiny, tmp_path: Path, shape: str, storage: str) -> None:
    directory, out, recipe = tiny(shape), tmp_path / "m.gguf", uniform(storage)
    decoder = write_gguf(directory, out, recipe)
    stored = gguf.open_stored(out, decoder, recipe)
    with Checkpoint.open(directory) as checkpoint:
        for weight in decoder.weights():
            wanted = recipe.decode(recipe.encode(weight, checkpoint.weight_rows(weight, 0, weight.rows)))
            np.testing.assert_array_equal(stored.rows(weight, 0, weight.rows), wanted, err_msg=weight.name)
            np.testing.assert_array_equal(stored.rows(weight, 3, 7), wanted[3:7], err_msg=weight.name)
    stored.close()


def test_the_gguf_package_finds_phi3s_tensors(tiny: Tiny, tmp_path: Path) -> None:
    out = tmp_path / "m.gguf"
    decoder = write_gguf(tiny("phi4-mini"), out, Recipe.preset("int4"))
    found = {t.name: (t.tensor_type.name, t.shape.tolist()) for t in GGUFReader(out).tensors}
    hidden, inner, heads = decoder.hidden_size, decoder.intermediate_size, decoder.attention
    qkv = (heads.heads + 2 * heads.kv_heads) * heads.head_dim
    one = {
        "attn_norm": ("F32", [hidden]),
        "attn_qkv": ("Q4_0", [hidden, qkv]),
        "attn_output": ("Q4_0", [hidden, hidden]),
        "ffn_norm": ("F32", [hidden]),
        "ffn_up": ("Q4_0", [hidden, 2 * inner]),
        "ffn_down": ("Q4_0", [inner, hidden]),
    }
    wanted = {f"blk.{i}.{name}.weight": kind for i in range(2) for name, kind in one.items()}
    wanted |= {f"rope_factors_{kind}.weight": ("F32", [decoder.rope.dim // 2]) for kind in ("long", "short")}
    wanted |= {"token_embd.weight": ("Q8_0", [hidden, 640]), "output_norm.weight": ("F32", [hidden])}
    assert found == wanted  # tied: no output.weight, llama.cpp shares token_embd


def test_metadata_holds_what_llama_cpp_reads(tiny: Tiny, tmp_path: Path) -> None:
    out = tmp_path / "m.gguf"
    decoder = write_gguf(tiny("phi4-mini"), out, Recipe.preset("int4"), context=1024)
    with gguf_metadata(out) as meta:
        assert {k.removeprefix("phi3."): v for k, v in meta.items() if k.startswith("phi3.")} == {
            "context_length": 1024,
            "embedding_length": 192,
            "block_count": 2,
            "feed_forward_length": 256,
            "vocab_size": 640,
            "attention.head_count": 6,
            "attention.head_count_kv": 2,
            "attention.key_length": 32,
            "attention.value_length": 32,
            "attention.layer_norm_rms_epsilon": pytest.approx(1e-5),
            "attention.sliding_window": 0,
            "rope.dimension_count": 24,
            "rope.freq_base": 10000.0,
            "rope.scaling.type": "longrope",
            "rope.scaling.original_context_length": 4096,
            "rope.scaling.attn_factor": pytest.approx(decoder.rope.attention_factor),
        }
        assert (meta["general.file_type"], meta["general.quantization_version"]) == (2, 2)


def gguf_metadata(path: Path) -> Any:
    from contextlib import nullcontext

    reader = GGUFReader(path)
    return nullcontext({key: field.contents() for key, field in reader.fields.items()})


def chunks(decoder: Decoder, size: int) -> list[Any]:
    return [(w, s, min(s + size, w.rows)) for w in decoder.weights() for s in range(0, w.rows, size)]


def test_any_order_of_chunks_and_threads_gives_the_same_bytes(tiny: Tiny, tmp_path: Path) -> None:
    directory, recipe = tiny("uneven"), Recipe.preset("int4")
    write_gguf(directory, tmp_path / "a.gguf", recipe)
    with Checkpoint.open(directory) as checkpoint:
        decoder = describe(checkpoint)
        for seed, size in ((1, 33), (2, 7)):
            path = tmp_path / f"{seed}.gguf"
            writer = open_writer(decoder, recipe, path, directory)
            work = chunks(decoder, size)
            random.Random(seed).shuffle(work)

            def store(item: Any, writer: Any = writer) -> None:
                weight, start, stop = item
                rows = checkpoint.weight_rows(weight, start, stop)
                writer.write(weight, start, recipe.encode(weight, rows, start=start))

            with ThreadPoolExecutor(4) as pool:
                list(pool.map(store, work))
            writer.close()
            assert digest(path) == digest(tmp_path / "a.gguf")


def open_writer(decoder: Decoder, recipe: Recipe, path: Path, directory: Path, name: str = "tiny") -> Any:
    limit, _ = gguf.context_limit(decoder)
    return gguf.open_writer(
        decoder, recipe, path, context_length=limit, checkpoint_directory=directory, model_name=name
    )


def test_another_process_writes_the_same_bytes(tiny: Tiny, tmp_path: Path) -> None:
    """Nothing hangs on the hash seed, the clock or the path."""
    directory = tiny("phi3-mini-128k")
    write_gguf(directory, tmp_path / "a.gguf", Recipe.preset("int8"))
    code = (
        "import sys; from pathlib import Path; from quant.recipe import Recipe\n"
        "from tests.converters.gguf_support import write_gguf\n"
        "write_gguf(Path(sys.argv[1]), Path(sys.argv[2]), Recipe.preset('int8'))"
    )
    root = Path(__file__).parents[2]
    environment = {"PYTHONHASHSEED": "7", "PYTHONPATH": str(root)}
    (tmp_path / "deeper").mkdir()
    other = tmp_path / "deeper" / "b.gguf"
    subprocess.run([sys.executable, "-c", code, directory, other], env=environment, check=True)
    assert digest(other) == digest(tmp_path / "a.gguf")


def test_rows_are_taken_exactly_once_and_only_as_planned(tiny: Tiny, tmp_path: Path) -> None:
    directory, recipe = tiny("odd-vocab"), Recipe.preset("f16")
    with Checkpoint.open(directory) as checkpoint:
        decoder = describe(checkpoint)
        writer = open_writer(decoder, recipe, tmp_path / "m.gguf", directory)
        weight = decoder.layers[1].dense.down
        rows = recipe.encode(weight, checkpoint.weight_rows(weight, 0, weight.rows))
        assert isinstance(rows, np.ndarray)
        with pytest.raises(ValueError, match="is f16, not float32"):
            writer.write(weight, 0, rows.astype(np.float32))
        with pytest.raises(ValueError, match="do not fit"):
            writer.write(weight, 0, rows[:, :32])
        with pytest.raises(ValueError, match=rf"has {weight.rows} rows"):
            writer.write(weight, 1, rows)
        writer.write(weight, 0, rows[:10])
        with pytest.raises(ValueError, match="a second time"):
            writer.write(weight, 9, rows[9:12])
        with pytest.raises(ValueError, match=r"embedding: row 0 was never written"):
            writer.close()
        writer.abort()
        writer.abort()


def test_an_existing_file_is_left_alone(tiny: Tiny, tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_text("mine")
    with pytest.raises(FileExistsError):
        write_gguf(tiny("uneven"), tmp_path / "m.gguf", Recipe.preset("f16"))
    assert (tmp_path / "m.gguf").read_text() == "mine"


@pytest.mark.parametrize("precision", ["f32", "int4"])
def test_the_size_is_known_beforehand(tiny: Tiny, tmp_path: Path, precision: Any) -> None:
    recipe = Recipe.preset(precision)
    decoder = write_gguf(tiny("phi4-mini"), tmp_path / "m.gguf", recipe)
    planned, real = gguf.planned_bytes(decoder, recipe), (tmp_path / "m.gguf").stat().st_size
    assert real <= planned <= real + (1 << 21)


def test_what_llama_cpp_cannot_hold_is_refused_by_name(tiny: Tiny) -> None:
    recipe = Recipe.preset("f16")
    with (
        Checkpoint.open(tiny("odd-heads")) as checkpoint,
        pytest.raises(UnsupportedError, match="3 heads of 40"),
    ):
        gguf.check(describe(checkpoint), recipe)
    good = bare_decoder(8)
    gguf.check(good, recipe)
    odd_rope = dataclasses.replace(good, rope=dataclasses.replace(good.rope, dim=31))
    scaled = dataclasses.replace(good, attention=dataclasses.replace(good.attention, scale=0.5))
    deep = dataclasses.replace(good, layers=good.layers * 513)
    for decoder, what in ((odd_rope, "31 is odd"), (scaled, "scaled by 0.5"), (deep, "513 layers")):
        with pytest.raises(UnsupportedError, match=what):
            gguf.check(decoder, recipe)
    split = Recipe("split", (Rule("gate", "f32", "cast"), Rule("*", "f16", "cast")))
    with pytest.raises(UnsupportedError, match="gate as f32, up as f16"):
        gguf.check(good, split)


def test_a_context_past_the_limit_is_refused(tiny: Tiny, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match="sliding window") as caught:
        write_gguf(tiny("phi3-mini-4k"), tmp_path / "m.gguf", Recipe.preset("f16"), context=2048)
    assert "--context 2047" in caught.value.hint
    assert not (tmp_path / "m.gguf").exists()


def test_a_model_without_limits_keeps_its_context(tiny: Tiny) -> None:
    with Checkpoint.open(tiny("phi4")) as checkpoint:
        assert gguf.context_limit(describe(checkpoint)) == (16384, None)


@pytest.mark.parametrize("name", ["Phi-3-mini-4k-instruct", "my-phi3", "plain"])
@pytest.mark.parametrize("shape", ["phi4-mini", "phi3-mini-4k"])
def test_any_name_loads(tiny: Tiny, tmp_path: Path, shape: str, name: str) -> None:
    """llama.cpp changes tokens of a model *called* phi-3, and fails when it has not got them."""
    write_gguf(tiny(shape), tmp_path / "m.gguf", Recipe.preset("f16"), name=name)
    with llama(tmp_path / "m.gguf") as model:
        kept = model.metadata("general.name") or ""
    wants = shape == "phi3-mini-4k"  # the shape whose toy tokenizer strips as Phi-3's
    assert ("phi-3" in kept.lower() or "phi3" in kept.lower()) == wants


def test_a_checkpoint_without_a_tokenizer_runs_on_ids(tiny: Tiny, tmp_path: Path) -> None:
    write_gguf(tiny("uneven", tokenizer=None), tmp_path / "m.gguf", Recipe.preset("f16"))
    with llama(tmp_path / "m.gguf") as model:
        assert model.logits([[1, 2, 3]]).shape == (3, 640)


def test_the_licence_comes_from_the_model_card(tiny: Tiny, tmp_path: Path) -> None:
    directory = tmp_path / "checkpoint"
    directory.mkdir()
    (directory / "README.md").write_text("---\nlicense: apache-2.0\ntags:\n- x\n---\nlicense: other\n")
    writer = open_writer(bare_decoder(8), Recipe.preset("f16"), tmp_path / "m.gguf", directory)
    writer.abort()
    with gguf_metadata(tmp_path / "m.gguf") as meta:
        assert meta["general.license"] == "apache-2.0"


def test_types_are_ggmls() -> None:
    from converters.gguf.layout import TYPES

    assert [TYPES[s] for s in STORAGES] == [
        GGMLQuantizationType[name] for name in ("F32", "F16", "BF16", "Q8_0", "Q5_0", "Q4_0", "Q4_1")
    ]
