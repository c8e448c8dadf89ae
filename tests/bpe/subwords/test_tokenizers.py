"""WordPiece, Unigram and whole words in a tokenizer.json or vocab.txt, against tokenizers and transformers."""

from __future__ import annotations

import json
import pickle
import sys
from pathlib import Path

import pytest
import tokenizers
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

from bpe import InputError, Tokenizer
from support.references import any_text, without_surrogates

KINDS = ("wordpiece", "unigram", "words")
TEXT = "Hello  naïve 漢字 [SEP] <think> x\n 123"


def reference(path: Path, special_is_text: bool = True) -> tokenizers.Tokenizer:
    theirs = tokenizers.Tokenizer.from_file(str(path))
    theirs.encode_special_tokens = special_is_text
    return theirs


@pytest.mark.parametrize("kind", KINDS)
def test_ids_offsets_and_text_are_those_of_tokenizers(kind: str, files: Path) -> None:
    tokenizer, theirs = Tokenizer.from_file(files / f"{kind}.json"), reference(files / f"{kind}.json")

    @given(any_text | st.text("the quickn [SEP]<think> ▁É", max_size=40))
    @settings(max_examples=200, deadline=None)
    def compare(text: str) -> None:
        text = without_surrogates(text)
        encoding = theirs.encode(text, add_special_tokens=False)
        assert tokenizer.encode_ordinary(text) == encoding.ids
        assert tokenizer.encode_with_offsets(text)[1] == encoding.offsets
        assert tokenizer.decode(encoding.ids) == theirs.decode(encoding.ids, skip_special_tokens=False)

    compare()


def test_a_special_token_in_a_text_is_text_unless_it_is_allowed(files: Path) -> None:
    path = files / "wordpiece.json"
    tokenizer = Tokenizer.from_file(path)
    text = "one [SEP] two [MASK] <think>"
    with pytest.raises(ValueError, match=r"special token '\[SEP\]', which is disallowed"):
        tokenizer.encode(text)
    as_text = reference(path).encode(text, add_special_tokens=False).ids
    assert tokenizer.encode(text, disallowed_special=()) == tokenizer.encode_ordinary(text) == as_text
    assert tokenizer.encode_single_token("<think>") in as_text  # added, but not special
    with_all = reference(path, special_is_text=False).encode(text, add_special_tokens=False).ids
    assert tokenizer.encode(text, allowed_special="all") == with_all
    some = tokenizer.encode(text, allowed_special={"[SEP]"}, disallowed_special=())
    assert 3 in some and 4 not in some
    assert tokenizer.encode_batch([text], allowed_special="all") == [with_all]


def test_what_begins_and_ends_a_text_is_the_files_own(files: Path) -> None:
    tokenizer = Tokenizer.from_file(files / "wordpiece.json")
    assert (tokenizer.prefix_ids, tokenizer.vocabulary.boundaries.suffix_ids) == ([2], (3,))
    assert (tokenizer.add_bos, tokenizer.add_eos) == (True, True)


def test_vocab_txt_gives_the_ids_of_berts_tokenizer_in_transformers(files: Path, tmp_path: Path) -> None:
    tokenizer = Tokenizer.from_file(files / "vocab.txt")
    theirs = transformers.BertTokenizer(str(files / "vocab.txt"))
    for text in (TEXT, "Über CAFÉ, don't!  \t\n", "", "ﬁ ǅ İ 日本"):
        assert [2, *tokenizer.encode(text, allowed_special="all"), 3] == theirs(text)["input_ids"]
    cased = tmp_path / "vocab.txt"
    cased.write_text((files / "vocab.txt").read_text() + "Paris\n")
    with_capitals = Tokenizer.from_file(cased)
    theirs = transformers.BertTokenizer(str(cased), do_lower_case=False)
    assert with_capitals.encode("Paris in") == theirs("Paris in", add_special_tokens=False)["input_ids"]


