"""Attention maps, and their pictures."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch

from bpe.drawing import DARK, LIGHT, PictureSettings, save
from bpe.errors import InputError
from model import Transformer
from model.explain import steps as steps_module
from model.explain.attention import attention_grid, attention_map, attention_mosaic, in_rows, token_label
from model.explain.steps import attention_maps, explain

IDS = [1, 40, 7, 7, 49, 12, 3, 30, 22]


def uniform(count: int, *shape: int) -> torch.Tensor:
    shares = torch.ones(*shape, count, count).tril()
    return shares / shares.sum(-1, keepdim=True)


def test_the_maps_of_all_heads_are_those_of_each_head(model: Transformer) -> None:
    layers, heads = range(model.config.n_layers), range(model.config.n_heads)
    maps = attention_maps(model, IDS, layers=layers, heads=heads)
    assert maps.shape == (len(layers), len(heads), len(IDS), len(IDS))
    for layer in layers:
        for head in heads:
            (step,) = (step for step in explain(model, IDS, layer=layer, head=head) if step.picture == "shares")
            assert torch.equal(maps[layer, head], step.tensor)
    some = attention_maps(model, IDS, layers=[1], heads=[2, 0])
    assert torch.equal(some[0], maps[1, [2, 0]])


def test_the_model_is_left_as_it_was(model: Transformer) -> None:
    before = [layer.attention.attend for layer in model.layers]
    attention_maps(model, IDS, layers=[0, 1], heads=[0])
    assert [layer.attention.attend for layer in model.layers] == before


def test_maps_that_do_not_exist_or_do_not_fit_are_refused(model: Transformer, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="layer 2: the model has 2"):
        attention_maps(model, IDS, layers=[0, 2], heads=[0])
    monkeypatch.setattr(steps_module, "MOST_SHARES", 4 * 8 * 8)
    with pytest.raises(InputError, match="the prompt has 9 tokens; for 4 attention maps at once, at most 8 fit"):
        attention_maps(model, IDS, layers=[0], heads=range(4))
    assert attention_maps(model, IDS[:8], layers=[0], heads=range(4)).shape == (1, 4, 8, 8)


def test_every_token_has_its_full_label_and_the_scale_a_name() -> None:
    names = [f"·token{number}" for number in range(100)]
    figure = attention_map(LIGHT, uniform(100), names, "Attention in smollm2: layer 5, head 2", "prompt: a fox")
    axes, bar = figure.axes
    assert [label.get_text() for label in axes.get_xticklabels()] == names
    assert [label.get_text() for label in axes.get_yticklabels()] == names
    assert bar.get_ylabel() == "share of the row's attention (square-root scale)"
    assert [label.get_text() for label in bar.get_yticklabels()] == [
        "0%", "1%", "5%", "10%", "25%", "50%", "100%"
    ]  # fmt: skip
    assert [text.get_text() for text in figure.texts] == ["Attention in smollm2: layer 5, head 2", "prompt: a fox"]
    assert axes.get_xlabel() == "token that is attended to"
    assert axes.get_ylabel() == "token that attends"


def test_later_tokens_are_masked_and_small_maps_show_their_numbers() -> None:
    shares = torch.tensor([[1.0, 0, 0], [0.25, 0.75, 0], [0.001, 0.009, 0.99]])
    axes = attention_map(DARK, shares, ["a", "b", "c"], "t", "p").axes[0]
    assert axes.images[0].get_array().mask.tolist() == [[False, True, True], [False, False, True], [False] * 3]
    numbers = {text.get_position(): text.get_text() for text in axes.texts}
    assert numbers == {(0, 0): "100", (0, 1): "25", (1, 1): "75", (1, 2): "1", (2, 2): "99"}
    assert not attention_map(DARK, uniform(13), ["a"] * 13, "t", "p").axes[0].texts


def test_the_label_of_a_token_shows_all_of_it_and_long_runs_once() -> None:
    assert token_label("·" * 16) == "·{16}"
    assert token_label("=" * 9) == "=" * 9
    assert token_label("$x_{") == "$x_{"
    assert token_label("internationalization·of·everything") == "internationalization·of·everything"
    assert token_label("\ue000") == r"\ue000"


@pytest.mark.parametrize("count", [1, 9, 60])
def test_maps_with_any_labels_are_drawn_without_a_warning(tmp_path: Path, count: int) -> None:
    names = ["$x_{", "日本", "_", "a\ufffe", "xy" * 40, "", " ", "⏎", "<E6>"] * 23
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = attention_map(LIGHT, uniform(count), names[:count], "title", "prompt")
        (file,) = save(figure, tmp_path / "map", PictureSettings())
    assert file.read_bytes().startswith(b"\x89PNG")


def test_maps_of_many_tokens_have_a_bounded_size_and_say_which_are_labelled() -> None:
    figure = attention_map(LIGHT, uniform(1000), ["token"] * 1000, "title", "prompt")
    assert max(figure.get_size_inches()) < 26
    axes = figure.axes[0]
    assert axes.get_xlabel() == "token that is attended to (a label for every 4 tokens)"
    assert len(axes.get_xticklabels()) == 250


def test_a_grid_has_a_map_for_each_head_with_its_heading() -> None:
    texts = [f"head {head}" for head in range(7)]
    figure = attention_grid(LIGHT, uniform(5, 7), in_rows(texts), list("abcde"), "title", "prompt")
    maps = [axes for axes in figure.axes if axes.images and axes.get_visible()]
    assert [axes.get_title("center") for axes in maps] == texts
    labelled = [[label.get_text() for label in axes.get_xticklabels()] == list("abcde") for axes in maps]
    assert labelled == [False, False, False, True, True, True, True]  # the lowest of each column
    assert figure.get_supxlabel() == "token that is attended to"


@pytest.mark.parametrize(
    ("count", "columns"), [(1, [1]), (4, [2, 2]), (7, [4, 3]), (9, [3] * 3), (12, [4] * 3), (32, [8] * 4)]
)
def test_headings_are_arranged_in_full_rows_if_possible(count: int, columns: list[int]) -> None:
    texts = list(map(str, range(count)))
    rows = in_rows(texts)
    assert [len(row) for row in rows] == columns
    assert [text for row in rows for text in row] == texts


def test_a_mosaic_has_a_row_for_each_layer_and_a_column_for_each_head() -> None:
    shares = torch.stack([torch.stack([uniform(4) * (10 * layer + head) for head in range(3)]) for layer in range(2)])
    axes = attention_mosaic(LIGHT, shares, [4, 5], [0, 1, 2], "title", "prompt").axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["4", "5"]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["0", "1", "2"]
    tiles = axes.images[0].get_array()
    assert tiles.shape == (2 * 5 - 1, 3 * 5 - 1)
    assert tiles[5, 10] == 12  # layer 1, head 2: its first cell
    assert tiles.mask[4].all() and tiles.mask[:, 4].all() and tiles.mask[0, 1]
