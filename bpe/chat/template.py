"""Chat formats that are defined by a checkpoint's Jinja template."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from functools import cached_property
from typing import Any

from bpe.chat.fitting import fitted
from bpe.chat.jinja_template import compiled
from bpe.chat.llama3 import ROLES
from bpe.chat.messages import ChatFormat, Message, check_messages, documents_from, prompts_for_answer, tools_from
from bpe.chat.rendering import REASONING_FIELDS, TemplateDialog, map_strings
from bpe.errors import InputError
from bpe.text import without_surrogates
from bpe.tokenizer import Tokenizer

# The variables that hold texts of special tokens, as in tokenizer_config.json.
TOKEN_NAMES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
_DIALOG = frozenset(("messages", "tools", "documents", "add_generation_prompt"))


class TemplateChat(ChatFormat):
    """A chat format defined by a Jinja template. The ids are those of transformers' ``apply_chat_template``.

    Only the template's own text becomes a special token. Text of a message, a tool, a document or a variable that
    spells a special token, even in part, stays text; this is one difference from transformers. The role of a message
    counts as the template's text, since templates write tokens such as <|user|> from it. The other difference: forms of
    a message that the template cannot write are replaced by ones that it can (`bpe.chat.fitting`).

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
        name: The name of the template to use. Default: "tool_use" with tools if there is one, or else "default".
        tokens: The texts of other special tokens that templates use, such as ``{"pad_token": "<pad>"}``.
        origin: The file or directory of the template. The error for a dialog that the template rejects names it.

    Raises:
        InputError: When a template cannot be compiled, or there is no template of this name.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        template: str | Mapping[str, str],
        bos_token: str | None = None,
        eos_token: str | None = None,
        variables: Mapping[str, Any] | None = None,
        *,
        name: str | None = None,
        tokens: Mapping[str, str] | None = None,
        origin: str = "",
    ) -> None:
        sources = {"default": template} if isinstance(template, str) else dict(template)
        if name is None and "default" not in sources:
            raise InputError(
                f"no default chat template among {', '.join(sources) or 'none'}; name the one to use, or name one"
                ' "default"'
            )
        if name is not None and name not in sources:
            raise InputError(f"no chat template {name!r}; there are {', '.join(sorted(sources))}")
        self._tokenizer = tokenizer
        names = {"default": "default", "tool_use": "tool_use"} if name is None else {"default": name}
        used = {use: sources[name] for use, name in names.items() if name in sources}
        self._templates = {key: compiled(source) for key, source in used.items()}
        self._eos_token = eos_token
        self._origin = origin
        named = {"bos_token": bos_token, "eos_token": eos_token}  # undefined if there is none: None would be written
        given = {name: text for name, text in named.items() if text is not None} | {
            **(tokens or {}),
            **(variables or {}),
        }
        token_names = {*TOKEN_NAMES, *(tokens or {})}
        self._tokens = {name: text for name, text in given.items() if name in token_names and text is not None}
        self._variables = _plain(
            {name: value for name, value in given.items() if name not in self._tokens}, "variables"
        )
        for name in variables or {}:
            if name in _DIALOG:
                raise InputError(f"the variable {name!r} holds a part of the dialog; it cannot be set")
            if not self.reads(name):
                warnings.warn(f"the chat template does not read the variable {name!r}; it has no effect", stacklevel=2)

    @property
    def source(self) -> str:
        """The source of the template for dialogs without tools."""
        return self._templates["default"].source

    def reads(self, name: str) -> bool:
        """Return whether a template reads a variable."""
        return any(name in template.variables for template in self._templates.values())

    def writes(self, field: str) -> bool:
        if field == "tools":
            return self.reads("tools")
        names = REASONING_FIELDS if field in REASONING_FIELDS else (field,)
        return any(template.writes_all or not template.words.isdisjoint(names) for template in self._templates.values())

    @property
    def variable_names(self) -> list[str]:
        """The names of the variables that the templates read, other than the dialog and special tokens."""
        known = {name for template in self._templates.values() for name in template.variables}
        return sorted(known - _DIALOG - {"raise_exception", "strftime_now", *TOKEN_NAMES})

    @cached_property
    def end_ids(self) -> frozenset[int]:
        added = self._tokenizer.vocabulary.added_ids
        ends = {*self._tokenizer.eos_ids, *(added[name] for name in [self._eos_token] if name in added)}
        try:  # find the token that the template writes after an answer
            ids, mask = self.encode_with_mask([{"role": "user", "content": "?"}, {"role": "assistant", "content": "!"}])
        except InputError:
            return frozenset(ends)
        # {% generation %} blocks may leave out the token that ends the answer.
        last = max((place for place, written in enumerate(mask) if written), default=len(ids))
        following = [id for id in ids[last : last + 4] if id in added.values()]
        return frozenset(ends.union(following[:1]))

    def encode(
        self,
        messages: Sequence[Message],
        add_generation_prompt: bool | None = None,
        tools: Sequence[Mapping[str, Any]] | None = None,
        documents: Sequence[Mapping[str, Any]] | None = None,
        continue_final_message: bool | str = False,
    ) -> list[int]:
        prompted = prompts_for_answer(add_generation_prompt, continue_final_message, messages)
        dialog = self._dialog(messages, tools, documents, continue_final_message)
        rendering = dialog.rendering(dialog.render(prompted), prompted)
        if rendering.is_plain:
            return self._tokenizer.encode(rendering.text, allowed_special="all")
        ids: list[int] = []
        for _, text, special in rendering.parts():
            ids += self._tokenizer.encode_ordinary(text) if special is None else [special]
        return ids

    def render(
        self,
        messages: Sequence[Message],
        add_generation_prompt: bool | None = None,
        tools: Sequence[Mapping[str, Any]] | None = None,
        documents: Sequence[Mapping[str, Any]] | None = None,
        continue_final_message: bool | str = False,
    ) -> str:
        prompted = prompts_for_answer(add_generation_prompt, continue_final_message, messages)
        return self._dialog(messages, tools, documents, continue_final_message).render(prompted)

    def encode_with_mask(
        self,
        messages: Sequence[Message],
        tools: Sequence[Mapping[str, Any]] | None = None,
        learned: Collection[int] | None = None,
    ) -> tuple[list[int], list[bool]]:
        """Encode a dialog and mask what the assistant wrote; see `ChatFormat.encode_with_mask`.

        If the template has ``{% generation %}`` blocks, the assistant wrote the text within them. Otherwise the
        assistant wrote the text that an answer adds to the dialog before it, up to the special token that ends it. This
        requires a template that writes the beginning of a longer dialog like a shorter one. A token that the assistant
        wrote in part counts as the assistant's.
        """
        dialog = self._dialog(messages, tools)
        rendering = dialog.rendering(dialog.render(), marked=True)
        if dialog.template.marks_answers:
            spans = rendering.written if learned is None else dialog.written_by(rendering, learned)
        else:
            spans = list(dialog.answers(rendering, learned))
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

    def _dialog(
        self,
        messages: Sequence[Message],
        tools: Any,
        documents: Any = None,
        continue_final_message: bool | str = False,
    ) -> TemplateDialog:
        check_messages(messages)
        template = self._templates.get("tool_use" if tools is not None else "default", self._templates["default"])
        for name, value in (("tools", tools), ("documents", documents)):
            if value and name not in template.variables:
                warnings.warn(f"the chat template does not write {name}, so they have no effect", stacklevel=3)
        now = datetime.now()  # the same time in all renderings of one dialog
        dialog = TemplateDialog(
            self._tokenizer,
            template,
            [_with_reasoning(message) for message in _plain(messages, "messages")],
            _plain(tools_from(tools), "tools"),
            _plain(documents_from(documents), "documents"),
            self._variables,
            self._tokens,
            {"strftime_now": lambda format: now.strftime(format)},
            origin=self._origin,
        )
        dialog = dialog.with_messages(fitted(dialog.messages, lambda other: dialog.with_messages(other).render()))
        _require_all_written(dialog)
        if continue_final_message:
            return replace(dialog, continued="content" if continue_final_message is True else continue_final_message)
        return dialog


