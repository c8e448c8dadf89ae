"""Records of training data: the forms that people have, and keys that change what is learned."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bpe import Tokenizer
from bpe.chat import ChatFormat, Llama3Chat, TemplateChat
from bpe.errors import InputError
from model.training.dialogs import Dialog, Reading, read_dialogs, read_pairs
from support.references import BYTE_RANKS

NAMES = ("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
SPECIAL = {name: 256 + number for number, name in enumerate(NAMES)}
TOKENIZER = Tokenizer("bytes", pat_str="llama3", mergeable_ranks=BYTE_RANKS, special_tokens=SPECIAL)
CHATML = (
    "{% for m in messages %}<|start_header_id|>{{ m.role }}\n{{ m.content }}<|eot_id|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant\n{% endif %}"
)
ANSWERS = "{% generation %}{{ m.content }}{% endgeneration %}"
MARKED = (
    "{% for m in messages %}<|start_header_id|>{{ m.role }}\n{% if m.role == 'assistant' %}"
    + ANSWERS
    + "{% else %}{{ m.content }}{% endif %}END{% endfor %}"
)
FORMATS: dict[str, ChatFormat] = {
    "llama3": Llama3Chat(TOKENIZER),
    "template": TemplateChat(TOKENIZER, CHATML),
    "marked": TemplateChat(TOKENIZER, MARKED.replace("END", "<|eot_id|>")),
}
Q1, A1, Q2, A2 = (
    {"role": role, "content": text}
    for role, text in (("user", "One?"), ("assistant", "Yes."), ("user", "Two?"), ("assistant", "No."))
)
B2 = {"role": "assistant", "content": "Maybe."}
END = "<|eot_id|>"


@pytest.fixture(params=FORMATS)
def chat(request: Any) -> ChatFormat:
    return FORMATS[request.param]


def write(directory: Path, *records: Any) -> Path:
    path = directory / "data.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def learned(dialog: Dialog) -> str:
    return TOKENIZER.decode([id for id, written in zip(dialog.ids, dialog.written, strict=True) if written])


def dialogs(directory: Path, chat: ChatFormat, *records: Any, **how: Any) -> list[Dialog]:
    return read_dialogs([write(directory, *records)], chat, Reading(10_000, **how))


@pytest.mark.parametrize("key", ["weight", "train", "training"])
def test_an_answer_of_weight_zero_is_read_and_not_learned(key: str, chat: ChatFormat, tmp_path: Path) -> None:
    zero, one = (False, True) if key != "weight" else (0, 1)
    whole, first, second = dialogs(
        tmp_path,
        chat,
        {"messages": [Q1, A1, Q2, {**A2, key: one}]},
        {"messages": [Q1, {**A1, key: zero}, Q2, A2]},
        {"messages": [{**Q1, key: zero}, A1, Q2, {**A2, key: zero}]},
    )
    assert whole.ids == first.ids == second.ids
    assert [learned(each) for each in (whole, first, second)] == [f"Yes.{END}No.{END}", f"No.{END}", f"Yes.{END}"]


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ([Q1, {**A1, "weight": 0.5}], 'line 1: message 2: "weight" is 0.5; only 1'),
        ([Q1, {**A1, "weight": "0"}], 'line 1: message 2: "weight" is "0"; only 1'),
        ([{**Q1, "weight": 1}, A1], "line 1: message 1: \"weight\" is 1 in a message of the role 'user'"),
        ([Q1, {**A1, "weight": 0, "train": True}], "message 2: weight and train contradict each other"),
        ([Q1, {**A1, "weight": 0}], "line 1: no answer is to be learned .* remove the record"),
        ([Q1, {**A1, "mask": True}], 'line 1: message 2: "mask" would change what is learned'),
    ],
)
def test_what_a_message_says_of_learning_is_never_ignored(messages: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        dialogs(tmp_path, FORMATS["llama3"], {"messages": messages})


@pytest.mark.parametrize("key", ["labels", "label", "loss_mask", "masks", "train_on_inputs", "ignore", "weight"])
def test_a_key_of_a_record_that_would_change_what_is_learned_is_refused(key: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=rf'line 1: "{key}" .*remove'):
        dialogs(tmp_path, FORMATS["llama3"], {"messages": [Q1, A1], key: 0})
    assert dialogs(tmp_path, FORMATS["llama3"], {"messages": [Q1, A1], key: None})


def test_metadata_passes_and_other_keys_are_counted_once(chat: ChatFormat, tmp_path: Path) -> None:
    plain = Reading(1000)
    read_dialogs([write(tmp_path, {"messages": [Q1, A1], "id": 3, "source": "x", "score": 0.5})], chat, plain)
    assert not plain.notes.unread
    odd = Reading(1000)
    record = {"messages": [Q1, {**A1, "mood": "good"}], "hint": "x"}
    read_dialogs([write(tmp_path, record, record)], chat, odd)
    line = odd.notes.lines(None)[-1]
    assert odd.notes.unread.total() == 4
    assert "hint in 2, mood (of messages) in 2" in line


FORMS = {
    "messages": {"messages": [Q1, A1]},
    "prompt beside messages": {"prompt": "One?", "messages": [Q1, A1]},
    "sharegpt": {"conversations": [{"from": "human", "value": "One?"}, {"from": "gpt", "value": "Yes."}]},
    "roles in conversations": {"conversations": [Q1, A1]},
    "completion": {"prompt": "One?", "completion": "Yes."},
    "conversational": {"prompt": [Q1], "completion": [A1]},
    "whole completion": {"prompt": [Q1], "completion": [Q1, A1]},
    "text and whole completion": {"prompt": "One?", "completion": [Q1, A1]},
    "alpaca": {"instruction": "One?", "input": "", "output": "Yes.", "text": "### Instruction: ..."},
    "dolly": {"instruction": "One?", "context": "", "response": "Yes.", "category": "qa"},
    "hh prompt": {"prompt": "\n\nHuman: One?\n\nAssistant:", "completion": "Yes."},
}


@pytest.mark.parametrize("form", FORMS)
def test_each_form_of_a_dialog_is_the_same_dialog(form: str, chat: ChatFormat, tmp_path: Path) -> None:
    how = Reading(1000)
    (first,) = read_dialogs([write(tmp_path, FORMS["messages"])], chat, how)
    (dialog,) = read_dialogs([write(tmp_path, FORMS[form])], chat, how)
    assert (dialog.ids, dialog.written) == (first.ids, first.written)
    assert not how.notes.unread


def test_system_texts_inputs_and_histories_are_put_in_front(tmp_path: Path) -> None:
    system = {"role": "system", "content": "Be brief."}
    chat = FORMATS["llama3"]
    asked = {"role": "user", "content": "One?\n2"}
    pairs = [
        ({"messages": [system, Q1, A1]}, {"system": "Be brief.", "conversations": FORMS["sharegpt"]["conversations"]}),  # type: ignore[index]
        ({"messages": [asked, A1]}, {"instruction": "One?", "input": "2", "output": "Yes."}),
        ({"messages": [system, Q1, A1]}, {"prompt": "One?", "completion": [system, Q1, A1]}),
    ]
    for expected, record in pairs:
        one, other = dialogs(tmp_path, chat, expected, record)
        assert one.ids == other.ids
    (dialog,) = dialogs(
        tmp_path, chat, {"instruction": "Two?", "output": "No.", "history": [["One?", "Yes."]], "system": ""}
    )
    assert dialog.ids == dialogs(tmp_path, chat, {"messages": [Q1, A1, Q2, A2]})[0].ids
    assert learned(dialog) == f"No.{END}"  # as in trl, a prompt's answers are not learned


def test_answers_in_a_prompt_are_not_learned(chat: ChatFormat, tmp_path: Path) -> None:
    (dialog,) = dialogs(tmp_path, chat, {"prompt": [Q1, A1, Q2], "completion": "No."})
    assert learned(dialog) == f"No.{END}"


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"text": "Once"}, "line 1: a plain text .*--text"),
        ({"prompt": "One?", "chosen": "Yes.", "rejected": "No."}, "line 1: a preference .*--preferences"),
        ({"title": 1}, "line 1: no dialog: the keys are 'title'; a record has \"messages\""),
        ({"messages": [Q1, A1], "conversations": [Q1, A1]}, 'both "messages" and "conversations"'),
        ({"conversations": [{"from": "robot", "value": "Hi"}]}, "message 1: \"from\" is 'robot'"),
        ({"conversations": [{"from": "gpt", "value": 3}]}, 'message 1: "value" must be text'),
        ({"prompt": "Two?", "completion": [Q1, A1]}, '"completion" begins with a message of the user that is not'),
        ({"system": "A", "messages": [{"role": "system", "content": "B"}, Q1, A1]}, "differ; remove one"),
    ],
)
def test_a_record_of_no_known_form_is_refused_with_its_place(record: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message) as raised:
        dialogs(tmp_path, FORMATS["llama3"], record)
    assert str(tmp_path) in str(raised.value)


def test_a_file_with_a_json_list_is_read_as_its_items(tmp_path: Path) -> None:
    path = tmp_path / "data.json"
    path.write_text(json.dumps([FORMS["alpaca"], FORMS["sharegpt"]], indent=2))
    read = read_dialogs([path], FORMATS["llama3"], 1000)
    assert [dialog.place for dialog in read] == [f"{path}: item 1", f"{path}: item 2"]
    path.write_text(json.dumps([FORMS["alpaca"], 3]))
    with pytest.raises(InputError, match="item 2 is not a JSON object"):
        read_dialogs([path], FORMATS["llama3"], 1000)


# --- preferences ---

HH = "\n\nHuman: One?\n\nAssistant: Yes.\n\nHuman: Two?\n\nAssistant: "
PREFERENCES = {
    "whole dialogs": {"chosen": [Q1, A1, Q2, A2], "rejected": [Q1, A1, Q2, B2]},
    "answers": {"prompt": [Q1, A1, Q2], "chosen": [A2], "rejected": [B2]},
    "texts": {"prompt": [Q1, A1, Q2], "chosen": "No.", "rejected": "Maybe."},
    "single messages": {"prompt": [Q1, A1, Q2], "chosen": A2, "rejected": B2},
    "prompt and whole dialogs": {
        "prompt": [Q1, A1, Q2], "chosen": [Q1, A1, Q2, A2], "rejected": [Q1, A1, Q2, B2],
    },
    "one repeats the prompt": {"prompt": [Q1, A1, Q2], "chosen": [Q1, A1, Q2, A2], "rejected": [B2]},
    "ultrafeedback": {
        "prompt": "Two?", "prompt_id": "x", "chosen": [Q1, A1, Q2, A2], "rejected": [Q1, A1, Q2, B2],
        "messages": [Q1, A1, Q2, A2], "score_chosen": 8.0, "score_rejected": 7.0,
    },
    "hh": {"chosen": HH + "No.", "rejected": HH + "Maybe."},
    "hh and its prompt": {"prompt": HH.strip(" "), "chosen": HH + "No.", "rejected": HH + "Maybe."},
    "hh and the last question": {"prompt": "Two?", "chosen": HH + "No.", "rejected": HH + "Maybe."},
    "openai": {
        "input": {"messages": [Q1, A1, Q2], "tools": [], "parallel_tool_calls": True},
        "preferred_output": [A2], "non_preferred_output": [B2],
    },
    "sharegpt": {
        "conversations": [{"from": "human", "value": "One?"}, {"from": "gpt", "value": "Yes."}, Q2],
        "chosen": {"from": "gpt", "value": "No."}, "rejected": {"from": "gpt", "value": "Maybe."},
    },
}  # fmt: skip


@pytest.mark.parametrize("form", PREFERENCES)
def test_the_question_of_a_preference_stands_once_in_each_form(form: str, chat: ChatFormat, tmp_path: Path) -> None:
    how = Reading(1000)
    (pair,) = read_pairs([write(tmp_path, PREFERENCES[form])], chat, how)
    assert pair.chosen.ids == chat.encode([Q1, A1, Q2, A2], add_generation_prompt=False)
    assert pair.rejected.ids == chat.encode([Q1, A1, Q2, B2], add_generation_prompt=False)
    assert (learned(pair.chosen), learned(pair.rejected)) == (f"No.{END}", f"Maybe.{END}")
    assert not how.notes.unread


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"prompt": "Tea?", "chosen": [Q1, A2], "rejected": [Q1, B2]}, 'line 1: "prompt" is in neither'),
        ({"prompt": [Q2], "chosen": [Q1, A2], "rejected": [Q1, B2]}, '"chosen" begins with a message of the user'),
        ({"chosen": [Q1, A1], "rejected": [Q2, A2]}, "line 1: chosen and rejected begin differently"),
        ({"chosen": "Yes.", "rejected": "No."}, 'line 1: "chosen" is text, and there is no "prompt"'),
        ({"prompt": "Is it warm in Oslo?", "chosen": "Is it warm in Oslo? Yes.", "rejected": "Is it warm in Oslo? No."},
         "line 1: chosen and rejected repeat the prompt"),
        ({"messages": [Q1, A1]}, "line 1: \"chosen\" must be .* the keys are 'messages'"),
        ({"prompt": "One?", "completion": "Yes.", "label": True}, 'line 1: "chosen" must be'),
    ],
)  # fmt: skip
def test_a_preference_without_one_question_is_refused(record: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        read_pairs([write(tmp_path, record)], FORMATS["llama3"], 1000)


# --- the end of a turn ---


def test_the_end_that_generation_blocks_leave_out_is_learned_and_reported(tmp_path: Path) -> None:
    record, chat = {"messages": [Q1, A1, Q2, A2]}, FORMATS["marked"]
    how = Reading(1000)
    (dialog,) = read_dialogs([write(tmp_path, record)], chat, how)
    assert learned(dialog) == f"Yes.{END}No.{END}"
    (line,) = how.notes.lines(None)
    assert "1 of 1 dialogs: the {% generation %} blocks of the chat template leave out the token" in line
    assert how.notes.lines(True) == how.notes.lines(False) == []
    for each in FORMATS.values():
        (dialog,) = dialogs(tmp_path, each, record, learn_end=False)
        assert learned(dialog) == "Yes.No."


def test_a_template_that_writes_no_end_is_reported_and_an_end_can_be_added(tmp_path: Path) -> None:
    record, chat = {"messages": [Q1, A1, Q2, A2]}, TemplateChat(TOKENIZER, MARKED.replace("END", "\n"))
    how = Reading(1000)
    (dialog,) = read_dialogs(
        [
            write(
                tmp_path,
                record,
            )
        ],
        chat,
        how,
    )
    assert learned(dialog) == "Yes.No."
    (line,) = how.notes.lines(None)
    assert "1 of 1 dialogs: the chat template writes no token that ends an answer" in line
    (dialog,) = dialogs(tmp_path, chat, record, learn_end=True, end_id=257)
    assert learned(dialog) == "Yes.No.<|end_of_text|>"
    with pytest.raises(InputError, match="line 1: the chat template writes no token .* tokenizer has none"):
        dialogs(tmp_path, chat, record, learn_end=True)


def test_weights_find_their_answers_where_these_have_several_generation_blocks_or_none(tmp_path: Path) -> None:
    source = (
        "{% for m in messages %}<|start_header_id|>{% if m.role == 'assistant' and m.content != 'Skip.' %}"
        "{% generation %}a:{% endgeneration %}-{% generation %}{{ m.content }}<|eot_id|>{% endgeneration %}"
        "{% else %}{{ m.content }}<|eot_id|>{% endif %}{% endfor %}"
    )
    skipped = {"role": "assistant", "content": "Skip."}
    messages = [Q1, A1, Q2, skipped, Q1, A2]
    chat = TemplateChat(TOKENIZER, source)
    for zero, expected in ((1, f"a:No.{END}"), (5, f"a:Yes.{END}"), (3, f"a:Yes.{END}a:No.{END}")):
        record = {"messages": [{**m, "weight": 0} if n == zero else m for n, m in enumerate(messages)]}
        (dialog,) = dialogs(tmp_path, chat, record)
        assert learned(dialog) == expected
