"""Structured output: a text is generated so that it is always the beginning of a text that a grammar allows.

A JSON schema, a regular expression or a grammar is compiled for a vocabulary. At each place of a text, the grammar then
allows the tokens whose bytes keep the text the beginning of an allowed text; an end token where the text may end; and
no other special token. The logits of all other tokens become -inf, so that the model chooses by its own probabilities
among those that are allowed. The masks are computed by llguidance (https://github.com/guidance-ai/llguidance).
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence
from importlib import import_module
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from bpe.errors import InputError
from bpe.optional import missing
from model.generation.gbnf import is_gbnf, lark_of
from model.generation.json_schemas import first_refused, prepared, schema_of
from model.generation.lark import check_lark
from model.generation.sampling import Floats, restricted_by_bits

Bools = npt.NDArray[np.bool_]

_LONGEST = 1_000_000  # characters of a grammar; llguidance takes seconds for longer ones
# Between the parts of JSON: nothing, a space, or a new line with its indentation. llguidance's default allows any
# amount, and a small model may then write spaces until its context is full.
_WHITESPACE = r"( |\n {0,64}|\n\t{0,16})"
_JSON = {
    "whitespace_pattern": _WHITESPACE,
    "json_allowed_escapes": 'nrbtf\\"',  # without \u, with which a key of `properties` could be written in another way
    "lenient": False,
    "coerce_one_of": False,
}
_NO_FORCING = '\n%llguidance {"no_forcing": true}\n'
"""Without it, where only one text can follow, llguidance allows only the first token of how the tokenizer would encode
it. Other tokens with the same bytes would be missing from the model's choice."""


class GrammarTokenizer(Protocol):
    """The part of a tokenizer that grammars use; `bpe.Tokenizer` and `tiktoken.Encoding` both have it."""

    @property
    def n_vocab(self) -> int: ...
    @property
    def special_tokens_set(self) -> Any: ...
    def encode_single_token(self, text_or_bytes: str | bytes, /) -> int: ...
    def decode_single_token_bytes(self, token: int, /) -> bytes: ...


