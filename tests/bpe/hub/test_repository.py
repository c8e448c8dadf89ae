"""Which files of a repository are downloaded for a tokenizer or a model, and when the cache has all of them."""

from __future__ import annotations

import json
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub import constants

from bpe import InputError, Tokenizer
from bpe.formats.byte_level import byte_characters
from bpe.hub import download as downloads
from bpe.hub.names import HubName
from bpe.hub.repository import INDEX, Kind, at_hand, fetch, pull
from support.loopback_hub import Hub, Repository
from support.repositories import hub_name as name

TOKENIZER = ["tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "generation_config.json"]
TEMPLATES = ["chat_template.jinja", "additional_chat_templates/tools.jinja"]
SHARDS = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
UNNEEDED = [
    "README.md", ".gitattributes", "pytorch_model.bin", "original/consolidated.00.pth", "original/params.json",
    "onnx/model.onnx", "training_args.bin", "vocab.json", "merges.txt", "tokenizer.model", "flax_model.msgpack",
]  # fmt: skip


def repository(hub: Hub, *files: str) -> Repository:
    """Add "org/name" with these files, each of which has its name as its content."""
    hub.repositories["org/name"] = Repository({file: file.encode() for file in files})
    return hub.repositories["org/name"]


def sharded(hub: Hub) -> Repository:
    """Add "org/name" with a model in two shards, and with much else."""
    added = repository(hub, *TOKENIZER, *TEMPLATES, "config.json", INDEX, *SHARDS, *UNNEEDED)
    added.files[INDEX] = json.dumps({"weight_map": {f"tensor.{i}": shard for i, shard in enumerate(SHARDS)}}).encode()
    return added


def test_a_tokenizer_takes_its_own_files_only(hub: Hub) -> None:
    sharded(hub)
    directory = fetch(name(), "tokenizer")
    assert sorted(hub.downloads()) == sorted([*TOKENIZER, *TEMPLATES, "config.json"])
    assert (directory / "tokenizer.json").read_bytes() == b"tokenizer.json"
    assert (directory / "additional_chat_templates" / "tools.jinja").is_file()


def test_a_model_takes_its_weights_in_safetensors_as_well(hub: Hub) -> None:
    sharded(hub)
    directory = fetch(name(), "model")
    assert sorted(hub.downloads()) == sorted([*TOKENIZER, *TEMPLATES, "config.json", INDEX, *SHARDS])
    assert {path.name for path in directory.iterdir()} == {*TOKENIZER, "config.json", INDEX, *SHARDS} | {
        "chat_template.jinja",
        "additional_chat_templates",
    }
    assert directory == Path(huggingface_hub.snapshot_download("org/name", local_files_only=True))


@pytest.mark.parametrize(
    ("files", "kind", "expected"),
    [
        (["config.json", "model.safetensors", "tokenizer.json", "x.gguf"], "model",
         ["config.json", "model.safetensors", "tokenizer.json"]),
        (["params.json", "model.safetensors", "tokenizer.model"], "model",
         ["params.json", "model.safetensors", "tokenizer.model"]),
        (["adapter_config.json", "adapter_model.safetensors", "tokenizer.json", "adapter_model.bin"], "model",
         ["adapter_config.json", "adapter_model.safetensors", "tokenizer.json"]),
        (["x.gguf", "README.md", "config.json"], "model", ["x.gguf"]),
        (["x.gguf", "README.md"], "tokenizer", ["x.gguf"]),
        (["x.gguf", "README.md", "tokenizer.json"], "tokenizer", ["tokenizer.json"]),
        (["x.gguf", "tokenizer.json"], "any", ["x.gguf"]),
        (["tokenizer.json", "pytorch_model.bin"], "any", ["tokenizer.json"]),
        (["vocab.json", "merges.txt", "config.json", "a.safetensors"], "tokenizer",
         ["vocab.json", "merges.txt", "config.json"]),
        (["vocab.json", "merges.txt", "tokenizer_config.json", "added_tokens.json"], "any",
         ["vocab.json", "merges.txt", "tokenizer_config.json", "added_tokens.json"]),
        (["vocab.json", "merges.txt", "config.json", "model.safetensors"], "model",
         ["vocab.json", "merges.txt", "config.json", "model.safetensors"]),
        (["tekken.json", "vocab.json", "x.gguf"], "tokenizer", ["tekken.json"]),
        (["tekken.json", "tokenizer.model", "merges.txt", "vocab.json"], "tokenizer", ["tokenizer.model"]),
        (["tokenizer.model.v3", "tokenizer.py"], "tokenizer", ["tokenizer.model.v3"]),
        (["vocab.json", "x.gguf"], "tokenizer", ["x.gguf"]),
        (["spiece.model"], "tokenizer", ["spiece.model"]),
        (["vocab.txt"], "any", ["vocab.txt"]),
    ],
)  # fmt: skip
def test_the_files_of_each_format(hub: Hub, files: list[str], kind: Kind, expected: list[str]) -> None:
    repository(hub, *files)
    path = fetch(name(), kind)
    assert sorted(hub.downloads()) == sorted(expected)
    assert path.name == ("x.gguf" if expected == ["x.gguf"] else "c" * 40)
    hub.requests.clear()
    assert fetch(name(), kind) == path
    assert hub.downloads() == []
    if kind != "any" or path.suffix == ".gguf":  # otherwise the repository may have got weights
        assert hub.requests == []


def test_one_of_several_gguf_files_is_chosen_by_name(hub: Hub) -> None:
    repository(hub, "m-Q8_0.gguf", "m-Q4_K_M.gguf", "sub/m-F16.gguf")
    with pytest.raises(InputError) as caught:
        fetch(name(), "model")
    assert str(caught.value) == (
        "org/name: choose one of 3 files as org/name:FILE.gguf:"
        " m-Q4_K_M.gguf (0.0 kB), m-Q8_0.gguf (0.0 kB), sub/m-F16.gguf (0.0 kB)"
    )
    assert hub.downloads() == []
    for choice, file in (("m-Q8_0.gguf", "m-Q8_0.gguf"), ("q4_k_m", "m-Q4_K_M.gguf"), ("F16", "sub/m-F16.gguf")):
        hub.requests.clear()
        assert fetch(name(f"org/name:{choice}"), "model").read_bytes() == file.encode()
        assert hub.downloads() == [file]
        hub.requests.clear()
        assert fetch(name(f"org/name:{choice}"), "tokenizer").read_bytes() == file.encode()
        assert hub.requests == []
    for choice in ("x.gguf", "Q6_K"):
        with pytest.raises(InputError, match=rf"no file of org/name is meant by '{choice}'; it has m-Q8_0\.gguf"):
            fetch(name(f"org/name:{choice}"), "model")


def test_the_only_gguf_file_in_the_cache_needs_no_choice(hub: Hub) -> None:
    repository(hub, "m-Q8_0.gguf", "m-Q4_K_M.gguf")
    path = fetch(name("org/name:Q8_0"), "model")
    assert fetch(name(), "model") == path


def test_pickled_weights_and_repositories_without_a_model_are_refused(hub: Hub) -> None:
    repository(hub, "config.json", "tokenizer.json", "pytorch_model.bin")
    with pytest.raises(
        InputError, match=r"org/name: the repository has only pickled weights \(pytorch_model\.bin\), which are never"
    ):
        fetch(name(), "model")
    repository(hub, "README.md")
    with pytest.raises(InputError, match=r"org/name: the repository has no weights"):
        fetch(name(), "model")
    with pytest.raises(InputError, match=r"has none of tokenizer\.json, .* and no \.gguf file"):
        fetch(name(), "tokenizer")
    assert hub.downloads() == []


@pytest.mark.parametrize("shard", ["../../x.safetensors", "pytorch_model.bin", "model-00009-of-00009.safetensors", 7])
def test_an_index_that_names_other_files_is_refused(hub: Hub, shard: object) -> None:
    sharded(hub).files[INDEX] = json.dumps({"weight_map": {"tensor": shard}}).encode()
    with pytest.raises(InputError, match=r"names .*, which is no \.safetensors file of org/name"):
        fetch(name(), "model")


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"weight_map": 7}', b'{"weight_map": {"a": {}}}'])
def test_a_damaged_index_is_refused(hub: Hub, content: bytes) -> None:
    sharded(hub).files[INDEX] = content
    with pytest.raises(InputError, match="not an index of weights"):
        fetch(name(), "model")


