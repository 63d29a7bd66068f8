"""llama.cpp gives the token ids of the checkpoint's own tokenizer (the `tokenizers` library on tokenizer.json)."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from benchmarks import toy_tokenizers
from converters.errors import CheckpointError, UnsupportedError
from converters.gguf import pretokenizers, strip
from converters.gguf.long_words import LONGEST, too_long
from converters.gguf.tokenizer import KNOWN_STOPS, read_vocabulary
from edge.sources import resolve
from tests.converters.gguf_support import Llama, bare_decoder, llama, write_vocabulary

TEXTS = [
    "",
    " ",
    "   ",
    "\n",
    " \n\n \t",
    "Hello, world!",
    " a  b   c    d ",
    "It's DON'T we'll I'D they've 'S",
    "The quick brown fox: 1234567890, 3.14159e-10 and ½ ² ٣ Ⅳ.",
    "def f(x):\n    return {k: v for k, v in x.items() if v != ''}\n\n\n# end\r\n",
    '<div class="a">&nbsp;</div><!-- x --> {{ y }} ${z} \\n \\t \\u00e9',
    "🙂🚀 👨‍👩‍👧‍👦 ❤️ 🇫🇷 ✌🏽 a🙂b",
    "東京は日本の首都です。今天天气很好。안녕하세요 세계",
    "Привет, мир! Γειά σου Κόσμε. שלום عالم हिन्दी में ไทย",
    "e\u0301te\u0301 U\u0308ber naïve Straße ﬁ Å",
    "\u00a0nbsp\u2003em\u3000ideographic\u200bzero\ufeffbom\u0085nel",
    "\x00\x01\x7f control",
    "▁ lower one eighth block ▁▁",
    "<|end|><|user|>hi<|end|>\n<|assistant|>\n",
    "<|system|>\nBe brief.<|end|>\n<|user|>\n  Why?  <|end|>\n <|assistant|> \n ok<|endoftext|> x",
    "<|im_start|> user <|im_sep|> hi\n<|im_end|> <|im_start|>",
    "<s> </s> <unk> <0x0A> [PAD7] <|im_start",
    "aaaaaaaaaaaaaaaaaaaaaaa ================== -------- ......",
]
# Not UTF-8: a lone continuation, a cut character, an overlong form, a surrogate, bytes past U+10FFFF.
BROKEN = [b"a\x80b", b"\xe2\x82", b"\xc0\xaf", b"\xed\xa0\x80", b"ok \xff\xfe\xf5 ok", "é".encode("latin-1")]
PIECES = [
    "abcdefgh", " \n\t\r", "ABCdef", "0123456789", "éàüß", "日本語中文", "Приветмир", "🙂❤️", "'sT'lL", "()[]{}<>.,;:",
    "\u00a0\u2003\u3000\u0085", "=-_+", "e\u0301",
]  # fmt: skip
SPECIALS = ["<|user|>", " <|end|> ", "\n<|assistant|>\n", "<|im_start|>"]


def random_texts(count: int) -> Iterator[str]:
    rng = random.Random(0)
    for _ in range(count):
        parts = [
            rng.choice(SPECIALS)
            if rng.random() < 0.15
            else "".join(rng.choices(rng.choice(PIECES), k=rng.randint(1, 5)))
            for _ in range(rng.randint(1, 10))
        ]
        yield "".join(parts)


def trained_o200k(directory: Path) -> None:
    """Phi-4-mini's pre-tokenizer with merges that cross its boundaries wherever it lets them."""
    tokenizer = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(toy_tokenizers._PATTERNS["bpe"]), "removed", invert=True)
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, level])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=3000,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["<|end|>"],
        show_progress=False,
    )
    tokenizer.train_from_iterator([*TEXTS, *random_texts(500)] * 3, trainer)
    tokenizer.save(str(directory / "tokenizer.json"))


KINDS = ["spm", "bpe", "bpe-cl100k", "o200k", "smollm2"]


