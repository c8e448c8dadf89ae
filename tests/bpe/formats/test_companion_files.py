"""What begins and ends a text, read from the files of real-life directories, compared with transformers."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest

from bpe import InputError, Tokenizer
from bpe.boundaries import KNOWN_NAME
from bpe.formats.post_processor import SOURCE
from support.references import BYTE_RANKS

transformers = pytest.importorskip("transformers")
tokenizers = pytest.importorskip("tokenizers")
transformers.logging.set_verbosity_error()

SPECIAL = ("<s>", "</s>", "<|im_start|>", "<|im_end|>", "<|turn_end|>", "<|endoftext|>")
IDS = {text: 256 + i for i, text in enumerate(SPECIAL)}
TEXT = "Hello, world"


def token(text: str) -> dict[str, Any]:
    return {"SpecialToken": {"id": text, "type_id": 0}}


def template(*pieces: str, ids: dict[str, list[int]] | None = None) -> dict[str, Any]:
    """A TemplateProcessing of special tokens and "$A", the text."""
    single = [{"Sequence": {"id": "A", "type_id": 0}} if piece == "$A" else token(piece) for piece in pieces]
    names = [piece for piece in pieces if piece != "$A"]
    special = {name: {"id": name, "ids": (ids or {}).get(name, [IDS[name]]), "tokens": [name]} for name in names}
    for entry in special.values():
        entry["tokens"] = ["?"] * len(entry["ids"])
    pair = [*single, {"Sequence": {"id": "B", "type_id": 1}}]
    return {"type": "TemplateProcessing", "single": single, "pair": pair, "special_tokens": special}


BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": False, "use_regex": True}


def write(directory: Path, post_processor: Any = None, **files: Any) -> Path:
    """Write a tokenizer.json with a post-processor and other files, by name without ".json"."""
    directory.mkdir(parents=True, exist_ok=True)
    tokenizer = Tokenizer("x", pat_str="gpt2", mergeable_ranks=BYTE_RANKS, special_tokens=IDS)
    tokenizer.save(directory / "tokenizer.json")
    data = json.loads((directory / "tokenizer.json").read_text())
    (directory / "tokenizer.json").write_text(json.dumps({**data, "post_processor": post_processor}))
    for name, content in files.items():
        (directory / f"{name}.json").write_text(json.dumps(content))
    return directory


FAST = {"tokenizer_class": "PreTrainedTokenizerFast"}
DECODER = {"added_tokens_decoder": {str(id): {"content": text, "special": True} for text, id in IDS.items()}}
LLAMA = {"model_type": "llama", "vocab_size": 262}

# name: post_processor and files, and the expected sources of the BOS and of the end tokens
DIRECTORIES: dict[str, tuple[dict[str, Any], str, str]] = {
    "eos list, template": (
        {
            "post_processor": template("<s>", "$A"),
            "tokenizer_config": {**FAST, "bos_token": "<s>", "eos_token": "<|im_end|>"},
            "generation_config": {"bos_token_id": 256, "eos_token_id": [257, 260, 259]},
            "config": {**LLAMA, "bos_token_id": 256, "eos_token_id": 257},
        },
        "tokenizer_config.json",
        "generation_config.json",
    ),
    "null bos, as Qwen2 has it": (
        {
            "post_processor": BYTE_LEVEL,
            "tokenizer_config": {**FAST, "bos_token": None, "eos_token": "<|im_end|>", "add_bos_token": False},
            "generation_config": {"bos_token_id": 261, "eos_token_id": [259, 261]},
            "config": {**LLAMA, "model_type": "qwen2", "bos_token_id": 261, "eos_token_id": 259},
        },
        "tokenizer_config.json",
        "generation_config.json",
    ),
    "a bos that is not put in front, as SmolLM2 has it": (
        {
            "post_processor": None,
            "tokenizer_config": {**FAST, "bos_token": "<|im_start|>", "eos_token": "<|im_end|>"},
            "config": {**LLAMA, "bos_token_id": 258, "eos_token_id": 259},
        },
        "tokenizer_config.json",
        "config.json",
    ),
    "tokens as objects": (
        {
            "post_processor": {"type": "Sequence", "processors": [BYTE_LEVEL, template("<s>", "$A")]},
            "tokenizer_config": {
                **FAST,
                "bos_token": {"__type": "AddedToken", "content": "<s>", "lstrip": False, "normalized": True},
                "eos_token": {"__type": "AddedToken", "content": "</s>", "lstrip": False, "normalized": True},
            },
        },
        "tokenizer_config.json",
        "tokenizer_config.json",
    ),
    "special_tokens_map alone": (
        {
            "tokenizer_config": FAST,
            "special_tokens_map": {"bos_token": {"content": "<s>", "lstrip": False}, "eos_token": "<|turn_end|>"},
        },
        "special_tokens_map.json",
        "special_tokens_map.json",
    ),
    "special_tokens_map overrules tokenizer_config": (
        {
            "tokenizer_config": {**FAST, "bos_token": "<|im_start|>", "eos_token": "<|im_end|>"},
            "special_tokens_map": {"bos_token": "<s>", "eos_token": "</s>"},
        },
        "special_tokens_map.json",
        "special_tokens_map.json",
    ),
    "special_tokens_map does not overrule added_tokens_decoder": (
        {
            "tokenizer_config": {**FAST, **DECODER, "bos_token": "<|im_start|>", "eos_token": "<|im_end|>"},
            "special_tokens_map": {"bos_token": "<s>", "eos_token": "</s>"},
        },
        "tokenizer_config.json",
        "tokenizer_config.json",
    ),
    "add_bos_token has no effect beside a tokenizer.json": (
        {
            "post_processor": None,
            "tokenizer_config": {**FAST, "bos_token": "<s>", "eos_token": "</s>", "add_bos_token": True},
        },
        "tokenizer_config.json",
        "tokenizer_config.json",
    ),
    "nor has add_bos_token: false": (
        {
            "post_processor": template("<s>", "$A"),
            "tokenizer_config": {**FAST, "bos_token": "<s>", "eos_token": "</s>", "add_bos_token": False},
        },
        "tokenizer_config.json",
        "tokenizer_config.json",
    ),
    "eos behind": (
        {
            "post_processor": template("<s>", "$A", "</s>"),
            "tokenizer_config": {**FAST, "bos_token": "<s>", "eos_token": "</s>"},
        },
        "tokenizer_config.json",
        "tokenizer_config.json",
    ),
    "several tokens in front, several ids of one": (
        {
            "post_processor": template("<s>", "<|im_start|>", "$A", ids={"<|im_start|>": [258, 65]}),
            "tokenizer_config": {**FAST, "bos_token": "<s>", "eos_token": "</s>"},
        },
        "tokenizer_config.json",
        "tokenizer_config.json",
    ),
    "RoBERTa's processing": (
        {
            "post_processor": {
                "type": "RobertaProcessing",
                "sep": ["</s>", 257],
                "cls": ["<s>", 256],
                "trim_offsets": True,
                "add_prefix_space": False,
            },
            "tokenizer_config": {**FAST, "bos_token": "<s>", "eos_token": "</s>"},
        },
        "tokenizer_config.json",
        "tokenizer_config.json",
    ),
    "BERT's processing": (
        {
            "post_processor": {"type": "BertProcessing", "sep": ["</s>", 257], "cls": ["<s>", 256]},
            "tokenizer_config": {**FAST, "bos_token": "<s>", "eos_token": "</s>"},
        },
        "tokenizer_config.json",
        "tokenizer_config.json",
    ),
    "a list in config.json only": (
        {
            "tokenizer_config": {**FAST, "bos_token": "<s>", "eos_token": "</s>"},
            "config": {**LLAMA, "eos_token_id": [260, 257]},
        },
        "tokenizer_config.json",
        "config.json",
    ),
    "generation_config without an end falls back to config.json": (
        {
            "tokenizer_config": {**FAST, "bos_token": "<s>", "eos_token": "</s>"},
            "generation_config": {"temperature": 0.6, "do_sample": True},
            "config": {**LLAMA, "eos_token_id": 260},
        },
        "tokenizer_config.json",
        "config.json",
    ),
}


@pytest.mark.parametrize("name", DIRECTORIES)
def test_begin_and_end_are_those_of_transformers(name: str, tmp_path: Path) -> None:
    files, bos_from, eos_from = DIRECTORIES[name]
    write(tmp_path, **files)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    for path in (tmp_path, tmp_path / "tokenizer.json"):
        ours = Tokenizer.from_file(path)
        said = ours.vocabulary.boundaries
        assert ours.bos_id == theirs.bos_token_id
        assert said.eos_id == theirs.eos_token_id
        assert [*ours.prefix_ids, *ours.encode_ordinary(TEXT), *said.suffix_ids] == theirs(TEXT)["input_ids"]
        assert (said.bos_from, said.eos_from) == (bos_from, eos_from)
    if eos_from == "generation_config.json":
        assert [*ours.eos_ids] == transformers.GenerationConfig.from_pretrained(tmp_path).eos_token_id
    elif eos_from == "config.json":
        config = transformers.AutoConfig.from_pretrained(tmp_path)
        ids = transformers.GenerationConfig.from_model_config(config).eos_token_id
        assert [*ours.eos_ids] == (ids if isinstance(ids, list) else [ids])
    else:
        assert ours.eos_ids == (theirs.eos_token_id,)


@pytest.mark.parametrize("name", DIRECTORIES)
def test_a_saved_tokenizer_adds_the_same_tokens_in_tokenizers_and_here(name: str, tmp_path: Path) -> None:
    ours = Tokenizer.from_file(write(tmp_path / "first", **DIRECTORIES[name][0]))
    said = ours.vocabulary.boundaries
    ours.save(tmp_path / "saved.json")
    theirs = tokenizers.Tokenizer.from_file(str(tmp_path / "saved.json"))
    ids = [*ours.prefix_ids, *ours.encode_ordinary(TEXT), *said.suffix_ids]
    assert theirs.encode(TEXT).ids == ids
    again = Tokenizer.from_file(tmp_path / "saved.json").vocabulary.boundaries
    assert (again.prefix_ids, again.suffix_ids, again.prefix_from) == (said.prefix_ids, said.suffix_ids, SOURCE)
    twice = [*said.prefix_ids, 65, *said.suffix_ids, *said.prefix_ids, 66, *said.suffix_ids]
    assert theirs.encode("A", "B").ids == twice


def test_config_of_a_model_that_reads_more_than_text(tmp_path: Path) -> None:
    write(tmp_path, config={"model_type": "gemma3", "text_config": {"eos_token_id": [260, 257]}}, tokenizer_config={})
    tok = Tokenizer.from_file(tmp_path)
    assert (tok.eos_ids, tok.vocabulary.boundaries.eos_from) == ((260, 257), "config.json")


def test_known_names_stand_in_where_no_file_says_anything(tmp_path: Path) -> None:
    said = Tokenizer.from_file(write(tmp_path)).vocabulary.boundaries
    assert (said.bos_id, said.bos_from, said.eos_ids, said.eos_from) == (256, KNOWN_NAME, (261, 257, 259), KNOWN_NAME)
    assert (said.prefix_ids, said.prefix_from) == ((), SOURCE)  # the tokenizer.json says so: its post_processor is null


def test_what_is_put_in_front_is_the_bos_where_no_file_names_one(tmp_path: Path) -> None:
    said = Tokenizer.from_file(write(tmp_path, template("<|im_start|>", "$A"))).vocabulary.boundaries
    assert (said.bos_id, said.bos_from, said.prefix_ids) == (258, SOURCE, (258,))


def test_a_tokenizer_under_another_name_is_read_alone(tmp_path: Path) -> None:
    write(tmp_path, generation_config={"eos_token_id": 260})
    (tmp_path / "tokenizer.json").rename(tmp_path / "mine.json")
    assert Tokenizer.from_file(tmp_path / "mine.json").vocabulary.boundaries.eos_from == KNOWN_NAME


def test_ranks_obey_add_bos_token(tmp_path: Path) -> None:
    """transformers does as well, but converts ranks with another split pattern, so it cannot be compared with."""
    tokenizer = Tokenizer("x", pat_str="gpt2", mergeable_ranks=BYTE_RANKS, special_tokens={})
    tokenizer.save(tmp_path / "tokenizer.model")

    def read(config: dict[str, Any]) -> Tokenizer:
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
        return Tokenizer.from_file(tmp_path, pattern="gpt2", special_tokens=[*SPECIAL])

    assert read({}).prefix_ids == [256]
    assert read({"add_bos_token": False}).prefix_ids == []
    assert read({"add_bos_token": True, "bos_token": "<|im_start|>"}).prefix_ids == [258]
    assert read({"bos_token": "<|im_start|>"}).prefix_ids == []
    assert read({"bos_token": None}).prefix_ids == []
    tok = read({"add_eos_token": True, "eos_token": "</s>"})
    assert (tok.add_eos, tok.vocabulary.boundaries.suffix_ids) == (True, (257,))


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"generation_config": {"eos_token_id": "</s>"}}, r"generation_config.json: eos_token_id is '</s>'"),
        ({"generation_config": {"eos_token_id": True}}, r"generation_config.json: eos_token_id is True"),
        ({"generation_config": {"eos_token_id": [257, -1]}}, r"generation_config.json: eos_token_id is \[257, -1\]"),
        ({"generation_config": {"eos_token_id": 2**32}}, r"generation_config.json: eos_token_id is 4294967296"),
        ({"config": {"eos_token_id": 1.5}}, r"config.json: eos_token_id is 1.5"),
        ({"config": {"bos_token_id": [[1]]}}, r"config.json: bos_token_id is \[\[1\]\]"),
        ({"config": {"text_config": {"eos_token_id": {}}}}, r"config.json: eos_token_id is {}"),
        ({"tokenizer_config": {"bos_token": 1}}, r'tokenizer_config.json: "bos_token" is 1'),
        ({"tokenizer_config": {"eos_token": {"text": "</s>"}}}, r'tokenizer_config.json: "eos_token" is {'),
        ({"tokenizer_config": {"add_bos_token": "yes"}}, r'tokenizer_config.json: "add_bos_token" is \'yes\''),
        ({"special_tokens_map": {"eos_token": ["</s>"]}}, r'special_tokens_map.json: "eos_token" is \['),
        ({"special_tokens_map": []}, r"special_tokens_map.json: expected a JSON object, found list"),
        ({"post_processor": {"type": "Unknown"}}, r'tokenizer.json: "post_processor" is Unknown'),
        ({"post_processor": []}, r'tokenizer.json: "post_processor" is not an object'),
        ({"post_processor": {"type": "Sequence"}}, r'tokenizer.json: "post_processor" is a Sequence without'),
        (
            {"post_processor": {"type": "Sequence", "processors": [template("<s>", "$A"), template("$A", "</s>")]}},
            "several steps of the Sequence",
        ),
        ({"post_processor": template("<s>")}, r"leaves out the text"),
        ({"post_processor": template("$A", "$A")}, r"not supported; expected the text once"),
        ({"post_processor": template("<s>", "$A", ids={"<s>": [999]})}, r"adds the id 999 to each text"),
        ({"post_processor": template("<s>", "$A") | {"special_tokens": {}}}, r"is not supported"),
        ({"post_processor": {"type": "BertProcessing", "cls": ["<s>", "1"]}}, r'"cls" of "post_processor"'),
    ],
)
def test_a_wrong_value_is_refused_with_its_file_and_key(files: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        Tokenizer.from_file(write(tmp_path, **files))


@pytest.mark.parametrize("name", ["generation_config", "config", "tokenizer_config", "special_tokens_map"])
def test_a_truncated_or_empty_file_is_refused_with_its_name(name: str, tmp_path: Path) -> None:
    for content in ("", '{"eos_token_id": '):
        (write(tmp_path) / f"{name}.json").write_text(content)
        with pytest.raises(InputError, match=rf"{name}\.json: not JSON"):
            Tokenizer.from_file(tmp_path)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"bos_token": "<begin>"}, "bos_token is '<begin>', but the tokenizer has no such token"),
        ({"eos_token": {"content": "<end>"}}, "eos_token is '<end>', but the tokenizer has no such token"),
        ({"eos_token": ""}, "eos_token is '', but the tokenizer has no such token"),
    ],
)
def test_the_name_of_a_token_that_does_not_exist_is_a_warning(
    config: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.warns(UserWarning, match=message):
        said = Tokenizer.from_file(write(tmp_path, tokenizer_config=config)).vocabulary.boundaries
    assert KNOWN_NAME in (said.bos_from, said.eos_from)


def test_an_end_id_without_a_token_is_a_warning_and_kept(tmp_path: Path) -> None:
    write(tmp_path, generation_config={"eos_token_id": [257, 999]})
    with pytest.warns(
        UserWarning, match=r"generation_config.json: eos_token_id is 999, but the tokenizer has no token"
    ):
        assert Tokenizer.from_file(tmp_path).eos_ids == (257, 999)


def test_the_caller_who_leaves_out_special_tokens_gets_no_warning(tmp_path: Path) -> None:
    write(
        tmp_path, template("<s>", "$A"), generation_config={"eos_token_id": 257}, tokenizer_config={"bos_token": "<s>"}
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        said = Tokenizer.from_file(tmp_path, special_tokens=["<|im_end|>"]).vocabulary.boundaries
    assert said.eos_ids == (257,)


def test_add_bos_token_without_bos_token_is_a_warning(tmp_path: Path) -> None:
    tokenizer = Tokenizer("x", pat_str="gpt2", mergeable_ranks=BYTE_RANKS, special_tokens={})
    tokenizer.save(tmp_path / "tokenizer.model")
    (tmp_path / "tokenizer_config.json").write_text('{"add_bos_token": true}')
    with pytest.warns(UserWarning, match="add_bos_token is true, but there is no bos_token"):
        assert Tokenizer.from_file(tmp_path, pattern="gpt2").prefix_ids == []


def test_no_warning_for_a_directory_without_a_fault(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Tokenizer.from_file(write(tmp_path, **DIRECTORIES["eos list, template"][0]))
