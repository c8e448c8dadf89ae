"""`bpe generate`: what it reads, what it prints, how it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import Result

from bpe import Tokenizer
from model import ModelConfig, Transformer, complete, load, save
from model.checkpoint import convert
from model.generation.native import NativeCache
from support.command_line import BPE, bpe, fails_with
from support.keyboard import END, at_keyboard
from support.references import BYTE_RANKS


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that generates random letters, with a context longer than any test needs."""
    directory = tmp_path_factory.mktemp("model")
    torch.manual_seed(1)
    special = {"<|begin_of_text|>": 256, "<|end_of_text|>": 257}
    Tokenizer("bytes", pat_str="llama3", mergeable_ranks=BYTE_RANKS, special_tokens=special).save(
        directory / "tokenizer.json"
    )
    llm = Transformer(
        ModelConfig(dim=16, n_layers=1, n_heads=2, n_kv_heads=1, hidden_dim=24, vocab_size=260, max_seq_len=100_000)
    )
    with torch.no_grad():
        llm.output.weight[:97] = 0.0  # only letters are ever the most likely token
        llm.output.weight[123:] = 0.0
        llm.output.weight[97:123] *= 20
    save(directory, llm, directory / "tokenizer.json")
    return directory


def generate(model: Path, *options: Any, input: str | bytes = "") -> Result:
    settings = ("--temperature", "0", "--threads", "1", "--max-tokens", "6")
    return bpe("generate", model, *settings, *options, input=input)


def objects(result: Result) -> list[dict[str, Any]]:
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_the_prompt_is_an_argument_a_file_or_stdin(model: Path, tmp_path: Path) -> None:
    file = tmp_path / "prompt.txt"
    file.write_text("One\ntwo\n")
    given = generate(model, "-p", "One\ntwo")
    assert given.exit_code == 0, given.output
    assert given.stdout.startswith("One\ntwo")
    assert len(given.stdout) == len("One\ntwo") + 6 + 1
    assert generate(model, "--file", file).stdout == given.stdout
    assert generate(model, input="One\ntwo\n").stdout == given.stdout
    assert generate(model, "-p", "a", "--file", file).exit_code == 2


def test_the_rates_of_prefill_and_decode_go_to_stderr(model: Path) -> None:
    place, said = generate(model, "-p", "abc", "--threads", "1").stderr.splitlines()
    assert said.startswith("prefill 4 tokens, ")
    assert "; decode 5 tokens, " in said
    assert place.startswith("on the CPU, ")
    assert place.endswith(", 1 thread")


def test_several_prompts_and_samples_are_printed_in_order(model: Path, tmp_path: Path) -> None:
    file = tmp_path / "prompts.txt"
    file.write_text("One\n\nthree long\n")
    alone = [generate(model, "-p", prompt).stdout for prompt in ("One", "three long")]
    together = generate(model, "--batch", file)
    assert together.stdout == "\n".join(alone)
    assert generate(model, "-p", "One", "-p", "three long").stdout == together.stdout
    options = ("--temperature", "1", "--samples", "2", "--seed", "5", "--json")
    samples = objects(generate(model, "--batch", file, *options))
    assert [text["prompt"] for text in samples] == ["One", "One", "three long", "three long"]
    assert samples[0]["text"] != samples[1]["text"]
    (second,) = objects(generate(model, "-p", "One", "--temperature", "1", "--seed", "6", "--json"))
    assert second["text"] == samples[1]["text"]


