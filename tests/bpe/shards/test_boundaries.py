"""The tokens that begin and end the documents of shards: what the tokenizer says, unless the caller overrules it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bpe import InputError, Tokenizer
from bpe.shards import HELD_OUT, TRAIN, Shards, verify_shards, write_shards
from support.command_line import bpe, fails_with
from support.references import BYTE_RANKS

DOCUMENTS = ["one", "two", "three"]


def write(
    path: Path, special: list[str], bos: bool | None = None, eos: bool | None = None, **said: object
) -> tuple[set[int], set[int], Shards]:
    """Write shards, and return the first and the last ids of the documents."""
    ids = {text: 256 + i for i, text in enumerate(special)}
    tokenizer = Tokenizer("tiny", pat_str="gpt2", mergeable_ranks=BYTE_RANKS, special_tokens=ids)
    changed = tokenizer.vocabulary.boundaries._replace(**said)  # type: ignore[arg-type]
    tokenizer = Tokenizer.from_vocabulary(tokenizer.vocabulary.with_boundaries(changed))
    path.mkdir(exist_ok=True)
    tokenizer.save(path / "my.json")
    shards = write_shards(
        DOCUMENTS, tokenizer, path / "data", tokenizer_file=path / "my.json", bos=bos, eos=eos, held_out=0.4
    )
    documents = []
    for split in (TRAIN, HELD_OUT):
        for shard in shards.shards(split):
            places = shard.offsets.tolist()
            documents += [shard.ids[begin:end].tolist() for begin, end in zip(places, places[1:], strict=False)]
    assert len(documents) == 3
    return {document[0] for document in documents}, {document[-1] for document in documents}, shards


def test_documents_get_the_tokens_that_the_tokenizer_says(tmp_path: Path) -> None:
    first, last, shards = write(tmp_path, ["<s>", "</s>", "<|turn_end|>"], eos_ids=(258, 257))
    assert (first, last, shards.bos_id, shards.eos_id) == ({256}, {258}, 256, 258)
    assert verify_shards(tmp_path / "data", sources=[DOCUMENTS]).documents == 3


def test_a_token_that_is_not_put_in_front_begins_no_document_unless_asked_for(tmp_path: Path) -> None:
    first, _, shards = write(tmp_path / "a", ["<s>", "</s>"], prefix_ids=())
    assert (first, shards.bos_id) == ({ord("o"), ord("t")}, None)
    first, _, shards = write(tmp_path / "b", ["<s>", "</s>"], bos=True, prefix_ids=())
    assert (first, shards.bos_id) == ({256}, 256)


def test_what_the_tokenizer_puts_behind_ends_a_document(tmp_path: Path) -> None:
    _, last, shards = write(tmp_path, ["<s>", "</s>", "<|sep|>"], suffix_ids=(258,))
    assert (last, shards.eos_id) == ({258}, 258)


def test_no_bos_and_no_eos_leave_both_out(tmp_path: Path) -> None:
    _, last, shards = write(tmp_path, ["<s>", "</s>"], bos=False, eos=False)
    assert (shards.bos_id, shards.eos_id) == (None, None)
    assert last == {ord("e"), ord("o")}


@pytest.mark.parametrize(("option", "verb"), [("bos", "begins"), ("eos", "ends")])
def test_a_token_that_is_asked_for_and_missing_is_refused_with_the_remedy(
    option: str, verb: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=rf"tiny: no token {verb} a text.*{option}_token.*--special"):
        write(tmp_path, ["<|turn_end|>"], **{option: True})
    (tmp_path / "texts.txt").write_text("one text, two texts")
    arguments = ("shards", tmp_path / "texts.txt", "-t", tmp_path / "my.json", "-o", tmp_path / "new")
    fails_with(bpe(*arguments, f"--{option}"), 1, f"no token {verb} a text", "--special")
    assert not (tmp_path / "new" / "index.json").exists()


def test_several_tokens_in_front_are_refused_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="puts 2 tokens in front of each text.*--no-bos"):
        write(tmp_path / "a", ["<s>", "<|x|>"], prefix_ids=(256, 257))
    assert write(tmp_path / "b", ["<s>", "<|x|>"], bos=False, prefix_ids=(256, 257))[2].bos_id is None


def test_documents_that_nothing_separates_are_told(tmp_path: Path) -> None:
    write(tmp_path, [])
    (tmp_path / "texts.txt").write_text("one text, two texts")
    arguments = ("shards", tmp_path / "texts.txt", "-t", tmp_path / "my.json", "-o")
    told = bpe(*arguments, tmp_path / "b")
    assert told.exit_code == 0, told.stderr
    assert "no token separates the documents" in told.stderr and "--special" in told.stderr
    assert "separates" not in bpe(*arguments, tmp_path / "c", "--no-eos").stderr


def test_the_end_token_of_a_directory_with_its_files_is_used(tmp_path: Path) -> None:
    write(tmp_path, ["<|turn_end|>"])
    (tmp_path / "my.json").rename(tmp_path / "tokenizer.json")
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": 256}))
    (tmp_path / "texts.txt").write_text("one text, two texts")
    result = bpe("shards", tmp_path / "texts.txt", "-t", tmp_path / "tokenizer.json", "-o", tmp_path / "new")
    assert result.exit_code == 0, result.stderr
    assert Shards(tmp_path / "new").eos_id == 256
