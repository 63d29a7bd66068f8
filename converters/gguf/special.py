"""Special tokens of a GGUF: where generation stops, what the model must be called, the chat template."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gguf import GGUFWriter, Keys

from converters.decoder import Decoder
from converters.errors import UnsupportedError
from converters.gguf import strip
from converters.gguf.tokenizer import KNOWN_STOPS, Vocabulary, read_json

# With one of these in general.name, llama.cpp lets every special token swallow the white space after it, but
# for the three in NOT_STRIPPED; it needs those three and </s> in the vocabulary, or it does not load the file.
PHI3_NAMES = ("phi-3", "phi3")
NOT_STRIPPED = frozenset(("<unk>", "<s>", "<|endoftext|>"))
PHI3_TOKENS = NOT_STRIPPED | {"</s>"}


def model_name(name: str, vocabulary: Vocabulary | None) -> str:
    """`name`, changed as little as needed for llama.cpp to treat white space as the tokenizer does."""
    if _strips_like_phi3(vocabulary):
        return name if _sounds_like_phi3(name) else f"{name} (phi-3 tokenizer)"
    if not _sounds_like_phi3(name):
        return name
    out = name
    for digits in PHI3_NAMES:
        at = out.lower().find(digits)
        while at >= 0:
            out = f"{out[:at]}{out[at : at + 3]} 3{out[at + len(digits) :]}"
            at = out.lower().find(digits)
    return out


def add_tokenizer(out: GGUFWriter, vocabulary: Vocabulary, decoder: Decoder, directory: Path) -> None:
    """All tokenizer.* keys. UnsupportedError where llama.cpp could not stop where the model stops."""
    config_path = directory / "tokenizer_config.json"
    config = read_json(config_path) if config_path.is_file() else {}
    out.add_tokenizer_model(vocabulary.model)
    out.add_tokenizer_pre(vocabulary.pre)
    out.add_token_list(vocabulary.tokens)
    if vocabulary.scores is not None:
        out.add_token_scores(vocabulary.scores)
    out.add_token_types([int(kind) for kind in vocabulary.types])
    if vocabulary.merges:
        out.add_token_merges(vocabulary.merges)
    if vocabulary.unknown is not None:
        out.add_unk_token_id(vocabulary.unknown)
    if decoder.pad_token_id is not None and decoder.pad_token_id < decoder.vocab_size:
        out.add_pad_token_id(decoder.pad_token_id)
    _add_stops(out, vocabulary, decoder)
    _add_around(out, vocabulary, decoder, config)
    if found := strip.rules(vocabulary.added):
        out.add_string(strip.KEY, strip.to_text(found))
    for key, template in _templates(directory, config):
        out.add_string(key, template)


def _add_around(out: GGUFWriter, vocabulary: Vocabulary, decoder: Decoder, config: dict[str, Any]) -> None:
    """What the tokenizer puts around a text. A Llama tokenizer's own switches win over tokenizer.json's."""
    bos, eos = decoder.bos_token_id, decoder.eos_token_ids[0]
    switches = config if str(config.get("tokenizer_class", "")).startswith("Llama") else {}
    if bos is not None:
        out.add_bos_token_id(bos)
    out.add_add_bos_token(_adds(switches.get("add_bos_token"), vocabulary.prefix, bos))
    out.add_add_eos_token(_adds(switches.get("add_eos_token"), vocabulary.suffix, eos))
    if vocabulary.model == "llama":
        out.add_add_space_prefix(vocabulary.add_space_prefix)


def _adds(switch: object, found: tuple[int, ...], token: int | None) -> bool:
    """Whether llama.cpp shall add `token` at this end, where tokenizer.json adds `found`."""
    if isinstance(switch, bool):
        return switch and token is not None
    if found and found != (token,):
        raise UnsupportedError(
            f"tokenizer.json puts the tokens {list(found)} around every text, llama.cpp can only put BOS and EOS",
            hint="convert to ONNX instead: --target cpu",
        )
    return bool(found)


def _add_stops(out: GGUFWriter, vocabulary: Vocabulary, decoder: Decoder) -> None:
    """All stop tokens: eos, then eot and eom; more fit only when llama.cpp knows them by their text.

    A GGUF without eos gets token 2 or 11 as its end, whatever that is: so one is needed.
    """
    stops = [i for i in dict.fromkeys(decoder.eos_token_ids) if i < decoder.vocab_size]
    if not stops:
        raise UnsupportedError(
            "the checkpoint names no stop token (eos_token_id)",
            hint="set eos_token_id in generation_config.json",
        )
    out.add_eos_token_id(stops[0])
    rest = stops[1:]
    unknown = [i for i in rest if vocabulary.tokens[i] not in KNOWN_STOPS]
    if len(unknown) > 2:
        raise UnsupportedError(
            f"{len(stops)} stop tokens: {', '.join(vocabulary.tokens[i] for i in stops)}; a GGUF holds three",
            hint="keep at most three in eos_token_id of generation_config.json",
        )
    slots = [*unknown, *(i for i in rest if i not in unknown), stops[0]]
    out.add_eot_token_id(slots[0])
    if len(unknown) == 2:
        out.add_eom_token_id(slots[1])


def _templates(directory: Path, config: dict[str, Any]) -> list[tuple[str, str]]:
    """(key, template): chat_template.jinja before tokenizer_config.json, named ones beside the default."""
    file = directory / "chat_template.jinja"
    found = file.read_text(encoding="utf-8") if file.is_file() else config.get("chat_template")
    if isinstance(found, str):
        return [(Keys.Tokenizer.CHAT_TEMPLATE, found)]
    out = []
    for entry in found if isinstance(found, list) else ():
        name, template = str(entry["name"]), str(entry["template"])
        key = Keys.Tokenizer.CHAT_TEMPLATE
        out.append((key if name == "default" else f"{key}.{name}", template))
    return sorted(out)


def _sounds_like_phi3(name: str) -> bool:
    return any(digits in name.lower() for digits in PHI3_NAMES)


def _strips_like_phi3(vocabulary: Vocabulary | None) -> bool:
    """Whether that rule fits more of the added tokens than no rule (some Phi-3 files differ in </s> alone)."""
    if vocabulary is None or not set(vocabulary.tokens) >= PHI3_TOKENS:
        return False
    touched = [token.rstrip for token in vocabulary.added if token.content not in NOT_STRIPPED]
    return sum(touched) * 2 > len(touched)
