"""SentencePiece's BPE in a tokenizer.json and in a GGUF: read, written and converted without a change of the ids."""

from __future__ import annotations

import json
import random
import re
from array import array
from functools import cache
from pathlib import Path
from typing import Any

import gguf
import pytest
import tokenizers

from bpe import InputError, Tokenizer
from bpe.formats import gguf_pieces, huggingface, read_vocabulary, sentencepiece
from bpe.piece_vocabulary import PieceVocabulary
from support.pieces import hard_texts, mistral, processor, trained

NORMALIZERS: dict[str, dict[str, Any]] = {
    "prepend": {
        "normalizer": {
            "type": "Sequence",
            "normalizers": [
                {"type": "Prepend", "prepend": "▁"},
                {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
            ],
        },
        "pre_tokenizer": None,
    },
    "gemma": {
        "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
        "pre_tokenizer": {
            "type": "Split",
            "pattern": {"String": " "},
            "behavior": "MergedWithPrevious",
            "invert": False,
        },
    },
    "nothing": {"normalizer": None, "pre_tokenizer": None},
    **{
        f"metaspace, {scheme}": {
            "normalizer": None,
            "pre_tokenizer": {
                "type": "Metaspace",
                "replacement": "▁",
                "prepend_scheme": scheme,
                "split": False,
            },
        }
        for scheme in ("always", "first", "never")
    },
}

MODELS: dict[str, dict[str, Any]] = {
    "bytes": {"byte_fallback": True, "unk_token": "<unk>", "fuse_unk": True},
    "no unknown token": {"byte_fallback": True, "unk_token": None, "fuse_unk": True},
    "fused": {"byte_fallback": False, "unk_token": "<unk>", "fuse_unk": True},
    "each": {"byte_fallback": False, "unk_token": "<unk>", "fuse_unk": False},
    "dropped": {"byte_fallback": False, "unk_token": None, "fuse_unk": False},
}


@cache
def written(name: str) -> str:
    """Return the tokenizer.json of a model that sentencepiece trained."""
    return huggingface.render(sentencepiece.read(trained(name), "tokenizer.model", None, None)).decode()


def variant(normalizer: str, model: str, some_bytes: bool = False) -> str:
    data = json.loads(written("llama"))
    data |= NORMALIZERS[normalizer]
    data["model"] |= MODELS[model]
    data["post_processor"] = None
    data["added_tokens"].append(data["added_tokens"][0] | {"id": len(data["model"]["vocab"]), "content": "[TOOL]"})
    data["added_tokens"][-1]["special"] = False
    if some_bytes:  # characters with such a byte are unknown
        texts = {f"<0x{byte:02X}>" for byte in (0x9F, 0xAD, 0xEF)}
        for text in texts:
            data["model"]["vocab"][f"no byte {text}"] = data["model"]["vocab"].pop(text)
    return json.dumps(data, ensure_ascii=False)


def check(content: str, count: int = 1000) -> None:
    reference = tokenizers.Tokenizer.from_str(content)
    tokenizer = Tokenizer.from_vocabulary(huggingface.read(content.encode(), "tokenizer.json", None, None))
    for number, text in enumerate(hard_texts(count)):
        text += "[TOOL] x" * (number % 5 == 0)
        expected = reference.encode(text, add_special_tokens=False).ids
        assert tokenizer.encode_ordinary(text) == expected, repr(text)


@pytest.mark.parametrize("normalizer", NORMALIZERS)
@pytest.mark.parametrize("model", MODELS)
def test_ids_are_those_of_tokenizers(normalizer: str, model: str) -> None:
    if normalizer == "nothing" and not MODELS[model]["byte_fallback"]:
        return  # nothing shows that such a file merges characters, so it is refused
    check(variant(normalizer, model), 200)


@pytest.mark.parametrize("model", ["bytes", "no unknown token"])
def test_bytes_without_a_token_are_treated_as_in_tokenizers(model: str) -> None:
    check(variant("prepend", model, some_bytes=True))


@pytest.mark.parametrize("escape", [True, False])
@pytest.mark.parametrize("prefix", [True, False])
def test_a_file_that_removes_extra_spaces_is_read_as_it_is_written(escape: bool, prefix: bool) -> None:
    data = json.loads(variant("nothing", "bytes")) | {"normalizer": json.loads(written("identity"))["normalizer"]}
    entries = data["normalizer"]["normalizers"]
    assert len(entries) == 5
    entries[3]["prepend"] = "▁" if escape else " "
    entries[1]["pattern"]["Regex"] = r"[ ▁]+\z" if escape else r"[  ]+\z"
    del entries[4 if not escape else 5 :]
    if not prefix:
        del entries[3]
    check(json.dumps(data))


@pytest.mark.parametrize("name", ["llama", "identity"])
def test_a_model_is_written_as_a_tokenizer_json_that_gives_its_ids(name: str) -> None:
    reference = processor(trained(name))
    theirs = tokenizers.Tokenizer.from_str(written(name))
    ours = Tokenizer.from_vocabulary(huggingface.read(written("llama").encode(), "tokenizer.json", None, None))
    for text in hard_texts(1500):
        assert theirs.encode(text, add_special_tokens=False).ids == reference.encode(text), repr(text)
        if name == "llama":
            assert ours.encode_ordinary(text) == reference.encode(text), repr(text)


def test_mistral_is_written_as_a_tokenizer_json_that_gives_its_ids(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.model").write_bytes(mistral("tokenizer.model.v1"))
    Tokenizer.from_file(tmp_path / "tokenizer.model").save(tmp_path / "tokenizer.json")
    theirs = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    reference = processor(mistral("tokenizer.model.v1"))
    for text in hard_texts(500):
        assert theirs.encode(text, add_special_tokens=False).ids == reference.encode(text), repr(text)


@pytest.mark.parametrize("suffix", [".model", ".gguf"])
def test_every_format_gives_the_ids_of_the_model(suffix: str, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text(written("llama"))
    Tokenizer.from_file(tmp_path / "tokenizer.json").save(tmp_path / f"new{suffix}")
    tokenizer = Tokenizer.from_file(tmp_path / f"new{suffix}")
    reference = processor(trained("llama"))
    written_model = processor((tmp_path / "new.model").read_bytes()) if suffix == ".model" else reference
    for text in hard_texts(1500):
        assert tokenizer.encode_ordinary(text) == reference.encode(text) == written_model.encode(text), repr(text)
    assert (tokenizer.bos_id, tokenizer.eos_ids) == (1, (2,))


def test_a_gguf_has_the_keys_of_llama_cpp(tmp_path: Path) -> None:
    vocabulary = sentencepiece.read(mistral("tokenizer.model.v1"), "tokenizer.model", None, None)
    Tokenizer.from_vocabulary(vocabulary).save(tmp_path / "vocabulary.gguf")
    fields = gguf.GGUFReader(tmp_path / "vocabulary.gguf").fields
    assert fields["tokenizer.ggml.model"].contents() == "llama"
    assert fields["tokenizer.ggml.add_space_prefix"].contents() is True
    assert fields["tokenizer.ggml.bos_token_id"].contents() == 1
    assert isinstance(vocabulary, PieceVocabulary)
    assert fields["tokenizer.ggml.tokens"].contents() == list(vocabulary.model.pieces)
    assert fields["tokenizer.ggml.scores"].contents() == vocabulary.model.scores.tolist()
    assert bytes(fields["tokenizer.ggml.token_type"].contents()) == vocabulary.model.types


def test_a_gguf_may_have_tokens_of_the_type_unknown_that_fill_gaps(tmp_path: Path) -> None:
    vocabulary = sentencepiece.read(mistral("tokenizer.model.v1"), "tokenizer.model", None, None)
    assert isinstance(vocabulary, PieceVocabulary)
    metadata = gguf_pieces.piece_metadata(vocabulary, len(vocabulary.model.pieces))
    metadata["tokenizer.ggml.tokens"] += ["[PAD32000]", "[PAD32001]"]
    for key, code, values in (("scores", "f", [-1e4, -1e4]), ("token_type", "i", [2, 2])):
        known = metadata[f"tokenizer.ggml.{key}"]
        metadata[f"tokenizer.ggml.{key}"] = memoryview(array(code, [*known, *values]))
    padded = Tokenizer.from_vocabulary(gguf_pieces.read_pieces(metadata, "padded.gguf", None, None))
    reference = processor(mistral("tokenizer.model.v1"))
    for text in [*hard_texts(200), "[PAD32000]"]:
        assert padded.encode_ordinary(text) == reference.encode(text), repr(text)
    del metadata["tokenizer.ggml.unknown_token_id"]
    with pytest.raises(InputError, match="3 pieces have the type UNKNOWN"):
        gguf_pieces.read_pieces(metadata, "padded.gguf", None, None)


@pytest.mark.parametrize(
    ("name", "suffix", "words"),
    [
        ("nfkc", ".gguf", "precompiled_charsmap"),
        ("nfkc", ".json", "precompiled_charsmap"),
        ("suffix", ".json", "treat_whitespace_as_suffix|precompiled_charsmap"),
        ("identity", ".gguf", "byte_fallback"),
        ("user-defined", ".gguf", "precompiled_charsmap"),
        ("bytes", ".tiktoken", "tiktoken"),
    ],
)
def test_what_a_format_cannot_express_is_refused(name: str, suffix: str, words: str, tmp_path: Path) -> None:
    tokenizer = Tokenizer.from_vocabulary(sentencepiece.read(trained(name), "tokenizer.model", None, None))
    with pytest.raises(InputError, match=words):
        tokenizer.save(tmp_path / f"new{suffix}")


@pytest.mark.parametrize("name", ["nfkc", "identity", "suffix", "user-defined", "bytes"])
def test_the_format_that_a_refusal_names_expresses_the_vocabulary(name: str, tmp_path: Path) -> None:
    tokenizer = Tokenizer.from_vocabulary(sentencepiece.read(trained(name), "tokenizer.model", None, None))
    for suffix in (".tiktoken", ".gguf", ".json"):
        try:
            tokenizer.save(tmp_path / f"new{suffix}")
        except InputError as error:
            remedy = re.search(r"[Ww]rite (a tokenizer\.json|a SentencePiece model \(\.model\))$", str(error))
            assert remedy is not None, error
            tokenizer.save(tmp_path / ("right.json" if remedy[1] == "a tokenizer.json" else "right.model"))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda data: data["model"].update(dropout=0.1), "model.dropout"),
        (lambda data: data["model"].update(ignore_merges=True), "model.ignore_merges"),
        (lambda data: data["model"].update(unk_token="<none>"), "model.unk_token"),
        (lambda data: data["model"]["merges"].append(["a", "nothing"]), "which is no token"),
        (lambda data: data["model"]["merges"].append("a"), "is not a pair of tokens"),
        (lambda data: data["model"]["vocab"].update(more=9999), "must have the ids"),
        (lambda data: data.update(normalizer={"type": "Lowercase"}), "the normalizer .* is not supported"),
        (lambda data: data["added_tokens"][0].update(normalized=True), "normalized"),
        (lambda data: data["added_tokens"][0].update(id=5), "has the id 5, but tokenizers gives it 0"),
        (
            lambda data: data["added_tokens"].append(data["added_tokens"][0] | {"id": 9999, "content": "[X]"}),
            "has the id",
        ),
        (lambda data: data.update(decoder={"type": "WordPiece", "prefix": "##"}), '"decoder" has the step .*WordPiece'),
        (lambda data: data.update(decoder={"type": "Fuse"}), "leaves the tokens of bytes"),
        (lambda data: data.update(decoder=["Fuse"]), "in place of a step"),
        (lambda data: data["decoder"]["decoders"].pop(0), "before Strip no step that makes a space"),
        (lambda data: data["decoder"]["decoders"].pop(1), "leaves the tokens of bytes"),
        (lambda data: data["decoder"]["decoders"].pop(2), "Strip without Fuse before it"),
        (lambda data: data["decoder"]["decoders"][3].update(start=2), '"decoder" has the step .*"start": 2'),
    ],
)
def test_what_is_not_supported_is_refused(change: Any, words: str, tmp_path: Path) -> None:
    data = json.loads(written("llama"))
    change(data)
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(data))
    with pytest.raises(InputError, match=words):
        read_vocabulary(path)


