"""edge.packaging.turns: texts between messages that give what a template renders, or a refusal."""

from __future__ import annotations

from itertools import product

import pytest

from converters.errors import UnsupportedError
from edge.chat.templates import ChatTemplate
from edge.packaging import turns

PHI3 = (
    "{% for message in messages %}{% if message['role'] == 'system' %}"
    "{{'<|system|>\n' + message['content'] + '<|end|>\n'}}{% elif message['role'] == 'user' %}"
    "{{'<|user|>\n' + message['content'] + '<|end|>\n'}}{% elif message['role'] == 'assistant' %}"
    "{{'<|assistant|>\n' + message['content'] + '<|end|>\n'}}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}"
)
SMOLLM2 = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful AI assistant named SmolLM<|im_end|>\n' }}{% endif %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
LLAMA3 = (
    "{% for message in messages %}{% set content = '<|start_header_id|>' + message['role'] + "
    "'<|end_header_id|>\n\n'+ message['content'] | trim + '<|eot_id|>' %}"
    "{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}{{ content }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
GEMMA = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}"
    "{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate') }}{% endif %}"
    "{% if (message['role'] == 'assistant') %}{% set role = 'model' %}"
    "{% else %}{% set role = message['role'] %}{% endif %}"
    "{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{'<start_of_turn>model\n'}}{% endif %}"
)
FOLDED = (
    "{% if messages[0]['role'] == 'system' %}{% set system = messages[0]['content'] + '\n\n' %}"
    "{% set said = messages[1:] %}{% else %}{% set system = '' %}{% set said = messages %}{% endif %}"
    "{{ bos_token }}{% for m in said %}{% if m['role'] == 'user' %}"
    "[INST] {{ (system if loop.first else '') + m['content'] }} [/INST]"
    "{% else %}{{ ' ' + m['content'] + eos_token }}{% endif %}{% endfor %}"
)
KNOWN = {"phi3": PHI3, "smollm2": SMOLLM2, "llama3": LLAMA3, "gemma": GEMMA, "folded": FOLDED}
# The system message goes to the last question: no text between two messages says that.
LAST = FOLDED.replace("system if loop.first", "system if loop.last")
THINKING = "{% for m in messages %}{{ m['role'] }}: {{ m['content'].split('</think>')[-1] }}\n{% endfor %}"
COUNTING = "{% for m in messages %}{{ loop.index }}: {{ m['content'] }}\n{% endfor %}"
TWICE = "{% for m in messages %}{{ m['content'] }}{{ m['content'] }}{% endfor %}"


@pytest.mark.parametrize("name", KNOWN)
def test_texts_give_what_the_template_renders(name: str) -> None:
    template = ChatTemplate(KNOWN[name], bos_token="<s>", eos_token="</s>")
    found = turns.describe(KNOWN[name], bos_token="<s>", eos_token="</s>")
    contents = ["Hi", " spaced\n", "three\n\nlines", "\u4f60\u597d"]
    for first, answer, second in product(contents, repeat=3):
        messages = [
            {"role": "user", "content": first},
            {"role": "assistant", "content": answer},
            {"role": "user", "content": second},
        ]
        assert turns.join(found, messages) == template.render(messages)
        if found["system_user"] is not None:
            messages.insert(0, {"role": "system", "content": "Be brief."})
            assert turns.join(found, messages) == template.render(messages)


@pytest.mark.parametrize(
    ("name", "takes"), [("phi3", True), ("smollm2", True), ("folded", True), ("gemma", False)]
)
def test_says_whether_a_system_message_is_taken(name: str, takes: bool) -> None:
    found = turns.describe(KNOWN[name], bos_token="<s>", eos_token="</s>")
    assert (found["system_user"] is not None) == takes


@pytest.mark.parametrize(("name", "trims"), [("phi3", False), ("llama3", True), ("gemma", True)])
def test_says_whether_white_space_goes(name: str, trims: bool) -> None:
    assert turns.describe(KNOWN[name], bos_token="<s>", eos_token="</s>")["trim"] is trims


def test_a_system_message_of_the_last_question_is_not_offered() -> None:
    found = turns.describe(LAST, bos_token="<s>", eos_token="</s>")
    assert found["start_system"] is None
    assert found["system_user"] is None


@pytest.mark.parametrize("template", [THINKING, COUNTING, TWICE], ids=["thinking", "counting", "twice"])
def test_a_template_that_is_not_texts_is_refused(template: str) -> None:
    with pytest.raises(UnsupportedError, match="the app cannot use this chat template"):
        turns.describe(template, bos_token="<s>", eos_token="</s>")
