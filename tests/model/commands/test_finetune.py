"""`bpe finetune`: what it writes and what it refuses."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from bpe import Tokenizer
from model import ModelConfig, Transformer, save
from support.command_line import bpe, fails_with
from support.references import BYTE_RANKS

NAMES = ("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
QUICK = ("--steps", "4", "--sequence-length", "64", "--threads", "1", "--eval-every", "2")


def dialog(question: str, answer: str) -> dict[str, object]:
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a model, dialogs and preferences."""
    directory = tmp_path_factory.mktemp("finetune")
    tokenizer = Tokenizer(
        "bytes",
        pat_str="llama3",
        mergeable_ranks=BYTE_RANKS,
        special_tokens={name: 256 + number for number, name in enumerate(NAMES)},
    )
    tokenizer.save(directory / "tokenizer.json")
    torch.manual_seed(0)
    shape = ModelConfig(dim=32, n_layers=1, n_heads=2, n_kv_heads=1, hidden_dim=48, vocab_size=264, max_seq_len=96)
    save(directory / "base", Transformer(shape), directory / "tokenizer.json")
    dialogs = [dialog(f"{count} {what}?", f"{count} x {what}") for count in range(4) for what in ("egg", "fig")]
    (directory / "dialogs.jsonl").write_text("\n".join(map(json.dumps, dialogs)))
    pairs = [{"prompt": f"{count}?", "chosen": f"{count}!", "rejected": f"{count + 1}!"} for count in range(5)]
    (directory / "pairs.jsonl").write_text("\n".join(map(json.dumps, pairs)))
    return directory


