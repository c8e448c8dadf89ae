"""`bpe explain`, in a terminal and in a pipe."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from click.testing import Result

from bpe import Tokenizer
from bpe.drawing import DARK
from model import ModelConfig, Transformer, load, save
from support.command_line import BPE, bpe, fails_with
from support.keyboard import END, at_keyboard
from support.references import BYTE_RANKS


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two layers, four heads on two keys, a context of 32, and more rows than the tokenizer has tokens."""
    directory = tmp_path_factory.mktemp("model")
    write_model(directory, {"<|begin_of_text|>": 256})
    return directory


def write_model(directory: Path, special: dict[str, int]) -> None:
    torch.manual_seed(1)
    tokenizer = Tokenizer("bytes", pat_str="llama3", mergeable_ranks=BYTE_RANKS, special_tokens=special)
    tokenizer.save(directory / "tokenizer.json")
    config = ModelConfig(dim=16, n_layers=2, n_heads=4, n_kv_heads=2, hidden_dim=24, vocab_size=300, max_seq_len=32)
    save(directory, Transformer(config), directory / "tokenizer.json")


def explain(model: Path, *arguments: str, input: str | None = None) -> Result:
    return bpe("explain", *arguments, "--model", model, input=input)


def test_the_steps_are_printed_in_order_with_shapes_and_dtypes(model: Path) -> None:
    result = explain(model, "a fox", "--head", "3", "--top", "4")
    assert result.exit_code == 0, result.output
    assert "\x1b" not in result.stdout
    headings = re.findall(r"^(\d+)\. (.*?)  (\[.*\]) (.*), (\w+)$", result.stdout, re.MULTILINE)
    assert [int(heading[0]) for heading in headings] == list(range(1, 27))
    shapes = {title: shape for _, title, shape, _, _ in headings}
    assert shapes["tokens"] == "[6]"
    assert shapes["embeddings"] == "[6 x 16]"
    assert shapes["keys of key-value head 1"] == "[6 x 4]"
    assert shapes["scores, masked"] == "[6 x 6]"
    assert shapes["feed-forward: w1"] == "[6 x 24]"
    assert shapes["all 2 layers"] == "[3 x 16]"
    assert shapes["logits"] == "[1 x 300]"
    assert {dtype for *_, dtype in headings} == {"int64", "float32"}
    assert "<|begin_of_text|> 256   a 97   · 32   f 102   o 111   x 120\n" in result.stdout
    assert len(re.findall(r"^  .*%  \d+$", result.stdout, re.MULTILINE)) == 4
    assert max(map(len, result.stdout.splitlines())) <= 80
    assert result.stderr == ""


def test_the_next_tokens_are_those_of_the_model_that_the_tokenizer_knows(model: Path) -> None:
    found = json.loads(explain(model, "a fox", "--json", "--top", "1000", "--layer", "1").stdout)
    assert (found["prompt"], found["layer"], found["head"]) == ("a fox", 1, 0)
    transformer, _ = load(model)
    expected = transformer(torch.tensor([[256, *b"a fox"]]))[0, -1, :257].softmax(-1).detach()
    following = found["steps"][-1]["next"]
    assert len(following) == 257
    assert following[0]["id"] == int(expected.argmax())
    assert following[0]["probability"] == pytest.approx(float(expected.max()), rel=1e-4)
    assert [step["title"] for step in found["steps"][:4]] == [
        "tokens", "embeddings", "residual stream, before layer 1", "layer 1: norm"
    ]  # fmt: skip


def test_the_model_computes_in_the_requested_dtype(model: Path) -> None:
    shown = explain(model, "a fox", "--dtype", "bfloat16").stdout
    assert "2. embeddings  [6 x 16] time x dim, bfloat16\n" in shown


def test_the_prompt_is_read_from_stdin_without_an_argument(model: Path) -> None:
    assert explain(model, input="a fox\n").stdout == explain(model, "a fox").stdout


def test_colors_are_printed_to_a_terminal_but_not_to_a_pipe(model: Path) -> None:
    command = [*BPE, "explain", "a fox", "-m", str(model)]
    environment = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
    piped = subprocess.run(command, env=environment, capture_output=True, check=True).stdout.decode()
    ours, theirs = pty.openpty()
    with subprocess.Popen(command, env=environment, stdout=theirs) as process:
        os.close(theirs)
        drawn = b""
        try:
            while piece := os.read(ours, 65536):
                drawn += piece
        except OSError:  # a pseudo-terminal on Linux raises this when the other end is closed
            pass
    os.close(ours)
    assert process.returncode == 0
    assert "\x1b" not in piped
    assert b"\x1b[1m1. tokens\x1b[0m" in drawn
    assert re.sub(r"\x1b\[[0-9;]*m", "", drawn.decode()).replace("\r\n", "\n") == piped


def test_png_writes_an_image(model: Path, tmp_path: Path) -> None:
    result = explain(model, "a fox", "--png", str(tmp_path / "map.png"))
    assert result.exit_code == 0, result.output
    assert (tmp_path / "map.png").read_bytes()[:4] == b"\x89PNG"
    assert result.stderr == f"{tmp_path / 'map.png'}: layer 0, head 0\n"


