"""Requests of OpenAI's API: their fields, checked. `docs/reference/server.md` has the same fields as a table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from model.serving.fields import Fields, is_number, kind_of, shown
from model.serving.messages import ToolChoice, read_messages, read_tool_choice, read_tools
from model.serving.refusals import Refusal

MOST_STOPS = 16
LONGEST_STOP = 1000
"""Characters of a stop string."""
MOST_LOGPROBS = 20
MOST_TEXTS = 128
"""Texts that one request may ask for: n, times the number of prompts."""
LARGEST_SEED = 2**63
COMPLETION_TOKENS = 16
"""`max_tokens` of a completion that does not give it, as in OpenAI's API."""

_NO_EFFECT = ("user", "safety_identifier", "prompt_cache_key", "prompt_cache_retention", "metadata")
"""Fields for OpenAI's bookkeeping and caches. They never change an answer, so any value is accepted."""


@dataclass(frozen=True)
class Options:
    """What requests for chat completions and for completions have in common."""

    sampling: Mapping[str, Any]
    """The given fields of `Sampling`."""
    n: int = 1
    max_tokens: int | None = None
    """None where the request does not limit the answer."""
    max_tokens_field: str = "max_tokens"
    """The field that gives `max_tokens`, for messages."""
    stop: tuple[str, ...] = ()
    logprobs: int | None = None
    """The number of likeliest tokens to return with each token; None for no log-probabilities."""
    stream: bool = False
    include_usage: bool = False


@dataclass(frozen=True)
class ResponseFormat:
    """The form of the answer that a request asks for."""

    kind: Literal["text", "json_object", "json_schema"] = "text"
    schema: Any = None


@dataclass(frozen=True)
class ChatRequest:
    """A request for a chat completion."""

    messages: list[dict[str, Any]]
    options: Options
    tools: list[dict[str, Any]] = field(default_factory=list)
    tool_choice: ToolChoice = ToolChoice()
    parallel_tool_calls: bool = True
    response_format: ResponseFormat = ResponseFormat()


@dataclass(frozen=True)
class CompletionRequest:
    """A request for completions of texts."""

    prompts: list[str | list[int]]
    options: Options
    echo: bool = False


def read_chat(values: Mapping[str, Any], model: str) -> ChatRequest:
    """Read a request for a chat completion.

    Args:
        values: The body.
        model: The name of the model that is served.

    Raises:
        Refusal: When a field is wrong or not supported; the message names it.
    """
    fields = Fields(values)
    check_model(fields, model)
    messages = read_messages(fields.needed("messages", "a list of messages"))
    tools = read_tools(fields)
    choice = read_tool_choice(fields, tools)
    parallel = fields.any("parallel_tool_calls")
    if not isinstance(parallel, bool) and parallel is not None:
        raise fields.refusal("parallel_tool_calls", f"is {shown(parallel)}; it must be true or false")
    if parallel is not None and not tools:
        raise fields.refusal("parallel_tool_calls", "has no effect without tools; give tools, or leave it out")
    format = _response_format(fields)
    if tools and choice.kind not in ("none",) and format.kind != "text":
        raise fields.refusal(
            "response_format", 'cannot be combined with tools that may be called; set tool_choice to "none"'
        )
    wants, most = fields.flag("logprobs"), fields.integer("top_logprobs", 0, MOST_LOGPROBS)
    if most is not None and not wants:
        raise fields.refusal("top_logprobs", "needs logprobs; set logprobs to true")
    options = _options(fields, (most or 0) if wants else None, "max_completion_tokens", "max_tokens")
    _refuse_of_chat(fields)
    fields.finish()
    return ChatRequest(messages, options, tools, choice, parallel is not False, format)


