"""BPE in SentencePiece's form, against a plain trainer and the sentencepiece package."""

from __future__ import annotations

import io
import json
import sys
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import pytest
import sentencepiece
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

from bpe import InputError, Tokenizer
from bpe.formats import sentencepiece as sentencepiece_format
from bpe.training.pieces import (
    MAX_PIECE_LENGTH,
    NORMALIZERS,
    PieceSettings,
    count_words,
    covered_characters,
    learn_merges,
    parts_of,
    train_pieces,
)
from support.pieces import corpus, hard_texts


def plain_merges(lines: Sequence[str], merges: int) -> list[str]:
    """Merge the pair with the highest count, then the lowest ids, again and again."""
    words = count_words(lines)
    ids = {character: id for id, character in enumerate(covered_characters(words))}
    parts: Counter[tuple[str, ...]] = Counter()
    for word, count in words.items():
        for part in parts_of(word, ids):
            parts[tuple(part)] += count
    learned: list[str] = []
    while len(learned) < merges:
        counts: Counter[tuple[str, str]] = Counter()
        for part, count in parts.items():
            for pair in pairwise(part):
                counts[pair] += count
        counts = Counter({pair: count for pair, count in counts.items() if len("".join(pair)) <= MAX_PIECE_LENGTH})
        if not counts:
            break
        best = min(counts, key=lambda pair: (-counts[pair], ids[pair[0]], ids[pair[1]]))
        token = "".join(best)
        ids.setdefault(token, len(ids))
        learned.append(token)
        merged: Counter[tuple[str, ...]] = Counter()
        for part, count in parts.items():
            row: list[str] = []
            place = 0
            while place < len(part):
                joins = place + 1 < len(part) and part[place] + part[place + 1] == token
                row.append(token if joins else part[place])
                place += 1 + joins
            merged[tuple(row)] += count
        parts = merged
    return learned


def ours(lines: Sequence[str], merges: int) -> list[str]:
    words = count_words(lines)
    return learn_merges(words, covered_characters(words), merges, 1, 2)


def test_merges_are_those_of_a_plain_trainer(corpora: Path) -> None:
    lines = (corpora / "prose.txt").read_text(encoding="utf-8").split("\n")[:150]
    assert ours(lines, 120) == plain_merges(lines, 120)


@given(st.lists(st.text("aab日本のбв 1,\u0301é", min_size=1, max_size=12), min_size=1, max_size=6))
@settings(max_examples=60, deadline=None)
def test_merges_of_several_scripts_are_those_of_a_plain_trainer(lines: list[str]) -> None:
    if count_words(lines):
        assert ours(lines, 8) == plain_merges(lines, 8)


def test_words_are_split_between_scripts_and_at_characters_without_a_token() -> None:
    covered = dict.fromkeys("▁abé日本のカ12,\u0301б")
    assert list(parts_of("▁ab日本のカ12,", covered)) == ["▁ab", "日本のカ", "12,"]
    assert list(parts_of("▁日本", covered)) == ["▁日本"]
    assert list(parts_of("▁aXbб\u0301б", covered)) == ["▁a", "b", "б\u0301б"]


def test_the_model_opens_in_sentencepiece_with_pieces_close_to_its_own_trainers(corpora: Path) -> None:
    lines = (corpora / "prose.txt").read_text(encoding="utf-8").split("\n")
    model = train_pieces(lines, PieceSettings(vocab_size=900, special_tokens=["<|end|>"]))
    processor = sentencepiece.SentencePieceProcessor(model_proto=model.content)
    assert processor.vocab_size() == model.size == 900
    assert (processor.unk_id(), processor.bos_id(), processor.eos_id(), processor.pad_id()) == (0, 1, 2, -1)
    assert processor.is_control(3) and processor.id_to_piece(3) == "<|end|>"
    assert processor.is_byte(4) and processor.id_to_piece(4) == "<0x00>"
    text = "The old tree 漢字 and 12, naïve"
    assert processor.decode(processor.encode(text)) == text
    theirs = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines),
        model_writer=theirs,
        model_type="bpe",
        vocab_size=900,
        byte_fallback=True,
        control_symbols=["<|end|>"],
        normalization_rule_name="identity",
        minloglevel=2,
        num_threads=1,
    )
    reference = sentencepiece.SentencePieceProcessor(model_proto=theirs.getvalue())
    pieces = [{each.id_to_piece(id) for id in range(900)} for each in (processor, reference)]
    assert len(pieces[0] & pieces[1]) > 850  # the others come from ties
    characters = [{piece for piece in each if len(piece) == 1} for each in pieces]
    assert characters[0] == characters[1]


