"""Chat formats that are defined by a checkpoint's Jinja template."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import cached_property
from typing import Any

from bpe.chat.jinja_template import JinjaTemplate
from bpe.chat.messages import ChatFormat, Message, check_messages
from bpe.chat.rendering import TemplateDialog, map_strings
from bpe.errors import InputError
from bpe.text import without_surrogates
from bpe.tokenizer import Tokenizer


class TemplateChat(ChatFormat):
    """A chat format defined by a Jinja template. The ids are those of transformers' ``apply_chat_template``.

    Only the template's own text becomes a special token. Text of a message that spells a special token, even in part,
    stays text; this is the one difference from transformers. If a template branches on such text, as templates do that
    cut off thoughts at a special token "</think>", the dialog is refused.

    The template decides whether the ids of a longer dialog begin with those of a shorter one. In most templates they
    do. In templates that write the system message into the last question, or drop thoughts from earlier answers, they
    do not.

    A template is a program. The sandbox keeps it from files and from Python, and its output is bounded, but its time
    and memory cannot be.

    Args:
        tokenizer: The tokenizer, whose special tokens the template writes.
        template: The source of the template, or of several templates by name: "default", and "tool_use" for dialogs
            with tools.
        bos_token: The text of the token that begins a text, which templates use.
        eos_token: The text of the token that ends a text, which templates use. It ends the assistant's turn as well.
        variables: More variables for the template, such as ``{"enable_thinking": False}``.

    Raises:
        InputError: When a template cannot be compiled, or there is no default template.
        ModuleNotFoundError: When jinja2 is not installed.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        template: str | Mapping[str, str],
        bos_token: str | None = None,
        eos_token: str | None = None,
        variables: Mapping[str, Any] | None = None,
    ) -> None:
        sources = {"default": template} if isinstance(template, str) else dict(template)
        if "default" not in sources:
            raise InputError(f'no default chat template among {", ".join(sources) or "none"}; name one "default"')
        self._tokenizer = tokenizer
        self._templates = {name: JinjaTemplate(source) for name, source in sources.items()}
        self._eos_token = eos_token
        given = {"bos_token": bos_token, "eos_token": eos_token, **(variables or {})}
        self._variables = {name: value for name, value in given.items() if value is not None}

    @cached_property
    def end_ids(self) -> frozenset[int]:
        special = self._tokenizer.special_tokens
        ends = {*self._tokenizer.eos_ids, *(special[name] for name in [self._eos_token] if name in special)}
        try:  # find the token that the template writes after an answer
            ids, mask = self.encode_with_mask([{"role": "user", "content": "?"}, {"role": "assistant", "content": "!"}])
        except InputError:
            return frozenset(ends)
        last = [id for id, written in zip(ids, mask, strict=True) if written][-1:]
        return frozenset(ends.union(id for id in last if self._tokenizer.is_special_token(id)))

    def encode(
        self,
        messages: Sequence[Message],
        add_generation_prompt: bool = True,
        tools: Sequence[Mapping[str, Any]] | None = None,
    ) -> list[int]:
        dialog = self._dialog(messages, tools)
        rendering = dialog.rendering(dialog.render(add_generation_prompt), add_generation_prompt)
        ids: list[int] = []
        for _, text, special in rendering.parts():
            ids += self._tokenizer.encode_ordinary(text) if special is None else [special]
        return ids

    def encode_with_mask(
        self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]] | None = None
    ) -> tuple[list[int], list[bool]]:
        """Encode a dialog and mask what the assistant wrote; see `ChatFormat.encode_with_mask`.

        If the template has ``{% generation %}`` blocks, the assistant wrote the text within them. Otherwise the
        assistant wrote the text that an answer adds to the dialog before it, up to the special token that ends it. This
        requires a template that writes the beginning of a longer dialog like a shorter one. A token that the assistant
        wrote in part counts as the assistant's.
        """
        dialog = self._dialog(messages, tools)
        rendering = dialog.rendering(dialog.render(), marked=True)
        spans = rendering.written if dialog.template.marks_answers else list(dialog.answers(rendering))
        ids: list[int] = []
        mask: list[bool] = []
        for begin, text, special in rendering.parts():
            if special is None:
                part, places = self._tokenizer.encode_with_offsets(text)
            else:
                part, places = [special], [(0, len(text))]
            ids += part
            mask += _overlaps([(begin + start, begin + end) for start, end in places], spans)
        return ids, mask

    def _dialog(self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]] | None) -> TemplateDialog:
        check_messages(messages)
        template = self._templates.get("tool_use" if tools else "default", self._templates["default"])
        now = datetime.now()  # the same time in all renderings of one dialog
        variables = {**self._variables, "strftime_now": lambda format: now.strftime(format)}
        return TemplateDialog(
            self._tokenizer, template, _plain(messages, "messages"), _plain(tools, "tools"), variables
        )


def _plain(value: Any, name: str) -> Any:
    """Return a copy in JSON's own types and without surrogates."""
    try:
        return map_strings(value, without_surrogates)
    except RecursionError:
        raise InputError(f"the {name} are nested too deeply") from None


def _overlaps(places: Sequence[tuple[int, int]], spans: Sequence[tuple[int, int]]) -> list[bool]:
    """Return whether each place overlaps a span; both are in order."""
    result, next_span = [], 0
    for begin, end in places:
        while next_span < len(spans) and spans[next_span][1] <= begin:
            next_span += 1
        result.append(next_span < len(spans) and spans[next_span][0] < end)
    return result
