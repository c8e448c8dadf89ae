"""The commands: what they print, and what they say when something is wrong."""

from __future__ import annotations

import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from bpe import Tokenizer
from bpe.cli import cli

ROOT = Path(__file__).parents[2]
BPE = [sys.executable, "-m", "bpe.cli"]


def bpe(*arguments: str | Path, input: bytes | str | None = None) -> Result:
    return CliRunner().invoke(cli, [str(argument) for argument in arguments], input=input)


def fails_with(result: Result, status: int, *words: str) -> None:
    """The command failed in one line, which holds these words."""
    assert result.exit_code == status, result.output
    lines = result.stderr.splitlines()
    assert len(lines) == 1 if status == 1 else lines, result.stderr
    for word in words:
        assert word in result.stderr
    assert "Traceback" not in result.stderr


@pytest.fixture(scope="module")
def my_json(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tokenizer") / "my.json"
    result = bpe("train", ROOT / "corpora", "-o", path, "--vocab-size", "1024")
    assert result.exit_code == 0, result.output
    return path


def test_help_lists_every_command_and_every_command_has_examples() -> None:
    shown = bpe("--help").stdout
    context = click.Context(cli)
    for name in cli.list_commands(context):
        command = cli.get_command(context, name)
        assert command is not None
        assert name in shown
        page = bpe(name, "--help").stdout
        assert "Examples:" in page
        assert f"bpe {name}" in page
        for option in command.params:
            if isinstance(option, click.Option):
                assert option.help, f"{name} {option.name} has no help"


def test_train_writes_a_tokenizer_that_encodes(my_json: Path) -> None:
    tokenizer = Tokenizer.from_file(my_json)
    assert tokenizer.n_vocab == 1024
    assert tokenizer.decode(tokenizer.encode("Once upon a time")) == "Once upon a time"


def test_train_takes_stdin_other_patterns_and_special_tokens(tmp_path: Path) -> None:
    path = tmp_path / "ranks.model"
    result = bpe(
        "train", "-", "-o", path, "--vocab-size", "280", "--pattern", "gpt2", "--special", "<|x|>",
        input="a tale of two tails, and of a tall tale told at all times and in all towns",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    tokenizer = Tokenizer.from_file(path, pattern="gpt2", special_tokens=["<|x|>"])
    assert tokenizer.n_vocab == 280
    assert tokenizer.encode("<|x|>", allowed_special="all") == [279]


@pytest.mark.parametrize("ids_format", ["text", "json", "u16", "u32"])
def test_encode_and_decode_give_any_file_back(my_json: Path, tmp_path: Path, ids_format: str) -> None:
    path = tmp_path / "file"
    content = (ROOT / "corpora" / "unicode.txt").read_bytes() + bytes(range(256)) + b"\xff\r\n\0\0 \n"
    path.write_bytes(content)
    ids = bpe("encode", "-t", my_json, path, "--format", ids_format)
    assert ids.exit_code == 0
    text = bpe("decode", "-t", my_json, "--format", ids_format, input=ids.stdout_bytes)
    assert text.stdout_bytes == content


def test_encode_prints_ids_in_each_format(my_json: Path) -> None:
    ids = Tokenizer.from_file(my_json).encode("Hello")
    assert bpe("encode", "-t", my_json, "-c", "Hello").stdout == " ".join(map(str, ids)) + "\n"
    assert json.loads(bpe("encode", "-t", my_json, "-c", "Hello", "--format", "json").stdout) == ids
    packed = bpe("encode", "-t", my_json, "-c", "Hello", "--format", "u16").stdout_bytes
    assert list(struct.unpack(f"<{len(ids)}H", packed)) == ids


def test_special_tokens_are_text_unless_allowed(my_json: Path) -> None:
    text = "<|end_of_text|>"
    assert bpe("encode", "-t", my_json, "-c", text, "--allow-special").stdout == "769\n"
    assert len(bpe("encode", "-t", my_json, "-c", text).stdout.split()) > 1


def test_count_adds_up_several_files(my_json: Path) -> None:
    rows = bpe("count", "-t", my_json, ROOT / "LICENSE", ROOT / "README.md").stdout.splitlines()
    tokens = [int(row.split()[0]) for row in rows]
    assert len(rows) == 3
    assert tokens[0] + tokens[1] == tokens[2]


def test_show_marks_tokens_and_the_bytes_of_cut_characters(my_json: Path) -> None:
    plain = bpe("show", "-t", my_json, "-c", "a bear\n日").stdout
    assert "|" in plain
    assert "⏎" in plain
    coloured = bpe("show", "-t", my_json, "-c", "a bear", "--color", "always").stdout
    assert "\x1b[30;48;5;" in coloured
    rows = bpe("show", "-t", my_json, "-c", "a bear", "--ids").stdout.splitlines()
    assert [int(row.split()[0]) for row in rows] == Tokenizer.from_file(my_json).encode("a bear")


def test_info_describes_tokenizers_presets_and_warns_of_the_slow_path(my_json: Path, tmp_path: Path) -> None:
    assert "1,024 tokens" in bpe("info", my_json).stdout
    assert "8,030,261,248" in bpe("info", "llama3-8b").stdout
    slow = tmp_path / "slow.json"
    bpe("train", ROOT / "corpora" / "prose.txt", "-o", slow, "--vocab-size", "600", "--pattern", r"\w+|\W")
    assert "slow path" in bpe("info", slow).stdout


def test_info_tells_how_a_tokenizer_does_on_texts(my_json: Path, tmp_path: Path) -> None:
    prose, thai = ROOT / "corpora" / "prose.txt", ROOT / "corpora" / "sentences" / "th.txt"
    result = bpe("info", my_json, prose, thai, "--report", tmp_path / "found")
    assert result.exit_code == 0, result.output
    counted = [row.split()[:2] for row in bpe("count", "-t", my_json, prose, thai).stdout.splitlines()]
    for (tokens, size), file in zip(counted, (prose, thai), strict=False):
        row = next(line for line in result.stdout.splitlines() if line.startswith(str(file)))
        assert row.split()[1:3] == [f"{int(size):,}", f"{int(tokens):,}"]
    assert result.stdout.startswith(bpe("info", my_json).stdout)
    assert "growth.png" in result.stderr
    as_json = bpe("info", my_json, prose, thai, "--json")
    assert json.loads(as_json.stdout) == json.loads((tmp_path / "found" / "report.json").read_text())
    assert json.loads(bpe("info", my_json, "--json").stdout)["texts"] == []


def test_info_reads_documents_as_the_other_commands_do(my_json: Path) -> None:
    text = "one two<|end_of_text|>three"
    cut = json.loads(bpe("info", my_json, "-", "--json", "--separator", "<|end_of_text|>", input=text).stdout)
    assert (cut["texts"][0]["documents"], cut["texts"][0]["bytes"]) == (2, 12)
    whole = json.loads(bpe("info", my_json, "-", "--json", input=text).stdout)
    assert whole["texts"][0]["tokens"] == len(bpe("encode", "-t", my_json, "-c", text).stdout.split())


def test_info_says_in_one_line_what_it_cannot_use(
    my_json: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "empty.txt").write_bytes(b"")
    fails_with(bpe("info", my_json, tmp_path / "empty.txt"), 1, "empty.txt", "no text")
    fails_with(bpe("info", my_json, tmp_path / "none.txt"), 1, "none.txt", "no such file")
    fails_with(bpe("info", "llama3.2-1b", tmp_path / "empty.txt"), 1, "llama3.2-1b", "not a known name")
    fails_with(bpe("info", my_json, "--report", my_json), 1, "my.json", "File exists")
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    fails_with(bpe("info", my_json, "--report", tmp_path / "found"), 1, "matplotlib", "bpe-llama[report]")
    assert not (tmp_path / "found").exists()


def test_compare_sets_tokenizers_side_by_side(my_json: Path, tmp_path: Path) -> None:
    ranks = tmp_path / "ranks.model"
    Tokenizer.from_file(my_json).save(ranks)
    corpora = ROOT / "corpora"
    result = bpe("compare", "llama3", my_json, ranks, corpora, "--pattern", "llama3")
    assert result.exit_code == 0, result.output
    header, *rows = result.stdout.splitlines()
    assert header.split()[:3] == ["tokenizer", "vocabulary", "tokens"]
    assert [row.split()[0] for row in rows] == ["llama3", str(my_json), str(ranks)]
    assert rows[1].split()[2:] == rows[2].split()[2:]
    found = json.loads(bpe("compare", my_json, "llama3", my_json, "--on", corpora, "--json").stdout)
    assert [row["name"] for row in found["tokenizers"]] == [str(my_json), "llama3", str(my_json)]
    assert found["tokenizers"][2]["tokens_relative_interval"] == [1, 1]
    other = json.loads(bpe("compare", my_json, "llama3", "--on", corpora, "--json", "--seed", "1").stdout)
    assert other["tokenizers"][1]["tokens_relative"] == found["tokenizers"][1]["tokens_relative"]
    assert other["tokenizers"][1]["tokens_relative_interval"] != found["tokenizers"][1]["tokens_relative_interval"]


def test_compare_takes_the_last_argument_for_the_text_unless_told_otherwise(my_json: Path, tmp_path: Path) -> None:
    text, binary, empty = (tmp_path / name for name in ("text.json", "binary", "empty.txt"))
    text.write_text('{"what": "is no tokenizer"}')
    binary.write_bytes(bytes(range(256)))
    empty.write_bytes(b"")
    assert "too little text" in bpe("compare", my_json, my_json, text).stderr
    assert "256 bytes" in bpe("compare", my_json, my_json, "-", input=binary.read_bytes()).stderr
    assert "283 bytes" in bpe("compare", my_json, my_json, "--on", text, "--on", binary).stderr
    fails_with(bpe("compare", my_json, text), 2, "two tokenizers")
    fails_with(bpe("compare", my_json, text, binary), 1, "text.json", "tokenizer.json")
    fails_with(bpe("compare", my_json, "nothing", text), 1, "nothing", "not a known name")
    fails_with(bpe("compare", my_json, my_json, empty), 1, "empty.txt", "no text")
    fails_with(bpe("compare", my_json, my_json, tmp_path / "none"), 1, "none", "no such file")


def test_verify_names_its_reference_and_fails_on_a_difference(my_json: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = bpe("verify", my_json, ROOT / "corpora" / "sentences")
    assert result.exit_code == 0
    assert "compared with tokenizers" in result.stdout
    assert "0 differ" in result.stdout
    result = bpe("verify", my_json, "--pattern", "gpt2")  # which the file does not say
    assert result.exit_code == 0
    assert "compared with tiktoken" in result.stdout
    monkeypatch.setattr(Tokenizer, "encode", lambda self, text, **_: self.vocabulary.encoder.encode(text, None)[:-1])
    fails_with(bpe("verify", my_json), 1, "differ from the reference, tokenizers", "hard case")


def test_verify_says_in_one_line_what_it_cannot_use(
    my_json: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "text.json").write_text("no tokenizer")
    fails_with(bpe("verify", tmp_path / "text.json"), 1, "text.json", "not a tokenizer file")
    fails_with(bpe("verify", tmp_path / "none.json"), 1, "none.json", "no such file")
    fails_with(bpe("verify", my_json, tmp_path / "none.txt"), 1, "none.txt", "no such file")
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    fails_with(bpe("verify", my_json), 1, "tokenizers", "bpe-llama[verify]")


# --- wrong input: one line, a status, nothing half-written ---


def test_missing_files_are_named(my_json: Path, tmp_path: Path) -> None:
    fails_with(bpe("encode", "-t", my_json, "nowhere.txt"), 1, "nowhere.txt", "No such file")
    fails_with(bpe("train", "nowhere", "-o", tmp_path / "x.json", "--vocab-size", "512"), 1, "nowhere", "no such file")
    fails_with(bpe("encode", "-t", "nowhere.json", "-c", "x"), 1, "nowhere.json", "no such file")


@pytest.mark.parametrize(
    ("content", "size", "words"),
    [
        (b"", "1000", ["no text"]),
        (b"abc abc", "100", ["too small", "512"]),
        (b"abc abc", "5000", ["no pair is left", "--allow-smaller"]),
    ],
)
def test_a_corpus_that_cannot_give_the_vocabulary_is_refused(
    tmp_path: Path, content: bytes, size: str, words: list[str]
) -> None:
    corpus = tmp_path / "corpus.txt"
    corpus.write_bytes(content)
    output = tmp_path / "out.json"
    fails_with(bpe("train", corpus, "-o", output, "--vocab-size", size), 1, *words)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["corpus.txt"]


def test_wrong_usage_has_status_2(my_json: Path, tmp_path: Path) -> None:
    fails_with(bpe("encode", "--nonsense"), 2, "nonsense")
    fails_with(bpe("encode", "-t", my_json, "-c", "text", "file"), 2, "not both")
    fails_with(bpe("encode", "-t", "llama3", "-c", "x", "--format", "u16"), 2, "u32")


def test_ids_that_cannot_be_decoded_are_named(my_json: Path) -> None:
    fails_with(bpe("decode", "-t", my_json, input="1 2 99999"), 1, "99999", "1,024")
    fails_with(bpe("decode", "-t", my_json, input="1 -2"), 1, "negative")
    fails_with(bpe("decode", "-t", my_json, input="1 two"), 1, "two", "--format")
    fails_with(bpe("decode", "-t", my_json, "--format", "json", input="[1, 2"), 1, "stdin")
    fails_with(bpe("decode", "-t", my_json, "--format", "u32", input=b"abc"), 1, "3 bytes", "32 bits")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"SGk= 0\n!!!! 1\n", ["line 2", "base64"]),
        (b"SGk= 0\nSGU= x\n", ["line 2"]),
        (b'{"model": {"type": "BPE", "voc', ["truncated"]),
        (b"PK\x03\x04 no tokenizer", ["not a tokenizer file"]),
        (b"", ["not a tokenizer file"]),
    ],
)
def test_damaged_tokenizer_files_are_refused_with_their_name(tmp_path: Path, content: bytes, words: list[str]) -> None:
    path = tmp_path / "damaged.model"
    path.write_bytes(content)
    fails_with(bpe("encode", "-t", path, "--pattern", "llama3", "-c", "x"), 1, "damaged.model", *words)


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    finished = subprocess.run(
        [*BPE, "--debug", "encode", "nowhere.txt"], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert finished.returncode != 0
    assert "Traceback" in finished.stderr


def test_a_reader_that_goes_away_ends_encode_quietly(my_json: Path, tmp_path: Path) -> None:
    big = tmp_path / "big.txt"
    big.write_bytes(b"many words here " * 200_000)
    script = f"{' '.join(BPE)} encode -t {my_json} {big} --format json | head -c 10"
    finished = subprocess.run(["bash", "-c", script], capture_output=True, check=False)
    assert len(finished.stdout) == 10
    assert finished.stderr == b""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_full_disk_is_said_in_one_line(my_json: Path, unbuffered: str) -> None:
    command = [*BPE, "encode", "-t", str(my_json), "-c", "text"]
    environment = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
    with open("/dev/full", "wb") as full:
        finished = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, check=False, env=environment)
    assert finished.returncode == 1
    assert finished.stderr.count(b"\n") == 1
    assert b"No space left" in finished.stderr


