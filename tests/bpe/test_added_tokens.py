"""Test that added tokens are found where tokenizers finds them, by every method that encodes."""

from __future__ import annotations

import json
import pickle
import random
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import tiktoken
import tokenizers
import transformers

from bpe import StreamEncoder, Tokenizer, _core
from bpe.analysis.usage import usage_of
from bpe.errors import InputError
from bpe.formats.gguf import render as gguf_of
from bpe.patterns import find_pattern
from bpe.verify import reference_of, verify
from bpe.vocabulary import AddedToken, Vocabulary
from support.plain_added_tokens import random_text, random_tokenizer, split

RANKS = {bytes([byte]): byte for byte in range(256)}
THINK = AddedToken("<think>", 300, special=False)
END = AddedToken("<|end|>", 301)


def with_added(*added: AddedToken, ranks: dict[bytes, int] = RANKS, pattern: str = "gpt2") -> Tokenizer:
    plain = Vocabulary.from_ranks("added", find_pattern(pattern), ranks, {})
    arrays = (plain.tokens, plain.offsets, plain.ids)
    return Tokenizer.from_vocabulary(Vocabulary("added", plain.pattern, *arrays, added))


def their_ids(theirs: tokenizers.Tokenizer, text: str) -> list[int] | None:
    try:
        return list(theirs.encode(text, add_special_tokens=False).ids)
    except BaseException as error:  # a Rust panic is not an Exception
        if type(error).__name__ != "PanicException":
            raise
        return None


@pytest.fixture(params=range(20))
def random_case(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[random.Random, Path, list[str]]]:
    rng = random.Random(request.param)
    path = tmp_path / "tokenizer.json"
    yield rng, path, [token.content for token in random_tokenizer(rng, path)]


@pytest.mark.parametrize("permitted", [True, False])
def test_random_added_tokens_are_encoded_as_in_tokenizers(
    random_case: tuple[random.Random, Path, list[str]], permitted: bool
) -> None:
    rng, path, names = random_case
    ours, theirs = Tokenizer.from_file(path), tokenizers.Tokenizer.from_file(str(path))
    theirs.encode_special_tokens = not permitted
    assert set(ours.vocabulary.added_ids) == set(names)
    skipped = frozenset() if permitted else ours.special_tokens_set
    for _ in range(60):
        text = random_text(rng, names)
        expected = their_ids(theirs, text)
        plain: list[int] = []
        bare = with_ranks_of(ours)
        for part in split(text, ours.vocabulary.added_tokens, skipped):
            plain += [part] if isinstance(part, int) else bare.encode_ordinary(part)
        assert expected is None or plain == expected
        for ids in every_encoding(ours, text, permitted, rng):
            assert ids == plain, (text, ours.vocabulary.added_tokens)


def with_ranks_of(tokenizer: Tokenizer) -> Tokenizer:
    vocabulary = tokenizer.vocabulary
    arrays = (vocabulary.tokens, vocabulary.offsets, vocabulary.ids)
    return Tokenizer.from_vocabulary(
        Vocabulary("bare", vocabulary.pattern, *arrays, merges_only=vocabulary.merges_only)
    )


def with_compiled_pattern(tokenizer: Tokenizer) -> Tokenizer:
    """Return a tokenizer that splits text by the compiled pattern instead of the scanner."""
    vocabulary = tokenizer.vocabulary
    state = {**vocabulary.__getstate__(), "offsets": vocabulary.offsets, "ids": vocabulary.ids}
    return Tokenizer.from_vocabulary(Vocabulary(**state | {"pattern": vocabulary.pattern._replace(scanner=None)}))  # type: ignore[arg-type]


def every_encoding(tokenizer: Tokenizer, text: str, permitted: bool, rng: random.Random) -> Iterator[list[int]]:
    allowed: object = "all" if permitted else frozenset()
    choice = {"allowed_special": allowed, "disallowed_special": ()}
    yield tokenizer.encode(text, **choice)  # type: ignore[arg-type]
    yield tokenizer.encode_to_numpy(text, **choice).tolist()  # type: ignore[arg-type]
    yield tokenizer.encode_flat([text], **choice)[0].tolist()  # type: ignore[call-overload]
    yield tokenizer.encode_batch([text], **choice)[0]  # type: ignore[arg-type]
    compiled = with_compiled_pattern(tokenizer)
    yield compiled.encode(text, **choice)  # type: ignore[arg-type]
    for each in (tokenizer, compiled):
        stream = StreamEncoder(each, **choice)  # type: ignore[arg-type]
        content, ids, at = text.encode(), [], 0
        while at < len(content):
            size = rng.randrange(1, 6)
            ids += stream.feed(content[at : at + size])
            at += size
        yield ids + stream.flush()
    if not permitted:
        yield tokenizer.encode_ordinary(text)
        ids, spans = tokenizer.encode_with_offsets(text)
        assert len(spans) == len(ids) == tokenizer.count(text)
        yield ids


