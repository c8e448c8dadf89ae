"""Training of Unigram and WordPiece, by `train_subwords` and the command."""

from __future__ import annotations

from pathlib import Path

import pytest
import sentencepiece
import tokenizers

from bpe import InputError, Tokenizer
from bpe.subwords.training import SubwordSettings, train_subwords
from support.command_line import bpe


def test_each_algorithm_is_trained_and_opens_in_its_library(corpora: Path, tmp_path: Path) -> None:
    def trained(algorithm: str, name: str) -> Path:
        output = tmp_path / name
        options = ["--vocab-size", "600", "--special", "<|end|>", "--algorithm", algorithm, "-o", str(output)]
        result = bpe("train", corpora / "prose.txt", *options)
        assert result.exit_code == 0, result.output
        assert f"{name}: 600 tokens of {algorithm}" in result.stderr
        return output

    text = "The old tree, 12"
    unigram = trained("unigram", "u.model")
    theirs = sentencepiece.SentencePieceProcessor(model_file=str(unigram))
    assert Tokenizer.from_file(unigram).encode(text) == theirs.encode(text)
    assert Tokenizer.from_file(unigram).special_tokens == {"<s>": 1, "</s>": 2, "<|end|>": 3}
    wordpiece = trained("wordpiece", "w.json")
    reference = tokenizers.Tokenizer.from_file(str(wordpiece))
    assert Tokenizer.from_file(wordpiece).encode(text) == reference.encode(text, add_special_tokens=False).ids
    assert Tokenizer.from_file(wordpiece).decode(reference.encode(text).ids[1:-1]) == text
    assert (
        sentencepiece.SentencePieceProcessor(model_file=str(trained("sentencepiece-bpe", "s.model"))).vocab_size()
        == 600
    )


def test_special_tokens_are_boundaries() -> None:
    documents = [b"ab<|end|>cd ab<|end|>cd\n" * 50]
    settings = SubwordSettings(vocab_size=300, special_tokens=["<|end|>"], allow_smaller=True)
    vocabulary = train_subwords("wordpiece", documents, settings)
    assert all(b"<" not in token for _, token in vocabulary.items())


@pytest.mark.parametrize("algorithm", ["sentencepiece-bpe", "unigram"])
def test_the_command_writes_the_normalizer_into_the_model(algorithm: str, corpora: Path, tmp_path: Path) -> None:
    output = tmp_path / "x.model"
    options = ["--vocab-size", "600", "--normalizer", "nfkc_cf", "--algorithm", algorithm, "-o", str(output)]
    result = bpe("train", corpora / "prose.txt", *options)
    assert result.exit_code == 0, result.output
    theirs = sentencepiece.SentencePieceProcessor(model_file=str(output))
    text = "The ﬁrst Ｔree ① İ ẞ"
    assert theirs.normalize(text) == sentencepiece.SentencePieceNormalizer(rule_name="nfkc_cf").normalize(text)
    assert Tokenizer.from_file(output).encode(text) == theirs.encode(text)


@pytest.mark.parametrize("algorithm", ["unigram", "wordpiece"])
def test_sizes_that_do_not_fit_the_text_are_refused(algorithm: str) -> None:
    for size, documents, message in (
        (600, [b" \n"], "no text to train on"),
        (3, [b"some text"], "a vocabulary of 3 is too small"),
        (9000, [b"some text"], "allow-smaller"),
    ):
        with pytest.raises(InputError, match=message):
            train_subwords(algorithm, documents, SubwordSettings(vocab_size=size))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("algorithm", "options", "message"),
    [
        ("unigram", ["--pattern", "gpt2"], "--pattern has no effect with --algorithm unigram"),
        ("unigram", ["--min-frequency", "2"], "--min-frequency has no effect with --algorithm unigram"),
        ("wordpiece", ["--threads", "2"], "--threads has no effect with --algorithm wordpiece"),
        ("wordpiece", ["--normalizer", "nfkc"], "--normalizer has no effect with --algorithm wordpiece"),
        ("bpe", ["--normalizer", "nfkc"], "--normalizer has no effect with --algorithm bpe"),
        ("sentencepiece-bpe", ["--trace", "2"], "--trace has no effect with --algorithm sentencepiece-bpe"),
        ("unigram", ["-o", "x.json"], "x.json: a vocabulary of unigram is written as .model"),
    ],
)
def test_options_of_other_algorithms_are_refused_by_name(
    algorithm: str, options: list[str], message: str, corpora: Path
) -> None:
    result = bpe("train", corpora / "prose.txt", "--algorithm", algorithm, *options)
    assert result.exit_code != 0
    assert message in result.stderr