class GrammarCompiler:
    """Compiles grammars for a vocabulary. Any number of threads may use it at once."""

    def __init__(self, tokenizer: GrammarTokenizer, n_vocab: int | None = None, end_ids: Collection[int] = ()) -> None:
        """Read the vocabulary, which takes about 2 ms for each 1,000 tokens.

        Args:
            tokenizer: The tokenizer.
            n_vocab: The number of ids to choose from, which may be more than the tokenizer has. Defaults to the number
                of the tokenizer's ids.
            end_ids: Tokens that end a text.

        Raises:
            InputError: When llguidance is not installed.
        """
        self.n_vocab: int = tokenizer.n_vocab if n_vocab is None else n_vocab
        self.end_ids: frozenset[int] = frozenset(id for id in end_ids if 0 <= id < self.n_vocab)
        self._guidance = _llguidance()
        special = {tokenizer.encode_single_token(text) for text in tokenizer.special_tokens_set}
        tokens = [_bytes_of(tokenizer, id) if id not in special else b"" for id in range(self.n_vocab)]
        # llguidance needs an end token. If the model has none, it is one that no logit belongs to.
        ends = sorted(self.end_ids) or [self.n_vocab]
        if not self.end_ids:
            tokens.append(b"")
        for id in ends:
            tokens[id] = b"\xff<end %d>" % id  # \xff marks what no text can contain
        self._tokens = self._guidance.LLTokenizer(
            self._guidance.TokenizerWrapper(_Vocabulary(tokens, ends)), n_vocab=len(tokens), eos_token=ends
        )
        allowed = np.array([bool(token) for token in tokens])
        self._possible = np.packbits(
            _padded(allowed), bitorder="little"
        )  # a bit for each token that has a text, or ends it
        self._limits = self._guidance.LLParserLimits(verbose_errors=False)

    def __repr__(self) -> str:
        return f"<GrammarCompiler: {self.n_vocab:,} tokens, ends {sorted(self.end_ids)}>"

    def json_schema(self, schema: Mapping[str, Any] | bool | str | bytes) -> Grammar:
        """Compile a JSON schema (draft 2020-12): the text is a JSON value that it allows.

        Properties appear in the order of the schema. Between the parts of the JSON text, there may be nothing, a space,
        or a new line with its indentation.

        Args:
            schema: The schema, or its JSON text.

        Raises:
            InputError: When it is not a JSON schema, cannot be enforced exactly, allows nothing, or is too complex; the
                message names the keyword and its JSON pointer.
        """
        value = prepared(schema_of(schema))
        try:
            return self._compiled("start: " + self._json_rule(value))
        except _RefusedError as error:
            is_large = "too complex" in str(error)
            pointer, reason = (not is_large and first_refused(value, self._refusal)) or ("", str(error))
            key, reason = _in_schema(reason)
            raise InputError(f"JSON schema, at {pointer + key or 'its root'}: {reason}") from None

    def json_object(self) -> Grammar:
        """Return the grammar of any JSON object."""
        return self.json_schema({"type": "object"})

    def regex(self, pattern: str) -> Grammar:
        """Compile a regular expression: the whole text matches it.

        The syntax is that of Rust's regex crate, without look-around and references to groups.

        Raises:
            InputError: When it is wrong, matches no text, or is too complex.
        """
        _check_length("regular expression", pattern)
        try:
            return self._compiled(_lark_of_regex(self._guidance, pattern))
        except _RefusedError as error:
            raise InputError(f"regular expression: {error}") from None

    def grammar(self, text: str) -> Grammar:
        """Compile a context-free grammar, in Lark's syntax as llguidance reads it, or in llama.cpp's GBNF.

        A text begins with the rule `start` of Lark, or `root` of GBNF. Lark's terminals are matched greedily: a text
        is split so that each is as long as possible. GBNF has no terminals, and every text that it derives is allowed.

        Raises:
            InputError: When it is wrong, allows no text, names tokens or is too complex; the message names the line.
        """
        _check_length("grammar", text)
        is_lark = not is_gbnf(text)
        if is_lark:
            check_lark(text)
        try:
            return self._compiled(text if is_lark else lark_of(text), is_lark)
        except _RefusedError as error:
            comma = ", " if str(error).startswith("line ") else ": "
            raise InputError(f"grammar{comma}{error}") from None

    def tools(
        self,
        tools: Sequence[Mapping[str, Any]],
        *,
        begin: str = "",
        end: str = "",
        name_key: str = "name",
        arguments_key: str = "arguments",
        separator: str | None = None,
    ) -> Grammar:
        """Compile the grammar of a call of one of several tools: `{"name": "NAME", "arguments": {...}}`.

        Args:
            tools: Each has a "name" and, unless the tool has no arguments, "parameters", a JSON schema of an object; or
                the same as "function" of OpenAI's form.
            begin: What a call begins with, such as "<tool_call>\\n".
            end: What a call ends with.
            name_key: The key of the name.
            arguments_key: The key of the arguments.
            separator: What stands between several calls; None for a single call.

        Raises:
            InputError: When a tool has no name or its schema cannot be enforced; the message names the tool.
        """
        if not tools:
            raise InputError("tools is empty, so none can be called; give at least one")
        rules = []
        for place, tool in enumerate(tools):
            name, schema = _tool(tool, place)
            try:
                self.json_schema(schema)  # for an error that names the place in the schema
                schema = prepared(schema)
            except InputError as error:
                raise InputError(f"tools[{place}] ({name}), parameters: {error}") from None
            head = f"{begin}{{{json.dumps(name_key)}: {json.dumps(name)}, {json.dumps(arguments_key)}: "
            rules.append(f"{_literal(head)} {self._json_rule(schema)} {_literal('}' + end)}")
        calls = [f"call_{place}: {rule}" for place, rule in enumerate(rules)]
        names = " | ".join(f"call_{place}" for place in range(len(rules)))
        start = "start: call" if separator is None else f"start: call ({_literal(separator)} call)*"
        try:
            return self._compiled("\n".join([start, f"call: {names}", *calls]))
        except _RefusedError as error:
            raise InputError(f"tools: {error}") from None

    def _json_rule(self, schema: Mapping[str, Any]) -> str:
        return "%json " + json.dumps({"x-guidance": _JSON, **schema})

    def _refusal(self, schema: Mapping[str, Any]) -> str | None:
        """Return why a schema is refused, or None."""
        try:
            self._compiled("start: " + self._json_rule(schema))
        except _RefusedError as error:
            return str(error)
        return None

    def _compiled(self, lark: str, is_lark: bool = False) -> Grammar:
        matcher = self._guidance.LLMatcher(
            self._tokens,
            self._guidance.LLMatcher.grammar_from_lark(lark + _NO_FORCING),
            log_level=0,
            limits=self._limits,
        )
        if not matcher.is_error():
            matcher.compute_bitmask()  # finds out whether a first token exists, and prepares what all texts share
        if matcher.is_error():
            raise _RefusedError(_reason(matcher.get_error(), is_lark))
        return Grammar(matcher, self)

    @property
    def possible(self) -> npt.NDArray[np.uint8]:
        """A bit for each token that a grammar can allow, in the order of llguidance's masks."""
        return self._possible