def test_pictures_are_written_in_further_formats_and_dark(model: Path, tmp_path: Path) -> None:
    result = explain(model, "a fox", "--picture", str(tmp_path / "map.svg"), "--format", "pdf,svg", "--dark")
    assert result.exit_code == 0, result.output
    assert sorted(path.name for path in tmp_path.iterdir()) == ["map.pdf", "map.svg"]
    drawn = (tmp_path / "map.svg").read_text("utf-8")
    assert DARK.background in drawn
    # A title is broken into lines behind spaces and hyphens.
    title = "".join(f"Attention in {model}: layer 0, head 0".split())
    assert title in "".join(re.sub("<[^>]*>", " ", drawn).split())
    assert "prompt: a fox" in drawn


@pytest.mark.parametrize(
    ("options", "said", "title"),
    [
        (("--head", "all"), "layer 0, all 4 heads", "head 3"),
        (("--layer", "all", "--head", "2"), "all 2 layers, head 2", "layer 1"),
        (("--layer", "all", "--head", "all"), "all 2 layers, all 4 heads", "layer; in each map"),
    ],
)
def test_all_heads_or_layers_are_drawn_together(
    model: Path, tmp_path: Path, options: tuple[str, ...], said: str, title: str
) -> None:
    result = explain(model, "a fox", *options, "--picture", str(tmp_path / "maps.svg"))
    assert result.exit_code == 0, result.output
    assert result.stderr == f"{tmp_path / 'maps.svg'}: {said}\n"
    assert title in (tmp_path / "maps.svg").read_text("utf-8")


def test_json_holds_the_attention_of_all_heads(model: Path) -> None:
    found = json.loads(explain(model, "a fox", "--json", "--head", "all", "--layer", "1").stdout)
    assert [(each["layer"], each["head"]) for each in found["attention"]] == [(1, 0), (1, 1), (1, 2), (1, 3)]
    third = json.loads(explain(model, "a fox", "--json", "--head", "3", "--layer", "1").stdout)
    assert "attention" not in third
    (shares,) = (step["shares"] for step in third["steps"] if "shares" in step)
    assert found["attention"][3]["shares"] == shares


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--head", "all"), "--layer all and --head all need --picture FILE or --json"),
        (("--head", "some"), "'some' is neither a number nor all"),
        (("--dark",), "--dark has no effect without --picture FILE"),
        (("--format", "svg", "--json"), "--format has no effect without --picture FILE"),
        (("--picture", "x.png", "--format", "gif"), "'gif' is not one of png, svg, pdf"),
    ],
)
def test_options_of_pictures_without_effect_are_refused(model: Path, options: tuple[str, ...], message: str) -> None:
    fails_with(explain(model, "a fox", *options), 2, message)


def test_without_matplotlib_a_picture_is_refused_before_the_work_and_the_rest_works(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    fails_with(
        explain(model, "a fox", "--png", str(tmp_path / "map.png")), 1, "map.png", "matplotlib", "bpe-llama[report]"
    )
    nowhere = explain(tmp_path / "nowhere", "a fox", "--png", str(tmp_path / "map.png"))
    fails_with(nowhere, 1, "matplotlib")  # before the model is looked for
    assert explain(model, "a fox").exit_code == 0


def test_wrong_input_is_reported_in_one_line(model: Path, tmp_path: Path) -> None:
    fails_with(explain(model, "a fox", "--layer", "2"), 1, "layer 2", "from 0 to 1")
    fails_with(explain(model, "a fox", "--head", "4"), 1, "head 4", "from 0 to 3")
    fails_with(explain(model, "a fox" * 10), 1, "51 tokens", "holds 32")
    fails_with(explain(model, "a fox", "--png", str(tmp_path / "nowhere" / "map.png")), 1, "map.png")
    fails_with(explain(model, "a fox", "--png", str(tmp_path / "map.gif")), 1, "map.gif", ".png, .svg, .pdf")
    fails_with(explain(tmp_path / "nowhere", "a fox"), 1, "nowhere")
    assert explain(model, "a fox", "--top", "0").exit_code == 2


def test_an_empty_prompt_needs_a_token_that_begins_a_text(model: Path, tmp_path: Path) -> None:
    assert "1. tokens  [1] time" in explain(model, "").stdout
    write_model(tmp_path, {})
    fails_with(explain(tmp_path, ""), 1, "the prompt is empty")


def test_colors_of_json_are_refused(model: Path) -> None:
    fails_with(explain(model, "a", "--json", "--color", "always"), 2, "--color has no effect with --json")


def test_the_model_is_the_first_argument_and_the_text_an_option_or_a_file(model: Path, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("a fox\n")
    expected = explain(model, "a fox").stdout
    for arguments in (("-p", "a fox"), ("-c", "a fox"), (tmp_path / "text",)):
        assert bpe("explain", model, *arguments).stdout == expected
    assert bpe("explain", model, "-", input="a fox\n").stdout == expected
    assert explain(model, str(tmp_path / "text")).stdout == expected


def test_more_than_one_text_or_no_model_is_refused(model: Path, tmp_path: Path) -> None:
    fails_with(bpe("explain"), 2, "missing MODEL")
    fails_with(bpe("explain", model, "-p", "a", "-p", "b"), 2, "only one text can be explained")
    fails_with(explain(model, "a", "b"), 2, "only one text can be explained")


def test_the_text_is_awaited_from_the_keyboard(model: Path) -> None:
    result = at_keyboard("explain", model, typed=b"a fox\n" + END)
    assert result.returncode == 0, result.stderr
    assert result.stderr == b"bpe: reading the prompt from the keyboard; Ctrl-D on an empty line ends it\n"
    assert b"1. tokens  [6] time" in result.stdout
