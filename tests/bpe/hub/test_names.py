"""Names of repositories on the hub: what they may look like, and the .gguf file that they mean."""

from __future__ import annotations

from pathlib import Path

import pytest
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id
from hypothesis import given
from hypothesis import strategies as st

from bpe import InputError
from bpe.hub.names import HubName, is_in_folder, parse, without_address


def test_a_name_is_a_repository_with_or_without_the_choice_of_a_file() -> None:
    assert parse("org/name") == HubName("org/name")
    assert parse("org/name:model-Q8_0.gguf") == HubName("org/name", "model-Q8_0.gguf")
    assert parse("org/name:sub/model.gguf") == HubName("org/name", "sub/model.gguf")
    assert parse("org/name:q8_0") == HubName("org/name", "q8_0")
    assert str(HubName("org/name", "q8_0")) == "org/name:q8_0"


@pytest.mark.parametrize(
    "name",
    [
        "", "name", "../x", "./x", "a/b/c", "/x", "x/", "/", "a//b", "~/x", "a b/c", "a/b\n", "a/b\0", "a/.b", "a/b.",
        "-a/b", "a--b/c", "a..b/c", "a/b.git", "a/" + "b" * 97, "a\\b/c", "é/x", "org/tokenizer.json", "org/model.gguf",
    ],
)  # fmt: skip
def test_other_names_are_no_repositories(name: str) -> None:
    assert parse(name) is None


@pytest.mark.parametrize(
    "choice",
    [
        "",
        "../x.gguf",
        "/x.gguf",
        "a/../x.gguf",
        "a//x.gguf",
        "./x.gguf",
        "..\\x.gguf",
        "x.bin",
        "Q8-0",
        "\0.gguf",
        "a:b",
    ],
)
def test_a_choice_that_is_no_gguf_file_of_a_repository_is_refused(choice: str) -> None:
    with pytest.raises(InputError, match=r"names no \.gguf file of a repository; write ORG/NAME"):
        parse(f"org/name:{choice}")


@given(st.text("abZ9-_./\n ", max_size=8), st.text("abZ9-_./é", max_size=8))
def test_the_hub_s_library_accepts_every_repository_that_is_found_in_a_name(first: str, second: str) -> None:
    found = parse(f"{first}/{second}")
    if found is not None:
        validate_repo_id(found.repository)
    elif not second.endswith((".json", ".gguf")) and "/" not in first + second:
        with pytest.raises(HFValidationError):
            validate_repo_id(f"{first}/{second}")


def test_a_quantization_means_the_file_whose_name_has_it_as_a_part() -> None:
    files = ["README.md", "m-Q4_K_M.gguf", "m-Q4_K_S.gguf", "m.q8_0.gguf", "f16/m.gguf"]
    assert HubName("o/n", "Q4_K_M").chosen(files) == ["m-Q4_K_M.gguf"]
    assert HubName("o/n", "Q8_0").chosen(files) == ["m.q8_0.gguf"]
    assert HubName("o/n", "f16").chosen(files) == ["f16/m.gguf"]
    assert HubName("o/n", "Q4_K").chosen(files) == []
    assert HubName("o/n", "f16/m.gguf").chosen(files) == ["f16/m.gguf"]
    assert HubName("o/n").chosen(files) == files[1:]


def test_a_name_whose_first_part_is_a_folder_here_means_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert not is_in_folder(HubName("runs/tales"))
    (tmp_path / "runs").mkdir()
    assert is_in_folder(HubName("runs/tales"))


@pytest.mark.parametrize(
    "name", ["org/name", "https://example.org/org/name", "hf.co/", "hf.co/a/b/c", "hf.co/a/b:../x"]
)
def test_other_addresses_stand_for_no_repository(name: str) -> None:
    assert without_address(name) is None