TO_SPACE = {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}
TO_BYTES, FUSE = {"type": "ByteFallback"}, {"type": "Fuse"}
STRIP = {"type": "Strip", "content": " ", "start": 1, "stop": 0}
METASPACE = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": False}


@pytest.mark.parametrize("normalizer", NORMALIZERS)
@pytest.mark.parametrize(
    "steps",
    [
        [TO_SPACE, TO_BYTES, FUSE, STRIP],
        [TO_SPACE, TO_BYTES, FUSE],
        [TO_SPACE, TO_BYTES],
        [METASPACE, TO_BYTES, FUSE],
        [METASPACE | {"prepend_scheme": "never"}, TO_BYTES],
    ],
)
def test_the_decoder_of_the_file_decodes(normalizer: str, steps: list[dict[str, Any]]) -> None:
    data = json.loads(variant(normalizer, "bytes"))
    data["decoder"] = {"type": "Sequence", "decoders": steps}
    for content in ("▁x", " y", "▁z▁", "[▁]"):
        entry = data["added_tokens"][-1]
        data["added_tokens"].append(entry | {"id": entry["id"] + 1, "content": content, "special": content == "▁x"})
    text = json.dumps(data)
    reference = tokenizers.Tokenizer.from_str(text)
    ours = Tokenizer.from_vocabulary(huggingface.read(text.encode(), "tokenizer.json", None, None))
    again = Tokenizer.from_vocabulary(
        huggingface.read(huggingface.render(ours.vocabulary), "tokenizer.json", None, None)
    )
    source = random.Random(0)
    count = reference.get_vocab_size()
    bytes_, others = [range(start, end) for start, end in ((3, 259), (count - 6, count))]
    spaces = [id for id in range(count) if (reference.id_to_token(id) or "").startswith("▁")]
    for _ in range(1500):
        kinds = (bytes_, others, spaces, range(count), [3 + byte for byte in " é▁日".encode()])
        ids = [source.choice(source.choice(kinds)) for _ in range(source.randrange(7))]
        expected = reference.decode(ids, skip_special_tokens=False)
        assert ours.decode(ids) == expected, ids
        assert again.decode_batch([ids]) == [expected]
        specials = {0, 1, 2, count - 4}
        rest = [id for id in ids if not ours.is_special_token(id)]
        assert not specials.intersection(rest)
        assert ours.decode(rest) == reference.decode(ids)


