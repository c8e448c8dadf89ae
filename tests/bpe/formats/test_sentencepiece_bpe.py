"""SentencePiece models of BPE against the `sentencepiece` package: ids, decoding, boundaries, writing, and damage."""

from __future__ import annotations

import pickle
import random
import struct
from pathlib import Path

import pytest
from sentencepiece import sentencepiece_model_pb2 as protobuf

from bpe import InputError, StreamDecoder, StreamEncoder, Tokenizer
from bpe.formats import read_vocabulary, sentencepiece
from bpe.piece_vocabulary import BYTE, CONTROL, PieceVocabulary
from support.charsmaps import charsmap
from support.pieces import MISTRAL, OPTIONS, hard_texts, mistral, processor, trained

MODELS = [*OPTIONS, *MISTRAL]


def content_of(name: str) -> bytes:
    return trained(name) if name in OPTIONS else mistral(name)


def tokenizer_of(content: bytes, name: str = "tokenizer.model") -> Tokenizer:
    return Tokenizer.from_vocabulary(sentencepiece.read(content, name, None, None))


def changed(name: str, change) -> bytes:  # type: ignore[no-untyped-def]
    model = protobuf.ModelProto()
    model.ParseFromString(content_of(name))
    change(model)
    return bytes(model.SerializeToString())


@pytest.mark.parametrize("name", MODELS)
def test_ids_are_those_of_sentencepiece(name: str) -> None:
    reference = processor(content_of(name))
    tokenizer = tokenizer_of(content_of(name))
    for text in hard_texts(1000):
        assert tokenizer.encode_ordinary(text) == reference.encode(text), repr(text)


@pytest.mark.parametrize("name", MODELS)
def test_long_texts_are_encoded_alike_on_several_threads_and_in_a_stream(name: str) -> None:
    text = "".join(hard_texts(1500, seed=1))
    reference = processor(content_of(name)).encode(text)
    tokenizer = tokenizer_of(content_of(name))
    assert tokenizer.encode_ordinary(text) == reference
    assert tokenizer.encode_ordinary_batch([text], num_threads=4)[0] == reference
    stream = StreamEncoder(tokenizer)
    parts = [text[i : i + 1009] for i in range(0, len(text), 1009)]
    assert [id for part in parts for id in stream.feed(part)] + stream.flush() == reference


@pytest.mark.parametrize("name", MODELS)
def test_malformed_bytes_are_replaced_as_in_sentencepiece(name: str) -> None:
    reference = processor(content_of(name))
    tokenizer = tokenizer_of(content_of(name))
    draw = random.Random(2)
    for text in hard_texts(300, seed=3):
        content = bytearray(text.encode())
        for _ in range(3):
            content.insert(draw.randrange(len(content) + 1), draw.randrange(0x80, 0x100))
        assert tokenizer.encode_ordinary(bytes(content)) == reference.encode(bytes(content)), bytes(content)


@pytest.mark.parametrize("name", MODELS)
def test_decoding_gives_the_text_of_sentencepiece(name: str) -> None:
    reference = processor(content_of(name))
    tokenizer = tokenizer_of(content_of(name))
    ids = [id for id in range(reference.vocab_size()) if not reference.is_control(id)]
    draw = random.Random(4)
    for text in hard_texts(300, seed=4):
        encoded = reference.encode(text)
        assert tokenizer.decode(encoded) == reference.decode(encoded)
        chosen = draw.choices(ids, k=8) if text else []
        assert tokenizer.decode(chosen) == reference.decode(chosen), chosen


def test_control_pieces_decode_to_their_text_and_the_space_behind_them_is_removed() -> None:
    tokenizer = tokenizer_of(mistral("tokenizer.model.v1"))
    ids = tokenizer.encode("Hello")
    assert tokenizer.decode([1, *ids, 2]) == "<s>Hello</s>"
    assert tokenizer.decode_bytes(ids) == b"Hello"
    assert tokenizer.decode_single_token_bytes(ids[0]) == b" Hello"


def test_control_pieces_come_from_text_only_with_permission() -> None:
    tokenizer = tokenizer_of(mistral("tokenizer.model.v1"))
    reference = processor(mistral("tokenizer.model.v1"))
    assert tokenizer.encode("a</s>b", allowed_special="all") == [*reference.encode("a"), 2, *reference.encode("b")]
    assert tokenizer.encode("a</s>b", disallowed_special=()) == reference.encode("a</s>b")
    with pytest.raises(ValueError, match="</s>"):
        tokenizer.encode("a</s>b")


