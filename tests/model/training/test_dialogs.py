"""Dialogs and preferences: from JSON lines to batches."""

from __future__ import annotations

import gzip
import itertools
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bpe import Tokenizer
from bpe.chat import ChatFormat, Llama3Chat, TemplateChat
from bpe.errors import InputError
from model import Transformer
from model.training.dialogs import (
    Dialog,
    Pair,
    Rows,
    batch_of,
    examples_fingerprint,
    in_rows,
    read_dialogs,
    read_pairs,
    texts_of,
)
from model.training.loss import IGNORED, next_token_loss
from support.references import BYTE_RANKS

NAMES = ("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
SPECIAL = {name: 256 + number for number, name in enumerate(NAMES)}
TOKENIZER = Tokenizer("bytes", pat_str="llama3", mergeable_ranks=BYTE_RANKS, special_tokens=SPECIAL)
CHATML = (
    "{% for m in messages %}<|start_header_id|>{{ m.role }}\n{{ m.content }}<|eot_id|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant\n{% endif %}"
)
FORMATS = {"llama3": Llama3Chat(TOKENIZER), "template": TemplateChat(TOKENIZER, CHATML)}
QUESTION = {"role": "user", "content": "How much?"}
ANSWER = {"role": "assistant", "content": "Three."}
LONG = 10_000


@pytest.fixture(params=FORMATS)
def chat(request: Any) -> ChatFormat:
    return FORMATS[request.param]


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    def write(*records: Any) -> Path:
        path = tmp_path / "data.jsonl"
        path.write_text("".join((each if isinstance(each, str) else json.dumps(each)) + "\n" for each in records))
        return path

    return write


def learned(dialog: Dialog) -> str:
    """Return the text of the tokens that are targets."""
    batch = batch_of([[dialog]])
    return TOKENIZER.decode([id for id in batch.targets[0].tolist() if id != IGNORED])


def test_only_assistant_text_and_the_end_of_its_turn_are_learned(chat: ChatFormat, write: Callable[..., Path]) -> None:
    system = {"role": "system", "content": "assistant <|eot_id|>"}
    path = write({"messages": [system, QUESTION, ANSWER, QUESTION, {**ANSWER, "content": "Two, <|eot_id|>?"}]})
    (dialog,) = read_dialogs([path], chat, LONG)
    assert dialog.place == f"{path}: line 1"
    assert dialog.whole
    assert learned(dialog) == "Three.<|eot_id|>Two, <|eot_id|>?<|eot_id|>"
    assert [id for id, written in zip(dialog.ids, dialog.written, strict=True) if written].count(260) == 2
    batch = batch_of([[dialog]])
    assert batch.inputs[0].tolist() == dialog.ids[:-1]
    at = batch.targets[0] != IGNORED
    assert batch.targets[0][at].tolist() == [id for id, learn in zip(dialog.ids, dialog.written, strict=True) if learn]
    assert torch.equal(batch.inputs[0][1:][at[:-1]], batch.targets[0][:-1][at[:-1]])


def test_several_files_compressed_files_and_empty_lines_are_read(write: Callable[..., Path], tmp_path: Path) -> None:
    first = write({"messages": [QUESTION, ANSWER]}, "", {"messages": [QUESTION, ANSWER]})
    packed = tmp_path / "more.jsonl.gz"
    packed.write_bytes(gzip.compress(first.read_bytes()))
    dialogs = read_dialogs([first, packed], FORMATS["llama3"], LONG)
    assert [dialog.place for dialog in dialogs] == [
        f"{path}: line {line}" for path in (first, packed) for line in (1, 3)
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", r"line 2 is not JSON .*; plain texts are trained on with --text"),
        ("[]", "line 2 is not a JSON object"),
        ({"dialog": []}, r"line 2: no dialog: the keys are 'dialog'; a record has \"messages\"; \"conv"),
        ({"messages": "Hello"}, 'line 2: "messages" must be a list'),
        ({"messages": []}, 'line 2: "messages" must be a list'),
        (
            {"messages": [QUESTION, {"role": "robot", "content": ""}]},
            "line 2: message 2: the role is 'robot'; it must be one of system, user",
        ),
        ({"messages": [QUESTION, {"role": "assistant"}]}, 'line 2: message 2: "content" must be text; it is missing'),
        ({"messages": [QUESTION]}, "line 2: no assistant message, so there is nothing to learn"),
        (
            {"messages": [QUESTION, ANSWER], "tools": [{}]},
            "line 2: .*cannot list tools; describe them in the system message",
        ),
    ],
)
def test_an_invalid_line_is_refused_with_file_line_and_message(
    line: Any, message: str, write: Callable[..., Path]
) -> None:
    path = write({"messages": [QUESTION, ANSWER]}, line)
    with pytest.raises(InputError, match=message) as raised:
        read_dialogs([path], FORMATS["llama3"], LONG)
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_long_dialog_is_cut_off_unless_nothing_to_learn_is_left(write: Callable[..., Path]) -> None:
    chat = FORMATS["llama3"]
    path = write({"messages": [QUESTION, ANSWER]})
    (dialog,) = read_dialogs([path], chat, LONG)
    for length in range(len(dialog), 0, -1):
        if any(dialog.written[1 : length + 1]):
            (cut,) = read_dialogs([path], chat, length)
            assert (cut.ids, cut.written) == (dialog.ids[: length + 1], dialog.written[: length + 1])
            assert len(cut) == length
            assert cut.whole == (length == len(dialog))
        else:
            with pytest.raises(InputError, match=f"line 1: the first {length} tokens hold no text by the assistant"):
                read_dialogs([path], chat, length)