def _plain(value: Any, name: str) -> Any:
    """Return a copy in JSON's own types and without surrogates."""
    try:
        return map_strings(value, without_surrogates)
    except RecursionError:
        raise InputError(f"the {name} are nested too deeply") from None


def _with_reasoning(message: dict[str, Any]) -> dict[str, Any]:
    """Return a message without fields that are null, and with its reasoning under the names that templates read."""
    message = {name: value for name, value in message.items() if value is not None}
    reasoning = next((message[name] for name in REASONING_FIELDS if name in message), None)
    return message if reasoning is None else {"thinking": reasoning, **message, "reasoning_content": reasoning}


def _require_all_written(dialog: TemplateDialog) -> None:
    """Raise an error if the template leaves out a message because it does not know its role."""
    whole: str | None = None
    for index, message in enumerate(dialog.messages):
        if message["role"] not in ROLES and message.get("content"):
            whole = dialog.render() if whole is None else whole
            rest = dialog.with_messages(dialog.messages[:index] + dialog.messages[index + 1 :])
            if _renders_as(rest, whole):
                raise InputError(
                    f"message {index + 1}: the chat template leaves out messages of the role {message['role']!r}"
                )


def _renders_as(dialog: TemplateDialog, text: str) -> bool:
    try:
        return dialog.render() == text
    except InputError:
        return False


def _overlaps(places: Sequence[tuple[int, int]], spans: Sequence[tuple[int, int]]) -> list[bool]:
    """Return whether each place overlaps a span; both are in order."""
    result, next_span = [], 0
    for begin, end in places:
        while next_span < len(spans) and spans[next_span][1] <= begin:
            next_span += 1
        result.append(next_span < len(spans) and spans[next_span][0] < end)
    return result