def _refuse_of_chat(fields: Fields) -> None:
    fields.refuse("audio", "the model writes text only")
    fields.refuse("modalities", 'the model writes text only; leave it out, or give ["text"]', ["text"])
    fields.refuse("functions", "it is the old form of tools; use tools")
    fields.refuse("function_call", "it is the old form of tool_choice; use tool_choice")
    fields.refuse("moderation", "answers are not moderated")
    fields.refuse("prediction", "leave it out")
    fields.refuse("prompt_cache_options", "common beginnings of prompts are always read once; leave it out")
    fields.refuse("reasoning_effort", "leave it out; bpe serve --template-arg sets variables of the chat template")
    fields.refuse("verbosity", "ask for short or long answers in a message", "medium")
    fields.refuse("web_search_options", "the server does not search the web")


def read_completion(values: Mapping[str, Any], model: str) -> CompletionRequest:
    """Read a request for completions.

    Args:
        values: The body.
        model: The name of the model that is served.

    Raises:
        Refusal: When a field is wrong or not supported; the message names it.
    """
    fields = Fields(values)
    check_model(fields, model)
    prompts = _prompts(fields)
    logprobs = fields.integer("logprobs", 0, MOST_LOGPROBS)
    options = _options(fields, logprobs, "max_tokens")
    echo = fields.flag("echo")
    if echo and logprobs is not None:
        raise fields.refusal("echo", "cannot be combined with logprobs: the server does not score prompts")
    fields.refuse("suffix", "the model writes only what follows a text", "")
    best_of = fields.integer("best_of", 1, MOST_TEXTS)
    if best_of is not None and best_of != options.n:
        raise fields.refusal("best_of", "is not supported: ask for n texts, and choose one", "unsupported_parameter")
    fields.finish()
    if len(prompts) * options.n > MOST_TEXTS:
        raise fields.refusal(
            "n",
            f"is {options.n} for {len(prompts)} prompts; a request may ask for at most {MOST_TEXTS} texts together",
        )
    return CompletionRequest(prompts, options, echo)


def check_model(fields: Fields, model: str, is_needed: bool = True) -> None:
    """Take the field "model" and check that it names the model that is served.

    Raises:
        Refusal: When it is absent though it is needed, or names another model.
    """
    what = f"{shown(model)}, the model of this server"
    name = fields.needed("model", what) if is_needed else fields.any("model")
    if name is not None and name != model:
        raise Refusal(
            f"model is {shown(name)}; this server has the model {shown(model)}", "model", "model_not_found", 404
        )


def _options(fields: Fields, logprobs: int | None, *limits: str) -> Options:
    """Read what both kinds of requests have in common.

    Args:
        fields: The fields of the request.
        logprobs: As in `Options`.
        limits: The names of the field for the largest number of tokens.
    """
    given = {name: value for name in limits if (value := fields.integer(name, 1, 2**31)) is not None}
    if len(given) > 1:
        raise fields.refusal(limits[0], f"and {limits[1]} set the same limit; give only {limits[0]}")
    n = fields.integer("n", 1, MOST_TEXTS) or 1
    stop = _stop(fields)
    sampling = _sampling(fields)
    stream = fields.flag("stream")
    include_usage = False
    if fields.has("stream_options"):
        if not stream:
            raise fields.refusal("stream_options", "needs stream; set stream to true, or leave it out")
        nested = Fields.of(fields.any("stream_options"), "stream_options")
        include_usage = nested.flag("include_usage")
        nested.refuse("include_obfuscation", "leave it out", False)
        nested.finish()
    for name in _NO_EFFECT:
        fields.any(name)
    fields.refuse("store", "answers are not stored", False)
    fields.refuse("service_tier", "there is only one; leave it out", "auto", "default")
    return Options(
        sampling,
        n,
        next(iter(given.values()), None),
        next(iter(given), limits[0]),
        stop,
        logprobs,
        stream,
        include_usage,
    )


def _stop(fields: Fields) -> tuple[str, ...]:
    value = fields.any("stop")
    stops = [] if value is None else [value] if isinstance(value, str) else value
    if not isinstance(stops, list) or not all(isinstance(stop, str) for stop in stops):
        raise fields.refusal("stop", f"is {kind_of(value)}; it must be a string or a list of strings")
    if len(stops) > MOST_STOPS:
        raise fields.refusal("stop", f"has {len(stops):,} strings; it may have at most {MOST_STOPS}")
    if "" in stops:
        raise fields.refusal("stop", "has an empty string, which would end every text before it begins; leave it out")
    if any(len(stop) > LONGEST_STOP for stop in stops):
        raise fields.refusal("stop", f"has a string of more than {LONGEST_STOP:,} characters; give shorter strings")
    return tuple(stops)


