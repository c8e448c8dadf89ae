"""What is light stays light: the packages that each use of a model must not import, and works without.

Importing torch takes a second or more of a start, and 2 GB of disk.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from bpe import Tokenizer
from model import Transformer, convert, save
from model.generation.native import kernels
from support.references import BYTE_RANKS

# `{forbidden}`: names whose import fails as if they were not installed. Each line of the output is one that was printed
# by the code, or the list of the watched modules that were imported.
HEADER = """
import sys
class NotInstalled:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {forbidden!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, NotInstalled())
"""
FOOTER = "\nprint(sorted({'torch', 'numpy', 'safetensors', 'transformers'} & sys.modules.keys()), file=sys.stderr)"
COMMAND = """
from bpe.cli import main
sys.argv = ["bpe", *{arguments!r}]
try:
    sys.exit(main())
except SystemExit as error:
    assert not error.code, error.code
"""


class Use(NamedTuple):
    """A use of the project, and what it does without."""

    without: tuple[str, ...]
    """The packages that it neither imports nor needs."""
    arguments: tuple[str, ...] = ()
    """The arguments of `bpe`."""
    stdin: str = ""
    code: str = ""
    """Python code, instead of arguments."""


TORCH = ("torch", "safetensors", "transformers")
NEITHER = (*TORCH, "numpy")
SHORT = ("-p", "Hi", "--max-tokens", "3", "--seed", "1")
USES = {
    "info of a preset": Use(NEITHER, ("info", "llama3.2-1b")),
    "import of the package": Use(NEITHER, code="import model; from model import ModelConfig"),
    "info of a GGUF": Use(TORCH, ("info", "model.gguf")),
    "info of safetensors": Use(TORCH, ("info", "model")),
    "info of Hugging Face's format": Use(TORCH, ("info", "theirs")),
    "generate from a GGUF": Use(TORCH, ("generate", "model.gguf", *SHORT)),
    "generate from a quantized GGUF": Use(TORCH, ("generate", "q8.gguf", *SHORT, "--samples", "3", "--top-k", "5")),
    "generate from safetensors": Use(TORCH, ("generate", "model", *SHORT, "--json", "--logprobs", "2")),
    "generate from Hugging Face's format": Use(TORCH, ("generate", "theirs", *SHORT, "--repetition-penalty", "1.2")),
    "chat in a pipe": Use(TORCH, ("chat", "theirs", "--max-tokens", "3"), stdin="Hi\nAnd?\n"),
    "a wrong command line of pretrain": Use(
        TORCH,
        code="from bpe.cli import main\n"
        "sys.argv = ['bpe', 'pretrain', '--lr', '3']\n"
        "try:\n    main()\nexcept SystemExit as error:\n    assert error.code == 2",
    ),
    "public names": Use(
        TORCH,
        code="from model import Completions, Generation, ModelConfig, NativeModel, PRESETS, Sampling, Session\n"
        "from model import complete, convert, generate, generate_ids, load, quantize, save",
    ),
    "a script": Use(
        TORCH,
        code="from model import Session, complete, generate, load\n"
        "model, tokenizer = load('model.gguf', backend='native', device='auto')\n"
        "assert ''.join(generate(model, tokenizer, 'Once', 5, seed=1, session=Session(model)))\n"
        "assert len(complete(model, tokenizer, ['Once', 'There'], 5, samples=2, temperature=0)) == 4\n"
        "assert model([[1, 2, 3]]).shape == (1, 3, model.config.vocab_size)",
    ),
}


@pytest.fixture
def models(model: Transformer, tmp_path: Path) -> Path:
    """A folder with a model in several formats, and a chat template."""
    special = {"<|begin_of_text|>": 256, "<|end_of_text|>": 257}
    tokenizer = Tokenizer("bytes", pat_str="llama3", mergeable_ranks=BYTE_RANKS, special_tokens=special)
    tokenizer.save(tmp_path / "tokenizer.json")
    save(tmp_path / "model", model, tmp_path / "tokenizer.json")
    template = "{% for message in messages %}{{ message['content'] }}\n{% endfor %}"
    (tmp_path / "model" / "chat_template.jinja").write_text(template)
    (tmp_path / "model" / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<|end_of_text|>"}))
    convert(tmp_path / "model", tmp_path / "theirs")
    convert(tmp_path / "model", tmp_path / "model.gguf")
    convert(tmp_path / "model", tmp_path / "q8.gguf", quantize="q8_0")
    return tmp_path


def run(use: Use, forbidden: tuple[str, ...], folder: Path) -> subprocess.CompletedProcess[str]:
    code = use.code or COMMAND.format(arguments=list(use.arguments))
    script = HEADER.format(forbidden=forbidden) + code + FOOTER
    return subprocess.run(
        [sys.executable, "-c", script], cwd=folder, input=use.stdin, capture_output=True, text=True, check=False
    )


@pytest.mark.skipif(len(kernels()) == 1, reason="without fast kernels for this processor, torch computes")
@pytest.mark.parametrize("name", USES)
def test_a_light_use_imports_no_heavy_package(name: str, models: Path) -> None:
    done = run(USES[name], (), models)
    assert done.returncode == 0, done.stderr
    imported = json.loads(done.stderr.splitlines()[-1].replace("'", '"'))
    assert not {*imported} & {*USES[name].without}


@pytest.mark.parametrize("name", USES)
def test_a_light_use_works_where_the_package_is_not_installed(name: str, models: Path) -> None:
    use = USES[name]
    done = run(use, use.without, models)
    assert done.returncode == 0, done.stderr
    if use.arguments:
        assert done.stdout.strip()
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("code", "what"),
    [
        ("from model import load; load('model')", "torch backend"),
        ("from model import load; load('model', quantize='q8_0', backend='native')", "quantizing"),
        ("from model import load; load('meta', backend='auto')", "reading it"),
        ("from model import load; load('model', 'float16', backend='auto')", r"torch backend (float16 is requested)"),
        ("from model import Transformer", "Transformer"),
        ("from model import KVCache", "KVCache"),
        ("from model import convert; convert('model', 'out')", "converting"),
    ],
)
def test_what_needs_torch_says_what_to_install_and_what_works_without(code: str, what: str, models: Path) -> None:
    convert(models / "model", models / "meta", format="meta")
    caught = f"try:\n    {code}\nexcept Exception as error:\n    print(type(error).__name__, error)"
    done = run(Use((), code=caught), ("torch",), models)
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    assert what in line
    assert "pip install 'bpe-llama[model]'" in line
    assert "without it" in line