class Pair:
    """A checkpoint's tokenizer and its GGUF, padded with 5 unused ids."""

    def __init__(self, kind: str, directory: Path, out: Path) -> None:
        if kind == "smollm2":
            directory = resolve("smollm2-135m-instruct").directory
        elif kind == "o200k":
            trained_o200k(directory)
        else:
            toy_tokenizers.write_tokenizer(directory, kind)  # type: ignore[arg-type]
        self.own = Tokenizer.from_file(str(directory / "tokenizer.json"))
        self.size = self.own.get_vocab_size()
        vocabulary = read_vocabulary(directory, self.size + 5)
        assert vocabulary is not None
        self.rules = strip.rules(vocabulary.added)
        self.llama = Llama(write_vocabulary(directory, out, bare_decoder(self.size + 5)), vocab_only=True)

    def ids(self, text: str, *, special: bool) -> tuple[list[int], list[int]]:
        self.own.encode_special_tokens = not special
        mine = self.llama.tokenize(strip.apply(text, self.rules, special=special), special=special)
        return self.own.encode(text, add_special_tokens=False).ids, mine


@pytest.fixture(scope="module", params=KINDS)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    base = tmp_path_factory.mktemp(request.param)
    (base / "checkpoint").mkdir()
    made = Pair(request.param, base / "checkpoint", base / "v.gguf")
    yield made
    made.llama.close()


@pytest.mark.parametrize("special", [True, False])
def test_ids_are_those_of_the_checkpoints_tokenizer(pair: Pair, special: bool) -> None:
    for text in [*TEXTS, *random_texts(1500)]:
        if not special:
            # An added token but no special one in Phi-3: llama.cpp makes it one by its text, and so takes it for
            # plain text here, where the tokenizer still finds it.
            text = text.replace("</s>", "")
        wanted, found = pair.ids(text, special=special)
        assert found == wanted, repr(text)


def test_invalid_utf8_is_taken_as_replacement_characters_and_never_crashes(pair: Pair) -> None:
    for data in BROKEN:
        wanted, found = pair.ids(data.decode("utf-8", "replace"), special=True)
        assert found == wanted, data
        assert all(0 <= i < pair.size for i in pair.llama.tokenize(data))


def test_pieces_give_the_text_back(pair: Pair) -> None:
    """Without special tokens, whose pieces are empty, and but for the space that SentencePiece puts first.

    SmolLM2 has no token for some bytes that no text of its training had; both tokenizers leave them out.
    """
    for text in TEXTS[:17]:
        ids = pair.llama.tokenize(text)
        found = b"".join(pair.llama.piece(i) for i in ids).decode("utf-8")
        wanted = pair.own.decode(ids)
        assert found in (wanted, " " + wanted)


def test_ids_without_a_token_are_unused(pair: Pair) -> None:
    import llama_cpp as c

    assert pair.llama.size == pair.size + 5
    for i in range(pair.size, pair.size + 5):
        assert c.llama_vocab_get_attr(pair.llama.vocab, i) == c.LLAMA_TOKEN_ATTR_UNUSED
        assert pair.llama.piece(i) == b""


@pytest.mark.parametrize(("spelling", "canonical"), pretokenizers._SPELLINGS.items())
@pytest.mark.parametrize(("behavior", "invert"), [("isolated", False), ("removed", True)])
def test_spellings_that_count_as_one_split_alike(
    spelling: str, canonical: str, behavior: str, invert: bool
) -> None:
    one = pre_tokenizers.Split(Regex(spelling), behavior, invert=invert)
    other = pre_tokenizers.Split(Regex(canonical), "isolated")
    for text in [*TEXTS, *random_texts(2000)]:
        assert one.pre_tokenize_str(text) == other.pre_tokenize_str(text), repr(text)


def test_o200k_differs_only_in_capitals_outside_ascii(tmp_path: Path) -> None:
    """What remains of llama.cpp's blindness for their case; should this fail, the note in pretokenizers can go."""
    pair = Pair("o200k", tmp_path, tmp_path / "v.gguf")
    trained = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    split = trained.pre_tokenizer
    assert [piece for piece, _ in split.pre_tokenize_str(" ÜBER")] == ["ĠÃľBER"]
    wanted, found = pair.ids(" Über ÜBERALL", special=True)
    assert "".join(map(trained.id_to_token, wanted)) == "".join(map(trained.id_to_token, found))
    pair.llama.close()