@pytest.mark.parametrize("seed", range(6))
def test_long_texts_are_cut_between_threads_beside_no_token_that_looks_around(seed: int, tmp_path: Path) -> None:
    rng = random.Random(seed)
    path = tmp_path / "tokenizer.json"
    names = [token.content for token in random_tokenizer(rng, path)]
    tokenizer = Tokenizer.from_file(path)
    text = "".join(random_text(rng, names) + rng.choice(["word ", "12", "\n"]) for _ in range(12_000))
    for allowed in ("all", frozenset()):
        choice = {"allowed_special": allowed, "disallowed_special": ()}
        expected = tokenizer.encode(text, **choice)  # type: ignore[arg-type]
        for threads in (2, 7):
            ids, _ = tokenizer.encode_flat([text], num_threads=threads, **choice)  # type: ignore[call-overload]
            assert ids.tolist() == expected


def test_word_and_white_space_characters_are_those_of_tokenizers() -> None:
    """Every code point beside a token with single_word, lstrip or rstrip; in one text for each of the three."""
    points = [chr(point) for point in range(0x110000) if not 0xD800 <= point < 0xE000]
    theirs = tokenizers.Tokenizer(tokenizers.models.BPE({"@": 0}, []))
    flags = ({"single_word": True}, {"lstrip": True}, {"rstrip": True})
    names = ("@w", "@l", "@r")
    theirs.add_tokens(
        [
            tokenizers.AddedToken(name, normalized=False, **flag)  # type: ignore[arg-type]
            for name, flag in zip(names, flags, strict=True)
        ]
    )
    matcher = _core.AddedTokens(
        (name, 1 + index, index == 1, index == 2, index == 0, False, False) for index, name in enumerate(names)
    )
    for begin in range(0, len(points), 10_000):
        text = "".join(f"@l{point}@w@r{point}@w{point}@l" for point in points[begin : begin + 10_000])
        encoding = theirs.encode(text)
        places = [0]
        for character in text:
            places.append(places[-1] + len(character.encode()))
        expected = [
            (places[first], places[last], id)
            for id, (first, last) in zip(encoding.ids, encoding.offsets, strict=True)
            if id > 0
        ]
        assert matcher.all_in(text) == expected


def test_a_token_that_is_not_special_needs_no_permission_and_is_never_disallowed() -> None:
    tokenizer = with_added(THINK, END)
    assert tokenizer.encode("a<think>") == tokenizer.encode_ordinary("a<think>") == [97, 300]
    assert tokenizer.encode("<think>", allowed_special=set(), disallowed_special="all") == [300]
    assert tokenizer.special_tokens == {"<|end|>": 301}
    assert tokenizer.special_tokens_set == {"<|end|>"}
    assert not tokenizer.is_special_token(300)
    assert tokenizer.decode([300, 301]) == "<think><|end|>"
    assert tokenizer.encode_single_token("<think>") == 300
    with pytest.raises(ValueError, match="<|end|>"):
        tokenizer.encode("<think><|end|>")


def test_offsets_and_truncation_count_white_space_to_the_token_that_takes_it() -> None:
    tokenizer = with_added(THINK._replace(lstrip=True, rstrip=True))
    ids, spans = tokenizer.encode_with_offsets("a  <think> \n b")
    assert (ids, spans) == ([97, 300, 98], [(0, 1), (1, 13), (13, 14)])
    assert tokenizer.truncate("a  <think> \n b", 2) == "a  <think> \n "
    assert tokenizer.truncate("a  <think> \n b", 2, side="left") == "  <think> \n b"


