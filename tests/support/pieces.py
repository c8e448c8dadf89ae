"""SentencePiece models with all sorts of options, and texts that are hard to normalize and to merge."""

from __future__ import annotations

import io
import random
import tempfile
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import sentencepiece

CORPORA = Path(__file__).parents[2] / "corpora"

_RULES = "41 20\t62\n61\t\n66 66\t20 66\n2581\t5f\n63 20 64\t64\n1F600\t3A 29\nE9\t65\n71 20\t71\n7a\t20\n"
"""A normalization of our own: strings that span spaces, that vanish, that become spaces and that begin with others."""

_USER_DEFINED = ["<sep>", "ab", "abc", "▁▁", "\n", "\n\n", "the", "x y", "中", "中国"]

OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "bytes": {"byte_fallback": True},
    "llama": {
        "byte_fallback": True,
        "split_digits": True,
        "normalization_rule_name": "identity",
        "remove_extra_whitespaces": False,
        "allow_whitespace_only_pieces": True,
    },
    "user-defined": {
        "user_defined_symbols": _USER_DEFINED,
        "control_symbols": ["<ctl>", "[INST]"],
        "byte_fallback": True,
    },
    "user-defined, unknown": {"user_defined_symbols": ["ab", "abc", "▁▁", "\n", " q", "e"], "control_symbols": ["<c>"]},
    "no split": {"split_by_whitespace": False, "byte_fallback": True},
    "suffix": {"treat_whitespace_as_suffix": True},
    "suffix, bytes": {
        "treat_whitespace_as_suffix": True,
        "byte_fallback": True,
        "remove_extra_whitespaces": False,
    },
    "no dummy prefix": {"add_dummy_prefix": False},
    "extra spaces": {"remove_extra_whitespaces": False, "allow_whitespace_only_pieces": True},
    "extra spaces, no split": {
        "remove_extra_whitespaces": False,
        "add_dummy_prefix": False,
        "split_by_whitespace": False,
        "allow_whitespace_only_pieces": True,
    },
    "nfkc": {"normalization_rule_name": "nfkc", "byte_fallback": True},
    "nfkc_cf": {"normalization_rule_name": "nfkc_cf"},
    "nmt_nfkc_cf": {"normalization_rule_name": "nmt_nfkc_cf"},
    "identity": {"normalization_rule_name": "identity"},
    "required": {"required_chars": "ﬁ①😀"},
    "long": {"max_sentencepiece_length": 40, "split_by_unicode_script": False, "split_by_whitespace": False},
    "ids": {"unk_id": 5, "bos_id": -1, "eos_id": 0, "pad_id": 3, "unk_piece": "[UNK]", "eos_piece": "[EOS]"},
    "surface": {"unk_surface": "??"},
    "rules": {"normalization_rule_tsv": _RULES},
    "rules, bytes": {"normalization_rule_tsv": _RULES, "byte_fallback": True, "remove_extra_whitespaces": False},
}
"""The options of sentencepiece's trainer, by a name of our own."""

MISTRAL = (
    "tokenizer.model.v1",
    "mistral_instruct_tokenizer_240216.model.v2",
    "mistral_instruct_tokenizer_240323.model.v3",
    "mistral_instruct_tokenizer_241114.model.v7",
)
"""The models that the package mistral-common contains."""


@cache
def trained(name: str) -> bytes:
    """Return the content of a model that sentencepiece trains on corpora/ with some of the `OPTIONS`."""
    options = dict(OPTIONS[name])
    with tempfile.TemporaryDirectory() as directory:
        if "normalization_rule_tsv" in options:
            path = Path(directory) / "rules.tsv"
            path.write_text(options["normalization_rule_tsv"])
            options["normalization_rule_tsv"] = str(path)
        model = io.BytesIO()
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(corpus().splitlines()),
            model_writer=model,
            model_type="bpe",
            **{"vocab_size": 2500, "character_coverage": 0.999, "minloglevel": 2, "hard_vocab_limit": False, **options},
        )
    return model.getvalue()


@cache
def corpus() -> str:
    """Return the text that the models are trained on."""
    paths = [CORPORA / "tales-1.txt", CORPORA / "unicode.txt", *sorted(CORPORA.glob("[cs]*/*"))]
    return "\n".join(path.read_text(encoding="utf-8")[:20_000] for path in paths)


def mistral(name: str) -> bytes:
    """Return the content of one of the `MISTRAL` models."""
    spec = find_spec("mistral_common")
    assert spec is not None and spec.submodule_search_locations
    return (Path(spec.submodule_search_locations[0]) / "data" / name).read_bytes()


def processor(content: bytes) -> sentencepiece.SentencePieceProcessor:
    """Return the reference for a model."""
    return sentencepiece.SentencePieceProcessor(model_proto=content)


_HARD = " \t\n\u3000▁aAbcdé e\u0301ﬁ中国人がＡ①½qz\u200b\u00a0\ufffd😀👩\u200d👩\u200d👧"


def hard_texts(count: int, seed: int = 0) -> Iterator[str]:
    """Return parts of the corpus, some with characters that normalization changes, and random characters."""
    draw = random.Random(seed)
    base = corpus()
    for _ in range(count):
        kind = draw.random()
        at = draw.randrange(len(base))
        if kind < 0.4:
            yield base[at : at + draw.randrange(1, 200)]
        elif kind < 0.65:
            yield "".join(draw.choice(_HARD) for _ in range(draw.randrange(30)))
        elif kind < 0.8:
            ranges = ((0, 0x80), (0x20, 0x250), (0x250, 0xD800), (0xE000, 0x110000))
            yield "".join(chr(draw.randrange(*draw.choice(ranges))) for _ in range(draw.randrange(20)))
        else:
            text = list(base[at : at + draw.randrange(1, 60)])
            for _ in range(3):
                text.insert(draw.randrange(len(text) + 1), draw.choice(_HARD) * draw.randrange(1, 4))
            yield "".join(text)