# --- preferences ---


def test_three_spellings_of_a_preference_are_equal(write: Callable[..., Path]) -> None:
    other = {**ANSWER, "content": "Four!"}
    path = write(
        {"chosen": [QUESTION, ANSWER], "rejected": [QUESTION, other]},
        {"prompt": [QUESTION], "chosen": [ANSWER], "rejected": [other]},
        {"prompt": "How much?", "chosen": "Three.", "rejected": "Four!"},
    )
    pairs = read_pairs([path], FORMATS["llama3"], LONG)
    assert [pair.place for pair in pairs] == [f"{path}: line {line}" for line in (1, 2, 3)]
    for pair in pairs:
        assert (pair.chosen.ids, pair.rejected.ids) == (pairs[0].chosen.ids, pairs[0].rejected.ids)
        assert learned(pair.chosen) == "Three.<|eot_id|>"
        assert learned(pair.rejected) == "Four!<|eot_id|>"
        assert len(pair) == len(pair.chosen) + len(pair.rejected)


def test_the_common_beginning_of_two_answers_is_not_learned(write: Callable[..., Path]) -> None:
    path = write({"prompt": [QUESTION, ANSWER, QUESTION], "chosen": "Three or four.", "rejected": "Three."})
    (pair,) = read_pairs([path], FORMATS["llama3"], LONG)
    assert (learned(pair.chosen), learned(pair.rejected)) == (" or four.<|eot_id|>", ".<|eot_id|>")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ({"prompt": "Is it?", "chosen": "Yes.", "rejected": "Yes."}, "line 1: chosen and rejected are the same$"),
        ({"chosen": [QUESTION, ANSWER]}, 'line 1: "rejected" must be a list .*, or a string'),
        ({"prompt": 3, "chosen": "Yes.", "rejected": "No."}, 'line 1: "prompt" must be a list .*, or a string'),
        ({"chosen": [QUESTION, ANSWER], "rejected": [QUESTION]}, "line 1: no assistant message"),
    ],
)
def test_an_invalid_preference_is_refused(line: Any, message: str, write: Callable[..., Path]) -> None:
    with pytest.raises(InputError, match=message):
        read_pairs([write(line)], FORMATS["llama3"], LONG)


# --- batches ---