def test_settled_ids_stay_the_same_where_an_added_token_may_begin() -> None:
    tokenizer = with_added(THINK)
    text = "a <think> b <thi"
    stable, completions = tokenizer.encode_with_unstable(text)
    for rest in ("nk>", "s", " x", ""):
        whole = tokenizer.encode(text + rest)
        assert whole[: len(stable)] == stable
    whole = tokenizer.encode(text + "nk>")
    assert whole[len(stable) :] in completions


def test_two_names_with_one_id_as_in_o200k_harmony(tmp_path: Path) -> None:
    special = {"<|endofprompt|>": 300, "<|x|>": 299, "<|reserved_300|>": 300}
    ours = Tokenizer("harmony", pat_str="gpt2", mergeable_ranks=RANKS, special_tokens=special)
    theirs = tiktoken.Encoding("harmony", pat_str=ours.pattern.text, mergeable_ranks=RANKS, special_tokens=special)
    text = "a<|reserved_300|>b<|endofprompt|><|x|>"
    assert ours.encode(text, allowed_special="all") == theirs.encode(text, allowed_special="all")
    assert ours.n_vocab == theirs.n_vocab == 301
    assert ours.decode([300]) == "<|endofprompt|>"
    with pytest.warns(UserWarning, match="reads '<|endofprompt|>' as 300, and '<|reserved_300|>' as text"):
        ours.save(tmp_path / "tokenizer.json")
    hub = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    assert hub.encode("a<|endofprompt|><|x|>").ids == [97, 300, 299]
    assert hub.id_to_token(300) == "<|endofprompt|>"
    for again in (Tokenizer.from_file(tmp_path / "tokenizer.json"), pickle.loads(pickle.dumps(ours))):
        assert again.special_tokens == special
        assert again.decode([300]) == "<|endofprompt|>"
        assert again.vocabulary.token_count == ours.vocabulary.token_count == 259
    with pytest.raises(InputError, match="reserved_300.*same id, 300"):
        gguf_of(with_added(*ours.vocabulary.added_tokens, pattern="llama3").vocabulary)


def test_a_special_token_may_have_the_id_of_an_ordinary_token_as_in_tiktoken() -> None:
    special = {"<x>": 97}
    ours = Tokenizer("same", pat_str="gpt2", mergeable_ranks=RANKS, special_tokens=special)
    theirs = tiktoken.Encoding("same", pat_str=ours.pattern.text, mergeable_ranks=RANKS, special_tokens=special)
    assert ours.encode("a<x>", allowed_special="all") == theirs.encode("a<x>", allowed_special="all") == [97, 97]
    assert ours.decode([97]) == theirs.decode([97]) == "a"
    assert ours.is_special_token(97) == theirs.is_special_token(97)


def test_every_flag_survives_a_tokenizer_json_and_a_pickle(tmp_path: Path) -> None:
    added = [
        AddedToken(f"<{number}>", 256 + number, *(bool(number >> bit & 1) for bit in range(5))) for number in range(32)
    ]
    tokenizer = with_added(*added)
    tokenizer.save(tmp_path / "tokenizer.json")
    assert Tokenizer.from_file(tmp_path / "tokenizer.json").vocabulary.added_tokens == tuple(added)
    assert pickle.loads(pickle.dumps(tokenizer)).vocabulary.added_tokens == tuple(added)


def test_special_or_not_survives_a_gguf_and_other_flags_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.gguf"
    path.write_bytes(gguf_of(with_added(THINK, END, pattern="llama3").vocabulary))
    assert Tokenizer.from_file(path).vocabulary.added_tokens == (THINK, END)
    for flag in ("lstrip", "rstrip", "single_word"):
        with pytest.raises(InputError, match=f"'<think>' has {flag} set"):
            gguf_of(with_added(THINK._replace(**{flag: True}), pattern="llama3").vocabulary)
    for other, message in [
        (AddedToken("k>b", 302), "'<think>' ends as 'k>b' begins"),
        (AddedToken("a<think>", 302), "'<think>' is a part of 'a<think>'"),
    ]:
        with pytest.raises(InputError, match=message):
            gguf_of(with_added(THINK, other, pattern="llama3").vocabulary)


def test_tiktoken_ranks_refuse_what_they_cannot_hold(tmp_path: Path) -> None:
    for token, message in [(THINK, "is not special"), (END._replace(rstrip=True), "has rstrip set")]:
        with pytest.raises(InputError, match=message):
            with_added(token).save(tmp_path / "x.tiktoken")
    assert not list(tmp_path.iterdir())


