"""What a server serves: a model by its name, and how requests become texts for its scheduler."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

from bpe import Tokenizer
from bpe.chat import ChatFormat, TemplateChat
from bpe.errors import InputError
from model.generation.completions import prompt_ids
from model.generation.sampling import Sampling
from model.serving.answers import Answer, TokenTexts
from model.serving.calls import CallFormat, CallReader, format_in
from model.serving.choosing import Grammar
from model.serving.fields import shown
from model.serving.refusals import Refusal
from model.serving.requests import COMPLETION_TOKENS, ChatRequest, CompletionRequest, Options, ResponseFormat
from model.serving.scheduler import Scheduler
from model.serving.texts import TextRequest


class Compiler(Protocol):
    """The part of `model.generation.grammar.GrammarCompiler` that the server uses."""

    def json_schema(self, schema: Mapping[str, Any] | bool) -> Grammar: ...
    def json_object(self) -> Grammar: ...
    def tools(self, tools: Sequence[Mapping[str, Any]], *, arguments_key: str) -> Grammar: ...


_OF_JSON = 1 << 17  # bytes of names and brackets in the JSON of a dialog


@dataclass
class Job:
    """The texts of one prompt of a request: what the scheduler gets, and the answers that it fills."""

    request: TextRequest
    answers: list[Answer]
    first: int
    """The index of the first answer in the response."""

    @property
    def is_done(self) -> bool:
        """Whether all its answers have ended."""
        return all(answer.finish is not None for answer in self.answers)


@dataclass
class Service:
    """A model that is served.

    Args:
        name: The name of the model in requests.
        tokenizer: Its tokenizer.
        format: Its chat format; None for a model that was not trained to chat.
        why_no_chat: Why there is no chat format, for the error.
        scheduler: What generates.
        defaults: The settings of sampling where a request sets none.
        end_ids: The tokens that end a text.
        compiler: Makes the compiler of grammars, once it is needed.
        about: What the model is and where it runs, for the page.
    """

    name: str
    tokenizer: Tokenizer
    format: ChatFormat | None
    scheduler: Scheduler
    defaults: Mapping[str, Any] = field(default_factory=dict)
    end_ids: frozenset[int] = frozenset()
    why_no_chat: str = ""
    compiler: Callable[[], Compiler] | None = None
    about: Mapping[str, Any] = field(default_factory=dict)
    created: int = field(default_factory=lambda: int(time.time()))

    @property
    def context(self) -> int:
        """The largest number of tokens of a prompt and its answer."""
        return self.scheduler.context

    @cached_property
    def fingerprint(self) -> str:
        """A name for this model, this configuration and this place, as `system_fingerprint` of a response."""
        facts = repr((self.name, self.tokenizer.n_vocab, self.context, sorted(self.about.items(), key=str)))
        return "fp_" + hashlib.sha256(facts.encode()).hexdigest()[:12]

    @cached_property
    def call_format(self) -> CallFormat | None:
        """How the model writes calls of tools; None if its chat template writes none, or another way."""
        return format_in(self.format.source) if isinstance(self.format, TemplateChat) else None

    @cached_property
    def most_bytes(self) -> int:
        """The size of the longest dialog: what the context can hold if each token is the longest, and some JSON."""
        return self.context * int(self.tokenizer.token_sizes().max()) + _OF_JSON

    # Prompts

    def chat_ids(self, messages: Sequence[dict[str, Any]], tools: Sequence[dict[str, Any]] = ()) -> list[int]:
        """Return the prompt for an answer to a dialog.

        Raises:
            Refusal: When the model has no chat format, or the format cannot express the dialog.
        """
        format = self.chat_format
        size = len(json.dumps([messages, tools], ensure_ascii=False).encode())
        if size > self.most_bytes:  # without this, rendering 10 MB would take seconds in which nothing else runs
            raise Refusal(
                f"the messages have {size:,} bytes, more than the context of {self.context:,} tokens can hold "
                f"({self.most_bytes:,} bytes); shorten them",
                "messages",
                "context_length_exceeded",
            )
        if tools and not format.writes("tools"):
            raise Refusal("tools is not supported: the model's chat template cannot list tools", "tools",
                          "unsupported_parameter")  # fmt: skip
        for part in ("tool_calls", "reasoning_content"):
            place = next((place for place, message in enumerate(messages) if part in message), None)
            if place is not None and not format.writes(part):
                where = f"messages[{place}].{part}"
                raise Refusal(f"{where} is not supported: the model's chat template does not write it", where)
        if not format.writes("developer"):  # OpenAI's name for the messages that were called system before
            messages = [{**each, "role": "system"} if each["role"] == "developer" else each for each in messages]
        try:
            return format.encode(messages, tools=list(tools) or None)
        except InputError as error:
            raise Refusal(str(error), "messages") from None

    @property
    def chat_format(self) -> ChatFormat:
        """The chat format.

        Raises:
            Refusal: When the model has none.
        """
        if self.format is None:
            raise Refusal(
                f"the model {self.name} was not trained to chat: {self.why_no_chat or 'it has no chat template'}; use "
                "/v1/completions",
                "messages",
            )
        return self.format

    # Jobs

    def chat_jobs(self, request: ChatRequest) -> list[Job]:
        """Return the texts of a request for a chat completion.

        Raises:
            Refusal: When the model cannot carry out the request.
        """
        choice, options = request.tool_choice, request.options
        tools = [] if choice.kind == "none" else request.tools
        ids = self.chat_ids(request.messages, tools)
        end_ids = self.end_ids | self.chat_format.end_ids
        if not tools:
            texts, grammar = self._texts(options, end_ids), self._grammar(request.response_format)
            answers = [Answer(texts, options.stop) for _ in range(options.n)]
            return [Job(self._text_request(ids, options, end_ids, grammar, None), answers, 0)]
        style = self.call_format
        if style is None:
            raise Refusal(
                "tools is not supported: calls in the format of the model's chat template are not recognised",
                "tools",
                "unsupported_parameter",
            )
        texts = self._texts(options, end_ids, (style.begin, style.end, "<|python_tag|>"))
        callable = [tool for tool in tools if choice.name in (None, tool["function"]["name"])]
        names = [tool["function"]["name"] for tool in callable]
        is_forced = choice.kind in ("required", "named")
        is_single = is_forced or not request.parallel_tool_calls
        answers = [
            Answer(texts, options.stop, CallReader(style, names, is_single=is_single, is_begun=is_forced))
            for _ in range(options.n)
        ]
        grammar = None
        if is_forced:
            ids = ids + self._opening(style)
            grammar = self._calls_grammar(callable, style)
        return [Job(self._text_request(ids, options, end_ids, grammar, None), answers, 0)]

    def completion_jobs(self, request: CompletionRequest) -> list[Job]:
        """Return the texts of a request for completions.

        Raises:
            Refusal: When the model cannot carry out the request.
        """
        options, jobs = request.options, []
        texts = self._texts(options, self.end_ids)
        for number, prompt in enumerate(request.prompts):
            ids = prompt_ids(self.tokenizer, prompt) if isinstance(prompt, str) else self._checked(prompt)
            first = (prompt if isinstance(prompt, str) else self.tokenizer.decode(ids)) if request.echo else ""
            answers = [Answer(texts, options.stop, is_message=False, first=first) for _ in range(options.n)]
            text = self._text_request(ids, options, self.end_ids, None, COMPLETION_TOKENS)
            jobs.append(Job(text, answers, number * options.n))
        return jobs

    def _checked(self, ids: list[int]) -> list[int]:
        if not ids or not all(0 <= id <= self.tokenizer.max_token_value for id in ids):
            raise Refusal(
                f"prompt must have ids from 0 to {self.tokenizer.max_token_value:,}, and at least one", "prompt"
            )
        return ids

    def _texts(self, options: Options, end_ids: frozenset[int], marks: Sequence[str] = ()) -> TokenTexts:
        return TokenTexts(self.tokenizer, end_ids | self._stop_ids(options), marks)

    def _stop_ids(self, options: Options) -> frozenset[int]:
        """Return the special tokens that the stop strings name."""
        special = self.tokenizer.special_tokens
        return frozenset(special[text] for text in options.stop if text in special)

    def _text_request(
        self, ids: list[int], options: Options, end_ids: frozenset[int], grammar: Grammar | None, default: int | None
    ) -> TextRequest:
        """Return what the scheduler gets for a prompt."""
        if not ids:
            raise Refusal("the prompt is empty and no token begins a text; give at least one character", "prompt")
        room = self.context - len(ids)
        if room < 1 or (options.max_tokens is not None and options.max_tokens > room):
            wanted = "" if options.max_tokens is None else f", and {options.max_tokens_field} is {options.max_tokens:,}"
            raise Refusal(
                f"the prompt has {len(ids):,} tokens{wanted}, but the context holds {self.context:,} for prompt and "
                "answer; shorten the prompt" + (f" or lower {options.max_tokens_field}" if wanted else ""),
                options.max_tokens_field if room >= 1 else "messages" if default is None else "prompt",
                "context_length_exceeded",
            )
        outside = [id for id in options.sampling.get("logit_bias", ()) if id >= self.scheduler.n_vocab]
        if outside:
            raise Refusal(
                f"logit_bias has the id {outside[0]}; ids must be 0 to {self.scheduler.n_vocab - 1}", "logit_bias"
            )
        limit = options.max_tokens or min(default or room, room)
        sampling = Sampling(**{**self.defaults, **options.sampling})
        ends = end_ids | self._stop_ids(options)
        return TextRequest(ids, limit, sampling, ends, options.logprobs, grammar, options.n)

    # Grammars

    def _opening(self, style: CallFormat) -> list[int]:
        """Return the tokens with which a call begins, which end the prompt where a call is required."""
        return self.tokenizer.encode(style.begin + style.opening, allowed_special="all")

    def _grammar(self, format: ResponseFormat) -> Grammar | None:
        if format.kind == "text":
            return None
        compiler = self._compiler("response_format")
        try:
            return compiler.json_object() if format.kind == "json_object" else compiler.json_schema(format.schema)
        except InputError as error:
            raise Refusal(f"response_format: {error}", "response_format") from None

    def _calls_grammar(self, tools: Sequence[Mapping[str, Any]], style: CallFormat) -> Grammar:
        compiler = self._compiler("tool_choice")
        try:
            return compiler.tools(tools, arguments_key=style.key)
        except InputError as error:
            raise Refusal(str(error), "tools") from None

    def _compiler(self, param: str) -> Compiler:
        if self.compiler is None:
            raise Refusal(f"{param} is not supported: structured output needs the package llguidance", param)
        return self.compiler()


def unknown_model(service: Service, name: str) -> Refusal:
    """Return the error for a request about another model."""
    message = f"there is no model {shown(name)}; this server has the model {shown(service.name)}"
    return Refusal(message, "model", "model_not_found", 404)
