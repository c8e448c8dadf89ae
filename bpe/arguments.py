"""Check of the arguments of public functions: the names of keywords, and the types of values.

`checked` makes a function refuse a misspelt keyword with the likeliest right name, and a value of a wrong type with the
types that it takes. Type checkers see the function itself, so editors complete its arguments.

>>> @checked
... def pad(text: str, *, width: int = 8) -> str:
...     return text.rjust(width)
>>> pad("a", widht=2)
Traceback (most recent call last):
    ...
TypeError: pad() got an unexpected keyword argument 'widht'; did you mean width?
>>> pad("a", width="2")
Traceback (most recent call last):
    ...
bpe.errors.ArgumentError: width is '2'; expected a whole number
"""

from __future__ import annotations

import ast
import functools
import os
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeVar, get_args, get_origin, overload

from bpe.errors import ArgumentError, did_you_mean

if TYPE_CHECKING:
    import inspect

Target = TypeVar("Target", bound=Callable[..., Any])


class _Kind(NamedTuple):
    """A type that a value may have."""

    words: str
    accepts: Callable[[Any], bool]


def _is_number(value: object) -> bool:
    return hasattr(value, "__float__") or hasattr(value, "__index__")


def _is_bool(value: object) -> bool:
    return type(value).__name__ in ("bool", "bool_")  # NumPy's as well


# The names of types as annotations spell them. A value of any other type passes: it is not checked.
_KINDS = {
    "None": _Kind("None", lambda value: value is None),
    "bool": _Kind("true or false", _is_bool),
    "int": _Kind("a whole number", lambda value: hasattr(value, "__index__") and not _is_bool(value)),
    "float": _Kind("a number", lambda value: _is_number(value) and not _is_bool(value)),
    "str": _Kind("a string", lambda value: isinstance(value, str)),
    "bytes": _Kind("bytes", lambda value: isinstance(value, (bytes, bytearray, memoryview))),
    "os.PathLike": _Kind("a path", lambda value: isinstance(value, os.PathLike)),
    "Mapping": _Kind("a mapping", lambda value: hasattr(value, "keys")),
    # A string is a sequence of strings, but hardly ever the one that is meant.
    "Sequence": _Kind("a list", lambda value: hasattr(value, "__getitem__") and not isinstance(value, str)),
    "Collection": _Kind("a collection", lambda value: hasattr(value, "__iter__")),
}


class _Parameter(NamedTuple):
    """The types that an argument may have."""

    kinds: list[_Kind]
    literals: list[object]

    def refusal(self, value: object) -> str | None:
        """Return what the value must be, if it is not that."""
        if any(kind.accepts(value) for kind in self.kinds) or any(value == literal for literal in self.literals):
            return None
        words = [repr(literal) for literal in self.literals] + [kind.words for kind in self.kinds]
        needed = " or ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
        meant = ""
        if isinstance(value, str):
            single = any(kind is _KINDS["Sequence"] for kind in self.kinds) and len(value) <= 60
            meant = f", such as [{value!r}]" if single else did_you_mean(value, map(str, self.literals))
        return f"expected {needed}{meant}"


@overload
def checked(target: Target, /) -> Target: ...
@overload
def checked(*, options: type, settings: type | None = None) -> Callable[[Target], Target]: ...
def checked(target: Any = None, /, *, options: type | None = None, settings: type | None = None) -> Any:
    """Make a function, or the initializer of a class, check its arguments.

    Args:
        target: The function or class.
        options: The TypedDict of the function's ``**options: Unpack[...]``.
        settings: The dataclass that has the defaults of the options. Default: the options have none.

    Raises:
        TypeError: By the function, when a keyword is unknown.
        ArgumentError: By the function, when a value has a wrong type.
    """

    def decorated(target: Any) -> Any:
        if isinstance(target, type):
            target.__init__ = _checking(target.__init__, None)  # type: ignore[misc]
            return target
        call = _checking(target, options)
        if options is not None:
            call.__signature__ = _signature(target, options, settings)
        return call

    return decorated if target is None else decorated(target)


