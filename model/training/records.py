"""Records of training data, in the forms that people have them: messages, ShareGPT, prompts, instructions, preferences.

Each record becomes messages in the form of `bpe.chat`, with the indices of the answers to learn. Keys that would change
what is learned are obeyed or refused. Keys that nothing reads are counted, unless they are known to be metadata.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bpe.chat import ChatFormat
from bpe.errors import InputError

DIALOG_FORMS = (
    '"messages"; "conversations" (ShareGPT); "prompt" and "completion"; "instruction", "input" and "output" (Alpaca)'
)
PREFERENCE_FORMS = (
    '"prompt", "chosen" and "rejected"; "chosen" and "rejected" as whole dialogs; "input", "preferred_output" and'
    ' "non_preferred_output" (OpenAI)'
)

_ROLES = {
    "human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "bot": "assistant",
    "chatgpt": "assistant", "model": "assistant", "system": "system", "tool": "tool", "observation": "tool",
    "function": "tool", "function_response": "tool", "function_call": "assistant",
}  # fmt: skip
"""ShareGPT's names of roles."""

_OBEYED = ("weight", "train", "training")
_REFUSED = frozenset((
    "loss", "loss_mask", "loss_weight", "weights", "mask", "masks", "masked", "mask_history", "assistant_masks",
    "completion_mask", "label", "labels", "train_detail", "train_on_inputs", "train_on_input", "train_on_prompt",
    "trainable", "learn", "no_loss", "ignore", "ignored", "input_ids", "attention_mask", "segments",
    "chat_template_kwargs", "chat_template", "documents", "function_call", "functions", "prefix",
))  # fmt: skip
"""Keys that elsewhere change what a model reads or learns, and that this project does not implement."""

_METADATA = frozenset((
    "id", "idx", "index", "uuid", "hash", "prompt_id", "conversation_id", "conversation_hash", "message_id",
    "parent_id",
    "question_id", "source", "sources", "origin", "dataset", "data_source", "subset", "split", "url", "link", "title",
    "author", "license", "created", "created_at", "date", "time", "timestamp", "language", "lang", "category",
    "categories", "topic", "tag", "tags", "domain", "task", "type", "difficulty", "quality", "rating", "score",
    "scores",
    "score_chosen", "score_rejected", "chosen_score", "rejected_score", "chosen_rating", "rejected_rating",
    "chosen_model", "rejected_model", "chosen-model", "rejected-model", "chosen-rating", "rejected-rating", "model",
    "model_name", "generator", "metadata", "meta", "extra", "notes", "comment", "num_turns", "turn", "turns",
    "n_tokens",
    "num_tokens", "token_count", "length", "version", "toxic", "redacted", "parallel_tool_calls", "name",
    "tool_call_id",
    "stop_reason", "refusal", "annotations", "audio",
))  # fmt: skip
"""Keys of records and messages that change nothing."""

_HUMAN = re.compile(r"(?:^|\n\n)(Human|Assistant):")


@dataclass
class Notes:
    """What was noticed while records were read: how many have keys without effect, and how many have no end."""

    unread: Counter[str] = field(default_factory=Counter)
    dialogs: int = 0
    no_end: int = 0
    left_out: int = 0

    def lines(self, learn_end: bool | None) -> list[str]:
        """Return what a person has to know before training, a line for each subject."""
        lines = []
        if self.no_end and learn_end is None:
            lines.append(
                f"warning: {self.no_end:,} of {self.dialogs:,} dialogs: the chat template writes no token that ends"
                " an answer, so the model does not learn to stop; give --learn-end to learn one after the last answer"
            )
        elif self.no_end and learn_end:
            lines.append(
                f"warning: {self.no_end:,} of {self.dialogs:,} dialogs have answers without a token that ends them;"
                " one was added after the last answer"
            )
        if self.left_out and learn_end is None:
            lines.append(
                f"warning: {self.left_out:,} of {self.dialogs:,} dialogs: the {{% generation %}} blocks of the chat"
                " template leave out the token that ends an answer; it is learned too (--no-learn-end to leave it out)"
            )
        if self.unread:
            found = ", ".join(f"{key} in {count:,}" for key, count in sorted(self.unread.items()))
            lines.append(f"warning: keys of records that have no effect: {found}; remove them if that is right")
        return lines