# --- the model's commands ---


@pytest.fixture(scope="module")
def data(my_json: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("shards") / "data"
    result = bpe("shards", ROOT / "corpora", "--separator", "<|end_of_text|>", "-t", my_json, "-o", path)
    assert result.exit_code == 0, result.output
    return path


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("runs") / "run"
    result = bpe("pretrain", "--data", data, "-o", path, "--config", "nano", "--steps", "4")
    assert result.exit_code == 0, result.output
    return path


def test_pretrain_leaves_a_model_that_generates(run: Path) -> None:
    assert {"model.safetensors", "params.json", "metrics.jsonl", "loss.png"} <= {path.name for path in run.iterdir()}
    first = bpe("generate", run, "-p", "Once upon", "--max-tokens", "8", "--seed", "1")
    assert first.exit_code == 0, first.output
    assert first.stdout.startswith("Once upon")
    assert bpe("generate", run, "--max-tokens", "8", "--seed", "1", input="Once upon\n").stdout == first.stdout
    assert "parameters" in bpe("info", run).stdout


def test_a_model_is_converted_and_described_in_each_format(run: Path, tmp_path: Path) -> None:
    expected = bpe("generate", run, "-p", "Once upon", "--max-tokens", "8", "--temperature", "0").stdout
    for name, dtype in (("huggingface", None), ("meta", None), ("bpe-llama", None), ("huggingface", "bfloat16")):
        out = tmp_path / f"{name}-{dtype}"
        options = ["--dtype", dtype] if dtype else []
        result = bpe("convert", run, out, "--format", name, *options)
        assert result.exit_code == 0, result.output
        assert result.stdout == ""
        assert result.stderr.startswith(f"{out}: {name}, ")
        assert result.stderr.endswith(" MB\n")
        rows = dict(line.split(maxsplit=1) for line in bpe("info", out).stdout.splitlines())
        assert rows["format"] == f"{name}, weights in {dtype or 'float32'}"
        assert rows["parameters"].startswith("684,928: embedding 131,072,")
        if dtype is None:
            shown = bpe("generate", out, "-p", "Once upon", "--max-tokens", "8", "--temperature", "0")
            assert shown.stdout == expected
        for file in out.iterdir():  # a tokenizer is a tokenizer, also beside a model
            if file.name in ("tokenizer.json", "model.safetensors", "config.json"):
                assert ("merges" in bpe("info", file).stdout) == (file.name == "tokenizer.json")
    fails_with(bpe("convert", run, tmp_path / "meta-None"), 1, "meta-None", "there already")
    fails_with(bpe("convert", run, tmp_path / "new", "--format", "onnx"), 1, "onnx", "huggingface")
    fails_with(bpe("convert", tmp_path, tmp_path / "new"), 1, "no model here")
    assert not (tmp_path / "new").exists()


def test_a_model_follows_a_vocabulary_that_has_grown(run: Path, my_json: Path, tmp_path: Path) -> None:
    grown = tmp_path / "grown.json"
    assert bpe("train", ROOT / "corpora", "-o", grown, "--base", my_json, "--vocab-size", "1100").exit_code == 0
    result = bpe("convert", run, tmp_path / "out", "--resize-vocab", grown)
    assert result.exit_code == 0, result.output
    assert "vocabulary  1,100" in bpe("info", tmp_path / "out").stdout
    assert bpe("generate", tmp_path / "out", "-p", "Once upon", "--max-tokens", "4").exit_code == 0
    back = bpe("convert", tmp_path / "out", tmp_path / "no", "--resize-vocab", my_json)
    fails_with(back, 1, f"{my_json}: it does not hold the vocabulary", "no token", "train --base")


def test_info_reckons_with_a_batch_and_a_length() -> None:
    def row(label: str, *options: str) -> str:
        lines = bpe("info", "llama3-8b", *options).stdout.splitlines()
        return next(line.removeprefix(label).strip() for line in lines if line.startswith(label))

    # 128 KiB a token: 2 (key, value) * 32 layers * 8 heads * 128 numbers * 2 bytes
    assert row("KV cache") == "131 kB a token, 1.07 GB for 8,192 tokens, in bfloat16"
    eight = row("KV cache", "--batch", "8", "--length", "1000")
    assert eight == "131 kB a token, 1.05 GB for 8 sequences of 1,000 tokens, in bfloat16"
    assert row("prefill", "--length", "1000").startswith("14.2 TFLOP for 1,000 tokens, 14.2 GFLOP a token")
    assert row("decode", "--length", "1000") == "15 GFLOP for the first token, 15.5 GFLOP for token 1,000"
    assert row("parameters").startswith("8,030,261,248: embedding 525,336,576, attention 1,342,177,280, feed-forward")
    fails_with(bpe("info", "llama3-8b", "--length", "9000"), 1, "--length 9,000", "8,192")


def test_a_run_is_gone_on_with_by_its_directory_alone(run: Path, tmp_path: Path) -> None:
    again = bpe("pretrain", "-o", run)
    assert again.exit_code == 0, again.output
    assert "finished already" in again.stderr
    fails_with(bpe("pretrain", "-o", run, "--learning-rate", "0.5"), 1, "learning_rate 0.002 -> 0.5")
    fails_with(bpe("pretrain", "-o", tmp_path / "none"), 1, "there is no run to go on with; give --data")


def test_a_config_json_is_a_shape_too(data: Path, tmp_path: Path) -> None:
    shape = {"model_type": "llama", "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
             "num_key_value_heads": 1, "intermediate_size": 48, "vocab_size": 9, "max_position_embeddings": 64,
             "rms_norm_eps": 1e-5, "tie_word_embeddings": True}  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(shape))
    options = ["--steps", "1", "--sequence-length", "64", "--sample-tokens", "4", "--eval-tokens", "256"]
    result = bpe("pretrain", "--data", data, "-o", tmp_path / "run", "--config", tmp_path / "config.json", *options)
    assert result.exit_code == 0, result.output
    assert json.loads((tmp_path / "run" / "params.json").read_text())["hidden_dim"] == 48