@pytest.mark.parametrize("name", MODELS)
def test_begin_and_end_are_those_of_the_model(name: str) -> None:
    reference = processor(content_of(name))
    tokenizer = tokenizer_of(content_of(name))
    assert (-1 if tokenizer.bos_id is None else tokenizer.bos_id) == reference.bos_id()
    assert list(tokenizer.eos_ids) == [id for id in [reference.eos_id()] if id >= 0]
    assert tokenizer.n_vocab == reference.vocab_size()


@pytest.mark.parametrize("name", MODELS)
def test_a_model_is_written_byte_for_byte(name: str, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.model").write_bytes(content_of(name))
    Tokenizer.from_file(tmp_path).save(tmp_path / "copy.model")
    assert (tmp_path / "copy.model").read_bytes() == content_of(name)


def test_unknown_fields_survive() -> None:
    message = b"\x0a\x02QQ\x15" + struct.pack("<f", -9.5) + b"\xc0\x0c\x07"  # with a field 200, which extensions use
    content = trained("llama") + b"\x0a" + bytes([len(message)]) + message + b"\xc2\x0c\x03abc"
    vocabulary = tokenizer_of(content).vocabulary
    written = sentencepiece.render(vocabulary.with_special_tokens(["<new>"]))
    assert b"\xc2\x0c\x03abc" in written and message in written
    assert tokenizer_of(written).vocabulary.special_tokens["<new>"] == 2501


def test_new_special_tokens_become_control_pieces(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.model"
    path.write_bytes(trained("bytes"))
    tokenizer = Tokenizer.from_file(path, special_tokens=["<|user|>"])
    tokenizer.save(tmp_path / "new.model")
    reference = processor((tmp_path / "new.model").read_bytes())
    assert reference.piece_to_id("<|user|>") == tokenizer.special_tokens["<|user|>"] == 2500
    assert reference.is_control(2500)
    assert Tokenizer.from_file(tmp_path / "new.model").encode("<|user|>", allowed_special="all") == [2500]


@pytest.mark.parametrize("name", ["llama", "nfkc", "user-defined", "plain"])
def test_each_id_has_its_place_in_the_text(name: str) -> None:
    reference = processor(content_of(name))
    tokenizer = tokenizer_of(content_of(name))
    for text in hard_texts(300, seed=9):
        ids, spans = tokenizer.encode_with_offsets(text, unit="bytes")
        pieces = reference.encode(text, return_type="proto").pieces
        assert ids == [piece.id for piece in pieces]
        for piece, (begin, end) in zip(pieces, spans, strict=True):
            assert begin <= end <= len(text.encode())
            if not reference.is_byte(piece.id):  # of the pieces of a byte, sentencepiece places only the last
                assert begin == piece.begin, (text, piece)


def test_equal_scores_are_merged_from_the_left() -> None:
    def flatten(model: protobuf.ModelProto) -> None:
        for piece in model.pieces[300:]:
            piece.score = float(-(len(piece.piece) % 3))

    content = changed("bytes", flatten)
    reference, tokenizer = processor(content), tokenizer_of(content)
    for text in hard_texts(700, seed=5):
        assert tokenizer.encode_ordinary(text) == reference.encode(text), repr(text)


def test_unused_pieces_are_split_again() -> None:
    def unuse(model: protobuf.ModelProto) -> None:
        for piece in model.pieces[262::2]:
            if len(piece.piece) > 1:
                piece.type = 5

    content = changed("bytes", unuse)
    reference, tokenizer = processor(content), tokenizer_of(content)
    for text in hard_texts(700, seed=6):
        assert tokenizer.encode_ordinary(text) == reference.encode(text), repr(text)


def test_characters_that_only_longer_pieces_contain_merge() -> None:
    def forget(model: protobuf.ModelProto) -> None:
        kept = [piece for piece in model.pieces if piece.piece not in "aeiouт中"]
        del model.pieces[:]
        model.pieces.extend(kept)

    for name in ("plain", "bytes"):
        content = changed(name, forget)
        reference, tokenizer = processor(content), tokenizer_of(content)
        for text in hard_texts(1000, seed=7):
            assert tokenizer.encode_ordinary(text) == reference.encode(text), repr(text)


@pytest.mark.parametrize("name", ["bytes", "plain", "user-defined", "tokenizer.model.v1"])
def test_merging_is_that_of_the_plain_definition(name: str) -> None:
    vocabulary = tokenizer_of(content_of(name)).vocabulary
    assert isinstance(vocabulary, PieceVocabulary)
    for text in hard_texts(500, seed=8):
        content = text.replace(" ", "▁").encode()
        assert vocabulary.pieces.encode(content) == vocabulary.pieces.encode_plain(content)
        cuts = [0, *vocabulary.pieces.cuts(content)]
        parts = [content[begin:end] for begin, end in zip(cuts, cuts[1:], strict=False)]
        if name != "plain" or "\u2581" in vocabulary.model.pieces:
            joined = [id for part in parts for id in vocabulary.pieces.encode(part)]
            assert joined == vocabulary.pieces.encode(content)


@pytest.mark.parametrize(
    "text", ["a" * 1_000_000, "ab" * 500_000, "中国" * 300_000, "\u2581" * 300_000, "😀" * 200_000]
)
def test_a_million_bytes_without_a_space_are_not_slow(text: str) -> None:
    tokenizer = tokenizer_of(mistral("tokenizer.model.v1"))
    assert tokenizer.encode_ordinary(text) == processor(mistral("tokenizer.model.v1")).encode(text)


def test_a_vocabulary_can_be_pickled() -> None:
    tokenizer = tokenizer_of(trained("user-defined"))
    twin = pickle.loads(pickle.dumps(tokenizer))
    assert all(twin.encode_ordinary(text) == tokenizer.encode_ordinary(text) for text in hard_texts(50))
    assert twin.eos_ids == tokenizer.eos_ids


# --- wrong input ---


def refusal(content: bytes, tmp_path: Path) -> str:
    path = tmp_path / "tokenizer.model"
    path.write_bytes(content)
    with pytest.raises(InputError) as error:
        read_vocabulary(path)
    message = str(error.value)
    assert str(path) in message and "\n" not in message
    return message


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    content = trained("llama")
    draw = random.Random(0)
    places = [*range(300), *draw.sample(range(len(content)), 100), *range(len(content) - 200, len(content), 3)]
    for size in places:
        try:
            read_vocabulary(_written(content[:size], tmp_path))
        except InputError:
            continue
        reference = processor(content[:size])  # cut between two fields, it may be complete
        assert reference.vocab_size() > 0


def _written(content: bytes, directory: Path) -> Path:
    path = directory / "tokenizer.model"
    path.write_bytes(content)
    return path


def test_flipped_bits_give_an_error_or_another_model(tmp_path: Path) -> None:
    content = trained("bytes")
    draw = random.Random(1)
    for _ in range(150):
        damaged = bytearray(content)
        for _ in range(draw.randrange(1, 4)):
            damaged[draw.randrange(len(damaged))] ^= 1 << draw.randrange(8)
        try:
            tokenizer = Tokenizer.from_file(_written(bytes(damaged), tmp_path))
        except InputError:
            continue
        tokenizer.encode_ordinary("Hello \u00e9 ﬁ 中国 🙂")


def test_a_damaged_map_of_characters_is_refused_or_encodes_text() -> None:
    draw = random.Random(2)
    refused = 0
    for _ in range(100):

        def damage(model: protobuf.ModelProto) -> None:
            map = bytearray(model.normalizer_spec.precompiled_charsmap)
            for _ in range(draw.choice([1, 3, 30, 2000])):
                map[draw.randrange(4, len(map))] = draw.randrange(256)
            model.normalizer_spec.precompiled_charsmap = bytes(map)

        try:
            tokenizer_of(changed("plain", damage)).encode_ordinary("Hello \u00e9 ﬁ 中国 🙂 Ａ①")
        except InputError as error:
            refused += 1
            assert "precompiled_charsmap is damaged" in str(error)
    assert 10 < refused < 100


_MAPPED = "aeé ©½\r\n\t\u0301\u0308\u0323\u0600\u200d❤👍\U0001f1e6가\u1100\u1161\u0915\u093cﷺｶﾞ▁z\ufffd"


def test_random_maps_of_characters_replace_what_sentencepiece_replaces() -> None:
    draw = random.Random(7)
    for round in range(60):
        contents = ["", "x", "xyz", "é", "中文", " ", "  ", " a", "b "]
        sizes = [1, 1, 2, 2, 3, 4]
        keys = {"".join(draw.choice(_MAPPED) for _ in range(draw.choice(sizes))) for _ in range(draw.choice([3, 20]))}
        map = charsmap({key: draw.choice(contents) for key in keys})

        def replace(model: protobuf.ModelProto, map: bytes = map, extra: bool = round % 3 == 0) -> None:
            model.normalizer_spec.precompiled_charsmap = map
            model.normalizer_spec.remove_extra_whitespaces = extra

        content = changed(("bytes", "user-defined", "suffix")[round % 3 if round % 5 else 0], replace)
        reference, tokenizer = processor(content), tokenizer_of(content)
        for _ in range(60):
            text = "".join(draw.choice(_MAPPED) for _ in range(draw.choice([3, 10, 40])))
            assert tokenizer.encode_ordinary(text) == reference.encode(text), ascii(text)
        text = "".join(draw.choice(_MAPPED) for _ in range(20_000))
        ids = reference.encode(text)
        assert tokenizer.encode_ordinary(text) == ids
        assert tokenizer.encode_ordinary_batch([text], num_threads=4)[0] == ids
        assert tokenizer.encode_with_offsets(text)[0] == ids


@pytest.mark.parametrize("size", [1, 3, 4, 5, 100, 1000])
def test_a_truncated_map_of_characters_is_refused(size: int) -> None:
    def cut(model: protobuf.ModelProto) -> None:
        model.normalizer_spec.precompiled_charsmap = model.normalizer_spec.precompiled_charsmap[:size]

    with pytest.raises(InputError, match="precompiled_charsmap is damaged"):
        tokenizer_of(changed("plain", cut))


@pytest.mark.parametrize("last", [b"", b"x"])
def test_a_map_of_characters_without_a_null_at_its_end_is_refused_as_by_sentencepiece(last: bytes) -> None:
    def cut(model: protobuf.ModelProto) -> None:
        model.normalizer_spec.precompiled_charsmap = model.normalizer_spec.precompiled_charsmap[:-1] + last

    content = changed("nfkc", cut)
    with pytest.raises(RuntimeError, match="null terminated"):
        processor(content)
    with pytest.raises(InputError, match="precompiled_charsmap is damaged: .* does not end with a null.*copy the file"):
        sentencepiece.read(content, "tokenizer.model", None, None)


def test_lengths_that_lie_are_refused(tmp_path: Path) -> None:
    content = trained("llama")
    for length in (b"\xff\xff\xff\xff\x07", b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", b"\x80" * 11, b"\x7f"):
        message = refusal(content + b"\x12" + length, tmp_path)
        assert "not a complete SentencePiece model" in message


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"\x08\x07\x12\x07pytorch\x1a\x031.0", "not a tokenizer file"),  # ONNX
        (b"\x0a\x04\x0a\x02hi\x12\x03abc", "not a complete SentencePiece model"),
        (b"\x0a\x04\x0a\x02hi", "not a complete SentencePiece model"),
        (b"\x0a\x07\x0a\x05Hello", "not a complete SentencePiece model"),
    ],
)
def test_other_protocol_buffers_are_refused(content: bytes, words: str, tmp_path: Path) -> None:
    assert words in refusal(content, tmp_path)