@dataclass(frozen=True)
class Record:
    """A dialog.

    Attributes:
        messages: Messages in the form of `bpe.chat`.
        learned: Indices of the assistant's messages to learn.
        tools: The tools that the model may call, or None.
    """

    messages: list[Mapping[str, Any]]
    learned: frozenset[int]
    tools: Any = None


class Reader:
    """Reads records for a chat format.

    Args:
        chat_format: The chat format, which decides which fields of messages have an effect.
        notes: Where to count what was noticed.
    """

    def __init__(self, chat_format: ChatFormat, notes: Notes) -> None:
        self._chat_format, self._notes = chat_format, notes

    def dialog(self, place: str, record: Mapping[str, Any]) -> Record:
        """Return the dialog of a record.

        Raises:
            InputError: When the record has none of the known forms, or a key that cannot be obeyed.
        """
        values = _present(record)
        if values.keys() >= {"messages", "conversations"}:
            raise InputError(f'{place}: both "messages" and "conversations"; remove one of them')
        for key in ("messages", "conversations"):
            if key in values:
                messages = self._with_system(place, values, self._messages(place, values[key], key))
                repeated = {"prompt"} if any(m.get("content") == values.get("prompt") for m in messages) else set()
                return self._record(place, values, messages, 0, {key, "system", *repeated})
        prompt, used = self._prompt(place, values)
        answer = next((key for key in ("completion", "output", "response", "answer") if key in values), None)
        if prompt and answer:
            completion = self._answer(place, values[answer], answer)
            if isinstance(values.get("prompt"), str) and len(prompt) == 1 and _opens(completion):
                begin = next((n for n, each in enumerate(completion, 1) if _same_text(each, prompt[0])), 0)
                prompt, completion = (completion[:begin] or prompt), completion[begin:]
            completion = _without_prompt(place, answer, prompt, completion)
            return self._record(place, values, prompt + completion, len(prompt), {answer, "system", *used})
        raise InputError(f"{place}: {_no_form(values)}")

    def preference(self, place: str, record: Mapping[str, Any]) -> tuple[Record, Record]:
        """Return the preferred and the other dialog of a record.

        Raises:
            InputError: As for `dialog`, or when the two dialogs do not begin in the same way.
        """
        values = _openai(_present(record))
        if missing := [key for key in ("chosen", "rejected") if key not in values]:
            found = ", ".join(map(repr, values)) or "none"
            raise InputError(
                f'{place}: "{missing[0]}" must be a list of {{"role": ..., "content": ...}}, or a string;'
                f" the keys are {found}; a preference has {PREFERENCE_FORMS}"
            )
        prompt, used = self._prompt(place, values)
        chosen, rejected = (self._answer(place, values[key], key, bool(prompt)) for key in ("chosen", "rejected"))
        if chosen == rejected:
            raise InputError(f"{place}: chosen and rejected are the same")
        if values.get("messages") in (values["chosen"], values["rejected"]):
            used.add("messages")
        _refuse_repeated_text(place, values)
        shared = _shared(chosen, rejected)
        if prompt and isinstance(values.get("prompt"), str) and shared and _opens(chosen) and _opens(rejected):
            # Whole dialogs: as in trl, what they have in common is the prompt. The text must be in it.
            if not any(_same_text(message, prompt[-1]) for message in shared):
                raise InputError(f'{place}: "prompt" is in neither of the dialogs; remove it, or correct it')
            prompt, chosen, rejected = shared, chosen[len(shared) :], rejected[len(shared) :]
        elif prompt:
            chosen = _without_prompt(place, "chosen", prompt, chosen)
            rejected = _without_prompt(place, "rejected", prompt, rejected)
        elif shared:
            prompt, chosen, rejected = shared, chosen[len(shared) :], rejected[len(shared) :]
            prompt = self._with_system(place, values, prompt)
        else:
            raise InputError(f"{place}: chosen and rejected begin differently; give both dialogs the same question")
        used |= {"chosen", "rejected", "system"}
        return (
            self._record(place, values, prompt + chosen, len(prompt), used),
            self._record(place, values, prompt + rejected, len(prompt), used, quiet=True),
        )

    def _prompt(self, place: str, values: Mapping[str, Any]) -> tuple[list[Any], set[str]]:
        """Return the messages before the answer, and the keys that they were read from."""
        key = next((key for key in ("prompt", "instruction", "question", "conversations") if key in values), None)
        if key is None:
            return [], set()
        if key == "conversations":
            return self._with_system(place, values, self._messages(place, values[key], key)), {key}
        used, value = {key}, values[key]
        if key == "instruction" and isinstance(value, str):
            for more in ("input", "context"):
                if more in values:
                    if not isinstance(values[more], str):
                        raise InputError(f'{place}: "{more}" must be text')
                    value = f"{value}\n{values[more]}" if values[more] else value
                    used.add(more)
            used |= {"text"} if "text" in values else set()  # Alpaca's files repeat all of the record there
        history = values.get("history") or []
        used |= {"history"} if "history" in values else set()
        turns = [message for turn in history for message in _turn(place, turn)] if isinstance(history, list) else None
        if turns is None:
            raise InputError(f'{place}: "history" must be a list of [question, answer]')
        if isinstance(value, str) and key == "prompt" and _is_hh(value):
            messages = _from_hh(place, key, value)
        elif isinstance(value, str):
            messages = [{"role": "user", "content": value}]
        else:
            messages = self._messages(place, value, key, ", or a string")
        return self._with_system(place, values, [*turns, *messages]), used

    def _answer(self, place: str, value: Any, key: str, has_prompt: bool = True) -> list[Any]:
        if isinstance(value, Mapping):
            value = [value]
        if not isinstance(value, str):
            return self._messages(place, value, key, ", or a string")
        if not has_prompt:
            if not _is_hh(value):
                raise InputError(
                    f'{place}: "{key}" is text, and there is no "prompt"; add the question as "prompt", or give whole'
                    ' dialogs as lists of {"role": ..., "content": ...}'
                )
            return _from_hh(place, key, value)
        if _is_whole_hh(value):  # the question stands in the prompt and here
            return _from_hh(place, key, value)
        return [{"role": "assistant", "content": value}]

    def _messages(self, place: str, value: Any, key: str, other: str = "") -> list[Any]:
        if not isinstance(value, list) or not value:
            raise InputError(f'{place}: "{key}" must be a list of {{"role": ..., "content": ...}}{other}')
        return [_message(f"{place}: message {number}", each) for number, each in enumerate(value, 1)]

    def _with_system(self, place: str, values: Mapping[str, Any], messages: list[Any]) -> list[Any]:
        system = values.get("system")
        if not system:
            return messages
        if not isinstance(system, str):
            raise InputError(f'{place}: "system" must be text')
        own = messages[0].get("content") if isinstance(messages[0], Mapping) and messages[0].get("role") == "system" \
            else None  # fmt: skip
        if own is not None and own != system:
            raise InputError(f'{place}: "system" and a message of the system differ; remove one of them')
        return messages if own is not None else [{"role": "system", "content": system}, *messages]

    def _record(
        self,
        place: str,
        values: Mapping[str, Any],
        messages: list[Any],
        begin: int,
        used: set[str],
        quiet: bool = False,
    ) -> Record:
        """Return a record that learns answers from the message `begin` on."""
        unread = self._check_keys(place, values, used | {"tools"})
        learned = set()
        clean = []
        for index, message in enumerate(messages):
            if isinstance(message, Mapping):
                learns, more = self._message_keys(f"{place}: message {index + 1}", message)
                unread |= more
                if learns and index >= begin:
                    learned.add(index)
                message = {key: value for key, value in message.items() if key not in _OBEYED}
            clean.append(message)
        tools = values.get("tools") or None
        if tools and not self._chat_format.writes("tools"):
            unread.add("tools")
        if not quiet:
            self._notes.unread.update(unread)
        return Record(clean, frozenset(learned), tools)

    def _check_keys(self, place: str, values: Mapping[str, Any], used: set[str]) -> set[str]:
        unread = set()
        for key, value in values.items():
            if key in used or key in _METADATA:
                continue
            if key in _REFUSED:
                raise InputError(f'{place}: "{key}" would change what is learned, but is not supported; remove it')
            if key in _OBEYED:
                if value is not True and value != 1:
                    raise InputError(
                        f'{place}: "{key}" of a whole record is {json.dumps(value)}; remove the record, or set the'
                        ' "weight" of messages'
                    )
                continue
            unread.add(key)
        return unread

    def _message_keys(self, place: str, message: Mapping[str, Any]) -> tuple[bool, set[str]]:
        """Return whether the message is to be learned, and the keys that have no effect."""
        is_answer, unread = message.get("role") == "assistant", set()
        weights = {key: message[key] for key in _OBEYED if message.get(key) is not None}
        for key, weight in weights.items():
            if type(weight) not in (int, float, bool) or weight not in (0, 1):
                raise InputError(
                    f'{place}: "{key}" is {json.dumps(weight)}; only 1 (learned) and 0 (not learned) are supported'
                )
            if weight and not is_answer:
                raise InputError(
                    f'{place}: "{key}" is {json.dumps(weight)} in a message of the role {message.get("role")!r}; only'
                    " the assistant's messages are learned, so remove it"
                )
        if len({bool(weight) for weight in weights.values()}) > 1:
            raise InputError(f"{place}: {' and '.join(weights)} contradict each other; remove one of them")
        for key, value in message.items():
            if value is None or key in _OBEYED or key in ("role", "content") or self._chat_format.writes(key):
                continue
            if key in _REFUSED:
                raise InputError(f'{place}: "{key}" would change what is learned, but is not supported; remove it')
            if key not in _METADATA and not (value == [] or value == ""):
                unread.add(f"{key} (of messages)")
        return is_answer and all(map(bool, weights.values())), unread