class Grammar:
    """A compiled grammar. It can be used for any number of texts, by several threads at once."""

    def __init__(self, matcher: Any, compiler: GrammarCompiler) -> None:
        self._matcher, self.compiler = matcher, compiler

    def __repr__(self) -> str:
        return f"<Grammar for {self.compiler.n_vocab:,} tokens>"

    def check_vocabulary(self, n_vocab: int, end_ids: frozenset[int]) -> None:
        """Refuse a vocabulary that the grammar was not compiled for.

        Raises:
            InputError: When the number of ids to choose from or the end tokens differ.
        """
        ours, ends = self.compiler.n_vocab, self.compiler.end_ids
        theirs = frozenset(id for id in end_ids if 0 <= id < n_vocab)
        if (ours, ends) != (n_vocab, theirs):
            raise InputError(
                f"the grammar was compiled for {ours:,} tokens with the end tokens {sorted(ends)}, but the model has "
                f"{n_vocab:,} with {sorted(theirs)}; compile it with model.grammar_compiler(model, tokenizer)"
            )

    def start(self) -> Matcher:
        """Return a matcher at the beginning of a text."""
        return Matcher(self._matcher.deep_copy(), self.compiler)


class Matcher:
    """A text so far, and the tokens that a grammar allows next. For one thread at a time."""

    def __init__(self, matcher: Any, compiler: GrammarCompiler) -> None:
        self._matcher, self._n_vocab, self._end_ids = matcher, compiler.n_vocab, compiler.end_ids
        self._possible = compiler.possible
        self._bits = np.zeros(len(self._possible), np.uint8)
        self._place: tuple[int, int] = self._bits.ctypes.data, self._bits.nbytes
        self._ended = False
        self._count = 0

    def __repr__(self) -> str:
        return f"<Matcher after {self._count} tokens{', finished' * self.finished}>"

    @property
    def finished(self) -> bool:
        """Whether no token can follow: an end token was accepted, or the grammar allows no longer text."""
        return self._ended or bool(self._matcher.is_stopped())

    def allowed(self) -> Bools:
        """Return whether each token is allowed next, [n_vocab].

        Raises:
            InputError: When no token is allowed, or it is too much work to find them.
        """
        self._compute()
        return np.unpackbits(self._bits, count=self._n_vocab, bitorder="little").view(np.bool_)

    def restrict(self, logits: Floats) -> Floats:
        """Return logits [n_vocab] with -inf for the tokens that are not allowed; the given ones are unchanged.

        Raises:
            InputError: As for `allowed`.
        """
        self._compute()
        return restricted_by_bits(logits, self._bits)

    def _compute(self) -> None:
        """Find the tokens that are allowed next."""
        self._matcher.unsafe_compute_mask_ptr(*self._place)
        if self._matcher.is_error():
            raise InputError(f"after {self._count} tokens: {_reason(self._matcher.get_error())}")
        np.bitwise_and(self._bits, self._possible, out=self._bits)
        if not self._bits.any():
            raise InputError(
                f"after {self._count} tokens, no token of the vocabulary continues a text that the grammar allows"
            )

    def accept(self, id: int) -> None:
        """Append a token to the text.

        Raises:
            InputError: When the token is not allowed.
        """
        if self._ended or not self._matcher.consume_token(id):
            error = self._matcher.get_error()
            if error and "satisfy the grammar" not in error and not self._ended:
                raise InputError(f"after {self._count} tokens: {_reason(error)}")
            raise InputError(f"the grammar does not allow the token {id} after {self._count} tokens")
        self._count += 1
        self._ended = id in self._end_ids


class _RefusedError(Exception):
    """What llguidance says of a grammar that it refuses."""


class _Vocabulary:
    """A vocabulary as llguidance takes it."""

    bos_token_id = None

    def __init__(self, tokens: list[bytes], ends: list[int]) -> None:
        self.tokens, self.special_token_ids, self.eos_token_id = tokens, ends, ends[0]

    def __call__(self, text: str | bytes) -> list[int]:
        """Encode a text. llguidance asks for it, but needs it only to force tokens, which `_NO_FORCING` prevents."""
        return []


def require_llguidance() -> None:
    """Raise InputError if llguidance, which computes the masks, is not installed."""
    _llguidance()


def check_text(kind: Literal["json-schema", "regex", "grammar"], text: str) -> None:
    """Refuse a grammar that is wrong in a way that shows without a vocabulary.

    Args:
        kind: What the text is.
        text: The text.

    Raises:
        InputError: When it is wrong; the message names the place.
    """
    if kind == "json-schema":
        prepared(schema_of(text))
    elif kind == "grammar":
        _check_length("grammar", text)
        if is_gbnf(text):
            lark_of(text)
        else:
            check_lark(text)


