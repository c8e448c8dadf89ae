"""The settings that /set changes during a chat."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from bpe.errors import InputError
from model.generation.conversation import Conversation


@dataclass(frozen=True)
class Setting:
    """A setting of a chat."""

    kind: type
    """int, float or str."""
    help: str
    absent: Any = None
    """The value while it is not set."""


SETTINGS: Mapping[str, Setting] = {
    "system": Setting(str, "system message"),
    "temperature": Setting(float, "0 always takes the most likely token", 0.8),
    "top_k": Setting(int, "sample from the N most likely tokens"),
    "top_p": Setting(float, "sample from the most likely tokens that sum to X"),
    "min_p": Setting(float, "drop tokens less likely than X times the most likely"),
    "repetition_penalty": Setting(float, "above 1: tokens that have occurred are less likely", 1.0),
    "frequency_penalty": Setting(float, "subtracted for each time a token was generated", 0.0),
    "presence_penalty": Setting(float, "subtracted once if a token was generated", 0.0),
    "seed": Setting(int, "the same seed gives the same answers"),
    "max_tokens": Setting(int, "largest number of tokens in an answer", 256),
    "stop": Setting(str, "text to stop before"),
    "prefill": Setting(str, "text that each answer begins with"),
}
"""The settings by name, in the order in which they are shown."""

_OTHER_NAMES = {"num_predict": "max_tokens", "repeat_penalty": "repetition_penalty", "system_prompt": "system"}
_OF_DRAWING = ("top_k", "top_p", "min_p", "seed")  # without effect where the most likely token is always taken
NONE, DEFAULT = "none", "default"


class Settings:
    """The settings of a conversation, as text."""

    def __init__(self, conversation: Conversation) -> None:
        """Remember the values of now, to which "default" returns."""
        self._conversation = conversation
        self._first = {name: self.value(name) for name in SETTINGS}

    def value(self, name: str) -> Any:
        """Return the value of a setting; None if there is none."""
        if name == "system":
            return self._conversation.system
        if name == "prefill":
            return self._conversation.prefill or None
        value = self._conversation.settings.get(name, SETTINGS[name].absent)
        return (value or None) if name == "stop" else value

    def shown(self, name: str) -> str:
        """Return the value of a setting as text."""
        value = self.value(name)
        if value is None:
            return NONE
        return ", ".join(map(repr, value)) if isinstance(value, tuple) else str(value)

    def set(self, name: str, text: str) -> str:
        """Change a setting, and return a line that says so.

        Args:
            name: Its name.
            text: The value; "none" removes it, and "default" returns to the value at the start.

        Raises:
            InputError: When there is no such setting, or the value is out of range; the setting is then unchanged.
        """
        name = setting_name(name)
        self._assign(name, self._parsed(name, text))
        line = f"{name} is now {self.shown(name)}" if self.value(name) is not None else f"{name} is no longer set"
        if name in _OF_DRAWING and self.value("temperature") == 0:
            line += "; it has no effect while temperature is 0"
        return line

    def _parsed(self, name: str, text: str) -> Any:
        setting = SETTINGS[name]
        if text.lower() == DEFAULT:
            return self._first[name]
        if text.lower() == NONE:
            if setting.absent is not None:
                raise InputError(f"/set {name}: it always has a value; {setting.absent} has no effect" if name.endswith(
                    "penalty") else f"/set {name}: it always has a value; give a number")  # fmt: skip
            return None
        if setting.kind is str:
            return (text,) if name == "stop" else text
        try:
            return setting.kind(text)
        except ValueError:
            kind = "a whole number" if setting.kind is int else "a number"
            raise InputError(f"/set {name} {text}: {text!r} is not {kind}") from None

    def _assign(self, name: str, value: Any) -> None:
        if name == "system":
            self._conversation.system = value
        elif name == "prefill":
            self._conversation.prefill = value or ""
        elif name == "stop":
            self._conversation.settings[name] = value or ()
        else:
            _check(name, value)
            self._conversation.settings[name] = value


def setting_name(name: str) -> str:
    """Return the name of a setting in the form of `SETTINGS`.

    Raises:
        InputError: When there is no such setting; the message names the likeliest.
    """
    plain = name.lower().replace("-", "_")
    plain = _OTHER_NAMES.get(plain, plain)
    if plain in SETTINGS:
        return plain
    likely = get_close_matches(plain, SETTINGS, 1, 0.6)
    meant = f"; did you mean {likely[0]}?" if likely else f"; the settings are {', '.join(SETTINGS)}"
    raise InputError(f"/set {name}: there is no such setting{meant}")


def _check(name: str, value: Any) -> None:
    from model.generation.sampling import Sampling

    if name != "max_tokens":
        Sampling(**{name: value})
    elif value < 1:
        raise InputError(f"max_tokens is {value}; it must be at least 1")