def test_a_file_without_prompts_is_refused(model: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("\n")
    fails_with(generate(model, "--batch", tmp_path / "empty"), 1, "empty: no prompts")


def test_json_contains_ids_log_probabilities_and_times(model: Path) -> None:
    (told,) = objects(generate(model, "-p", "abc", "--json", "--logprobs", "2", "--logit-bias", "97=-inf"))
    llm, tokenizer = load(model)
    (expected,) = complete(llm, tokenizer, ["abc"], 6, temperature=0, logprobs=2, logit_bias={97: -float("inf")})
    assert (told["prompt"], told["text"], told["ids"]) == ("abc", expected.text, expected.ids)
    assert told["finish"] == "length"
    assert told["logprobs"] == pytest.approx(expected.logprobs, abs=1e-4)
    assert [[id for id, _ in top] for top in told["top_logprobs"]] == [
        [id for id, _ in top] for top in expected.top_logprobs
    ]
    assert {*told["seconds"]} == {"load", "prefill", "decode"}
    assert all(seconds > 0 for seconds in told["seconds"].values())
    assert {*told["tokens_per_second"]} == {"prefill", "decode"}
    assert "logprobs" not in objects(generate(model, "-p", "abc", "--json"))[0]
    assert generate(model, "-p", "abc", "--logprobs", "2").exit_code == 2


def test_the_sampling_options_take_effect(model: Path) -> None:
    (plain,) = objects(generate(model, "-p", "a", "--json"))
    first = plain["ids"][0]
    (banned,) = objects(generate(model, "-p", "a", "--json", "--logit-bias", f"{first}=-inf", "--logit-bias", "98=50"))
    assert banned["ids"] == [98] * 6 if first != 98 else 98 not in banned["ids"]
    for penalty in ("--repetition-penalty", "--frequency-penalty", "--presence-penalty"):
        (varied,) = objects(generate(model, "-p", "a", "--json", penalty, "1e6"))
        assert len({*varied["ids"]}) == 6
    (stopped,) = objects(generate(model, "-p", "a", "--json", "--stop", plain["text"][2:4]))
    assert (stopped["text"], stopped["finish"]) == (plain["text"][: plain["text"].index(plain["text"][2:4])], "stop")


@pytest.mark.parametrize(
    ("options", "status", "message"),
    [
        (("--logit-bias", "5"), 2, "ID=NUMBER"),
        (("--logit-bias", "x=1"), 2, "ID=NUMBER"),
        (("--logit-bias", "258=1"), 1, "logit_bias has the id 258"),
        (("--repetition-penalty", "0"), 1, "repetition_penalty is 0"),
        (("--presence-penalty", "nan"), 1, "presence_penalty is nan; it must be a finite number"),
        (("--samples", "0"), 2, "--samples"),
        (("--dtype", "int8"), 2, "bfloat16"),
        (("--file", "/none/there"), 1, "/none/there"),
    ],
)
def test_wrong_options_are_reported(model: Path, options: Any, status: int, message: str) -> None:
    prompt = () if "--file" in options else ("-p", "a")
    fails_with(generate(model, *prompt, *options), status, message)


def test_generate_refuses_a_prompt_longer_than_the_context(run: Path) -> None:
    fails_with(bpe("generate", run, "-p", "word " * 2000), 1, "256")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_the_model_computes_in_the_requested_dtype(model: Path, dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: set[torch.dtype] = set()
    forward = Transformer.forward

    def noted(self: Transformer, *arguments: Any, **named: Any) -> torch.Tensor:
        logits = forward(self, *arguments, **named)
        seen.add(logits.dtype)
        return logits

    monkeypatch.setattr(Transformer, "forward", noted)
    assert generate(model, "-p", "a", "--dtype", dtype, "--backend", "torch").exit_code == 0
    assert seen == {getattr(torch, dtype)}


def test_the_dtype_of_cached_keys_and_values_can_be_chosen(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[str] = []
    create = NativeCache.__init__

    def noted(self: NativeCache, *arguments: Any, dtype: str, **named: Any) -> None:
        used.append(dtype)
        create(self, *arguments, dtype=dtype, **named)

    monkeypatch.setattr(NativeCache, "__init__", noted)
    assert generate(model, "-p", "a", "--backend", "native").exit_code == 0
    assert set(used) == {"float32"}
    used.clear()
    assert generate(model, "-p", "a", "--backend", "native", "--cache-dtype", "int8").exit_code == 0
    assert set(used) == {"int8"}
    result = generate(model, "-p", "a", "--backend", "torch", "--cache-dtype", "int8")
    fails_with(result, 1, f"bpe: {model}: --cache-dtype int8 needs the native backend", "choose --backend native")
    result = generate(model, "-p", "a", "--dtype", "float16", "--cache-dtype", "int8")
    fails_with(result, 1, "leave out --dtype float16, with which torch computes")


@pytest.mark.parametrize(
    ("error", "place"),
    [
        (MemoryError(), ""),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."), ""),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB."), " on the device"),
    ],
)
def test_running_out_of_memory_is_reported_with_a_remedy(
    model: Path, error: Exception, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise error

    monkeypatch.setattr(Transformer, "forward", fail)
    result = generate(model, "-p", "a", "--backend", "torch")
    fails_with(result, 1, f"bpe: not enough memory{place}; use shorter or fewer texts at once", prints=True)


def started(model: Path) -> subprocess.Popen[bytes]:
    command = [*BPE, "generate", str(model), "-p", "begin:", "--max-tokens", "90000"]
    return subprocess.Popen(
        [*command, "--temperature", "0", "--threads", "1"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, "PYTHONUNBUFFERED": ""},
    )  # fmt: skip


@pytest.mark.slow
def test_ctrl_c_keeps_the_text_written_so_far(model: Path) -> None:
    with started(model) as process:
        assert process.stdout is not None
        written = process.stdout.read(len("begin:") + 5)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert written.startswith(b"begin:")
    assert said == b"\nbpe: interrupted\n"  # the empty line ends the one where the terminal shows ^C


def test_generate_exits_silently_when_the_reader_of_its_pipe_exits(model: Path) -> None:
    with started(model) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.read(10)
        process.stdout.close()
        said = process.stderr.read()
        assert process.wait(timeout=60) == 1
    assert said == b""


@pytest.mark.parametrize("option", ["--file", "--batch"])
def test_a_byte_order_mark_is_not_part_of_a_prompt(model: Path, tmp_path: Path, option: str) -> None:
    for name, mark in (("plain.txt", ""), ("marked.txt", "\ufeff")):
        (tmp_path / name).write_bytes(f"{mark}One\r\ntwo\r\n".encode())
    marked = generate(model, option, tmp_path / "marked.txt").stdout
    assert marked == generate(model, option, tmp_path / "plain.txt").stdout
    assert marked.startswith("One")


def test_special_tokens_in_a_prompt_are_text_unless_they_are_allowed(model: Path) -> None:
    prompt = "<|begin_of_text|>a<|end_of_text|>b"
    llm, tokenizer = load(model)
    for options, ids in [
        ((), [256, *tokenizer.encode_ordinary(prompt)]),
        (("--allow-special",), [256, ord("a"), 257, ord("b")]),  # which already begins with what begins a text
    ]:
        (found,) = objects(generate(model, "-p", prompt, "--json", *options))
        (expected,) = complete(llm, tokenizer, [ids], 6, temperature=0.0)
        assert found["ids"] == expected.ids
        allowed = "all" if options else frozenset()
        (again,) = complete(llm, tokenizer, [prompt], 6, temperature=0.0, allowed_special=allowed)
        assert again.ids == expected.ids
    (some,) = complete(llm, tokenizer, [prompt], 6, temperature=0.0, allowed_special={"<|end_of_text|>"})
    (expected,) = complete(
        llm, tokenizer, [[256, *tokenizer.encode_ordinary("<|begin_of_text|>a"), 257, ord("b")]], 6, temperature=0.0
    )
    assert some.ids == expected.ids


def asking(model: Path, directory: Path, **generation: Any) -> Path:
    """Return a copy of the model with these entries in its generation_config.json."""
    convert(model, directory)
    path = directory / "generation_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | generation))
    return directory


def test_a_model_is_sampled_as_its_generation_config_asks(model: Path, tmp_path: Path) -> None:
    copied = asking(model, tmp_path / "greedy", do_sample=False)
    greedy = bpe("generate", copied, "-p", "One", "--max-tokens", 5, "--temperature", 0).stdout
    assert {bpe("generate", copied, "-p", "One", "--max-tokens", 5).stdout for _ in range(3)} == {greedy}
    warm = asking(model, tmp_path / "warm", do_sample=True, temperature=3.0, top_k=3, repetition_penalty=1.5)
    options = ["-p", "One", "--max-tokens", 5, "--seed", 1]
    spelt = ["--temperature", 3, "--top-k", 3, "--top-p", 1, "--repetition-penalty", 1.5]
    expected = bpe("generate", copied, *options, *spelt).stdout
    assert bpe("generate", warm, *options).stdout == expected != greedy
    overruled = bpe("generate", warm, *options[:-2], "--temperature", 0, "--repetition-penalty", 1)
    assert overruled.stdout == greedy


def test_settings_of_the_model_without_effect_are_named(model: Path, tmp_path: Path) -> None:
    said = bpe("generate", asking(model, tmp_path / "m", num_beams=4), "-p", "One", "--max-tokens", 2).stderr
    assert "its generation_config.json sets num_beams, which has no effect here\n" in said


def test_options_without_effect_at_temperature_0_are_refused(model: Path, tmp_path: Path) -> None:
    for option in ("--top-k", "--top-p", "--min-p", "--seed"):
        given = bpe("generate", model, "-p", "One", "--temperature", 0, option, 1)
        fails_with(given, 2, f"{option} has no effect with --temperature 0")
    greedy = asking(model, tmp_path / "greedy", do_sample=False)
    given = bpe("generate", greedy, "-p", "One", "--top-k", 3)
    fails_with(given, 2, "--top-k has no effect on this model, which asks for temperature 0; give --temperature")


def test_prompts_are_files_or_texts_by_each_name(model: Path, tmp_path: Path) -> None:
    (tmp_path / "one").write_text("One\n")
    (tmp_path / "two").write_text("two\n")
    greedy = ("--temperature", "0", "--max-tokens", "4")
    both = generate(model, tmp_path / "one", tmp_path / "two", *greedy).stdout
    assert both == generate(model, "-p", "One", "--text", "two", *greedy).stdout
    assert both.startswith("One")
    assert "\n\ntwo" in both
    one = generate(model, tmp_path / "one", *greedy).stdout
    for option in ("-c", "-p", "--text", "--prompt"):
        assert generate(model, option, "One", *greedy).stdout == one
    fails_with(generate(model, tmp_path / "one", "--batch", tmp_path / "two"), 2, "--batch", "one", "only one of them")


def test_the_prompt_is_awaited_from_the_keyboard(model: Path) -> None:
    result = at_keyboard("generate", model, "--max-tokens", "2", typed=b"One\n" + END)
    assert result.returncode == 0, result.stderr
    assert result.stderr.startswith(b"bpe: reading the prompt from the keyboard; Ctrl-D on an empty line ends it\n")
    assert result.stdout.startswith(b"One")