def test_a_run_with_other_settings_is_not_overwritten(run: Path, data: Path) -> None:
    fails_with(bpe("pretrain", "--data", data, "-o", run, "--config", "nano", "--steps", "5"), 1, "steps")


def test_a_prompt_that_is_longer_than_the_context_is_refused(run: Path) -> None:
    fails_with(bpe("generate", run, "-p", "word " * 2000), 1, "256")


def test_models_that_are_not_there_or_do_not_fit_are_refused(run: Path, data: Path, tmp_path: Path) -> None:
    fails_with(bpe("generate", tmp_path / "none", "-p", "x"), 1, "none")
    fails_with(bpe("pretrain", "--data", tmp_path, "-o", tmp_path / "r"), 1, "index.json")
    fails_with(bpe("pretrain", "--data", data, "-o", tmp_path / "r", "--config", "huge"), 1, "huge", "presets")
    other = tmp_path / "other"
    shutil.copytree(run, other)
    params = json.loads((other / "params.json").read_text())
    (other / "params.json").write_text(json.dumps({**params, "n_layers": params["n_layers"] + 1}))
    fails_with(bpe("generate", other, "-p", "x"), 1, "model.safetensors", "layers.3")


def test_an_interrupted_training_says_so_and_leaves_no_model(data: Path, tmp_path: Path) -> None:
    output = tmp_path / "run"
    process = subprocess.Popen(
        [*BPE, "pretrain", "--data", str(data), "-o", str(output), "--config", "nano", "--minutes", "30"],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    metrics = output / "metrics.jsonl"
    while process.poll() is None and not (metrics.is_file() and metrics.read_text().count('"step"') > 2):
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 130, said
    assert "Traceback" not in said
    assert "interrupted" in said
    assert not (output / "model.safetensors").exists()
    assert not [path for path in output.rglob("*") if path.name.startswith(".")]


def test_the_options_of_pretrain_have_the_defaults_of_train_config() -> None:
    from dataclasses import fields

    from model.commands.pretrain import pretrain
    from model.training.settings import TrainConfig

    options = {option.name: option.default for option in pretrain.params}
    for field in fields(TrainConfig):
        if field.default is None or field.default is False:  # for which click has a mark of its own
            assert options[field.name] is False or not isinstance(options[field.name], int | float), field.name
        else:
            assert options[field.name] == field.default, field.name
