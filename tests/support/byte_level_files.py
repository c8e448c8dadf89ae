"""Random tokenizer.json files of byte-level BPE as people train them with tokenizers, compared with tokenizers."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from bpe import Tokenizer

BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
BEHAVIORS = ("Isolated", "Removed", "MergedWithPrevious", "MergedWithNext", "Contiguous")
# ASCII, Latin-1 with numbers whose bytes stand for numbers, several scripts, emoji, combining and special characters.
ALPHABET = (
    "abcdeABC  \n\t.,;'-_0123456789²³¹¼½¾éßñÀİ°·×ĠÂ▁жЖя日本한국कि\u0301\u200d\u00a0\u0085\u3000👩🏽😀\U00011de0\0\x7f"
)
WORDS = (" the", "ab", "ing", "123", "4567", "日本", "éé", "<unk>", " ", "  ", "\n\n", "'s", "²²", "Ġ", "ab.", "x1")


def split(pattern: str, behavior: str = "Isolated", invert: bool = False, kind: str = "Regex") -> dict[str, Any]:
    """Return a Split step of a tokenizer.json."""
    return {"type": "Split", "pattern": {kind: pattern}, "behavior": behavior, "invert": invert}


def random_text(generator: random.Random) -> str:
    """Return a text of random characters and words."""
    parts = [generator.choice(ALPHABET) if generator.random() < 0.5 else generator.choice(WORDS)]
    parts += generator.choices([*ALPHABET, *WORDS * 2], k=generator.randrange(14))
    return "".join(parts)


def trained(
    generator: random.Random,
    pre_tokenizer: Any,
    normalizer: Any = None,
    missing_bytes: bool = False,
    options: dict[str, Any] | None = None,
    more: tuple[str, ...] = (),
) -> dict[str, Any]:
    """Return the content of a tokenizer.json that tokenizers has trained on random text.

    Args:
        generator: The source of randomness.
        pre_tokenizer: The pre-tokenizer, as a tokenizer.json has it.
        normalizer: The normalizer likewise.
        missing_bytes: Whether only the bytes of the text have tokens.
        options: Options of the model to set.
        more: Tokens to add to the vocabulary.
    """
    empty = {"type": "BPE", "vocab": {"a": 0}, "merges": []}
    steps = {"normalizer": normalizer, "pre_tokenizer": pre_tokenizer}
    frame = tokenizers.Tokenizer.from_str(json.dumps({"version": "1.0", "added_tokens": [], "model": empty} | steps))
    learner = tokenizers.Tokenizer(models.BPE())
    if frame.normalizer is not None:
        learner.normalizer = frame.normalizer
    if frame.pre_tokenizer is not None:
        learner.pre_tokenizer = frame.pre_tokenizer
    learner.decoder = decoders.ByteLevel()
    alphabet = [] if missing_bytes else pre_tokenizers.ByteLevel.alphabet()
    special = [token for token in more if token == "<unk>"]
    trainer = trainers.BpeTrainer(
        vocab_size=generator.choice([280, 400, 600]) if alphabet else generator.choice([30, 60, 150]),
        initial_alphabet=sorted(alphabet),
        special_tokens=special,
        show_progress=False,
    )
    letters = generator.sample(ALPHABET, 30) if missing_bytes else ALPHABET
    words = ["".join(generator.choices([*letters, *WORDS], k=8)) for _ in range(60)]
    learner.train_from_iterator(words, trainer)
    data: dict[str, Any] = json.loads(learner.to_str())
    vocab = data["model"]["vocab"]
    following = max(vocab.values()) + 1
    vocab |= {token: following + place for place, token in enumerate(t for t in more if t not in vocab)}
    data["model"] |= options or {}
    return data


def assert_alike(data: dict[str, Any], path: Path, generator: random.Random, count: int = 30) -> Tokenizer:
    """Check that ids, offsets and decoded texts are those of tokenizers, also once the file is written again.

    Offsets are compared where each character has a token: where characters are dropped, tokenizers shifts those of all
    that follows in the word.
    """
    path.write_text(json.dumps(data), encoding="utf-8")
    theirs = tokenizers.Tokenizer.from_file(str(path))
    ours = Tokenizer.from_file(path)
    again = path.with_name("again.json")
    ours.save(again)
    written_theirs, written_ours = tokenizers.Tokenizer.from_file(str(again)), Tokenizer.from_file(again)
    texts = [random_text(generator) for _ in range(count)]
    shifts = bool(ours.unknown_bytes)
    for text in texts:
        expected = theirs.encode(text, add_special_tokens=False)
        allowed = ours.special_tokens_set
        ids = ours.encode(text, allowed_special=allowed)
        assert ids == expected.ids, (text, ids, expected.tokens)
        assert ours.decode(ids) == theirs.decode(ids, skip_special_tokens=False), text
        assert written_theirs.encode(text, add_special_tokens=False).ids == ids, text
        assert written_ours.encode(text, allowed_special=allowed) == ids, text
        if not shifts and not any(token in text for token in allowed):
            assert ours.encode_with_offsets(text) == (expected.ids, expected.offsets), text
    batch = ours.encode_batch(texts, allowed_special=ours.special_tokens_set)
    assert batch == [theirs.encode(text, add_special_tokens=False).ids for text in texts]
    return ours