@pytest.mark.parametrize("name", NORMALIZERS)
def test_a_model_with_each_normalizer_encodes_as_sentencepiece_does(name: str, corpora: Path) -> None:
    paths = [corpora / "prose.txt", corpora / "unicode.txt"]
    lines = [line for path in paths for line in path.read_text(encoding="utf-8").split("\n")]
    model = train_pieces(lines, PieceSettings(vocab_size=1500, allow_smaller=True, normalizer=name))
    tokenizer = Tokenizer.from_vocabulary(sentencepiece_format.read(model.content, "tokenizer.model", None, None))
    reference = sentencepiece.SentencePieceProcessor(model_proto=model.content)
    for text in [*hard_texts(400), "Ｈｅｌｌｏ①ﬁ\u200bÉ e\u0301 Straße\tX"]:
        assert tokenizer.encode_ordinary(text) == reference.encode(text), ascii(text)
    normalizer = sentencepiece.SentencePieceNormalizer(rule_name=name)
    for text in hard_texts(100, seed=1):
        normalized = reference.normalize(text)
        if name == "identity":
            assert normalized == "▁" * bool(text) + text.replace(" ", "▁")
        else:
            assert normalized == normalizer.normalize(text)


def test_a_directory_with_the_model_opens_in_transformers_with_the_same_ids(tmp_path: Path) -> None:
    settings = PieceSettings(vocab_size=3000, special_tokens=["<|end|>"])
    (tmp_path / "tokenizer.model").write_bytes(train_pieces(corpus().splitlines(), settings).content)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "LlamaTokenizer"}))
    tokenizer = Tokenizer.from_file(tmp_path)
    for reference in (
        transformers.AutoTokenizer.from_pretrained(tmp_path),
        transformers.LlamaTokenizer.from_pretrained(tmp_path),
    ):
        assert isinstance(reference, transformers.LlamaTokenizer)
        assert reference.convert_tokens_to_ids("<|end|>") == 3
        for text in hard_texts(500):
            if text[:1] in (" ", "▁"):  # before such a text, LlamaTokenizer puts no further space
                continue
            ids = reference.encode(text, add_special_tokens=False)
            assert ids == tokenizer.encode_ordinary(text), ascii(text)


def test_a_tokenizer_json_of_the_model_gives_the_same_ids_in_transformers(tmp_path: Path) -> None:
    content = train_pieces(corpus().splitlines(), PieceSettings(vocab_size=3000)).content
    tokenizer = Tokenizer.from_vocabulary(sentencepiece_format.read(content, "tokenizer.model", None, None))
    tokenizer.save(tmp_path / "tokenizer.json")
    reference = transformers.AutoTokenizer.from_pretrained(tmp_path)
    for text in hard_texts(500):
        ids = tokenizer.encode_ordinary(text)
        assert reference.encode(text, add_special_tokens=False) == ids, ascii(text)
        assert reference.decode(ids) == tokenizer.decode(ids)


@pytest.mark.parametrize("name", NORMALIZERS)
def test_the_text_is_normalized_before_it_is_counted(name: str) -> None:
    lines = ["Ｈｅｌｌｏ HELLO ①②③ ﬁne e\u0301te\u0301\tété", "Hello\u200b hello ÉTÉ"] * 3
    settings = PieceSettings(vocab_size=500, allow_smaller=True, normalizer=name)
    normalize = sentencepiece.SentencePieceNormalizer(rule_name=name).normalize
    plain = train_pieces(map(normalize, lines), PieceSettings(vocab_size=500, allow_smaller=True))
    given, expected = (
        sentencepiece.SentencePieceProcessor(model_proto=train.content)
        for train in (train_pieces(lines, settings), plain)
    )
    pieces = [[each.id_to_piece(id) for id in range(each.vocab_size())] for each in (given, expected)]
    assert pieces[0] == pieces[1]
    text = "".join(pieces[0])
    assert ("Ｈ" in text) == (name == "identity")
    assert any("H" in piece for piece in pieces[0]) == (not name.endswith("_cf"))


def test_a_normalizer_that_is_unknown_or_whose_package_is_missing_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="no normalizer 'nfc'; give one of identity, nmt_nfkc"):
        train_pieces(["a"], PieceSettings(vocab_size=300, normalizer="nfc"))
    monkeypatch.setitem(sys.modules, "sentencepiece", None)
    with pytest.raises(InputError, match="the normalizer nfkc needs the package sentencepiece: pip install"):
        train_pieces(["a"], PieceSettings(vocab_size=300, normalizer="nfkc"))
    assert train_pieces(["a"], PieceSettings(vocab_size=300, allow_smaller=True)).size == 262


def test_sizes_that_do_not_fit_the_text_are_refused() -> None:
    with pytest.raises(InputError, match="no text to train on"):
        train_pieces([" ", ""], PieceSettings(vocab_size=300))
    with pytest.raises(InputError, match="a vocabulary of 200 is too small: .* need at least 261"):
        train_pieces(["a"], PieceSettings(vocab_size=200))
    with pytest.raises(InputError, match="the text gives 262 tokens, not 400: no pair is left to merge.*allow-smaller"):
        train_pieces(["a"], PieceSettings(vocab_size=400))
    assert train_pieces(["a"], PieceSettings(vocab_size=400, allow_smaller=True)).size == 262