def _llguidance() -> Any:
    try:
        return import_module("llguidance")
    except ImportError:
        raise InputError(missing("llguidance") or "llguidance is missing") from None


def _bytes_of(tokenizer: GrammarTokenizer, id: int) -> bytes:
    """Return the bytes of a token; none for an id without a token."""
    try:
        return tokenizer.decode_single_token_bytes(id)
    except KeyError:
        return b""


def _padded(bits: Bools) -> Bools:
    """Return bits up to a multiple of 32, the words of llguidance's masks."""
    return np.pad(bits, (0, -len(bits) % 32))


def _check_length(what: str, text: str) -> None:
    if len(text) > _LONGEST:
        raise InputError(f"the {what} has {len(text):,} characters; at most {_LONGEST:,} are read")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InputError(
            f"the {what} has half a surrogate pair at character {error.start}; it must be Unicode"
        ) from None


def _literal(text: str) -> str:
    """Return a string of Lark's syntax."""
    return json.dumps(text, ensure_ascii=False) if text else ""


def _lark_of_regex(guidance: Any, pattern: str) -> str:
    """Return a grammar in Lark's syntax for a regular expression."""
    lark: str = json.loads(guidance.LLMatcher.grammar_from_regex(pattern))["grammars"][0]["lark_grammar"]
    return lark


def _tool(tool: Mapping[str, Any], place: int) -> tuple[str, dict[str, Any]]:
    """Return the name of a tool and the schema of its arguments."""
    function = tool.get("function", tool) if isinstance(tool, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        raise InputError(f"tools[{place}] has no name; write an object with a name and its parameters, a JSON schema")
    schema = function.get("parameters")
    if schema is None:
        schema = {"type": "object", "properties": {}, "additionalProperties": False}
    return function["name"], schema_of({"type": "object", **schema} if isinstance(schema, Mapping) else schema)


def _reason(error: str, is_lark: bool = False) -> str:
    """Return what is wrong with a grammar, from llguidance's message.

    Args:
        error: The message.
        is_lark: Whether the grammar is the caller's own, so that its lines are worth naming.
    """
    text = error.split("\n<state>")[0].replace("<non-verbose/>", "").strip()
    text = re.sub(r"^(?:at )?(\d+)\((\d+)\): ", r"line \1, column \2: " if is_lark else "", text)
    text = text.removeprefix("failed to compile JSON schema: ")
    if "lookarounds not supported" in text:
        where = text.partition("invalid regex")[0] if is_lark else ""
        return where + "\\b, and ^ and $ within a regular expression, are not supported; remove them"
    if "regex parse error:" in text:
        caret = re.search(r"^ {4}( *)\^", text, re.MULTILINE)
        place = f" at character {len(caret[1]) + 1}" if caret and not is_lark else ""
        where = text.partition("invalid regex ")[0] if is_lark else ""
        text = where + text.rpartition("error: ")[2].splitlines()[0] + place
    text = re.sub(r'invalid regex "(?s:.*)" \(in regex\): ', "" if not is_lark else "regular expression: ", text)
    if text.startswith("NoExtension"):
        return "it allows no text at all, or none that the vocabulary can write"
    if text.startswith("panic"):
        return "llguidance cannot compile it"
    text = re.sub(r"\(limit for this grammar: \d+\)", "", text)
    if re.search(r"too (big|large|complex|deeply|many)|fuel|TooComplex|limit", text):
        return f"it is too complex ({_one_line(text)}); simplify it"
    return _one_line(text)


def _in_schema(reason: str) -> tuple[str, str]:
    """Return the keyword that is wrong in a schema, as the end of its pointer, if it is known; and what is wrong."""
    if "oneOf" in reason:
        return "/oneOf", "the alternatives of oneOf may overlap, which is not supported; write anyOf"
    if "min/maxProperties" in reason:
        return "", "minProperties and maxProperties are supported only if all keys of properties are required"
    if "patternProperty" in reason:
        return "/patternProperties", "a key may match several patterns, which is not supported; make them disjoint"
    if "Unable to determine" in reason:
        return "", "patterns, formats and lengths are too complex together; simplify them"
    if "Regex is empty" in reason:
        return "", "nothing satisfies it (no string has its pattern, format, length and values together)"
    if "nsatisfiable" in reason:
        return "", f"nothing satisfies it ({reason.partition('nsatisfiable schema: ')[2].split('  (')[0]})"
    return "", reason


def _one_line(text: str) -> str:
    """Return the message without the excerpt of the grammar, at most 300 characters."""
    line = " ".join(part.strip() for part in text.splitlines() if not re.match(r"\s*(\d+ \||\^)", part)).strip()
    return line if len(line) <= 300 else f"{line[:297]}..."