def test_white_space_that_many_tokens_take_is_read_once() -> None:
    """Otherwise a million spaces would take hours."""
    tokenizer = with_added(AddedToken(" ", 300, special=False, rstrip=True, lstrip=True))
    assert len(tokenizer.encode_ordinary(" " * 1_000_000 + "x")) <= 1_000_001


def test_runs_of_spaces_are_added_tokens_as_in_phi_2(tmp_path: Path) -> None:
    runs = [AddedToken(" " * size, 300 + size, special=False, normalized=True) for size in range(2, 32)]
    tokenizer = with_added(*runs, ranks=RANKS)
    text = "def f():\n" + "".join(" " * size + "x\n" for size in range(70))
    expected: list[int] = []
    for part in split(text, runs):
        expected += [part] if isinstance(part, int) else with_added().encode_ordinary(part)
    assert tokenizer.encode_ordinary(text) == expected
    assert tokenizer.decode(expected) == text


@pytest.mark.parametrize("seed", range(12))
def test_the_added_tokens_of_tokenizer_config_are_added_as_in_transformers(seed: int, tmp_path: Path) -> None:
    rng = random.Random(seed)
    added = random_tokenizer(rng, tmp_path / "tokenizer.json")
    flags = ("special", "lstrip", "rstrip", "single_word", "normalized")
    changed = [token._replace(**{flag: rng.random() < 0.3 for flag in flags}) for token in added if rng.random() < 0.5]
    new = AddedToken("<new>", max(259 + 20, *(token.id for token in added)), special=False, normalized=True)
    entries = {
        str(token.id): {key: value for key, value in token._asdict().items() if key != "id"}
        for token in [*changed, new]
    }
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "added_tokens_decoder": entries}
    config |= {"eos_token": changed[0].content} if changed else {}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    theirs = transformers.AutoTokenizer.from_pretrained(str(tmp_path)).backend_tokenizer
    ours = Tokenizer.from_file(tmp_path)
    names = [*ours.vocabulary.added_ids]
    assert "<new>" in names
    for permitted in (True, False):
        theirs.encode_special_tokens = not permitted
        for _ in range(60):
            text = random_text(rng, names)
            ids = ours.encode(text, allowed_special="all" if permitted else set(), disallowed_special=())
            assert their_ids(theirs, text) in (None, ids)


@pytest.mark.parametrize("file", ["tokenizer_config.json", "special_tokens_map.json"])
@pytest.mark.parametrize("key", ["eos_token", "pad_token", "image_token"])
@pytest.mark.parametrize(
    ("name", "listed"),
    [("<turn>", False), ("<turn>", True), ("he", False), ("<none>", False)],  # "he" is a token of the merges
)
def test_a_token_that_the_files_name_is_special_as_in_transformers(
    file: str, key: str, name: str, listed: bool, tmp_path: Path
) -> None:
    turn = AddedToken("<turn>", 257, special=False, rstrip=True)
    with_added(turn, AddedToken("<s>", 258), ranks=RANKS | {b"he": 256}).save(tmp_path / "tokenizer.json")
    files: dict[str, dict[str, object]] = {"tokenizer_config.json": {"tokenizer_class": "PreTrainedTokenizerFast"}}
    files.setdefault(file, {})[key] = name
    if listed:
        files["tokenizer_config.json"]["added_tokens_decoder"] = {"258": {"content": "<s>", "special": True}}
    for each, data in files.items():
        (tmp_path / each).write_text(json.dumps(data))
    theirs = transformers.AutoTokenizer.from_pretrained(str(tmp_path)).backend_tokenizer
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # an end token that the tokenizer does not have
        ours = Tokenizer.from_file(tmp_path)
    special = {token.content for token in theirs.get_added_tokens_decoder().values() if token.special}
    assert set(ours.special_tokens) == special - {"<none>"}
    for permitted in (True, False):
        theirs.encode_special_tokens = not permitted
        ids = ours.encode("a<turn> he", allowed_special="all" if permitted else set(), disallowed_special=())
        assert ids == theirs.encode("a<turn> he", add_special_tokens=False).ids
    report = verify(ours, [b"a<turn> he, he<s>"], reference=reference_of(ours, tmp_path))
    assert report.differing == 0, report


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([], None),
        ("x", '"added_tokens_decoder" is not an object'),
        ({"x": {"content": "a"}}, "'x'"),
        ({"300": "a"}, "'300'"),
        ({"300": {"content": 5}}, "'300'"),
        ({"-1": {"content": "a"}}, "'-1'"),
    ],
)
def test_a_damaged_list_of_added_tokens_is_refused_with_its_place(
    entries: object, message: str | None, tmp_path: Path
) -> None:
    with_added(THINK._replace(id=256)).save(tmp_path / "tokenizer.json")
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"added_tokens_decoder": entries}))
    if message is None:
        assert Tokenizer.from_file(tmp_path).encode_ordinary("<think>") == [256]
        return
    with pytest.raises(InputError, match=message) as caught:
        Tokenizer.from_file(tmp_path)
    assert str(tmp_path / "tokenizer_config.json") in str(caught.value)


