"""Measure speculative decoding: the share of proposals that are accepted, and the rate beside that without proposals.

    python benchmarks/speculation.py smollm2                         # n-grams
    python benchmarks/speculation.py smollm2 --draft SMALLER         # a draft model of the same vocabulary
    python benchmarks/speculation.py smollm2 --kernel avx2 --repeat 5 --temperature 0.8 --kinds edit,other

Each prompt is a question to a model that can chat, and is answered with and without speculation in turn, in one
process. The ids are compared before anything is printed; "same" counts the texts whose ids are equal. "edit" asks for a
part of a file of corpora/code with a name replaced, "summary" for a summary of a text of corpora/prose.txt, and "other"
for texts that repeat nothing. The table gives the median, the smallest and the largest ratio of the rates of decoding.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

from common import ROOT, add_kernel_option, choice, describe_machine, show

KINDS = ("edit", "summary", "other")
OTHER = (
    "Write a story about a lighthouse keeper who finds a message in a bottle.",
    "Why is the sky blue?",
    "Give me ten ideas for a birthday party in winter.",
    "Explain how a bicycle stays upright.",
    "Write a poem about rain.",
    "What should I see in Rome in two days?",
)


def code(most: int = 1200) -> Iterator[tuple[str, str]]:
    """Yield the beginning of files of code, and a name in each that occurs several times."""
    for path in sorted((ROOT / "corpora" / "code").iterdir()):
        text = path.read_text("utf-8")
        text = text[: text.rindex("\n", 0, most)] if len(text) > most else text
        names = re.findall(r"\b[a-z]{5,}\b", text)
        often = [name for name in dict.fromkeys(names) if names.count(name) in (3, 4, 5, 6)]
        if often and path.suffix in (".c", ".cpp", ".go", ".java", ".js", ".py", ".rs", ".ts"):
            yield text, often[0]


def questions(kind: str, count: int) -> list[str]:
    """Return the questions of a kind."""
    if kind == "edit":
        return [
            f"Rename `{name}` to `{name}_value` in this code and write the whole code again:\n\n{text}"
            for text, name in code()
        ][:count]
    if kind == "summary":
        texts = (ROOT / "corpora" / "prose.txt").read_text("utf-8").split("<|end_of_text|>")
        return [f"Summarize this text:\n\n{text.strip()[:3000]}" for text in texts][:count]
    return [*OTHER][:count]


def measure(model: Any, prompts: list[list[int]], end_ids: Any, speculation: Any, options: Any) -> list[dict[str, Any]]:
    """Answer each prompt with and without speculation in turn, and return the figures of each."""
    from model import Generation, Sampling

    sampling = Sampling(temperature=options.temperature, seed=1)
    for _ in Generation(model, prompts[:1], max_tokens=32, speculation=speculation):  # fills caches and wakes threads
        pass
    found = []
    for number, ids in enumerate(prompts):
        ratios, same = [], True
        for repeat in range(options.repeat):
            show(f"prompt {number + 1} of {len(prompts)}, run {repeat + 1}")
            texts, rates = [], []
            for proposing in (None, speculation) if repeat % 2 else (speculation, None):
                generation = Generation(
                    model,
                    [ids],
                    max_tokens=options.max_tokens,
                    sampling=sampling,
                    end_ids=end_ids,
                    speculation=proposing,
                )
                texts.append([token.id for tokens in generation for token in tokens])
                times = generation.times
                rates.append(times.decode_tokens / max(times.decode_seconds, 1e-9))
                if proposing is not None:
                    counts = generation.speculated
            same &= texts[0] == texts[1]
            ratios.append(rates[1] / rates[0] if repeat % 2 else rates[0] / rates[1])
        show()
        found.append(
            {
                "prompt": len(ids),
                "tokens": len(texts[0]),
                "same": same,
                "ratios": ratios,
                "proposed": counts.proposed,
                "accepted": counts.accepted,
                "tokens_per_call": counts.tokens_per_call,
                "calls": counts.calls,
                "gain": counts.gain,
            }
        )
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a name, or a path")
    parser.add_argument("--draft", help="a smaller model of the same vocabulary (default: n-grams)")
    parser.add_argument("--layers", type=int, help="the number of the model's own first layers (default: n-grams)")
    parser.add_argument("--backend", default="native", help="native or torch (default: native)")
    parser.add_argument("--kinds", type=choice(KINDS), default=[*KINDS], help="kinds of prompts (default: all)")
    parser.add_argument("--prompts", type=int, default=6, help="prompts of each kind (default: 6)")
    parser.add_argument("--repeat", type=int, default=3, help="runs of each prompt (default: 3)")
    parser.add_argument("--max-tokens", type=int, default=200, help="largest number of tokens (default: 200)")
    parser.add_argument("--temperature", type=float, default=0.0, help="temperature (default: 0)")
    parser.add_argument("--json", type=Path, help="file to write the figures to")
    add_kernel_option(parser)
    options = parser.parse_args()

    from bpe.chat import chat_format
    from bpe.locate import locate
    from model import load
    from model.generation.speculation import Speculation

    print(describe_machine())
    model, tokenizer = load(options.model, backend=options.backend)
    format = chat_format(locate(options.model, "model"), tokenizer)
    speculation = Speculation(layers=options.layers)
    if options.draft:
        draft, drafts = load(options.draft, backend=options.backend)
        speculation = Speculation(draft=draft, draft_tokenizer=drafts)
    results = {}
    print(f"{'':8} {'texts':>6} {'same':>5} {'tokens':>7} {'accepted':>9} {'a call':>7}   rate beside that without")
    for kind in options.kinds:
        prompts = [format.encode([{"role": "user", "content": text}]) for text in questions(kind, options.prompts)]
        found = results[kind] = measure(model, prompts, format.end_ids, speculation, options)
        ratios = [median(one["ratios"]) for one in found]
        accepted = sum(one["accepted"] for one in found) / max(1, sum(one["proposed"] for one in found))
        print(
            f"{kind:8} {len(found):6} {sum(one['same'] for one in found):5} {sum(one['tokens'] for one in found):7}"
            f" {accepted:9.0%} {median(one['tokens_per_call'] for one in found):7.2f}"
            f"   {median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        )
    if options.json:
        options.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
