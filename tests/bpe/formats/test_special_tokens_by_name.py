"""Special tokens that the caller of `Tokenizer.from_file` names: all ids of the file stay, and new names follow."""

from __future__ import annotations

from pathlib import Path

import pytest
import tokenizers

from bpe import InputError, Tokenizer, train_from_iterator

TEXT = "the cat<|new|> the<|a|>x<|n2|><|b|>the cat <|z|> <|n1|> the"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the same vocabulary of 270 tokens as t.json, t.gguf and t.model."""
    directory = tmp_path_factory.mktemp("files")
    text = "the cat sat on the mat the cat"
    tokenizer = train_from_iterator(
        [text] * 3, 270, pattern="gpt2", special_tokens=["<|a|>", "<|endoftext|>"], allow_smaller=True
    )
    assert tokenizer.special_tokens == {"<|a|>": 268, "<|endoftext|>": 269}
    for name in ("t.json", "t.gguf", "t.model"):
        tokenizer.save(directory / name)
    return directory


@pytest.mark.parametrize("file", ["t.json", "t.gguf"])
@pytest.mark.parametrize(
    "names",
    [
        ["<|new|>"],
        ["<|a|>"],
        ("<|b|>", "<|endoftext|>", "<|n1|>", "<|n2|>"),
        ["the"],  # an ordinary token, which keeps its id
        [" the"],  # not the text of a token: a space has another character in the file
        ["cat", "<|z|>"],
    ],
)
def test_names_are_added_as_tokenizers_adds_them(files: Path, tmp_path: Path, file: str, names: list[str]) -> None:
    tokenizer = Tokenizer.from_file(files / file, special_tokens=names)
    reference = tokenizers.Tokenizer.from_file(str(files / "t.json"))
    reference.add_special_tokens(list(names))
    expected = reference.encode(TEXT).ids
    assert tokenizer.encode(TEXT, allowed_special="all") == expected
    assert {name: tokenizer.special_tokens[name] for name in names} == {
        name: reference.token_to_id(name) for name in names
    }
    assert tokenizer.special_tokens.items() >= {"<|a|>": 268, "<|endoftext|>": 269}.items()
    assert tokenizer.mergeable_ranks == Tokenizer.from_file(files / "t.json").mergeable_ranks
    tokenizer.save(tmp_path / "saved.json")
    assert Tokenizer.from_file(tmp_path / "saved.json").encode(TEXT, allowed_special="all") == expected
    assert tokenizers.Tokenizer.from_file(str(tmp_path / "saved.json")).encode(TEXT).ids == expected


@pytest.mark.parametrize("file", ["t.json", "t.gguf"])
def test_no_names_mean_no_special_tokens_and_a_mapping_replaces_them(files: Path, file: str) -> None:
    assert Tokenizer.from_file(files / file, special_tokens=()).special_tokens == {}
    assert Tokenizer.from_file(files / file, special_tokens={"<|x|>": 300}).special_tokens == {"<|x|>": 300}


def test_names_follow_the_ranks_and_those_of_a_published_file_keep_their_ids(
    files: Path, tmp_path: Path, llama3: Tokenizer
) -> None:
    read = Tokenizer.from_file(files / "t.model", pattern="gpt2", special_tokens=["<|x|>", "<|y|>"])
    assert read.special_tokens == {"<|x|>": 268, "<|y|>": 269}
    llama3.save(tmp_path / "ranks.model")
    read = Tokenizer.from_file(tmp_path / "ranks.model", special_tokens=["<|x|>", "<|eot_id|>", "<|y|>"])
    assert read.special_tokens == {"<|eot_id|>": 128_009, "<|x|>": 128_010, "<|y|>": 128_011}


@pytest.mark.parametrize("file", ["t.json", "t.gguf", "t.model"])
@pytest.mark.parametrize(
    ("names", "message"),
    [("<|x|>", "special_tokens is a str; give a list"), (["a", "a"], "given twice"), ([""], "special token is empty")],
)
def test_wrong_names_are_refused_with_the_file_s_name(files: Path, file: str, names: list[str], message: str) -> None:
    with pytest.raises(InputError, match=f"{file}: .*{message}"):
        Tokenizer.from_file(files / file, pattern="gpt2", special_tokens=names)