def _checking(function: Any, options: type | None) -> Any:
    name = function.__qualname__.rpartition("<locals>.")[2].removesuffix(".__init__")
    code = function.__code__
    positional = code.co_varnames[: code.co_argcount]
    keywords = code.co_varnames[code.co_posonlyargcount : code.co_argcount + code.co_kwonlyargcount]
    known = {*keywords, *(options.__annotations__ if options else ())}

    @functools.cache
    def parameters() -> dict[str, _Parameter]:
        annotations = {**function.__annotations__, **(options.__annotations__ if options else {})}
        found = {name: _parameter(annotation, function.__globals__) for name, annotation in annotations.items()}
        return {name: parameter for name, parameter in found.items() if parameter is not None}

    @functools.wraps(function)
    def call(*arguments: Any, **named: Any) -> Any:
        if not known.issuperset(named):
            refuse_unknown(name, named, [word for word in known if word not in ("self", "cls")])
        types = parameters()
        for given in (zip(positional, arguments, strict=False), named.items()):
            for argument, value in given:
                if argument in types and (refusal := types[argument].refusal(value)):
                    raise ArgumentError(f"{argument} is {_shown(value)}; {refusal}")
        return function(*arguments, **named)

    return call


def refuse_unknown(function: str, given: Iterable[str], known: Iterable[str]) -> None:
    """Raise what Python raises for a keyword argument that a function does not have, with the likeliest right name.

    Raises:
        TypeError: When a name is unknown.
    """
    known = list(known)
    for name in given:
        if name not in known:
            meant = did_you_mean(name, known) or f"; it takes {', '.join(sorted(known))}"
            raise TypeError(f"{function}() got an unexpected keyword argument {name!r}{meant}")


def _shown(value: object) -> str:
    shown = " ".join(repr(value).split())
    return shown if len(shown) <= 60 else f"{shown[:57]}..."


def _parameter(annotation: Any, names: Mapping[str, Any]) -> _Parameter | None:
    """Return the types that an annotation spells, or None if one of them is not checked.

    Args:
        annotation: The annotation, as ``from __future__ import annotations`` leaves it.
        names: The global names of its module.
    """
    text = getattr(annotation, "__forward_arg__", annotation)
    if not isinstance(text, str):
        return None
    kinds: list[_Kind] = []
    literals: list[object] = []
    for part in _alternatives(text):
        outer, bracket, inner = part.partition("[")
        if outer == "Literal" and bracket:
            literals += ast.literal_eval(f"({inner.removesuffix(']')},)")
        elif outer in _KINDS:
            kinds.append(_KINDS[outer])
        elif get_origin(names.get(part)) is Literal:
            literals += get_args(names[part])
        else:
            return None
    kinds.sort(key=lambda kind: kind.words == "None")  # None is the last that a message names
    return _Parameter(kinds, literals)


def _alternatives(text: str) -> list[str]:
    """Split an annotation at the bars that are not inside brackets."""
    parts, depth = [""], 0
    for character in text:
        depth += (character == "[") - (character == "]")
        if character == "|" and not depth:
            parts.append("")
        else:
            parts[-1] += character
    return [part.strip() for part in parts]


@functools.cache
def _defaults(settings: Any) -> dict[str, Any]:
    """Return the default of each argument of a class."""
    import inspect

    return {name: parameter.default for name, parameter in inspect.signature(settings).parameters.items()}


def _signature(function: Any, options: type, settings: Any) -> inspect.Signature:
    """Return the signature of a function with its options by name, for help() and for the completion of notebooks."""
    import inspect  # here, because it is large; the modules whose functions have options need it for dataclasses

    plain = inspect.signature(function)
    kept = [parameter for parameter in plain.parameters.values() if parameter.kind != parameter.VAR_KEYWORD]
    defaults = _defaults(settings) if settings else {}
    for name, annotation in options.__annotations__.items():
        default = defaults.get(name, ...)
        text = getattr(annotation, "__forward_arg__", annotation)
        kept.append(inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=text))
    return plain.replace(parameters=kept)