def test_an_interrupted_model_is_completed(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    added = sharded(hub)
    added.missing = {SHARDS[1]}
    with pytest.raises(InputError, match=f"no file {SHARDS[1]} in this repository"):
        fetch(name(), "model")
    assert at_hand(name(), "model") is None
    added.missing = set()
    hub.requests.clear()
    assert fetch(name(), "model").is_dir()
    assert hub.downloads() == [SHARDS[1]]


def test_a_tokenizer_in_the_cache_is_not_a_model(hub: Hub) -> None:
    sharded(hub)
    directory = fetch(name(), "tokenizer")
    assert at_hand(name(), "tokenizer") == directory
    assert at_hand(name(), "model") is None
    hub.requests.clear()
    assert fetch(name(), "model") == directory
    assert sorted(hub.downloads()) == sorted([INDEX, *SHARDS])


def test_settings_that_another_tool_left_out_are_downloaded(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    repository(hub, "tokenizer.json", "tokenizer_config.json")
    huggingface_hub.hf_hub_download("org/name", "tokenizer.json")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    for kind in ("tokenizer", "any"):  # without a hub, they are done without
        assert (fetch(name(), kind) / "tokenizer.json").is_file()  # type: ignore[arg-type]
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    assert (fetch(name(), "tokenizer") / "tokenizer_config.json").is_file()


def test_a_tokenizer_json_that_another_tool_left_out_is_downloaded(hub: Hub) -> None:
    repository(hub, "tokenizer.json", "vocab.json", "merges.txt")
    for file in ("vocab.json", "merges.txt"):
        huggingface_hub.hf_hub_download("org/name", file)
    assert (fetch(name(), "tokenizer") / "tokenizer.json").is_file()


def test_a_repository_of_two_files_opens(hub: Hub) -> None:
    ids = {character: id for id, character in enumerate(byte_characters())} | {"ab": 256}
    added = repository(hub, "vocab.json", "merges.txt", "tokenizer_config.json")
    added.files = {
        "vocab.json": json.dumps(ids).encode(),
        "merges.txt": b"#version: 0.2\na b\n",
        "tokenizer_config.json": b'{"tokenizer_class": "GPT2Tokenizer"}',
    }
    assert Tokenizer.from_name("org/name").encode("abc") == [256, ids["c"]]


def test_pull_updates_what_the_cache_has(hub: Hub) -> None:
    old = repository(hub, "tokenizer.json", "tokenizer_config.json")
    first = pull(name(), "any")
    hub.repositories["org/name"] = Repository({**old.files, "tokenizer.json": b"new"}, commit="d" * 40)
    assert fetch(name(), "tokenizer") == first
    hub.requests.clear()
    second = pull(name(), "any")
    assert (second / "tokenizer.json").read_bytes() == b"new"
    assert hub.downloads() == ["tokenizer.json"]
    assert fetch(name(), "tokenizer") == second
    hub.requests.clear()
    assert pull(name(), "any") == second
    assert hub.downloads() == []


def test_a_revision_is_downloaded_beside_the_main_branch(hub: Hub) -> None:
    added = repository(hub, "tokenizer.json")
    with pytest.raises(InputError, match="org/name: no revision 'v1' on the hub"):
        pull(name(), "any", "v1")
    path = pull(name(), "any", added.commit)
    assert path.name == added.commit
    assert at_hand(name(), "tokenizer") is None  # of the main branch


@pytest.mark.parametrize("status", [500, 503, 429])
def test_a_hub_that_fails_is_named(hub: Hub, status: int) -> None:
    sharded(hub)
    hub.status = status
    with pytest.raises(InputError, match=f"org/name: the hub answers with status {status}; try again later"):
        fetch(name(), "model")
    assert len(hub.requests) == 1


def test_an_answer_that_is_not_the_hub_s_is_refused(hub: Hub) -> None:
    repository(hub, "tokenizer.json").commit = "../../x"
    with pytest.raises(InputError, match="the answer of the hub names no commit; check HF_ENDPOINT"):
        fetch(name(), "tokenizer")


def test_a_slow_hub_is_given_up(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    downloads._has_answered.clear()
    monkeypatch.setattr(downloads, "FIRST_SECONDS", 0.01)
    hub.is_silent = True
    with pytest.raises(InputError, match="org/name: the hub does not answer; check the network, or set HF_HUB_ETAG_"):
        fetch(name(), "tokenizer")


# Split GGUFs


def test_all_files_of_a_split_gguf_are_downloaded(hub: Hub) -> None:
    parts = [f"Q8_0/m-Q8_0-0000{number}-of-00003.gguf" for number in (1, 2, 3)]
    hub.repositories["org/name"] = Repository({part: part.encode() for part in parts} | {"m-Q4_0.gguf": b"GGUF"})
    path = fetch(HubName("org/name", "Q8_0"), "model")
    assert (path.name, path.read_bytes()) == ("m-Q8_0-00001-of-00003.gguf", parts[0].encode())
    assert sorted(file.name for file in path.parent.iterdir()) == [part.split("/")[1] for part in parts]
    asked = len(hub.requests)
    assert fetch(HubName("org/name", parts[1]), "model") == path
    assert len(hub.requests) == asked


def test_a_split_gguf_is_one_of_the_choices(hub: Hub) -> None:
    hub.repositories["org/name"] = Repository(
        {"m-00001-of-00002.gguf": bytes(600_000), "m-00002-of-00002.gguf": bytes(500_000), "n.gguf": bytes(100_000)}
    )
    with pytest.raises(InputError, match=r"2 files .*m-00001-of-00002\.gguf \(1\.1 MB\), n\.gguf \(0\.1 MB\)"):
        fetch(HubName("org/name"), "model")


def test_a_split_gguf_without_one_of_its_files_is_refused(hub: Hub) -> None:
    hub.repositories["org/name"] = Repository({"m-00001-of-00002.gguf": b"GGUF"})
    with pytest.raises(InputError, match=r"lacks m-00002-of-00002\.gguf, one of 2 files"):
        fetch(HubName("org/name"), "model")
