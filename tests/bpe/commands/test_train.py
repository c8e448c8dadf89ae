"""`bpe train`: what it writes and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bpe import Tokenizer
from support.command_line import bpe, fails_with


def test_train_writes_a_tokenizer_that_encodes(my_json: Path) -> None:
    tokenizer = Tokenizer.from_file(my_json)
    assert tokenizer.n_vocab == 1024
    assert tokenizer.decode(tokenizer.encode("Once upon a time")) == "Once upon a time"


def test_train_accepts_stdin_another_pattern_and_special_tokens(tmp_path: Path) -> None:
    path = tmp_path / "ranks.model"
    result = bpe(
        "train", "-", "-o", path, "--vocab-size", "280", "--pattern", "gpt2", "--special", "<|x|>",
        input="a tale of two tails, and of a tall tale told at all times and in all towns",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    tokenizer = Tokenizer.from_file(path, pattern="gpt2", special_tokens=["<|x|>"])
    assert tokenizer.n_vocab == 280
    assert tokenizer.encode("<|x|>", allowed_special="all") == [279]


@pytest.mark.parametrize(
    ("content", "size", "words"),
    [
        (b"", "1000", ["no text"]),
        (b"abc abc", "100", ["too small", "512"]),
        (b"abc abc", "5000", ["no pair is left", "--allow-smaller"]),
    ],
)
def test_train_refuses_a_corpus_too_small_for_the_vocabulary(
    tmp_path: Path, content: bytes, size: str, words: list[str]
) -> None:
    corpus = tmp_path / "corpus.txt"
    corpus.write_bytes(content)
    output = tmp_path / "out.json"
    fails_with(bpe("train", corpus, "-o", output, "--vocab-size", size), 1, *words)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["corpus.txt"]


def test_train_accepts_counted_pretokens(tmp_path: Path) -> None:
    counts = tmp_path / "counts.jsonl"
    rows = [("ab", 3), (" bc", 2), (" bcd", 5)]
    counts.write_text("".join(json.dumps({"pretoken": text, "count": count}) + "\n" for text, count in rows))
    options = ("--vocab-size", "259", "--no-special", "--pattern", "gpt2")
    result = bpe("train", "--counts", counts, "-o", tmp_path / "counts.json", *options)
    assert result.exit_code == 0, result.output
    assert "259 tokens from 0.0 MB, " in result.stderr
    assert Tokenizer.from_file(tmp_path / "counts.json").decode([258]) == " bcd"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("corpus.txt",), "CORPUS... has no effect with --counts"),
        (("--weight", "a=2"), "--weight has no effect with --counts"),
        (("--resume", "out.work"), "--resume has no effect with --counts"),
        (("--field", "text"), "--field has no effect with --counts"),
        (("--exclude", "x"), "--exclude has no effect with --counts"),
    ],
)
def test_train_refuses_corpus_options_with_counts(tmp_path: Path, options: tuple[str, ...], message: str) -> None:
    output = tmp_path / "out.json"
    fails_with(bpe("train", "--counts", "c.jsonl", "-o", output, "--vocab-size", "300", *options), 2, message)
    assert not output.exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--resume", "x.work", "--vocab-size", "300"), "--vocab-size has no effect with --resume alone"),
        (("--resume", "x.work", "-o", "x.json"), "--output has no effect with --resume alone"),
        (("c.txt", "-o", "x.json", "--held-out", "h"), "--held-out has no effect without --report DIR"),
        (("c.txt", "-o", "x.json", "--no-special", "--special", "<x>"), "--special has no effect with --no-special"),
    ],
)
def test_train_refuses_options_without_effect(options: tuple[str, ...], message: str) -> None:
    fails_with(bpe("train", *options), 2, message)


def test_required_tokens_are_read_without_a_byte_order_mark(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("a text without it")
    (tmp_path / "required.txt").write_bytes("\ufeffzebra\r\nwolf\r\n".encode())
    output = tmp_path / "my.json"
    options = ("--vocab-size", 300, "--no-special", "--allow-smaller", "--require", tmp_path / "required.txt")
    result = bpe("train", tmp_path / "text.txt", "-o", output, *options)
    assert result.exit_code == 0, result.output
    assert {b"zebra", b"wolf"} <= Tokenizer.from_file(output).mergeable_ranks.keys()


def test_train_names_a_missing_argument(tmp_path: Path) -> None:
    fails_with(bpe("train", "-o", tmp_path / "x.json", "--vocab-size", "300"), 2, "missing CORPUS")
    fails_with(bpe("train"), 2, "missing CORPUS (- for stdin, or --counts FILE)\n")
    fails_with(bpe("train", "corpus.txt"), 1, "corpus.txt: no such file or directory")
    missing = bpe("train", "--counts", tmp_path / "none.jsonl", "-o", tmp_path / "x.json", "--vocab-size", "600")
    fails_with(missing, 1, "none.jsonl")


def test_output_and_size_have_defaults_that_are_printed(
    corpora: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = bpe("train", corpora / "prose.txt")
    assert result.exit_code == 0, result.output
    told = (
        "bpe: by default: -o tokenizer.json, --vocab-size at most 32,000, as long as a pair occurs 10 times or more\n"
    )
    assert result.stderr.startswith(told)
    explicit = ("--vocab-size", "32000", "--allow-smaller", "--min-frequency", "10")
    assert bpe("train", corpora / "prose.txt", "-o", "same.json", *explicit).exit_code == 0
    assert _tokens("tokenizer.json") == _tokens("same.json")
    assert 512 < len(_tokens("tokenizer.json")) < 32000


def test_a_default_size_suits_a_corpus_of_one_word(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("word")
    result = bpe("train", tmp_path / "text", "-o", tmp_path / "my.json", "--no-special")
    assert result.exit_code == 0, result.output
    assert len(_tokens(tmp_path / "my.json")) == 256


def test_a_given_minimum_frequency_replaces_that_of_the_default_size(corpora: Path, tmp_path: Path) -> None:
    for number, frequency in enumerate((5, 50)):
        output = tmp_path / f"{number}.json"
        result = bpe("train", corpora / "prose.txt", "-o", output, "--min-frequency", frequency)
        assert f"as long as a pair occurs {frequency} times or more" in result.stderr
    assert len(_tokens(tmp_path / "0.json")) > len(_tokens(tmp_path / "1.json"))


def test_the_default_size_with_a_base_counts_from_the_base(corpora: Path, my_json: Path, tmp_path: Path) -> None:
    result = bpe("train", corpora / "prose.txt", "-o", tmp_path / "grown.json", "--base", my_json)
    assert result.exit_code == 0, result.output
    assert "--vocab-size at most 33,024" in result.stderr
    assert len(_tokens(tmp_path / "grown.json")) > len(_tokens(my_json))


def test_a_file_of_the_default_name_is_not_replaced(
    corpora: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tokenizer.json").write_text("mine")
    result = bpe("train", corpora / "prose.txt")
    fails_with(result, 1, "tokenizer.json: already exists; give -o FILE to name another file")
    assert (tmp_path / "tokenizer.json").read_text() == "mine"


def _tokens(file: Path | str) -> dict[bytes, int]:
    return Tokenizer.from_file(file).mergeable_ranks


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        ("lama3", ["there is no split pattern 'lama3'; did you mean llama3?"]),
        ("GPT2", ["did you mean gpt2?"]),
        ("o200k_base", ["did you mean o200k?"]),
        ("xyzzy", ["no text to train on: 1 document holds 7 bytes that the split pattern 'xyzzy' leaves out"]),
    ],
)
def test_train_refuses_a_pattern_that_is_misspelt_or_matches_nothing(
    tmp_path: Path, pattern: str, words: list[str]
) -> None:
    (tmp_path / "a.txt").write_text("abc abc")
    result = bpe("train", tmp_path / "a.txt", "-o", tmp_path / "t.json", "--vocab-size", "4096", "--pattern", pattern)
    fails_with(result, 1, *words)


@pytest.mark.parametrize(
    ("pattern", "problem", "place", "remedy"),
    [
        ("a|(b", "a ( without its )", "at character 3, '(b'", "close the group"),
        ("a)", "a ) without its (", "at character 2, ')'", "write it as \\)"),
        ("x[a", "a class without its closing bracket", "at character 2, '[a'", "close the class with ]"),
        ("a|*b", "a repetition of nothing", "at character 3, '*b'", "write the character as \\*"),
        (
            "a{5,2}",
            "a repetition with its limits in the wrong order",
            "at character 2, '{5,2}'",
            "swap the two numbers",
        ),
        ("[z-a]", "a range whose end comes before its beginning", "at character 2, 'z-a]'", "swap the two"),
        ("(?<=a+)b", "a look-behind without a limit", "at character 1, '(?<=a+)b'", "write it with fixed lengths"),
        (r"(a)\1", "a back reference", r"at character 4, '\1'", "write the group's text again"),
        (r"\p{Foo}", r"the property \p{Foo}", r"at character 1, '\p{Foo}'", "write its characters as ranges"),
        ("[[:foo:]]", "an unknown name in [: :]", "at character 2, '[:foo:]]'", "write a known one, such as [:alpha:]"),
        ("a(?R)", "recursion", "at character 2, '(?R)'", "write the part without referring to another"),
        (r"a\Kb", r"\K", r"at character 2, '\Kb'", "write what comes before as look-behind"),
        ("(?(1)a|b)", "a conditional", "at character 1, '(?(1)a|b)'", "write its cases as alternatives"),
        ("a\\", "a backslash at its end", "at character 2, '\\'", "write a backslash as \\\\"),
    ],
)
def test_train_shows_where_a_pattern_is_wrong_and_what_to_write(
    tmp_path: Path, pattern: str, problem: str, place: str, remedy: str
) -> None:
    (tmp_path / "a.txt").write_text("abc abc")
    result = bpe("train", tmp_path / "a.txt", "-o", tmp_path / "t.json", "--vocab-size", "300", "--pattern", pattern)
    fails_with(result, 1, f"the split pattern has {problem}", f"{place}; {remedy}")


def test_train_warns_when_the_pattern_leaves_text_out(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("Hello, world! Hello, world! é")
    arguments = ("train", tmp_path / "a.txt", "-o", tmp_path / "t.json", "--vocab-size", "260", "--no-special")
    with pytest.warns(UserWarning, match=r"leaves out 8 bytes of the text, and the tokenizer drops such text"):
        assert bpe(*arguments, "--pattern", r"\w+").exit_code == 0
    assert "leaves out" not in bpe(*arguments, "--pattern", r"\w+|(?s:.)").stderr


def test_train_names_the_files_of_its_report_and_what_is_in_its_way(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("abc abc abd")
    arguments = ("train", tmp_path / "a.txt", "--vocab-size", "258", "--no-special")
    result = bpe(*arguments, "-o", tmp_path / "t.json", "--report", tmp_path / "found")
    assert result.exit_code == 0, result.output
    assert f"{tmp_path / 'found'}: report.json, report.md, growth.png" in result.stderr
    refused = bpe(*arguments, "-o", tmp_path / "u.json", "--report", tmp_path / "a.txt")
    fails_with(refused, 1, "a.txt: a file is in the way; name another directory for the report")
    assert not (tmp_path / "u.json").exists()
    fails_with(bpe(*arguments, "-o", tmp_path / "a.txt" / "u.json"), 1, "a.txt is no directory")
