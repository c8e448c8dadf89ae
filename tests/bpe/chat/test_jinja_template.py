"""Templates that are harmful, fail, or cannot be compiled."""

from __future__ import annotations

import pytest

from bpe import InputError, Tokenizer
from bpe.chat import TemplateChat
from support.chat_dialogs import user


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("{{ messages[0].content.__class__.__mro__ }}", "unsafe"),
        ("{{ raise_exception.__globals__['json'] }}", "unsafe"),
        ("{{ strftime_now.__globals__['json'] }}", "unsafe"),
        ("{{ messages.append(1) }}", "unsafe"),
        ("{{ range(10 ** 9) }}", "Range too big"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "recursion"),
        ("{% set text = 'spam ' * 1000 %}{% for a in range(99999) %}{{ text }}{% endfor %}", "16,777,216 characters"),
        ("{{ raise_exception('Only\n two roles!') }}", "Only two roles!"),
        ("{{ messages[0]['content'] + 1 }}", "str"),
        ("{{ 1 / 0 }}", "division by zero"),
        ("{{ nothing.at.all }}", "nothing"),
        ("{% include '/etc/passwd' %}", "no loader"),
    ],
)
def test_harmful_or_failing_template_raises_a_one_line_error(small: Tokenizer, template: str, words: str) -> None:
    with pytest.raises(InputError, match=f"the chat template rejects the dialog or fails: .*{words}") as error:
        TemplateChat(small, template).encode([user("Hi")])
    assert "\n" not in str(error.value)
    assert str(error.value).endswith("; change the messages, or use another template")


@pytest.mark.parametrize(
    "template", ["{% if %}", "{{", "{% generation %}", "{{ a | no_such_filter }}", "(" * 9 + "{{" + "(" * 9999]
)
def test_template_that_cannot_be_compiled_raises_a_one_line_error(small: Tokenizer, template: str) -> None:
    with pytest.raises(InputError, match="the chat template cannot be compiled: ") as error:
        TemplateChat(small, template)
    assert "\n" not in str(error.value)
