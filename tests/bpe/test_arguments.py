from __future__ import annotations

import inspect
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypedDict

import numpy as np
import pytest

from bpe import InputError, train, train_from_counts, train_from_iterator
from bpe.arguments import checked
from bpe.errors import ArgumentError

Side = Literal["left", "right"]


class Options(TypedDict, total=False):
    width: int
    fill: str


@dataclass
class Settings:
    width: int = 8
    fill: str = " "


@checked(options=Options, settings=Settings)
def pad(text: str, side: Side = "left", *, times: float = 1, **options: Any) -> tuple[Any, ...]:
    """Return the arguments."""
    return text, side, times, options


@checked
def take(
    path: str | os.PathLike[str] | None = None,
    names: Sequence[str] = (),
    biases: Mapping[int, float] | None = None,
    exact: bool = False,
    unchecked: Settings | None = None,
) -> tuple[Any, ...]:
    return path, names, biases, exact, unchecked


class Padder:
    @checked
    def __init__(self, width: int = 8) -> None:
        self.width = width


def test_arguments_reach_the_function_as_they_are() -> None:
    assert pad("a", "right", times=np.float32(2), width=np.int64(3)) == ("a", "right", 2, {"width": 3})
    settings = Settings()
    for value in (None, "a", Path("a")):
        assert take(value, ["a"], {1: 2.0}, np.bool_(True), settings)[0] == value
    assert take(names=("a",), unchecked=3) == (None, ("a",), None, False, 3)  # type: ignore[arg-type]
    assert Padder(width=3).width == 3


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: pad("a", widht=3), "pad() got an unexpected keyword argument 'widht'; did you mean width?"),
        (lambda: pad("a", tmes=3), "pad() got an unexpected keyword argument 'tmes'; did you mean times?"),
        (lambda: take(pth="a"), "take() got an unexpected keyword argument 'pth'; did you mean path?"),  # type: ignore[call-arg]
        (lambda: Padder(widht=3), "Padder() got an unexpected keyword argument 'widht'; did you mean width?"),  # type: ignore[call-arg]
        (
            lambda: pad("a", elephant=3),
            "pad() got an unexpected keyword argument 'elephant'; it takes fill, side, text, times, width",
        ),
    ],
)
def test_an_unknown_keyword_raises_with_the_likeliest(call: Any, message: str) -> None:
    with pytest.raises(TypeError) as raised:
        call()
    assert str(raised.value) == message


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: pad("a", width="3"), "width is '3'; expected a whole number"),
        (lambda: pad("a", width=1.5), "width is 1.5; expected a whole number"),
        (lambda: pad("a", width=True), "width is True; expected a whole number"),
        (lambda: pad("a", fill=3), "fill is 3; expected a string"),
        (lambda: pad("a", times="hot"), "times is 'hot'; expected a number"),
        (lambda: pad(b"a"), "text is b'a'; expected a string"),
        (lambda: pad("a", "lft"), "side is 'lft'; expected 'left' or 'right'; did you mean left?"),
        (lambda: take(3), "path is 3; expected a string, a path or None"),
        (lambda: take(names="abc"), "names is 'abc'; expected a list, such as ['abc']"),
        (lambda: take(biases=[1]), "biases is [1]; expected a mapping or None"),
        (lambda: take(exact=1), "exact is 1; expected true or false"),
        (lambda: take([0] * 50), f"path is {str([0] * 50)[:57]}...; expected a string, a path or None"),
    ],
)
def test_a_value_of_a_wrong_type_raises_with_the_right_types(call: Any, message: str) -> None:
    with pytest.raises(ArgumentError) as raised:
        call()
    assert str(raised.value) == message
    assert isinstance(raised.value, TypeError)
    assert isinstance(raised.value, InputError)


def test_the_signature_lists_the_options_with_their_defaults() -> None:
    parameters = inspect.signature(pad).parameters
    assert list(parameters) == ["text", "side", "times", "width", "fill"]
    assert parameters["width"].default == 8
    assert parameters["width"].annotation == "int"
    assert (pad.__name__, pad.__doc__) == ("pad", "Return the arguments.")


@pytest.mark.parametrize("function", [train, train_from_iterator, train_from_counts])
def test_training_names_the_likeliest_option_and_refuses_wrong_types(function: Any) -> None:
    source = {"a b": 1} if function is train_from_counts else ["a b"]
    with pytest.raises(TypeError, match=rf"{function.__name__}\(\) .*'vocabsize'; did you mean vocab_size\?"):
        function(source, vocabsize=300)
    with pytest.raises(TypeError, match=rf"{function.__name__}\(\) .*'min_frequncy'; did you mean min_frequency\?"):
        function(source, 300, min_frequncy=2)
    with pytest.raises(ArgumentError, match="vocab_size is '300'; expected a whole number"):
        function(source, "300")
    with pytest.raises(ArgumentError, match=r"special_tokens is .*; expected a list or None, such as"):
        function(source, 300, special_tokens="<|a|>")


def test_train_refuses_paths_and_progress_of_a_wrong_type() -> None:
    with pytest.raises(ArgumentError, match="paths is 5; expected a path, or a list of paths"):
        train(5, 600)  # type: ignore[call-overload]
    with pytest.raises(ArgumentError, match="progress is 1; expected true or false, a stream such as sys.stderr, or a"):
        train("corpora", 600, progress=1)  # type: ignore[call-overload]