def _present(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return a record without the keys that are null, as files converted from tables have them."""
    return {key: value for key, value in record.items() if value is not None}


def _message(place: str, value: Any) -> Any:
    """Return a message, from ShareGPT's form if it has that."""
    if not isinstance(value, Mapping) or "from" not in value:
        return value
    if not isinstance(value["from"], str) or value["from"] not in _ROLES:
        raise InputError(f'{place}: "from" is {value["from"]!r}; it must be one of {", ".join(_ROLES)}')
    if "role" in value or "content" in value:
        raise InputError(f'{place}: both "from" and "role" or "content"; remove one of them')
    rest = {key: each for key, each in value.items() if key not in ("from", "value")}
    role, text = _ROLES[value["from"]], value.get("value")
    if not isinstance(text, str):
        raise InputError(f'{place}: "value" must be text')
    if value["from"] == "function_call":
        try:
            calls = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise InputError(f'{place}: a function_call must be JSON, {{"name": ..., "arguments": ...}}') from error
        calls = calls if isinstance(calls, list) else [calls]
        return {"role": role, "content": "", "tool_calls": [{"type": "function", "function": each} for each in calls],
                **rest}  # fmt: skip
    return {"role": role, "content": text, **rest}


def _turn(place: str, turn: Any) -> list[dict[str, str]]:
    if not (isinstance(turn, list) and len(turn) == 2 and all(isinstance(text, str) for text in turn)):
        raise InputError(f'{place}: "history" must be a list of [question, answer]')
    return [{"role": "user", "content": turn[0]}, {"role": "assistant", "content": turn[1]}]


def _is_hh(text: str) -> bool:
    """Return whether a text is a dialog of Anthropic's HH data."""
    return text.startswith(("\n\nHuman:", "Human:"))


def _is_whole_hh(text: str) -> bool:
    return _is_hh(text) and "\n\nAssistant:" in text


def _from_hh(place: str, key: str, text: str) -> list[dict[str, str]]:
    """Return the messages of a dialog of Anthropic's HH data. An empty turn of the assistant at its end is left out."""
    parts = _HUMAN.split(text)
    roles = {"Human": "user", "Assistant": "assistant"}
    messages = [
        {"role": roles[name], "content": said.strip()} for name, said in zip(parts[1::2], parts[2::2], strict=True)
    ]
    if messages[-1]["role"] == "assistant" and not messages[-1]["content"] and key == "prompt":
        messages.pop()
    return messages


def _openai(values: dict[str, Any]) -> dict[str, Any]:
    """Return a preference in OpenAI's form under the usual keys."""
    if "preferred_output" not in values or not isinstance(values.get("input"), Mapping):
        return values
    given = _present(values["input"])
    rest = {key: value for key, value in values.items()
            if key not in ("input", "preferred_output", "non_preferred_output")}  # fmt: skip
    named = {"prompt": given.pop("messages", None), "chosen": values["preferred_output"],
             "rejected": values.get("non_preferred_output")}  # fmt: skip
    return _present({**rest, **given, **named})


def _same(one: Any, other: Any) -> bool:
    if not (isinstance(one, Mapping) and isinstance(other, Mapping)):
        return bool(one == other)
    ignored = {*_OBEYED, *_METADATA}
    return {k: v for k, v in one.items() if v is not None and k not in ignored} == {
        k: v for k, v in other.items() if v is not None and k not in ignored
    }


def _same_text(one: Any, other: Any) -> bool:
    texts = [each.get("content") if isinstance(each, Mapping) else None for each in (one, other)]
    return isinstance(texts[0], str) and isinstance(texts[1], str) and texts[0].strip() == texts[1].strip()


def _shared(chosen: Sequence[Any], rejected: Sequence[Any]) -> list[Any]:
    """Return the messages that two dialogs have in common at their beginnings, as trl's extract_prompt does."""
    count = 0
    while count < min(len(chosen), len(rejected)) and _same(chosen[count], rejected[count]):
        count += 1
    return list(chosen[:count])


def _opens(messages: Sequence[Any]) -> bool:
    """Return whether messages begin a dialog: with another role than those that answer a prompt."""
    return isinstance(messages[0], Mapping) and messages[0].get("role") not in ("assistant", "tool", "ipython")


def _without_prompt(place: str, key: str, prompt: Sequence[Any], answer: list[Any]) -> list[Any]:
    """Return an answer without the prompt, which it may repeat.

    Raises:
        InputError: When the answer begins with a question that is not the prompt.
    """
    if not answer or not _opens(answer):
        return answer
    if len(answer) > len(prompt) and all(map(_same, prompt, answer)):
        return answer[len(prompt) :]
    role = answer[0].get("role")
    raise InputError(
        f'{place}: "{key}" begins with a message of the {role} that is not the prompt; leave out one of them'
    )


def _refuse_repeated_text(place: str, values: Mapping[str, Any]) -> None:
    prompt, chosen, rejected = (values.get(key) for key in ("prompt", "chosen", "rejected"))
    if not (isinstance(prompt, str) and isinstance(chosen, str) and isinstance(rejected, str)):
        return
    if _is_whole_hh(chosen) and _is_whole_hh(rejected):
        return
    # An answer may begin with a short prompt by chance.
    if len(prompt.split()) > 3 and chosen.startswith(prompt) and rejected.startswith(prompt):
        raise InputError(f"{place}: chosen and rejected repeat the prompt; remove it from both")


def _no_form(values: Mapping[str, Any]) -> str:
    found = ", ".join(map(repr, values)) or "none"
    if "chosen" in values and "rejected" in values:
        return f"a preference (the keys are {found}); train on it with preferences (--preferences)"
    if "text" in values:
        return f"a plain text (the keys are {found}); train on it with text (--text)"
    return f"no dialog: the keys are {found}; a record has {DIALOG_FORMS}"