def _sampling(fields: Fields) -> dict[str, Any]:
    """Return the given fields of `Sampling`."""
    given: dict[str, Any] = {
        "temperature": fields.number("temperature", 0, 2),
        "top_p": fields.number("top_p", 0, 1),
        "top_k": fields.integer("top_k", -1, 2**31),
        "min_p": fields.number("min_p", 0, 1),
        "frequency_penalty": fields.number("frequency_penalty", -2, 2),
        "presence_penalty": fields.number("presence_penalty", -2, 2),
        "repetition_penalty": fields.number("repetition_penalty", 0.01, 100),
        "seed": fields.integer("seed", -LARGEST_SEED, LARGEST_SEED - 1),
        "logit_bias": _logit_bias(fields),
    }
    sampling = {name: value for name, value in given.items() if value is not None}
    if sampling.get("top_p") == 0:
        sampling["top_p"] = 1e-9  # OpenAI allows 0: the fewest tokens that sum to more than 0, so the likeliest
    if sampling.get("top_k") in (-1, 0):  # no limit, as other servers write it
        sampling["top_k"] = None
    return sampling


def _logit_bias(fields: Fields) -> dict[int, float] | None:
    value = fields.any("logit_bias")
    if value is None:
        return None
    if not isinstance(value, dict):
        raise fields.refusal("logit_bias", f"is {kind_of(value)}; it must be an object of token ids and numbers")
    biases: dict[int, float] = {}
    for name, bias in value.items():
        if not (name.isascii() and name.isdecimal() and len(name) < 10):
            raise fields.refusal("logit_bias", f"has the name {shown(name)}; names must be ids of tokens")
        if not is_number(bias) or not -100 <= bias <= 100:
            raise fields.refusal("logit_bias", f"of {name} is {shown(bias)}; it must be a number from -100 to 100")
        biases[int(name)] = float(bias)
    return biases


def _response_format(fields: Fields) -> ResponseFormat:
    value = fields.any("response_format")
    if value is None:
        return ResponseFormat()
    nested = Fields.of(value, "response_format")
    kind: Any = nested.choice("type", "text", "json_object", "json_schema")
    if kind is None:
        raise nested.refusal("type", "is missing; give text, json_object or json_schema")
    schema = None
    if kind == "json_schema":
        inner = Fields.of(nested.needed("json_schema", "an object with a schema"), "response_format.json_schema")
        inner.text("name")
        inner.text("description")
        inner.flag("strict")  # answers always follow the schema
        schema = inner.needed("schema", "a JSON schema")
        if not isinstance(schema, (dict, bool)):
            raise inner.refusal("schema", f"is {kind_of(schema)}; it must be a JSON schema")
        inner.finish()
    nested.finish()
    return ResponseFormat(kind, schema)


def _prompts(fields: Fields) -> list[str | list[int]]:
    value = fields.needed("prompt", "a text, a list of ids, or a list of these")
    if isinstance(value, str):
        return [value]
    if not isinstance(value, list) or not value:
        raise fields.refusal("prompt", f"is {'empty' if value == [] else kind_of(value)}; it must be a text, a list of "
                             "ids, or a list of these")  # fmt: skip
    if isinstance(value[0], int):
        return [_ids(fields, "prompt", value)]
    if len(value) > MOST_TEXTS:
        raise fields.refusal("prompt", f"has {len(value):,} prompts; a request may have at most {MOST_TEXTS}")
    return [
        prompt if isinstance(prompt, str) else _ids(fields, f"prompt[{place}]", prompt)
        for place, prompt in enumerate(value)
    ]


def _ids(fields: Fields, place: str, value: Any) -> list[int]:
    if not isinstance(value, list) or not all(type(id) is int for id in value):
        raise fields.refusal(place, "is neither a text nor a list of ids; give one of these")
    return value
