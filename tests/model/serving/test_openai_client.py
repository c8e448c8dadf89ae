"""The server with the real `openai` package, sync and async."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any, Literal

import httpx
import openai
import pydantic
import pytest
from openai.types import completion_create_params as text_params
from openai.types.chat import completion_create_params as chat_params

from support.command_line import ROOT
from support.serving import Served, serving

HELLO = [{"role": "user", "content": "Say hello."}]
WEATHER: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "How warm it is",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with serving() as running:
        yield running


@pytest.fixture(scope="module")
def client(served: Served) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=served.base_url, api_key="none", max_retries=0) as made:
        yield made


@pytest.fixture(autouse=True)
def answer(served: Served) -> None:
    served.writer.answer = "Hello, world!"


def chat(client: openai.OpenAI, **settings: Any) -> Any:
    return client.chat.completions.create(**{"model": "tiny", "messages": HELLO, "temperature": 0, **settings})


def test_a_chat_completion_has_all_its_fields(client: openai.OpenAI) -> None:
    response = chat(client)
    (choice,) = response.choices
    assert choice.message.content == "Hello, world!"
    assert (choice.message.role, choice.message.refusal, choice.message.tool_calls) == ("assistant", None, None)
    assert (choice.finish_reason, choice.index, choice.logprobs) == ("stop", 0, None)
    assert response.object == "chat.completion" and response.model == "tiny" and response.id.startswith("chatcmpl-")
    assert response.system_fingerprint.startswith("fp_")
    usage = response.usage
    prompt = "<|im_start|>user\nSay hello.<|im_end|>\n<|im_start|>assistant\n"
    assert usage.prompt_tokens == len(prompt) - 2 * 11 - 9  # three special tokens
    assert usage.completion_tokens == len("Hello, world!") + 1
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens


def test_a_stream_has_the_same_text_and_usage_at_its_end(client: openai.OpenAI) -> None:
    chunks = list(chat(client, stream=True, stream_options={"include_usage": True}))
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks[:-1]) == "Hello, world!"
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert chunks[-1].choices == [] and chunks[-1].usage.completion_tokens == 14
    assert all(chunk.usage is None for chunk in chunks[:-1])
    assert {(chunk.id, chunk.created, chunk.object) for chunk in chunks} == {
        (chunks[0].id, chunks[0].created, "chat.completion.chunk")
    }


def test_characters_are_never_cut(served: Served, client: openai.OpenAI) -> None:
    served.writer.answer = "Tromsø 🦙 日本語"
    pieces = [chunk.choices[0].delta.content or "" for chunk in chat(client, stream=True)]
    assert "".join(pieces) == served.writer.answer
    assert "�" not in "".join(pieces)


def test_stop_strings_end_the_text_and_are_no_part_of_it(client: openai.OpenAI) -> None:
    for stop in ("wor", ["x", ", w"], [" world!"]):
        whole = chat(client, stop=stop).choices[0]
        text = "".join(chunk.choices[0].delta.content or "" for chunk in chat(client, stop=stop, stream=True))
        first = stop if isinstance(stop, str) else stop[-1]
        assert whole.message.content == text == "Hello, world!".partition(first)[0]
        assert whole.finish_reason == "stop"


def test_max_tokens_in_both_names(client: openai.OpenAI) -> None:
    for name in ("max_tokens", "max_completion_tokens"):
        choice = chat(client, **{name: 5}).choices[0]
        assert (choice.message.content, choice.finish_reason) == ("Hello", "length")


def test_log_probabilities_of_a_chat(served: Served, client: openai.OpenAI) -> None:
    served.writer.answer = "é!"
    whole = chat(client, logprobs=True, top_logprobs=2).choices[0].logprobs.content
    assert [token.bytes for token in whole] == [[0xC3], [0xA9], [ord("!")]]
    assert [token.token for token in whole] == ["\\xc3", "\\xa9", "!"]
    for token in whole:
        assert len(token.top_logprobs) == 2 and token.top_logprobs[0].bytes == token.bytes
        assert -0.001 < token.logprob <= 0 and token.top_logprobs[1].logprob < token.logprob
    streamed = [
        token
        for chunk in chat(client, logprobs=True, top_logprobs=2, stream=True)
        for token in (chunk.choices[0].logprobs.content if chunk.choices[0].logprobs else [])
    ]
    assert streamed == whole


def test_log_probabilities_end_where_the_text_does(client: openai.OpenAI) -> None:
    tokens = chat(client, logprobs=True, stop=["wor"]).choices[0].logprobs.content
    assert "".join(token.token for token in tokens) == "Hello, "


def test_several_answers_by_seed(client: openai.OpenAI) -> None:
    def texts(**settings: Any) -> list[str]:
        return [
            choice.text
            for choice in client.completions.create(
                model="tiny", prompt="Once", max_tokens=12, temperature=1, **settings
            ).choices
        ]

    together = texts(n=3, seed=7)
    assert together == [texts(seed=7 + number)[0] for number in range(3)]
    assert len(set(together)) == 3


def test_completions_of_texts_and_ids(client: openai.OpenAI) -> None:
    def create(prompt: Any, **settings: Any) -> Any:
        return client.completions.create(model="tiny", prompt=prompt, temperature=0, max_tokens=4, **settings)

    one, two = (create(prompt).choices[0].text for prompt in ("ab", "cd"))
    assert [choice.text for choice in create(["ab", "cd"]).choices] == [one, two]
    assert [choice.text for choice in create([[97, 98], [99, 100]]).choices] == [one, two]
    assert create([97, 98]).choices[0].text == one
    assert create("ab", echo=True).choices[0].text == f"ab{one}"
    response = create(["ab", "cd"], n=2)
    assert [choice.index for choice in response.choices] == [0, 1, 2, 3]
    assert response.usage.prompt_tokens == 4 and response.usage.completion_tokens == 16
    streamed = {0: "", 1: ""}
    for chunk in create(["ab", "cd"], stream=True, echo=True):
        streamed[chunk.choices[0].index] += chunk.choices[0].text
    assert streamed == {0: f"ab{one}", 1: f"cd{two}"}


def test_log_probabilities_of_completions(client: openai.OpenAI) -> None:
    choice = client.completions.create(model="tiny", prompt="ab", max_tokens=6, logprobs=2, temperature=0).choices[0]
    logprobs = choice.logprobs
    assert len(logprobs.tokens) == len(logprobs.token_logprobs) == len(logprobs.text_offset) == 6
    assert logprobs.text_offset[0] == 0 and logprobs.text_offset == sorted(logprobs.text_offset)
    for token, logprob, top in zip(logprobs.tokens, logprobs.token_logprobs, logprobs.top_logprobs, strict=True):
        assert len(top) == 2 and top[token] == logprob == max(top.values())


def test_the_model_is_listed_and_others_are_not_found(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["tiny"]
    assert client.models.retrieve("tiny").id == "tiny"
    with pytest.raises(openai.NotFoundError, match="tiny") as found:
        client.models.retrieve("gpt-4o")
    assert found.value.code == "model_not_found"
    with pytest.raises(openai.NotFoundError, match="this server has the model"):
        chat(client, model="gpt-4o")


def test_calls_of_tools_are_recognised(served: Served, client: openai.OpenAI) -> None:
    served.writer.answer = (
        'Let me look.\n<tool_call>\n{"name": "weather", "arguments": {"city": "Oslo"}}\n</tool_call>\n'
        '<tool_call>\n{"name": "weather", "arguments": {"city": "Bern {}"}}\n</tool_call>'
    )
    choice = chat(client, tools=[WEATHER]).choices[0]
    assert choice.finish_reason == "tool_calls" and choice.message.content == "Let me look.\n"
    calls = [(call.function.name, json.loads(call.function.arguments)) for call in choice.message.tool_calls]
    assert calls == [("weather", {"city": "Oslo"}), ("weather", {"city": "Bern {}"})]
    assert len({call.id for call in choice.message.tool_calls}) == 2
    single = chat(client, tools=[WEATHER], parallel_tool_calls=False).choices[0]
    assert len(single.message.tool_calls) == 1 and single.finish_reason == "tool_calls"
    # The dialog continues with the message as the client has it.
    messages = [*HELLO, choice.message]
    messages += [
        {"role": "tool", "tool_call_id": call.id, "content": "-3 degrees"} for call in choice.message.tool_calls
    ]
    served.writer.answer = "It is cold."
    assert chat(client, tools=[WEATHER], messages=messages).choices[0].message.content == "It is cold."


def test_calls_of_tools_are_streamed(served: Served, client: openai.OpenAI) -> None:
    served.writer.answer = '<tool_call>\n{"name": "weather", "arguments": {"city": "Oslo"}}\n</tool_call>'
    chunks = list(chat(client, tools=[WEATHER], stream=True))
    deltas = [call for chunk in chunks for call in chunk.choices[0].delta.tool_calls or ()]
    assert deltas[0].id and deltas[0].function.name == "weather" and deltas[0].type == "function"
    assert len(deltas) > 5 and all(delta.function.name is None for delta in deltas[1:])
    assert json.loads("".join(delta.function.arguments or "" for delta in deltas)) == {"city": "Oslo"}
    assert chunks[-1].choices[0].finish_reason == "tool_calls"
    assert not any(chunk.choices[0].delta.content for chunk in chunks)


def test_the_helpers_of_the_package_that_collect_a_stream(served: Served, client: openai.OpenAI) -> None:
    served.writer.answer = '<tool_call>\n{"name": "weather", "arguments": {"city": "Oslo"}}\n</tool_call>'
    with client.chat.completions.stream(model="tiny", messages=HELLO, tools=[WEATHER], temperature=0) as stream:
        kinds = {event.type for event in stream}
        (choice,) = stream.get_final_completion().choices
    assert "tool_calls.function.arguments.done" in kinds
    assert json.loads(choice.message.tool_calls[0].function.arguments) == {"city": "Oslo"}
    raw = client.chat.completions.with_raw_response.create(model="tiny", messages=HELLO, max_tokens=1)
    assert raw.headers["content-type"] == "application/json" and raw.parse().usage.completion_tokens == 1


def test_a_stream_that_is_closed_early_is_cancelled(served: Served, client: openai.OpenAI) -> None:
    served.writer.answer = "z" * 1000
    stream = chat(client, stream=True)
    next(iter(stream))
    stream.close()
    served.writer.answer = "Hello, world!"
    assert chat(client).choices[0].message.content == "Hello, world!"


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "weather"}}])
def test_a_required_call_follows_the_schema_whatever_the_model_would_say(
    served: Served, client: openai.OpenAI, choice: Any
) -> None:
    served.writer.answer = "I would rather not."
    parameters = {"type": "object", "properties": {"city": {"enum": ["Oslo", "Bern"]}, "hours": {"type": "boolean"}},
                  "required": ["city", "hours"], "additionalProperties": False}  # fmt: skip
    tools = [{"type": "function", "function": {"name": "weather", "parameters": parameters, "strict": True}}]
    for stream in (False, True):
        response = chat(client, tools=tools, tool_choice=choice, temperature=1, seed=3, stream=stream)
        if stream:
            deltas = [call for chunk in response for call in chunk.choices[0].delta.tool_calls or ()]
            name, arguments = deltas[0].function.name, "".join(delta.function.arguments for delta in deltas)
        else:
            (call,) = response.choices[0].message.tool_calls
            name, arguments = call.function.name, call.function.arguments
            assert response.choices[0].finish_reason == "tool_calls" and response.choices[0].message.content is None
        values = json.loads(arguments)
        assert name == "weather" and values["city"] in ("Oslo", "Bern") and values["hours"] in (True, False)


def test_answers_follow_a_schema(client: openai.OpenAI) -> None:
    class Point(pydantic.BaseModel):
        x: bool
        colour: Literal["red", "blue"]

    parsed = client.chat.completions.parse(model="tiny", messages=HELLO, response_format=Point, seed=1)
    assert isinstance(parsed.choices[0].message.parsed, Point)
    schema = {"type": "array", "items": {"type": "boolean"}, "minItems": 2, "maxItems": 2}
    form = {"type": "json_schema", "json_schema": {"name": "pair", "schema": schema}}
    pair = json.loads(chat(client, response_format=form, temperature=1).choices[0].message.content)
    assert len(pair) == 2 and {*pair} <= {True, False}
    with pytest.raises(openai.BadRequestError, match="unclosed") as refused:
        form["json_schema"]["schema"] = {"type": "string", "pattern": "("}
        chat(client, response_format=form)
    assert refused.value.param == "response_format"


def test_any_json_object(served: Served, client: openai.OpenAI) -> None:
    served.writer.answer = '{"a": [1, "b"]}'
    assert json.loads(chat(client, response_format={"type": "json_object"}).choices[0].message.content) == {
        "a": [1, "b"]
    }


def test_many_clients_at_once(served: Served) -> None:
    async def ask(client: openai.AsyncOpenAI, number: int) -> str:
        stream = await client.chat.completions.create(
            model="tiny", messages=[{"role": "user", "content": f"{number}"}], temperature=0, stream=True
        )
        return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

    async def ask_all() -> list[str]:
        async with openai.AsyncOpenAI(base_url=served.base_url, api_key="none", max_retries=0) as client:
            return [*await asyncio.gather(*(ask(client, number) for number in range(12)))]

    assert asyncio.run(ask_all()) == ["Hello, world!"] * 12


@pytest.mark.parametrize(
    ("settings", "param"),
    [
        ({"temperature": 3}, "temperature"),
        ({"n": 0}, "n"),
        ({"stop": ["x"] * 100}, "stop"),
        ({"reasoning_effort": "high"}, "reasoning_effort"),
        ({"extra_body": {"tempersture": 1}}, "tempersture"),
        ({"functions": [{"name": "f"}]}, "functions"),
        ({"top_logprobs": 3}, "top_logprobs"),
        ({"max_tokens": 100_000}, "max_tokens"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
         "messages[0].content[0].type"),
        ({"logit_bias": {"99999": 1}}, "logit_bias"),
    ],
)  # fmt: skip
def test_what_is_not_supported_is_refused_by_name(client: openai.OpenAI, settings: Any, param: str) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        chat(client, **settings)
    assert refused.value.param == param and param in str(refused.value)


@pytest.mark.parametrize(
    ("path", "params"),
    [
        ("/chat/completions", chat_params.CompletionCreateParamsBase),
        ("/completions", text_params.CompletionCreateParamsBase),
    ],
)
def test_every_field_of_the_package_is_known_and_described(served: Served, path: str, params: Any) -> None:
    page = (ROOT / "docs" / "reference" / "server.md").read_text("utf-8")
    needed = {"model": "tiny", "messages": HELLO} if "chat" in path else {"model": "tiny", "prompt": "a"}
    for field in [*params.__annotations__, "stream"]:
        error = httpx.post(served.base_url + path, json={**needed, field: {"nobody": 1}}).json().get("error", {})
        assert error.get("code") != "unknown_parameter" or error["param"] != field
        assert error.get("param", field).partition(".")[0] == field
        assert f"`{field}`" in page


def test_our_own_settings_of_sampling(client: openai.OpenAI) -> None:
    settings = {"top_k": 1, "min_p": 0.1, "repetition_penalty": 1.1}
    choice = chat(client, temperature=1, top_p=0.5, presence_penalty=0.1, frequency_penalty=0.1, extra_body=settings)
    assert choice.choices[0].message.content == "Hello, world!"
    assert chat(client, logit_bias={str(ord("H")): -100, str(ord("J")): 100}).choices[0].message.content[0] == "J"