def test_ignore_unknown_opens_a_model_whose_configuration_has_another_key(place: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(place / "base", model)
    params = json.loads((model / "params.json").read_text())
    (model / "params.json").write_text(json.dumps({**params, "novelty": 3}))
    adapter = ("finetune", model, place / "dialogs.jsonl", "-o", tmp_path / "adapter", "--lora", "2", *QUICK)
    further = ("finetune", tmp_path / "adapter", place / "dialogs.jsonl", "-o", tmp_path / "further", *QUICK)
    for command in (adapter, further):
        fails_with(bpe(*command), 1, "params.json: ", "novelty", "--ignore-unknown")
        with pytest.warns(UserWarning, match="passed over keys that .*novelty"):
            assert bpe(*command, "--ignore-unknown").exit_code == 0


def test_an_adapter_can_be_chatted_with_and_converted(place: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    options = [
        "--lora",
        "2",
        "--lora-alpha",
        "3",
        "--lora-dropout",
        "0.1",
        "--lora-target",
        "wq",
        "--lora-target",
        "w2",
    ]
    result = bpe("finetune", place / "base", place / "dialogs.jsonl", "-o", run, *options, *QUICK)
    assert result.exit_code == 0, result.output
    assert result.stdout == ""
    assert "7 examples, " in result.stderr and "1 examples, " in result.stderr
    assert "of 1 held-out dialogs exactly" in result.stderr
    config = json.loads((run / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"], config["lora_dropout"]) == (2, 3, 0.1)
    assert config["target_modules"] == ["down_proj", "q_proj"]
    assert config["base_model_name_or_path"] == str(place / "base")
    chat = bpe("chat", run, "--max-tokens", "3", "--temperature", "0", "--threads", "1", input="1 egg?\n")
    assert chat.exit_code == 0, chat.output
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):  # PEFT does not write these
        (run / name).unlink()
    bare = bpe("chat", run, "--max-tokens", "3", "--temperature", "0", "--threads", "1", input="1 egg?\n")
    assert bare.stdout == chat.stdout
    assert "format      adapter, weights in float32" in bpe("info", run).stdout
    assert bpe("convert", run, tmp_path / "merged").exit_code == 0
    again = bpe("finetune", place / "base", place / "dialogs.jsonl", "-o", run, *options, *QUICK)
    assert again.exit_code == 0 and "already finished" in again.stderr
    other = bpe("finetune", place / "base", place / "dialogs.jsonl", "-o", run, "--lora", "4", *QUICK)
    assert other.exit_code == 1
    assert "rank 2 -> 4" in other.stderr.splitlines()[-1]


def test_a_whole_model_is_trained_on_dialogs_and_then_on_preferences(place: Path, tmp_path: Path) -> None:
    held_out = ("--held-out", place / "dialogs.jsonl")
    result = bpe("finetune", place / "base", place / "dialogs.jsonl", "-o", tmp_path / "all", *held_out, *QUICK)
    assert result.exit_code == 0, result.output
    assert "of 8 held-out dialogs exactly" in result.stderr
    assert "format      bpe-llama" in bpe("info", tmp_path / "all").stdout
    options = ("--preferences", "--beta", "0.2", "--lora", "2", "--merge", "--padded")
    result = bpe("finetune", tmp_path / "all", place / "pairs.jsonl", "-o", tmp_path / "polite", *options, *QUICK)
    assert result.exit_code == 0, result.output
    assert "held-out pairs moved to the chosen one" in result.stderr
    assert "format      bpe-llama" in bpe("info", tmp_path / "polite").stdout


@pytest.mark.parametrize(
    ("line", "options", "words"),
    [
        ("{", (), ("line 2 is not JSON",)),
        (json.dumps(dialog("?", "!") | {"messages": [{"role": "owl", "content": ""}]}), (), ("line 2", "'owl'")),
        (json.dumps({"messages": [{"role": "user", "content": "?"}]}), (), ("line 2", "no assistant message")),
        ("", ("--sequence-length", "97"), ("sequence_length is 97", "context of the model holds 96")),
        ("", ("--lora", "0"), ("LoRA rank is 0",)),
        ("", ("--lora", "4", "--lora-target", "q_proj"), ("q_proj", "wq, wk, wv, wo, w1, w2, w3")),
        ("", ("--merge",), ("merge", "lora")),
        ("", ("--steps", "0"), ("steps is 0; it must be positive",)),
        ("", ("--sequence-length", "0"), ("is 0; it must be positive",)),
        ("", ("--minutes", "1"), ("either steps or minutes",)),
        ("", ("--held-out", "nowhere.jsonl"), ("nowhere.jsonl",)),
        ("", ("--learning-rate", "-1"), ("learning_rate is -1.0; it must be positive",)),
    ],
)
def test_wrong_input_is_reported_in_one_line_and_nothing_is_written(
    line: str, options: tuple[str, ...], words: tuple[str, ...], place: Path, tmp_path: Path
) -> None:
    data = tmp_path / "data.jsonl"
    data.write_text((place / "dialogs.jsonl").read_text().splitlines()[0] + "\n" + line + "\n")
    result = bpe("finetune", place / "base", data, "-o", tmp_path / "run", "--steps", "1", *options)
    fails_with(result, 1, *words)
    assert not (tmp_path / "run").exists()


def test_options_of_lora_need_its_rank(place: Path, tmp_path: Path) -> None:
    data = place / "dialogs.jsonl"
    result = bpe("finetune", place / "base", data, "-o", tmp_path / "run", "--lora-alpha", "8")
    fails_with(result, 2, "--lora-alpha", "need --lora RANK")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--beta", "0.2"), "--beta has no effect without --preferences"),
        (("--epochs", "2", "--steps", "5"), "--epochs has no effect with --steps or --minutes"),
        (("--epochs", "2", "--minutes", "5"), "--epochs has no effect with --steps or --minutes"),
        (("--field", "story"), "--field has no effect without --text"),
        (("--separator", "x"), "--separator has no effect without --text"),
    ],
)
def test_options_without_effect_are_refused(options: tuple[str, ...], message: str, tmp_path: Path) -> None:
    fails_with(bpe("finetune", "nowhere", "data.jsonl", "-o", tmp_path / "run", *options), 2, message)


def test_finetune_has_a_default_run(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = bpe("finetune", place / "base", place / "dialogs.jsonl", "--lora", "2", *QUICK)
    assert result.exit_code == 0, result.output
    assert "bpe: by default: -o runs/base-finetuned\n" in result.stderr
    assert (tmp_path / "runs" / "base-finetuned" / "adapter_config.json").is_file()
    fails_with(bpe("finetune", "--lora", "2"), 2, "missing MODEL, DIALOGS...\n")
