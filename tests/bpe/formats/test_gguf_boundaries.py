"""What a GGUF says about the beginning and the end of a text, by the rules of llama.cpp's llama-vocab.cpp.

llama.cpp ends a text at eos, eot and eom, and searches for eot and eom by name if the file lacks them. By default,
"add_bos_token" is true for the pre-tokenizers of Llama 3 and false for others, "add_eos_token" is false, and a missing
end token is the id 11.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import pytest

from bpe import InputError, Tokenizer
from bpe.boundaries import KNOWN_NAME, Boundaries
from bpe.formats.gguf import vocabulary_metadata
from bpe.formats.gguf_container import lay_out
from support.references import BYTE_RANKS

SPECIAL = ("<s>", "<|turn_end|>", "<|done|>", "<|eot_id|>", "<|eom_id|>", "<|end_of_text|>", "<|custom|>")
IDS = {text: 256 + i for i, text in enumerate(SPECIAL)}


def tokenizer(said: Boundaries, pattern: str = "llama3") -> Tokenizer:
    made = Tokenizer("tiny", pat_str=pattern, mergeable_ranks=BYTE_RANKS, special_tokens=IDS)
    return Tokenizer.from_vocabulary(made.vocabulary.with_boundaries(said))


def read(path: Path, pattern: str = "llama3", **changes: Any) -> Boundaries:
    """Write a GGUF that says nothing about boundaries, with changed keys of tokenizer.ggml, and read it."""
    made = tokenizer(Boundaries(eos_ids=(0,)), pattern)
    metadata = vocabulary_metadata(made.vocabulary, made.n_vocab)
    kept = {key: value for key, value in metadata.items() if "token_id" not in key and ".add_" not in key}
    added = {f"tokenizer.ggml.{key}": value for key, value in changes.items()}
    path.write_bytes(lay_out({"general.architecture": "llama", **kept, **added}, {})[0])
    return Tokenizer.from_file(path).vocabulary.boundaries


@pytest.mark.parametrize(
    ("pattern", "changes", "bos", "prefix", "ends", "suffix"),
    [
        ("llama3", {"bos_token_id": 262, "eos_token_id": 257}, 262, (262,), (257, 259, 260), ()),
        ("llama3", {"bos_token_id": 262, "eos_token_id": 257, "add_bos_token": False}, 262, (), (257, 259, 260), ()),
        ("gpt2", {"bos_token_id": 262, "eos_token_id": 257}, 262, (), (257, 259, 260), ()),
        ("gpt2", {"bos_token_id": 262, "add_bos_token": True, "eos_token_id": 257}, 262, (262,), (257, 259, 260), ()),
        ("gpt2", {"eos_token_id": 257, "eot_token_id": 258, "eom_token_id": 262}, 256, (), (257, 258, 262), ()),
        ("gpt2", {"eos_token_id": 257, "eot_token_id": 257, "eom_token_id": 258}, 256, (), (257, 258), ()),
        ("gpt2", {"eos_token_id": 257, "add_eos_token": True}, 256, (), (257, 259, 260), (257,)),
        ("gpt2", {}, 256, (), (261, 259, 260), ()),  # by known names alone
        ("llama3", {}, 256, (256,), (261, 259, 260), ()),
    ],
)
def test_a_gguf_is_read_by_the_rules_of_llama_cpp(
    pattern: str, changes: dict[str, Any], bos: int, prefix: tuple[int], ends: tuple[int], suffix: Any, tmp_path: Path
) -> None:
    said = read(tmp_path / "a.gguf", pattern, **changes)
    assert (said.bos_id, said.prefix_ids, said.eos_ids, said.suffix_ids) == (bos, prefix, ends, suffix)
    assert (said.bos_from == KNOWN_NAME) == ("bos_token_id" not in changes)
    assert (said.eos_from == KNOWN_NAME) == (not any(key.startswith("eo") for key in changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bos_token_id": 263}, "tokenizer.ggml.bos_token_id is 263; expected an id below 263"),
        ({"eot_token_id": True}, "tokenizer.ggml.eot_token_id is True"),
        ({"eom_token_id": "<|eom_id|>"}, "tokenizer.ggml.eom_token_id is '<|eom_id|>'"),
        ({"add_bos_token": 1}, "tokenizer.ggml.add_bos_token is 1; expected true or false"),
        ({"add_bos_token": True}, "add_bos_token is true, but there is no tokenizer.ggml.bos_token_id"),
        ({"add_eos_token": True}, "add_eos_token is true, but there is no tokenizer.ggml.eos_token_id"),
    ],
)
def test_wrong_metadata_is_refused_with_its_key(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        read(tmp_path / "a.gguf", **changes)


@pytest.mark.filterwarnings("ignore:.*llama.cpp")
@pytest.mark.parametrize(
    "said",
    [
        Boundaries(bos_id=262, eos_ids=(257,), eos_id=257, prefix_ids=(262,)),
        Boundaries(bos_id=262, eos_ids=(261, 260, 259), eos_id=259),
        Boundaries(eos_ids=(261, 257), eos_id=257),
        Boundaries(bos_id=256, eos_ids=(257, 258, 262, 256), eos_id=257, suffix_ids=(257,)),
        Boundaries(eos_ids=(257, 258, 262), eos_id=262),
    ],
)
def test_what_is_written_is_read_back_and_given_to_llama_cpp(said: Boundaries, tmp_path: Path) -> None:
    tokenizer(said).save(tmp_path / "a.gguf", format="gguf")  # type: ignore[arg-type]
    again = Tokenizer.from_file(tmp_path / "a.gguf").vocabulary.boundaries
    assert (again.eos_ids, again.prefix_ids, again.suffix_ids) == (said.eos_ids, said.prefix_ids, said.suffix_ids)
    assert again.eos_id == said.eos_id
    assert said.bos_id is None or again.bos_id == said.bos_id
    fields = {key: field.contents() for key, field in gguf.GGUFReader(tmp_path / "a.gguf").fields.items()}
    assert fields["tokenizer.ggml.add_bos_token"] is (said.prefix_ids != ())
    assert fields["tokenizer.ggml.add_eos_token"] is (said.suffix_ids != ())
    assert fields.get("tokenizer.ggml.bos_token_id") == said.bos_id
    assert fields["tokenizer.ggml.eos_token_id"] == said.eos_id
    theirs = {fields.get(f"tokenizer.ggml.{kind}_token_id") for kind in ("eos", "eot", "eom")} - {None}
    assert theirs <= {*said.eos_ids}
    by_name = {IDS[text] for text in ("<|eot_id|>", "<|eom_id|>", "<|end_of_text|>")}
    assert {*said.eos_ids} - theirs - by_name == ({256} if len(said.eos_ids) == 4 else set())


def test_more_end_tokens_than_llama_cpp_has_room_for_are_a_warning(tmp_path: Path) -> None:
    said = Boundaries(eos_ids=(257, 258, 262, 256), eos_id=257)
    with pytest.warns(UserWarning, match=r"room for three end tokens and will not end a text at <s>"):
        tokenizer(said).save(tmp_path / "a.gguf", format="gguf")  # type: ignore[arg-type]


def test_no_end_token_is_a_warning_since_llama_cpp_has_a_default(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="no end token, and llama.cpp will end a text at the token with the id 11"):
        tokenizer(Boundaries()).save(tmp_path / "a.gguf", format="gguf")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "said",
    [
        Boundaries(bos_id=256, prefix_ids=(256, 257), eos_ids=(258,)),
        Boundaries(bos_id=256, prefix_ids=(257,), eos_ids=(258,)),
        Boundaries(eos_id=258, eos_ids=(258,), suffix_ids=(259,)),
    ],
)
def test_tokens_that_llama_cpp_cannot_add_are_refused(said: Boundaries, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="llama.cpp puts only the (BOS|EOS) there.*post_processor"):
        tokenizer(said).save(tmp_path / "a.gguf", format="gguf")  # type: ignore[arg-type]