@pytest.mark.parametrize(
    ("steps", "words"),
    [
        ([FUSE, TO_SPACE, TO_BYTES], "ByteFallback behind Fuse"),
        ([TO_BYTES, TO_SPACE, FUSE, STRIP], "Replace behind ByteFallback"),
        ([TO_BYTES, FUSE, METASPACE], "Metaspace behind ByteFallback"),
        ([METASPACE, TO_BYTES, FUSE, STRIP], "Strip behind a step that removes spaces"),
        ([TO_SPACE, TO_BYTES, FUSE, STRIP, STRIP], "Strip behind a step that removes spaces"),
    ],
)
def test_decoders_that_change_text_otherwise_are_refused(steps: list[dict[str, Any]], words: str) -> None:
    data = json.loads(written("llama"))
    data["decoder"] = {"type": "Sequence", "decoders": steps}
    with pytest.raises(InputError, match=f"{words}.*write Replace, ByteFallback, Fuse and Strip"):
        huggingface.read(json.dumps(data).encode(), "tokenizer.json", None, None)


def test_an_added_token_that_the_decoder_makes_a_byte_of_is_refused() -> None:
    data = json.loads(written("llama"))
    entry = data["added_tokens"][0] | {"id": len(data["model"]["vocab"]), "content": "<0xab>"}
    data["added_tokens"].append(entry)
    with pytest.raises(InputError, match="which makes a byte of the token '<0xab>'"):
        huggingface.read(json.dumps(data).encode(), "tokenizer.json", None, None)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"content": "▁qj"}, "which the token contains"),
        ({"content": "x qj"}, "which the token contains"),
        ({"lstrip": True}, "lstrip and rstrip"),
        ({"rstrip": True}, "lstrip and rstrip"),
    ],
)
def test_an_added_token_that_a_replaced_space_would_hide_is_refused(flags: dict[str, Any], words: str) -> None:
    data = json.loads(variant("gemma", "bytes"))
    data["added_tokens"][-1]["normalized"] = True
    check(json.dumps(data), 50)
    data["added_tokens"][-1].update(flags)
    with pytest.raises(InputError, match=f'{words}.*set its "normalized" to false'):
        huggingface.read(json.dumps(data).encode(), "tokenizer.json", None, None)
    data["added_tokens"][-1]["normalized"] = False
    check(json.dumps(data), 50)