def denormalized(model: protobuf.ModelProto) -> None:
    model.denormalizer_spec.precompiled_charsmap = b"abc"


def nameless(model: protobuf.ModelProto) -> None:
    model.pieces[400].piece = ""


def repeated(model: protobuf.ModelProto) -> None:
    model.pieces[400].piece = model.pieces[401].piece


def no_unknown(model: protobuf.ModelProto) -> None:
    model.pieces[0].type = CONTROL


def two_unknown(model: protobuf.ModelProto) -> None:
    model.pieces[1].type = 2


def no_bytes(model: protobuf.ModelProto) -> None:
    model.trainer_spec.byte_fallback = False


def byte_missing(model: protobuf.ModelProto) -> None:
    model.pieces[3].type = 1


def no_number(model: protobuf.ModelProto) -> None:
    model.pieces[400].score = float("nan")


def odd_byte(model: protobuf.ModelProto) -> None:
    model.pieces[400].type = BYTE


def null_inside(model: protobuf.ModelProto) -> None:
    model.pieces[400].piece = "q\0"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (null_inside, "contains a null character, which sentencepiece refuses; train the model again"),
        (denormalized, "denormalizer_spec"),
        (nameless, "piece 400 is empty"),
        (repeated, "pieces 400 and 401 are the same"),
        (no_unknown, "0 pieces have the type UNKNOWN"),
        (two_unknown, "2 pieces have the type UNKNOWN"),
        (no_bytes, "byte_fallback is false"),
        (byte_missing, "there is no piece <0x00>"),
        (no_number, "not a number"),
        (odd_byte, "piece 400"),
    ],
)
def test_what_sentencepiece_refuses_is_refused(change, words: str, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    assert words in refusal(changed("bytes", change), tmp_path)


def test_a_pattern_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="leave out the pattern"):
        read_vocabulary(_written(trained("plain"), tmp_path), pattern="llama3")


def test_a_stream_of_ids_keeps_the_space_of_its_first_token_because_it_continues_a_text() -> None:
    tokenizer = tokenizer_of(trained("llama"))
    ids = tokenizer.encode_ordinary("the text")
    decoder = StreamDecoder(tokenizer)
    assert "".join(map(decoder.feed, ids)) + decoder.flush() == " the text"
    assert tokenizer.decode(ids) == "the text"
