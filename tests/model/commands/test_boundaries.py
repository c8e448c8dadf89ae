"""`--bos`, `--no-bos` and `--eos-token`, and what `bpe info` prints about the beginning and the end of a text."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from bpe import Tokenizer
from model import ModelConfig, Transformer, save
from support.command_line import bpe, fails_with
from support.references import BYTE_RANKS

IDS = {"<s>": 256, "</s>": 257, "<|turn_end|>": 258}
CONFIG = ModelConfig(dim=32, n_layers=1, n_heads=4, n_kv_heads=2, hidden_dim=32, vocab_size=259, max_seq_len=32)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model")
    tokenizer = Tokenizer("x", pat_str="gpt2", mergeable_ranks=BYTE_RANKS, special_tokens=IDS)
    tokenizer.save(path / "tokenizer.json")
    torch.manual_seed(0)
    save(path / "model", Transformer(CONFIG), path / "tokenizer.json", format="huggingface")
    (path / "model" / "generation_config.json").write_text(json.dumps({"eos_token_id": [258, 257]}))
    return path / "model"


def test_info_prints_what_begins_and_ends_a_text_and_where_it_comes_from(model: Path, tmp_path: Path) -> None:
    gguf = tmp_path / "model.gguf"
    converted = bpe("convert", model, gguf)
    assert converted.exit_code == 0, converted.stderr
    for path, bos, front, end in (
        (model, "tokenizer_config.json", "tokenizer.json (post_processor)", "generation_config.json"),
        (
            model / "tokenizer.json",
            "tokenizer_config.json",
            "tokenizer.json (post_processor)",
            "generation_config.json",
        ),
        (gguf, "GGUF (bos_token_id)", "GGUF (add_bos_token)", "GGUF (tokenizer.bpe-llama.eos_token_ids)"),
    ):
        rows = dict(line.split(maxsplit=1) for line in bpe("info", path).stdout.splitlines() if " " in line)
        assert rows["begin"] == f"<s> (256), from {bos}"
        assert rows["end"] == f"<|turn_end|> (258), </s> (257), from {end}"
        assert "in front " in bpe("info", path).stdout
        assert f"<s> (256), from {front}" in bpe("info", path).stdout


def generate(model: Path, *options: object) -> dict[str, object]:
    result = bpe("generate", model, "-p", "Hi", "--json", "--seed", 1, "--temperature", 2, *options)
    assert result.exit_code == 0, result.stderr
    found: dict[str, object] = json.loads(result.stdout)
    return found


def test_generate_obeys_the_options_and_tells_which_token_ended_a_text(model: Path) -> None:
    with_bos, without = (generate(model, option, "--max-tokens", 8)["ids"] for option in ("--bos", "--no-bos"))
    assert with_bos == generate(model, "--max-tokens", 8)["ids"] != without
    assert isinstance(with_bos, list)
    ended = generate(model, "--max-tokens", 8, "--eos-token", with_bos[3])
    assert (ended["ids"], ended["finish"]) == (with_bos[: with_bos.index(with_bos[3]) + 1], "end")
    text = bytes([with_bos[3]]).decode(errors="replace") if with_bos[3] < 256 else None
    assert ended["end"] == {"id": with_bos[3], "text": text}
    assert "end" not in generate(model, "--max-tokens", 1, "--eos-token", "<|turn_end|>")


@pytest.mark.parametrize("token", ["<|nothing|>", "300", "-1"])
def test_an_end_token_that_does_not_exist_is_refused(token: str, model: Path) -> None:
    fails_with(bpe("generate", model, "-p", "Hi", f"--eos-token={token}"), 1, str(model), "end")


def test_bos_without_a_token_that_begins_a_text_is_refused(tmp_path: Path) -> None:
    tokenizer = Tokenizer("x", pat_str="gpt2", mergeable_ranks=BYTE_RANKS, special_tokens={"</s>": 256})
    tokenizer.save(tmp_path / "tokenizer.json")
    save(tmp_path / "model", Transformer(CONFIG), tmp_path / "tokenizer.json")
    (tmp_path / "text.txt").write_text("Some text.")
    for arguments in (("generate", "-p", "Hi"), ("explain", "Hi", "-m"), ("eval", tmp_path / "text.txt")):
        name = tmp_path / "model"
        line = (arguments[0], name, *arguments[1:]) if arguments[0] != "explain" else (*arguments, name)
        fails_with(bpe(*line, "--bos"), 1, str(name), "no token is known to begin a text")


def test_explain_and_eval_put_the_token_in_front_or_not(model: Path, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("Some text to measure the model on.")
    shown = [bpe("explain", "Hi", "-m", model, *option).stdout for option in ((), ("--bos",), ("--no-bos",))]
    assert shown[0] == shown[1] != shown[2]
    assert "<s>" in shown[0] and "<s>" not in shown[2]

    def bits(*option: str) -> object:
        return json.loads(bpe("eval", model, tmp_path / "text.txt", "--json", *option).stdout)["all_texts"]

    assert bits() == bits("--bos") != bits("--no-bos")