def random_dialogs(count: int) -> list[Dialog]:
    generator = torch.Generator().manual_seed(count)
    lengths = torch.randint(2, 30, (count,), generator=generator).tolist()
    return [
        Dialog(
            str(length),
            torch.randint(256, (length,), generator=generator).tolist(),
            [bool(index % 3) for index in range(length)],
        )
        for length in lengths
    ]


def test_packed_and_padded_batches_have_the_loss_of_each_dialog_alone(model: Transformer) -> None:
    model = model.double()
    dialogs = random_dialogs(7)
    rows = [dialogs[:1], dialogs[1:4], dialogs[4:]]
    expected = torch.zeros(())
    for dialog in dialogs:
        logits = model(torch.tensor([dialog.ids]))[0].log_softmax(-1)
        for place in range(1, len(dialog.ids)):
            if dialog.written[place]:
                expected = expected - logits[place - 1, dialog.ids[place]]
    for packed in (True, False):
        batch = batch_of(rows, packed)
        assert len(batch.inputs) == (3 if packed else 7)
        loss = next_token_loss(model, batch)
        torch.testing.assert_close(loss.double(), expected.double(), rtol=1e-6, atol=0)
        assert batch.n_targets == sum(sum(dialog.written[1:]) for dialog in dialogs)
        for (row, columns), dialog in zip(texts_of(batch), dialogs, strict=True):
            assert batch.inputs[row, columns][: len(dialog)].tolist() == dialog.ids[:-1]
    assert batch_of([dialogs]).n_tokens == sum(map(len, dialogs))  # without padding


def test_a_batch_holds_the_chosen_text_before_the_rejected_one() -> None:
    first, second = random_dialogs(2)
    for packed in (True, False):
        batch = batch_of([[Pair(first, second)]], packed)
        shown = [batch.inputs[row, columns].tolist() for row, columns in texts_of(batch)]
        assert [text[: len(each)] for text, each in zip(shown, (first, second), strict=True)] == [
            first.ids[:-1], second.ids[:-1],
        ]  # fmt: skip


@given(st.lists(st.integers(1, 40), min_size=1, max_size=30), st.integers(1, 50), st.integers(0, 3))
def test_every_epoch_reads_each_example_once_in_full_rows(lengths: list[int], row_length: int, seed: int) -> None:
    rows, again = Rows(lengths, row_length, seed), Rows(lengths, row_length, seed)
    ends = [rows.count(epochs) for epochs in range(4)]
    for begin, end in itertools.pairwise(ends):
        epoch = [rows[number] for number in range(begin, end)]
        assert Counter(index for row in epoch for index in row) == Counter(range(len(lengths)))
        for row, following in zip(epoch, [*epoch[1:], None], strict=True):
            size = sum(lengths[index] for index in row)
            assert size <= row_length or len(row) == 1
            assert following is None or size + lengths[following[0]] > row_length
    last = ends[-1] - 1
    assert again[last] == rows[last]  # independent of the rows read before
    assert [again[number] for number in range(last)] == [rows[number] for number in range(last)]
    assert ends[1] <= rows.count(1.5) <= ends[2]


def test_epochs_and_seeds_have_different_orders() -> None:
    lengths = [1] * 20
    orders = {tuple(Rows(lengths, 100, seed)[epoch]) for seed in (0, 1) for epoch in (0, 1)}
    assert len(orders) == 4
    assert in_rows([2, 0, 1], [3, 9, 4], 7) == [[2, 0], [1]]


def test_no_examples_are_refused() -> None:
    with pytest.raises(InputError, match="there are no examples to train on"):
        Rows([], 10, 0)


def test_different_examples_have_different_fingerprints() -> None:
    first, second = random_dialogs(2)
    other = Dialog(first.place, first.ids, [not each for each in first.written])
    kinds: list[list[Dialog | Pair]] = [
        [first, second], [second, first], [first], [other, second], [Pair(first, second), first],
    ]  # fmt: skip
    assert len({examples_fingerprint(kind) for kind in kinds}) == len(kinds)
    assert examples_fingerprint([first]) == examples_fingerprint([Dialog("elsewhere", first.ids, first.written)])