def test_a_directory_with_only_a_vocab_txt_or_a_spiece_model_opens(files: Path, tmp_path: Path) -> None:
    for name, source in (("vocab.txt", "vocab.txt"), ("spiece.model", "unigram.model")):
        directory = tmp_path / name
        directory.mkdir()
        (directory / name).write_bytes((files / source).read_bytes())
        assert Tokenizer.from_file(directory).encode("the") == Tokenizer.from_file(files / source).encode("the")


@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_tokenizer_gives_the_same_ids_here_and_in_tokenizers(kind: str, files: Path, tmp_path: Path) -> None:
    tokenizer = Tokenizer.from_file(files / f"{kind}.json", special_tokens=["<|new|>"])
    assert pickle.loads(pickle.dumps(tokenizer)).encode_ordinary(TEXT) == tokenizer.encode_ordinary(TEXT)
    tokenizer.save(tmp_path / "saved.json")
    again = Tokenizer.from_file(tmp_path / "saved.json")
    text = TEXT + "<|new|>"
    ids = tokenizer.encode(text, allowed_special="all")
    assert again.encode(text, allowed_special="all") == ids
    assert again.vocabulary.boundaries.prefix_ids == tokenizer.vocabulary.boundaries.prefix_ids
    theirs = tokenizers.Tokenizer.from_file(str(tmp_path / "saved.json"))
    assert theirs.encode(text, add_special_tokens=False).ids == ids
    for name in ("saved.model", "saved.tiktoken", "saved.gguf"):
        with pytest.raises(InputError, match=rf"{name}: {kind} is a vocabulary of .* save it as \.json"):
            tokenizer.save(tmp_path / name)


def test_other_boundaries_are_saved(files: Path, tmp_path: Path) -> None:
    tokenizer = Tokenizer.from_file(files / "wordpiece.json").with_boundaries(bos=False)
    tokenizer.save(tmp_path / "saved.json")
    assert Tokenizer.from_file(tmp_path / "saved.json").prefix_ids == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"vocab": None}, '"vocab" of the WordPiece model is not an object'),
        ({"vocab": {"a": "b"}}, '"vocab" of the WordPiece model is not an object'),
        ({"unk_token": 3}, "the tokenizers package cannot read the file"),
        ({"type": "Unigram", "vocab": [["a"]]}, '"vocab" of the Unigram model is not a list'),
    ],
)
def test_a_damaged_file_is_one_clear_error(
    changes: dict[str, object], message: str, files: Path, tmp_path: Path
) -> None:
    data = json.loads((files / "wordpiece.json").read_text())
    data["model"] |= changes
    path = tmp_path / "damaged.json"
    path.write_text(json.dumps(data))
    with pytest.raises(InputError, match=message) as caught:
        Tokenizer.from_file(path)
    assert str(caught.value).startswith(str(path)) and len(str(caught.value).splitlines()) == 1


def test_what_cannot_be_chosen_is_refused(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="the model is WordPiece, which has no split pattern; leave out the pattern"):
        Tokenizer.from_file(files / "wordpiece.json", "gpt2")
    with pytest.raises(InputError, match="special_tokens gives ids.*give a list of names"):
        Tokenizer.from_file(files / "wordpiece.json", special_tokens={"[X]": 900})
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(
        InputError, match=r"a WordPiece vocabulary needs the package tokenizers: pip install 'bpe-llama"
    ):
        Tokenizer.from_file(files / "wordpiece.json")


def test_a_vocab_txt_with_a_token_twice_or_with_bytes_that_are_not_utf_8_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "vocab.txt"
    path.write_text("[UNK]\na\na\n")
    with pytest.raises(InputError, match=r"vocab\.txt: line 2: the token 'a' occurs twice"):
        Tokenizer.from_file(path)
    path.write_bytes(b"[UNK]\n\xff\n")
    with pytest.raises(InputError, match=r"vocab\.txt: byte 6 is not valid UTF-8"):
        Tokenizer.from_file(path)
