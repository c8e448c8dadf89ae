"""`--image` of `bpe generate` and `bpe chat`: pictures through a tiny model, from files to text."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import Result
from PIL import Image, ImageDraw

from bpe import Tokenizer
from model import ModelConfig, Transformer, save
from model.checkpoint import open_checkpoint
from model.images import images_of, open_image, tiled
from model.loading import load
from support.command_line import bpe, fails_with
from support.references import BYTE_RANKS

IMAGE = 300
TEMPLATE = (
    "<|begin_of_text|>{% for message in messages %}<|start_header_id|>{{ message['role'] }}<|end_header_id|>\n\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|image|>{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}"
    "<|eot_id|>{% endfor %}{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
SPECIAL = {
    "<|begin_of_text|>": 256, "<|start_header_id|>": 257, "<|end_header_id|>": 258, "<|eot_id|>": 259,
    "<|image|>": IMAGE,
}  # fmt: skip


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with random weights that reads images, and writes letters only."""
    directory = tmp_path_factory.mktemp("model")
    tokenizer = Tokenizer("bytes", pat_str="llama3", mergeable_ranks=BYTE_RANKS, special_tokens=SPECIAL)
    tokenizer.save(directory / "tokenizer.json")
    (directory / "chat_template.jinja").write_text(TEMPLATE, "utf-8")
    vision = {"dim": 32, "n_layers": 3, "n_global_layers": 2, "n_heads": 4, "hidden_dim": 48, "image_size": 28}
    config = ModelConfig(
        dim=48, n_layers=5, n_heads=4, n_kv_heads=2, hidden_dim=64, vocab_size=300, max_seq_len=512,
        cross_attention_layers=(1, 3), vision={**vision, "patch_size": 7, "feature_layers": [0, 1]},
    )  # fmt: skip
    torch.manual_seed(3)
    llm = Transformer(config)
    with torch.no_grad():
        for name, parameter in llm.named_parameters():
            if name.endswith("gate.weight"):
                parameter.fill_(0.5 if name.startswith("vision") else 0.1)
            elif parameter.dim() > 1:
                parameter.normal_(std=1.0 / parameter.shape[-1] ** 0.5 if "embedding" not in name else 1.0)
        llm.output.weight[:97] = 0.0  # only letters are ever the most likely token
        llm.output.weight[123:] = 0.0
        llm.output.weight[97:123] *= 20
    save(directory, llm, directory)
    return directory


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A circle, and two squares in a wide picture."""
    directory = tmp_path_factory.mktemp("pictures")
    circle, squares = Image.new("RGB", (60, 60), "white"), Image.new("L", (90, 40), "black")
    ImageDraw.Draw(circle).ellipse((10, 10, 50, 50), fill="red")
    for left in (5, 50):
        ImageDraw.Draw(squares).rectangle((left, 5, left + 30, 35), fill="white")
    circle.save(directory / "circle.png")
    squares.save(directory / "squares.jpg")
    return {"circle": directory / "circle.png", "squares": directory / "squares.jpg"}


def run(command: str, model: Path, *options: Any, input: str = "") -> Result:
    return bpe(command, model, "--temperature", "0", "--threads", "1", "--max-tokens", "8", *options, input=input)


def greedy(model: Path, ids: list[int], files: list[Path], count: int = 8) -> str:
    """Return the text that a loop over whole prompts, without a cache, writes."""
    llm, tokenizer = load(model, backend="torch", packed=False)
    pictures = [tiled(open_image(file), llm.config.vision) for file in files]
    with torch.inference_mode():
        for _ in range(count):
            images = images_of(llm.config, [ids], [pictures]) if pictures else None
            ids = [*ids, int(llm(torch.tensor([ids]), images=images)[0, -1].argmax())]
    text: str = tokenizer.decode(ids[-count:])
    return text


def test_generate_continues_a_text_about_images(model: Path, pictures: dict[str, Path]) -> None:
    texts = []
    for files in ([], [pictures["circle"]], [pictures["squares"]], [pictures["circle"], pictures["squares"]]):
        result = run("generate", model, "-p", "It is", *(part for file in files for part in ("--image", file)))
        assert result.exit_code == 0, result.output
        ids = [IMAGE] * len(files) + [256, *b"It is"]  # the image before the token that begins a text, as transformers
        assert (files, result.stdout.strip()) == (files, "It is" + greedy(model, ids, files))
        texts.append(result.stdout)
    assert len(set(texts)) == 4  # each picture changes the text


def test_an_image_stands_where_the_prompt_has_its_token(model: Path, pictures: dict[str, Path]) -> None:
    result = run("generate", model, "-p", "ab<|image|>cd", "--allow-special", "--image", pictures["circle"])
    assert result.exit_code == 0, result.output
    assert result.stdout.strip() == "ab<|image|>cd" + greedy(model, [256, *b"ab", IMAGE, *b"cd"], [pictures["circle"]])


def test_several_prompts_and_samples_see_the_same_image(model: Path, pictures: dict[str, Path]) -> None:
    alone = [
        run("generate", model, "-p", text, "--image", pictures["squares"]).stdout for text in ("One", "Longer one")
    ]
    together = run("generate", model, "-p", "One", "-p", "Longer one", "--samples", 2, "--image", pictures["squares"])
    assert together.exit_code == 0, together.output
    expected = [text.strip() for text in alone for _ in range(2)]
    assert together.stdout.strip().split("\n\n") == expected


def test_chat_answers_several_questions_about_an_image(model: Path, pictures: dict[str, Path]) -> None:
    def header(role: bytes) -> list[int]:
        return [257, *role, 258, *b"\n\n"]

    file = pictures["circle"]
    result = run("chat", model, "--image", file, "--no-save", "-p", "What is it?", "-p", "Red?")
    assert result.exit_code == 0, result.output
    ids = [256, *header(b"user"), IMAGE, *b"What is it?", 259, *header(b"assistant")]
    first = greedy(model, ids, [file])
    ids += [*first.encode(), 259, *header(b"user"), *b"Red?", 259, *header(b"assistant")]
    assert result.stdout.split() == [first, greedy(model, ids, [file])]
    assert first != run("chat", model, "--no-save", "-p", "What is it?").stdout.strip()


def test_a_model_without_a_template_reads_images_before_the_question(
    model: Path, pictures: dict[str, Path], tmp_path: Path
) -> None:
    shutil.copytree(model, tmp_path / "model")
    (tmp_path / "model/chat_template.jinja").unlink()
    options = ("--no-save", "-p", "What is it?", "-p", "Red?", *(f"--image={pictures[name]}" for name in pictures))
    result = run("chat", tmp_path / "model", *options)
    assert result.exit_code == 0, result.output
    assert result.stdout == run("chat", model, *options).stdout


def test_images_that_cannot_be_shown_are_refused_in_one_line(
    model: Path, pictures: dict[str, Path], tmp_path: Path
) -> None:
    (tmp_path / "broken.png").write_bytes(pictures["circle"].read_bytes()[:90])
    (tmp_path / "notes.txt").write_text("no picture", "utf-8")
    for command in ("generate", "chat"):
        fails_with(
            run(command, model, "-p", "x", "--image", tmp_path / "broken.png"), 1, "broken.png: the image cannot"
        )
        fails_with(
            run(command, model, "-p", "x", "--image", tmp_path / "notes.txt"), 1, "notes.txt: no format of images"
        )
        fails_with(run(command, model, "-p", "x", "--image", tmp_path / "absent.png"), 1, "absent.png: no such file")
    fails_with(
        run("generate", model, "-p", "a<|image|>b<|image|>", "--allow-special", "--image", pictures["circle"]),
        1,
        "the prompt has 2 image tokens, but 1 images are given",
    )
    fails_with(
        run("generate", model, "-p", "a<|image|>b", "--allow-special"), 1, "1 image tokens, but 0 images are given"
    )


def test_a_model_of_text_refuses_an_image_by_name(pictures: dict[str, Path], tmp_path: Path) -> None:
    special = {"<|begin_of_text|>": 256, "<|end_of_text|>": 257}
    tokenizer = Tokenizer("bytes", pat_str="llama3", mergeable_ranks=BYTE_RANKS, special_tokens=special)
    tokenizer.save(tmp_path / "tokenizer.json")
    save(tmp_path, Transformer(ModelConfig.preset("nano", vocab_size=258)), tmp_path / "tokenizer.json")
    for command in ("generate", "chat"):
        fails_with(
            run(command, tmp_path, "-p", "x", "--image", pictures["circle"]),
            1,
            f"the model takes no images, so --image {pictures['circle']} cannot be shown to it; leave it out",
        )


def test_other_commands_read_the_text_part_or_refuse_the_model(model: Path, tmp_path: Path) -> None:
    shown = bpe("info", model)
    assert shown.exit_code == 0, shown.output
    assert f"{open_checkpoint(model).config.n_parameters:,}" in shown.stdout
    assert "images" in shown.stdout
    (tmp_path / "text.txt").write_text("some text\n" * 3, "utf-8")
    assert bpe("eval", model, tmp_path / "text.txt").exit_code == 0
    fails_with(run("generate", model, "-p", "x", "--backend", "native"), 1, "the native backend cannot be used")


def test_explain_passes_over_the_layers_that_read_images(model: Path) -> None:
    shown = bpe("explain", model, "-p", "abc", "--layer", 1)
    assert shown.exit_code == 0, shown.output
    assert "layer 1: passed over" in shown.stdout
    assert "The text has none, so the stream stays as it is." in shown.stdout
    streams = [
        json.loads(bpe("explain", model, "-p", "abc", "--json", "--layer", layer).stdout)["steps"][-4]["layers"]
        for layer in (0, 1, 2)
    ]
    assert streams[0] == streams[1] == streams[2]
    sizes = [layer["root_mean_square"] for layer in streams[0]]
    assert len(sizes) == 6  # the embeddings and five layers, of which the layers 1 and 3 change nothing
    assert sizes[1] == sizes[2]
    assert sizes[3] == sizes[4]
    assert len(set(sizes)) == 4
    found = json.loads(bpe("explain", model, "-p", "abc", "--json", "--layer", "all", "--head", 0).stdout)
    assert [part["layer"] for part in found["attention"]] == [0, 2, 4]
    fails_with(
        bpe("explain", model, "-p", "abc", "--json", "--layer", 1, "--head", "all"), 1,
        "layer 1: it reads images, so its tokens do not attend to tokens; use another layer",
    )  # fmt: skip


@pytest.mark.parametrize(("preset", "count"), [("11b", "10,670,220,835"), ("90b", "88,593,355,323")])
def test_info_counts_the_parameters_of_the_published_models(preset: str, count: str) -> None:
    shown = bpe("info", f"llama3.2-{preset}-vision")
    assert shown.exit_code == 0, shown.output
    assert f"{count}: embedding" in shown.stdout
    assert "vision " in shown.stdout
