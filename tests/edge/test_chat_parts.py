"""The parts of the chat that need no model: sampling, text stream, templates, prompt."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from converters.errors import UnsupportedError
from edge.chat.prompt import PromptFormat
from edge.chat.sampling import Sampling, sample
from edge.chat.stream import TextStream
from edge.chat.templates import ChatTemplate
from tests.edge.engines import Scripted

LOGITS = np.random.default_rng(0).normal(0, 3, 5000).astype(np.float32)


def draws(sampling: Sampling, count: int = 300, logits: np.ndarray = LOGITS) -> set[int]:
    random = np.random.default_rng(1)
    return {sample(logits, sampling, [], random) for _ in range(count)}


def test_temperature_zero_is_the_first_of_the_likeliest() -> None:
    logits = np.array([1, 5, 5, 2], np.float32)
    assert draws(Sampling(), 3, logits) == {1}


def test_every_cut_keeps_what_a_full_sort_says() -> None:
    order = np.argsort(-LOGITS, kind="stable")
    share = np.exp(LOGITS.astype(np.float64) - LOGITS.max())[order]
    share /= share.sum()
    assert draws(Sampling(temperature=1, top_k=3)) == set(order[:3].tolist())
    for top_p in (0.01, 0.3, 0.9):
        nucleus = order[: int(np.searchsorted(np.cumsum(share), top_p)) + 1]
        assert draws(Sampling(temperature=1, top_p=top_p)) <= set(nucleus.tolist())
    assert draws(Sampling(temperature=1, top_p=share[0] + share[1] / 2), 2000) == set(order[:2].tolist())
    likely = order[share >= 0.4 * share[0]]
    assert draws(Sampling(temperature=1, min_p=0.4), 2000) == set(likely.tolist())
    flat = np.zeros(5000, np.float32)  # the nucleus is far over the head that is looked at first
    assert max(draws(Sampling(temperature=1, top_p=0.9), 2000, flat)) in range(4400, 4500)


def test_temperature_is_the_softmax_of_scaled_logits() -> None:
    logits, random = np.array([0, 1, 2], np.float32), np.random.default_rng(2)
    drawn = [sample(logits, Sampling(temperature=0.5), [], random) for _ in range(20000)]
    wanted = np.exp(2.0 * logits) / np.exp(2.0 * logits).sum()
    # Three standard deviations of a share of 20,000 draws are at most 0.011.
    np.testing.assert_allclose(np.bincount(drawn) / 20000, wanted, atol=0.011)


def test_repeat_penalty_pushes_recent_tokens_down_whatever_their_sign() -> None:
    random = np.random.default_rng(0)
    for logits in ([4.0, 3.9, 0.0], [-1.0, -1.01, -9.0]):
        row = np.array(logits, np.float32)
        assert sample(row, Sampling(repeat_penalty=1.2), [0, 0], random) == 1
        assert sample(row, Sampling(repeat_penalty=1.2, repeat_window=2), [0, 2, 2], random) == 0
        assert row.tolist() == np.array(logits, np.float32).tolist()


def test_one_seed_one_sequence() -> None:
    def run(seed: int) -> list[int]:
        random = np.random.default_rng(seed)
        return [sample(LOGITS, Sampling(temperature=1, top_p=0.9), [], random) for _ in range(20)]

    assert run(5) == run(5) != run(6)


@pytest.mark.parametrize(
    ("name", "value"),
    [("temperature", -1), ("temperature", float("nan")), ("top_p", 0), ("top_k", -1), ("min_p", 2)],
)
def test_a_setting_out_of_range_is_named(name: str, value: float) -> None:
    with pytest.raises(UnsupportedError, match=name):
        Sampling(**{name: value})


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = sorted({0, len(data), *(c % (len(data) + 1) for c in cuts)})
    return [data[a:b] for a, b in itertools.pairwise(edges)]


@given(st.text(), st.lists(st.integers(0, 1000), max_size=12))
def test_text_comes_out_whole_however_its_bytes_are_cut(text: str, cuts: list[int]) -> None:
    stream = TextStream()
    out = [stream.feed(piece) for piece in pieces(text.encode("utf-8", "surrogatepass"), cuts)]
    joined = "".join([*out, stream.finish()])
    assert joined == text.encode("utf-8", "surrogatepass").decode("utf-8", "replace")
    if "\ufffd" not in joined:
        assert not any("\ufffd" in piece for piece in out)


def test_an_unfinished_character_becomes_a_replacement_only_at_the_end() -> None:
    stream = TextStream()
    assert stream.feed("🙂".encode()[:3]) == ""
    assert stream.finish() == "\ufffd"
    stream = TextStream()
    assert stream.feed(b"a\xff") + stream.feed(b"b") + stream.finish() == "a\ufffdb"


@given(
    st.text("ab<|>", max_size=30),
    st.lists(st.text("ab<|>", min_size=1, max_size=4), max_size=3),
    st.lists(st.integers(0, 1000), max_size=12),
)
def test_nothing_of_a_stop_string_and_nothing_after_it_is_shown(
    text: str, stops: list[str], cuts: list[int]
) -> None:
    stream = TextStream(stops)
    shown = "".join(stream.feed(piece) for piece in pieces(text.encode(), cuts)) + stream.finish()
    # As soon as one stop string is complete the text ends, before the earliest that is complete by then.
    ends = [text.find(s) + len(s) for s in stops if s in text]
    assert stream.stopped == bool(ends)
    if not ends:
        assert shown == text
    else:
        assert text.startswith(shown)
        assert not any(s in shown for s in stops)
        assert any(text[len(shown) :].startswith(s) for s in stops)


CHATML = (
    "{%- for message in messages %}\n"
    "    {%- if message['role'] not in ['system', 'user', 'assistant'] %}\n"
    "        {{- raise_exception('no role ' + message.role) }}\n"
    "    {%- endif %}\n"
    "    {{- '<|im_start|>' + message['role'] + '\\n' + message['content'] | trim + '<|im_end|>' + '\\n' }}\n"
    "{%- endfor %}\n"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}\n"
)


def test_templates_render_as_transformers_does() -> None:
    from transformers.utils.chat_template_utils import render_jinja_template

    sources = [
        CHATML,
        "{{ bos_token }}{% for m in messages %}\n  {% if m.role == 'user' %}\n[{{ m.content }}]\n  {% else %}\n"
        "{{ m.content }}{{ eos_token }}\n  {% endif %}\n{% endfor %}",
        "{% for m in messages %}{% if loop.index > 2 %}{% break %}{% endif %}{{ m | tojson }}{% endfor %}",
        "{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %}{% endfor %}",
        "{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{% endfor %}{{ ns.n * 2 }}",
    ]
    messages = [
        {"role": "system", "content": " Be brief. "},
        {"role": "user", "content": "ä <b> 'q'"},
        {"role": "assistant", "content": "ok"},
    ]
    for source in sources:
        oracle, _ = render_jinja_template(
            conversations=[messages],
            chat_template=source,
            add_generation_prompt=True,
            bos_token="<s>",
            eos_token="</s>",
        )
        ours = ChatTemplate(source, bos_token="<s>", eos_token="</s>").render(messages)
        assert ours == oracle[0], source


def test_a_template_that_refuses_says_why() -> None:
    with pytest.raises(UnsupportedError, match="no role tool"):
        ChatTemplate(CHATML).render([{"role": "tool", "content": ""}])


@pytest.mark.parametrize(
    "source",
    [
        "{{ ''.__class__.__mro__ }}",
        "{{ messages.append(1) }}",
        "{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
        "{{ 'x' * 10000000000 }}",
        "{{ 'x'.ljust(10000000000) | length }}",
        "{{ '%10000000000d' % 5 }}",
        "{{ '{:>9999999999}'.format(1) }}",
        "{{ 9 ** 9 ** 9 }}",
        "{% set ns = namespace(s=99) %}{% for i in range(60) %}{% set ns.s = ns.s * ns.s %}{% endfor %}",
        "{% set ns = namespace(s='aa') %}{% for i in range(60) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}",
        "{% for i in range(9999) %}{{ 'x' * 100000 }}{% endfor %}",
        "{% if",
        "{{ unknown.key.key }}",
        "{% include '/etc/passwd' %}",
        "x" * ((1 << 20) + 1),
    ],
)
def test_hostile_and_broken_templates_are_refused(source: str) -> None:
    with pytest.raises(UnsupportedError, match="chat template cannot be used"):
        ChatTemplate(source).render([{"role": "user", "content": "hi"}])


MIXED = st.lists(st.sampled_from([*"a <|>\ufdd0\ufdd10", "<|end|>", "<|user|>"]), max_size=12)


@given(MIXED.map("".join))
def test_special_tokens_inside_a_message_stay_text(content: str) -> None:
    """Whatever a message holds, the template's own marks are the only ones that are parsed."""
    seen: list[tuple[str, bool]] = []

    class Recording(Scripted):
        def encode(self, text: str, *, special: bool) -> list[int]:
            seen.append((text, special))
            return super().encode(text, special=special)

    engine = Recording([])
    ids = PromptFormat(engine, engine.dialect()).ids([{"role": "user", "content": content}])
    assert bytes(ids).decode() == f"<|user|>{content}<|end|><|assistant|>"
    parsed = "".join(text for text, special in seen if special)
    assert parsed.count("<|end|>") == parsed.count("<|user|>") == parsed.count("<|assistant|>") == 1


def test_a_prefix_is_put_once() -> None:
    class Bos(Scripted):
        def dialect(self):  # type: ignore[no-untyped-def]
            from dataclasses import replace

            return replace(super().dialect(), prefix=(1,), bos_token="\x01")

    message = [{"role": "user", "content": "x"}]
    for template in (None, "{{ messages[0].content }}", "{{ bos_token }}{{ messages[0].content }}"):
        engine = Bos([], template=template)
        assert PromptFormat(engine, engine.dialect()).ids(message) == [1, ord("x")]