@pytest.mark.parametrize("unit", ["a", " ", "!", "é", "\u0301", "a\u0301", "\n", "日"])
def test_long_words_are_found_before_they_overflow_the_engine(pair: Pair, unit: str) -> None:
    kinds = {key: pair.llama.metadata(f"tokenizer.ggml.{key}") or "" for key in ("model", "pre")}
    risky = kinds["pre"] == "granite-embed-multi-97m"
    safe = unit * (LONGEST // len(unit))
    assert too_long(safe, **kinds) is None
    pair.llama.tokenize(safe)  # does not crash
    assert (too_long(safe + unit, **kinds) is not None) == risky
    assert too_long((safe[: LONGEST // 2] + "1") * 6, **kinds) is None
    if not risky:
        pair.llama.tokenize(unit * 50_000)


def test_a_phi3_file_swallows_white_space_in_any_application(tmp_path: Path) -> None:
    """Not only here, where `strip.apply` does it, but by llama.cpp itself, which goes by the name."""
    toy_tokenizers.write_tokenizer(tmp_path, "spm")
    own = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    path = write_vocabulary(tmp_path, tmp_path / "v.gguf", bare_decoder(own.get_vocab_size()), name="mini")
    with llama(path, vocab_only=True) as model:
        for text in ("<|user|>\nhi<|end|>\n<|assistant|>\n", "<|user|>  a <|endoftext|> b </s> c <s> d"):
            assert model.tokenize(text) == own.encode(text, add_special_tokens=False).ids


@pytest.mark.parametrize("like_phi3", [True, False])
def test_the_name_follows_what_most_tokens_do(tmp_path: Path, like_phi3: bool) -> None:
    """Early Phi-3 files differ in </s> alone; a tokenizer that strips nothing must not be called phi-3."""

    def change(data: dict[str, Any]) -> None:
        for token in data["added_tokens"]:
            token["rstrip"] = like_phi3 and token["rstrip"] and token["content"] != "</s>"

    size = edit(tmp_path, "spm", change)
    own = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    path = write_vocabulary(tmp_path, tmp_path / "v.gguf", bare_decoder(size), name="Phi-3-mini")
    with llama(path, vocab_only=True) as model:
        assert model.metadata("general.name") == ("Phi-3-mini" if like_phi3 else "Phi 3-mini")
        text = "<|user|>\n hi<|end|>\n<|assistant|>\n"
        assert model.tokenize(text) == own.encode(text, add_special_tokens=False).ids


def edit(directory: Path, kind: Any, change: Callable[[dict[str, Any]], None]) -> int:
    """A toy tokenizer.json with one thing changed; returns its number of ids."""
    ids = toy_tokenizers.write_tokenizer(directory, kind)
    path = directory / "tokenizer.json"
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))
    return max(ids.values()) + 1


@pytest.mark.parametrize("kind", ["spm", "bpe-cl100k"])
@pytest.mark.parametrize("around", [([], []), (["<s>"], []), (["<s>"], ["</s>"])])
def test_what_the_tokenizer_puts_around_a_text(tmp_path: Path, kind: str, around: Any) -> None:
    before, after = ([{"SpecialToken": {"id": t, "type_id": 0}} for t in side] for side in around)
    sequence = {"Sequence": {"id": "A", "type_id": 0}}

    def change(data: dict[str, Any]) -> None:
        names = (
            {"<s>": "<s>", "</s>": "</s>"} if kind == "spm" else {"<s>": "<|im_start|>", "</s>": "<|im_end|>"}
        )
        ids = {t["content"]: t["id"] for t in data["added_tokens"]}
        single = json.loads(json.dumps([*before, sequence, *after]))
        for part in single:
            if "SpecialToken" in part:
                part["SpecialToken"]["id"] = names[part["SpecialToken"]["id"]]
        special = {n: {"id": n, "ids": [ids[n]], "tokens": [n]} for n in names.values()}
        data["post_processor"] = {
            "type": "TemplateProcessing",
            "single": single,
            "pair": [sequence, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": special,
        }
        change.ids = [ids[names[n]] for n in ("<s>", "</s>")]  # type: ignore[attr-defined]

    size = edit(tmp_path, kind, change)
    # A Llama tokenizer's switches in tokenizer_config.json would win; this is about tokenizer.json.
    (tmp_path / "tokenizer_config.json").unlink()
    bos, eos = change.ids  # type: ignore[attr-defined]
    path = write_vocabulary(tmp_path, tmp_path / "v.gguf", bare_decoder(size, bos=bos, eos=[eos]))
    own = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    with llama(path, vocab_only=True) as model:
        assert model.tokenize("one two", around=True) == own.encode("one two").ids


def test_llama_switches_win_over_the_post_processor(tmp_path: Path) -> None:
    toy_tokenizers.write_tokenizer(tmp_path, "spm")
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config | {"add_bos_token": True}))
    path = write_vocabulary(tmp_path, tmp_path / "v.gguf", bare_decoder(600, bos=1, eos=[2]))
    with llama(path, vocab_only=True) as model:
        assert model.tokenize("a", around=True) == [1, *model.tokenize("a")]


@pytest.mark.parametrize(
    "texts", [["<|user|>"], ["<|end|>", "<|endoftext|>", "</s>", "<|user|>", "<|system|>"]]
)
def test_generation_stops_at_every_stop_token(tmp_path: Path, texts: list[str]) -> None:
    ids = toy_tokenizers.write_tokenizer(tmp_path, "spm") | {"</s>": 2}
    stops = [ids[text] for text in texts]
    path = write_vocabulary(tmp_path, tmp_path / "v.gguf", bare_decoder(600, eos=stops))
    with llama(path, vocab_only=True) as model:
        known = {ids[text] for text in KNOWN_STOPS if text in ids}
        assert model.stops() == {*stops, *known}


def test_stop_tokens_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    ids = toy_tokenizers.write_tokenizer(tmp_path, "spm")
    with pytest.raises(UnsupportedError, match="no stop token"):
        write_vocabulary(tmp_path, tmp_path / "a.gguf", bare_decoder(600, eos=[]))
    four = [ids[t] for t in ("<|user|>", "<|system|>", "<|assistant|>", "<|placeholder1|>")]
    with pytest.raises(UnsupportedError, match=r"4 stop tokens: <\|user\|>"):
        write_vocabulary(tmp_path, tmp_path / "b.gguf", bare_decoder(600, eos=four))


def test_chat_templates_are_kept(tmp_path: Path) -> None:
    toy_tokenizers.write_tokenizer(tmp_path, "bpe")
    path = tmp_path / "tokenizer_config.json"
    config = json.loads(path.read_text())
    named = [{"name": "tool_use", "template": "T é"}, {"name": "default", "template": "D"}]
    for i, (template, file, wanted) in enumerate(
        [
            ("{{ x }}", None, "{{ x }}"),
            ("{{ x }}", "from file\n", "from file\n"),
            (named, None, "D"),
            (None, None, None),
        ]
    ):
        path.write_text(json.dumps(config | {"chat_template": template}))
        if file:
            (tmp_path / "chat_template.jinja").write_text(file)
        else:
            (tmp_path / "chat_template.jinja").unlink(missing_ok=True)
        with llama(
            write_vocabulary(tmp_path, tmp_path / f"{i}.gguf", bare_decoder(600)), vocab_only=True
        ) as model:
            assert model.metadata("tokenizer.chat_template") == wanted
            assert model.metadata("tokenizer.chat_template.tool_use") == (
                "T é" if template == named else None
            )


def drop(*path: Any) -> Callable[[dict[str, Any]], None]:
    def change(data: Any) -> None:
        for key in path[:-1]:
            data = data[key]
        del data[path[-1]]

    return change


def put(value: Any, *path: Any) -> Callable[[dict[str, Any]], None]:
    def change(data: Any) -> None:
        for key in path[:-1]:
            data = data[key]
        data[path[-1]] = value

    return change


def unmerged(data: dict[str, Any]) -> None:
    """Two splits of a piece of three characters: without one of them, the other order of merging is lost."""
    piece = next(left + right for left, right in data["model"]["merges"] if len(left + right) == 3)
    data["model"]["merges"] = [m for m in data["model"]["merges"] if m[0] + m[1] != piece][:]
    data["model"]["vocab"] |= {}


def scattered(data: dict[str, Any]) -> None:
    merges = data["model"]["merges"]
    made = ["".join(m) for m in merges]
    at = next(i for i, piece in enumerate(made) if made.count(piece) > 1)
    merges.append(merges.pop(at))


REFUSED: list[tuple[str, Any, Any, str]] = [
    ("bpe", put({"Regex": "a"}, "pre_tokenizer", "pretokenizers", 0, "pattern"), UnsupportedError, "ids would differ"),
    ("bpe", put("Contiguous", "pre_tokenizer", "pretokenizers", 0, "behavior"), UnsupportedError, "Contiguous"),
    ("bpe", put(True, "pre_tokenizer", "pretokenizers", 1, "add_prefix_space"), UnsupportedError, "add_prefix_space"),
    ("bpe", put({"type": "Whitespace"}, "pre_tokenizer"), UnsupportedError, "pre-tokenizer of Whitespace"),
    ("bpe", put(None, "pre_tokenizer"), UnsupportedError, "pre-tokenizer of None"),
    ("bpe", put({"type": "NFC"}, "normalizer"), UnsupportedError, "normalizer NFC"),
    ("bpe", put(0.1, "model", "dropout"), UnsupportedError, "dropout"),
    ("bpe", put("Unigram", "model", "type"), UnsupportedError, "Unigram"),
    ("bpe", drop("model", "merges", 0), UnsupportedError, "the merges do not lead to"),
    ("bpe", put({"type": "BertProcessing"}, "post_processor"), UnsupportedError, "BertProcessing"),
    ("spm", put({"type": "NFKC"}, "normalizer"), UnsupportedError, "NFKC"),
    ("spm", put("_", "normalizer", "normalizers", 0, "prepend"), UnsupportedError, "prepends '_'"),
    ("spm", unmerged, UnsupportedError, "but are no merge"),
    ("spm", scattered, UnsupportedError, "do not stand together"),
    ("spm", put(True, "added_tokens", 3, "normalized"), UnsupportedError, "after normalization"),
    ("spm", put(True, "added_tokens", 3, "single_word"), UnsupportedError, "single word"),
    ("spm", put(10_000, "added_tokens", 3, "id"), CheckpointError, "10000, the embedding has 600 rows"),
    ("spm", put("<|end|>", "added_tokens", 3, "content"), CheckpointError, "two ids stand for the same token"),
    ("spm", put(5, "added_tokens", 3, "id"), CheckpointError, "id 5 stands for"),
    ("spm", put([["x", "nothing"]], "model", "merges"), CheckpointError, "no token of the vocabulary"),
    ("spm", put([["x"]], "model", "merges"), CheckpointError, "ValueError"),
    ("spm", put("[PAD599]", "added_tokens", 3, "content"), CheckpointError, "PAD599"),
    ("spm", drop("model"), CheckpointError, "KeyError 'model'"),
    ("spm", put(7, "added_tokens"), CheckpointError, "TypeError"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "change", "error", "what"), REFUSED)
def test_what_llama_cpp_would_tokenize_otherwise_is_refused(
    tmp_path: Path, kind: str, change: Any, error: Any, what: str
) -> None:
    edit(tmp_path, kind, change)
    with pytest.raises(error, match=what):
        read_vocabulary(tmp_path, 600)


def test_metaspace_first_is_refused_and_never_is_taken(tmp_path: Path) -> None:
    for scheme in ("first", "always", "never"):

        def change(data: dict[str, Any], scheme: str = scheme) -> None:
            data["normalizer"] = None
            data["pre_tokenizer"] = {
                "type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": False
            }  # fmt: skip

        size = edit(tmp_path, "spm", change)
        if scheme != "never":
            with pytest.raises(UnsupportedError, match="Metaspace"):
                read_vocabulary(tmp_path, size)
            continue
        own = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
        path = write_vocabulary(tmp_path, tmp_path / "v.gguf", bare_decoder(size))
        with llama(path, vocab_only=True) as model:
            for text in TEXTS:
                assert model.tokenize(text) == own.encode(text, add_special_tokens=False).ids, repr(text)


def test_a_missing_byte_is_refused(tmp_path: Path) -> None:
    edit(tmp_path, "spm", drop("model", "vocab", "<0x0A>"))
    with pytest.raises(UnsupportedError, match="no token <0x0A>"):
        read_vocabulary(tmp_path, 600)


def test_only_a_sentencepiece_model_names_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.model").write_bytes(b"\n")
    with pytest.raises(UnsupportedError, match=r"only tokenizer\.model") as caught:
        read_vocabulary(tmp_path, 600)
    assert "save_pretrained" in caught.value.hint


def mutated(data: Any, rng: random.Random) -> Any:
    """A value somewhere in `data` replaced by another kind of value."""
    if isinstance(data, dict | list) and data and rng.random() < 0.8:
        keys = list(data) if isinstance(data, dict) else range(len(data))
        copy = dict(data) if isinstance(data, dict) else list(data)
        key = rng.choice(keys)
        copy[key] = mutated(data[key], rng)
        return copy
    return rng.choice(
        [None, -1, 1.5, 10**30, "", "x", [], {}, [None], {"type": None}, True, "<s>", [["a", "b"]]]
    )


@pytest.mark.parametrize("kind", ["spm", "bpe"])
def test_a_mutated_tokenizer_is_read_or_refused_in_our_words(tmp_path: Path, kind: Any) -> None:
    toy_tokenizers.write_tokenizer(tmp_path, kind)
    path, rng = tmp_path / "tokenizer.json", random.Random(5)
    good = json.loads(path.read_text())
    refused = 0
    for _ in range(300):
        path.write_text(json.dumps(mutated(good, rng)))
        try:
            read_vocabulary(tmp_path, 600)
        except (CheckpointError, UnsupportedError):
            refused += 1
    assert refused > 100


@pytest.mark.parametrize("text", ["", "[", "[]", '{"model": NaN', "[" * 100_000])
def test_a_damaged_tokenizer_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "tokenizer.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"tokenizer\.json"):
        read_vocabulary(tmp_path, 600)


def test_strip_rules_do_what_the_tokenizer_does(tmp_path: Path) -> None:
    """Phi-4's turn markers swallow white space on both sides, which no GGUF can say."""

    def change(data: dict[str, Any]) -> None:
        for token in data["added_tokens"]:
            token["lstrip"] = token["content"] in ("<|im_start|>", "<|im_sep|>")
            token["rstrip"] = token["content"] in ("<|im_start|>", "<|im_end|>", "<|user|>")
            token["special"] = token["content"] != "<|user|>"

    size = edit(tmp_path, "bpe-cl100k", change)
    own = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    path = write_vocabulary(tmp_path, tmp_path / "v.gguf", bare_decoder(size))
    rng = random.Random(3)
    parts = [
        "<|im_start|>",
        "<|im_sep|>",
        "<|im_end|>",
        "<|user|>",
        " ",
        "\n",
        "\u3000",
        "\x1c",
        "\u200b",
        "a",
        "b c",
    ]
    with llama(path, vocab_only=True) as model:
        rules = strip.from_text(model.metadata(strip.KEY) or "")
        for special in (True, False):
            own.encode_special_tokens = not special
            for _ in range(500):
                text = "".join(rng.choices(parts, k=rng.randint(1, 9)))
                found = model.tokenize(strip.apply(text, rules, special=special), special=special)
                assert found == own.encode(text, add_special_tokens=False).ids, repr(text)


@pytest.mark.parametrize("text", ["{}", "[1]", "[[1, 2]]", "nope"])
def test_strip_rules_of_others_are_refused(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 (json's own error is one)
        strip.from_text(text)