@pytest.mark.parametrize("ignore_merges", [True, False])
def test_added_tokens_that_are_also_in_the_vocabulary(ignore_merges: bool, tmp_path: Path) -> None:
    """A token that merges lead to, one that is only found whole, and one that is no text of the pretokens."""
    path = tmp_path / "tokenizer.json"
    ranks = RANKS | {b"he": 256, b"hel": 257}
    with_added(AddedToken("he", 256), AddedToken("whole", 258), AddedToken("<|x y|>", 259), ranks=ranks).save(path)
    data = json.loads(path.read_text())
    data["model"]["ignore_merges"] = ignore_merges
    data["model"]["vocab"] |= {"whole": 258, "<|x y|>": 259}
    path.write_text(json.dumps(data))
    ours, theirs = Tokenizer.from_file(path), tokenizers.Tokenizer.from_file(str(path))
    for text in ("he", "hel hell", "whole", "a whole", "<|x y|>", "x", "whole whole1"):
        assert ours.encode(text, allowed_special="all") == their_ids(theirs, text)
        theirs.encode_special_tokens = True
        assert ours.encode_ordinary(text) == their_ids(theirs, text)
        theirs.encode_special_tokens = False
    ours.save(tmp_path / "again.json")
    again = Tokenizer.from_file(tmp_path / "again.json")
    assert again.encode_ordinary("whole he") == ours.encode_ordinary("whole he")


def test_a_special_token_with_the_text_of_an_ordinary_token_can_be_written_only_with_its_id(tmp_path: Path) -> None:
    ranks = RANKS | {b"he": 256}
    for suffix in ("json", "gguf"):
        with pytest.raises(InputError, match="'he' is also an ordinary token"):
            with_added(AddedToken("he", 300), ranks=ranks, pattern="llama3").save(tmp_path / f"x.{suffix}")
        with_added(AddedToken("he", 256), ranks=ranks, pattern="llama3").save(tmp_path / f"x.{suffix}")
        again = Tokenizer.from_file(tmp_path / f"x.{suffix}")
        assert again.encode("he", allowed_special="all") == again.encode_ordinary("he") == [256]
        assert again.special_tokens == {"he": 256}
        assert again.mergeable_ranks == ranks


def test_reports_and_shards_count_an_added_token_as_the_text_that_it_is() -> None:
    tokenizer = with_added(THINK._replace(rstrip=True), END)
    usage = usage_of(tokenizer, [b"ab <think>   cd", b"<think>x"], "text")
    assert usage.counts[300] == 2
    assert usage.words is not None
    assert (usage.words.count, usage.words.tokens) == (5, 7)
    sizes = tokenizer.token_sizes()
    assert (sizes[300], sizes[301]) == (len("<think>"), 0)


def test_verify_compares_added_tokens_with_tokenizers_and_with_tiktoken(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    with_added(THINK._replace(id=256, lstrip=True), END._replace(id=257)).save(path)
    gguf_path = tmp_path / "tokenizer.gguf"
    gguf_path.write_bytes(gguf_of(with_added(THINK, END, pattern="llama3").vocabulary))
    for file in (path, gguf_path):
        tokenizer = Tokenizer.from_file(file)
        result = verify(tokenizer, [b"a  <think> b", b"<|end|>"], reference=reference_of(tokenizer, file))
        assert (result.differing, result.first_difference) == (0, None)
