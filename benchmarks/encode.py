"""Encoding rates beside other tokenizers, in one run, on your own text.

    python benchmarks/encode.py                              # corpora/
    python benchmarks/encode.py big.txt code.txt.xz --peers ours,tiktoken,tokenizers,gigatoken

Each peer runs in a process of its own with Llama 3's vocabulary. Its ids are compared with tiktoken's, document by
document, before its times count. Cold is the first pass over the text after loading; warm is the best of three more. A
document is 4,000 characters. Rates are MB of UTF-8 a second; the machine's noise is in them, so look at the ratios.

Peers other than tiktoken and tokenizers are measured where they are installed (pip install gigatoken fastokens). They
get a tokenizer.json with every pair of tokens that joins to a token, without which their ids are wrong.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import lzma
import os
import subprocess
import sys
import tempfile
import time
from array import array
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from bpe import Tokenizer

ROOT = Path(__file__).parents[1]
DOCUMENT = 4000
PASSES = 3

# A peer gives two functions of a document: its ids as a list, and as whatever array it has (None where it has none).
Encode = Callable[[str], Any]


def ours(path: Path) -> tuple[Encode | None, Encode | None]:
    tokenizer = Tokenizer.from_name("llama3")
    return tokenizer.encode_ordinary, lambda text: tokenizer.encode_to_numpy(text, disallowed_special=())


def tiktoken(path: Path) -> tuple[Encode | None, Encode | None]:
    encoding = reference()
    return encoding.encode_ordinary, lambda text: encoding.encode_to_numpy(text, disallowed_special=())


def tokenizers(path: Path) -> tuple[Encode | None, Encode | None]:
    from tokenizers import Tokenizer as Peer

    peer = Peer.from_file(str(path))
    return (lambda text: peer.encode(text, add_special_tokens=False).ids), None


def gigatoken(path: Path) -> tuple[Encode | None, Encode | None]:
    import gigatoken as module

    peer = module.Tokenizer(str(path))
    return None, peer.encode


def fastokens(path: Path) -> tuple[Encode | None, Encode | None]:
    import fastokens as module

    peer = module.Tokenizer.from_file(str(path))
    return (lambda text: peer.encode(text, add_special_tokens=False).ids), None


PEERS = {peer.__name__: peer for peer in (ours, tiktoken, tokenizers, gigatoken, fastokens)}


def reference() -> Any:
    import tiktoken as module

    tokenizer = Tokenizer.from_name("llama3")
    return module.Encoding(
        "llama3",
        pat_str=tokenizer.pattern.text,
        mergeable_ranks=tokenizer.mergeable_ranks,
        special_tokens=tokenizer.special_tokens,
    )


def read_documents(path: Path) -> list[str]:
    content = path.read_bytes()
    text = (lzma.decompress(content) if path.suffix == ".xz" else content).decode("utf-8", "replace")
    return [text[start : start + DOCUMENT] for start in range(0, len(text), DOCUMENT)]


def digest(rows: Iterable[Any]) -> str:
    """A hash of ids that does not depend on whether they come as lists or arrays."""
    total = hashlib.sha256()
    for row in rows:
        ids = array("I", row.tolist() if hasattr(row, "tolist") else row)
        total.update(len(ids).to_bytes(8, "little") + ids.tobytes())
    return total.hexdigest()


def write_tokenizer_json(path: Path) -> None:
    """Llama 3's vocabulary with all pairs that join to a token, by rank."""
    tokenizer = Tokenizer.from_name("llama3")
    tokenizer.save(path)
    data = json.loads(path.read_text("utf-8"))
    from bpe.formats.huggingface import byte_characters

    characters = byte_characters()
    ranks = tokenizer.mergeable_ranks

    def text(token: bytes) -> str:
        return token.decode("latin-1").translate(characters)

    data["model"]["merges"] = [
        [text(token[:cut]), text(token[cut:])]
        for token in ranks
        for cut in range(1, len(token))
        if token[:cut] in ranks and token[cut:] in ranks
    ]
    path.write_text(json.dumps(data, ensure_ascii=False), "utf-8")


def measure(name: str, kind: int, corpus: Path, tokenizer_json: Path) -> dict[str, Any] | None:
    """In the worker: load, a cold pass, warm passes; None where the peer has no such output."""
    documents = read_documents(corpus)
    encode = PEERS[name](tokenizer_json)[kind]
    if encode is None:
        return None
    start = time.perf_counter()
    rows = [encode(document) for document in documents]
    seconds = [time.perf_counter() - start]
    result = {"digest": digest(rows)}
    del rows
    for _ in range(PASSES):
        start = time.perf_counter()
        kept = [encode(document) for document in documents]
        seconds.append(time.perf_counter() - start)
        del kept
    size = sum(len(document.encode()) for document in documents) / 1e6
    return result | {"cold": size / seconds[0], "warm": size / min(seconds[1:])}


def in_process(*arguments: str) -> Any:
    environment = {**os.environ, "TOKENIZERS_PARALLELISM": "false", "RAYON_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, __file__, "--worker", *arguments]
    finished = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if finished.returncode:
        reason = (finished.stderr.strip().splitlines() or ["no message"])[-1]
        return {"error": reason}
    return json.loads(finished.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpora", nargs="*", type=Path, help="text files, .xz or plain (default: those of corpora/)")
    parser.add_argument("--peers", default=",".join(PEERS), help="which, separated by commas (default: %(default)s)")
    parser.add_argument("--worker", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        name, kind, corpus, tokenizer_json = arguments.worker
        print(json.dumps(measure(name, int(kind), Path(corpus), Path(tokenizer_json))))
        return

    with tempfile.TemporaryDirectory() as directory:
        tokenizer_json = Path(directory) / "tokenizer.json"
        write_tokenizer_json(tokenizer_json)
        corpora = arguments.corpora
        if not corpora:
            corpora = [Path(directory) / "corpora.txt"]
            files = sorted(path for path in (ROOT / "corpora").rglob("*") if path.is_file())
            corpora[0].write_bytes(b"\n".join(path.read_bytes() for path in files))
        print(f"{'corpus':<24}{'peer':<12}{'list cold':>10}{'warm':>7}{'array cold':>12}{'warm':>7}   ids")
        encoding = reference()
        for corpus in corpora:
            expected = digest(encoding.encode_ordinary(document) for document in read_documents(corpus))
            for name in arguments.peers.split(","):
                results = [in_process(name, str(kind), str(corpus), str(tokenizer_json)) for kind in (0, 1)]
                errors = {result["error"] for result in results if result and "error" in result}
                if errors:
                    print(f"{corpus.name:<24}{name:<12}  not measured: {errors.pop()}")
                    continue
                cells = ""
                for width, result in zip((10, 12), results, strict=True):
                    cold, warm = (f"{result['cold']:.0f}", f"{result['warm']:.0f}") if result else ("-", "-")
                    cells += f"{cold:>{width}}{warm:>7}"
                same = all(result["digest"] == expected for result in results if result)
                print(f"{corpus.name:<24}{name:<12}{cells}   {'equal' if same else 'DIFFER'}", flush=True)


if __name__ == "__main__":
    main()
