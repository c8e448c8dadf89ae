"""Pictures of the steps: lines for a terminal, and JSON records."""

from __future__ import annotations

import json
import re
from typing import Any

import torch

from model import Transformer
from model.explain.pictures import COLUMNS, LABEL, display_width, picture, record
from model.explain.steps import ForwardStep, explain

IDS = [1, 40, 7, 7, 49, 12, 3, 30, 22]
LABELLED = LABEL + 2


def step(tensor: torch.Tensor, kind: Any = "rows") -> ForwardStep:
    return ForwardStep("title", "text", tensor, "time x dim", kind)


def test_a_row_shows_the_number_farthest_from_zero_in_each_part_and_three_numbers() -> None:
    row = torch.zeros(64)
    row[[1, 3, 62]] = torch.tensor([2.0, -2.0, 1.0])
    assert picture(step(row[None]), [0], str) == ["0             █▁" + 29 * "▅" + "▇         0        2 ..        0"]


def test_the_first_two_and_the_last_of_many_rows_are_shown() -> None:
    lines = picture(step(torch.eye(6)), list("abcdef"), str)  # type: ignore[arg-type]
    assert [line.split()[0] for line in lines] == ["a", "b", "...", "f"]
    assert [line.split()[1] for line in lines if "." not in line[0]] == ["█▅▅▅▅▅", "▅█▅▅▅▅", "▅▅▅▅▅█"]


def test_masked_numbers_are_blank_and_no_number_breaks_the_columns() -> None:
    numbers = torch.tensor([[-0.000123456, -123456.0, -0.00123456, float("-inf")]])
    (line,) = picture(step(numbers), [7], str)
    assert line.split()[1:] == ["▄▁▄", "-1.2e-04", "-1.2e+05", "..", "-inf"]
    assert len(line) <= COLUMNS


def test_shares_are_shaded_and_summed_if_there_are_more_tokens_than_cells() -> None:
    shares = torch.tensor([[1.0, 0, 0], [0.3, 0.7, 0], [0.01, 0.04, 0.95]])
    lines = picture(step(shares, "shares"), [0, 1, 2], str)
    assert [line[LABELLED:].rstrip() for line in lines[:3]] == ["██", "▓▓██", "··░░██"]
    many = torch.ones(64, 64).tril()
    lines = picture(step(many / many.sum(-1, keepdim=True), "shares"), list(range(64)), str)
    assert lines[:2] == ["(the last 24 of 64 rows)", "(each column sums about 2 tokens)"]
    assert lines[-2][LABELLED:] == "░" * 64  # two of 64 are 3%


def test_every_picture_fits_the_terminal_whatever_the_labels(model: Transformer) -> None:
    for label in ("x" * 50, "日本語" * 20, "é" * 40, ""):
        for each in explain(model, [1] * 40):
            for line in picture(each, [1] * 40, lambda id, label=label: label):  # type: ignore[misc]
                assert display_width(line) <= COLUMNS or each.picture == "ids", (each.title, line)


def test_colour_changes_no_character(model: Transformer) -> None:
    for each in explain(model, IDS):
        plain, coloured = (picture(each, IDS, str, colour=colour) for colour in (False, True))
        assert [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in coloured] == plain
        assert not any("\x1b" in line for line in plain)


def test_a_record_is_json_with_the_numbers_of_its_picture(model: Transformer) -> None:
    records = [json.loads(json.dumps(record(each, str, top=3), allow_nan=False)) for each in explain(model, IDS)]
    assert records[0]["tokens"][1] == {"id": 40, "token": "40"}
    assert records[1]["shape"] == [9, 32]
    assert records[1]["axes"] == ["time", "dim"]
    (shares,) = (each["shares"] for each in records if "shares" in each)
    assert [len(row) for row in shares] == [9] * 9
    (layers,) = (each["layers"] for each in records if "layers" in each)
    assert len(layers) == 3
    assert layers[-1]["id"] == records[-1]["next"][0]["id"]
    likeliest = model(torch.tensor([IDS]))[0, -1].topk(3).indices.tolist()
    assert [each["id"] for each in records[-1]["next"]] == likeliest
