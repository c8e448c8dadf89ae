"""Other names of options and commands: those of other programs, those with underscores, and misspelt ones."""

from __future__ import annotations

import copy
from collections.abc import Container, Iterator, Sequence

import click

OTHER_OPTIONS: dict[str, tuple[str, ...]] = {
    "--allow-special": ("--allowed-special", "--parse-special"),
    "--batch": ("--batch-file", "--prompts", "--prompts-file"),
    "--beta": ("--dpo-beta",),
    "--checkpoint-activations": ("--activation-checkpointing", "--grad-checkpoint", "--gradient-checkpointing"),
    "--choices": ("--multiple-choice", "--questions"),
    "--color": ("--colour",),
    "--config": ("--arch", "--model-config", "--model-size", "--preset", "--size"),
    "--data": ("--data-dir", "--dataset", "--shards", "--train-data"),
    "--dtype": ("--data-type", "--precision", "--torch-dtype"),
    "--epochs": ("--epoch", "--n-epochs", "--num-epochs", "--num-train-epochs"),
    "--errors": ("--encoding-errors",),
    "--eval-every": ("--eval-freq", "--eval-interval", "--eval-steps", "--steps-per-eval", "--val-interval"),
    "--exclude": ("--ignore", "--skip"),
    "--field": ("--column", "--key", "--text-column", "--text-field", "--text-key"),
    "--file": ("-f", "--input-file", "--prompt-file"),
    "--format": ("--output-format",),
    "--gradient-clip": ("--clip", "--clip-grad-norm", "--grad-clip", "--gradient-clip-val", "--max-grad-norm"),
    "--held-out": ("--heldout", "--hold-out"),
    "--ids": ("--show-ids", "--with-ids"),
    "--init": ("--base-model", "--init-from", "--pretrained"),
    "--json": ("--as-json",),
    "--learning-rate": ("--lr", "-lr", "--max-lr", "--peak-lr"),
    "--length": ("--context", "--context-length", "--ctx", "--ctx-size", "--seq-len", "--sequence-length"),
    "--lora": ("--lora-dim", "--lora-r", "--lora-rank", "--rank"),
    "--lora-target": ("--lora-target-modules", "--lora-targets", "--target-modules"),
    "--max-memory": ("--max-ram", "--memory", "--memory-limit"),
    "--max-tokens": (
        *("-n", "--max-new-tokens", "--max-output-tokens", "--n-predict", "--n-tokens", "--num-predict"),
        *("--num-tokens", "--predict", "--tokens"),
    ),
    "--merge": ("--fuse", "--merge-adapter", "--merge-lora"),
    "--min-frequency": ("--min-count", "--min-freq", "--minimum-frequency"),
    "--output": ("--out", "--out-dir", "--out-file", "--outfile", "--output-dir", "--output-file", "--save-dir"),
    "--pattern": ("--pat-str", "--regex", "--split-pattern"),
    "--preferences": ("--dpo",),
    "--quantize": ("-q", "--qtype", "--quant", "--quantization"),
    "--repetition-penalty": ("--repeat-penalty",),
    "--revision": ("--branch", "--commit", "--ref", "--tag"),
    "--samples": ("--n-samples", "--num-return-sequences", "--num-samples"),
    "--schedule": ("--lr-schedule", "--lr-scheduler", "--lr-scheduler-type", "--scheduler"),
    "--seed": ("--random-seed", "--rng-seed"),
    "--separator": ("--document-separator", "--sep"),
    "--sequence-length": (
        *("--block-size", "--context", "--context-length", "--ctx", "--ctx-size", "--max-length", "--max-seq-len"),
        *("--max-seq-length", "--seq-len", "--seq-length"),
    ),
    "--special": ("--add-special", "--special-token", "--special-tokens", "--user-defined-symbols"),
    "--steps": ("--iterations", "--iters", "--max-iters", "--max-steps", "--n-steps", "--num-steps"),
    "--stop": ("-r", "--reverse-prompt", "--stop-sequence", "--stop-sequences", "--stop-string", "--stop-words"),
    "--system": ("-sys", "--sys", "--system-message", "--system-prompt"),
    "--temperature": ("--temp", "-temp"),
    "--template": ("--chat-template",),
    "--tensor-parallel": ("--tensor-parallel-size", "--tp", "--tp-size"),
    "--threads": ("-j", "--jobs", "--n-threads", "--num-proc", "--num-threads", "--num-workers", "--workers"),
    "--tokenizer": ("--encoding", "--tok", "--tokenizer-name"),
    "--top": ("--n-top", "--top-k"),
    "--vocab-size": ("--n-vocab", "--vocab", "--vocabsize", "--vocabulary-size"),
    "--warmup": ("--warmup-ratio",),
    "--weight-decay": ("--wd",),
    "--window": ("--context", "--context-length", "--ctx", "--ctx-size", "--max-length"),
}
"""Name of an option -> names in other programs of an option with the same meaning. Commands accept them as well."""

_DEVICES = ("--cpu", "--cuda", "--gpu", "--mps", "--gpu-layers", "--n-gpu-layers", "-ngl")
_INPUTS = ("--file", "--files", "--in", "--input", "--input-file", "-f", "-i")
_MODELS = ("--model", "--model-name", "--model-path", "--name", "--pretrained", "--repo", "--repo-id", "-m")

RELATED_OPTIONS: list[tuple[tuple[str, ...], str, str]] = [
    (("--batch-size", "--bs", "-b", "-bs", "--train-batch-size"), "--batch-tokens", "which counts tokens"),
    (
        ("--accumulate", "--grad-accum", "--grad-accumulation-steps", "--gradient-accumulation-steps"),
        "--micro-batch-tokens",
        "the tokens of a forward pass",
    ),
    (("--micro-batch-size",), "--micro-batch-tokens", "which counts tokens"),
    (("--merges", "--num-merges", "--size", "--tokens"), "--vocab-size", "which counts all tokens"),
    (("--hours", "--time", "--max-time", "--duration"), "--minutes", ""),
    (("--save-every", "--save-interval", "--save-steps"), "--checkpoint-every", "which counts seconds"),
    (("--warmup-iters", "--warmup-steps"), "--warmup", "a share of the run"),
    (("--eval-split", "--test-size", "--val-split", "--valid", "--validation-split"), "--held-out", ""),
    (("--force", "--fresh", "--overwrite"), "--restart", "which deletes an earlier run in the directory"),
    (("--resume", "--resume-from-checkpoint"), "--output", "which resumes the run in the directory"),
    (("--max-length",), "--max-tokens", "which does not count the prompt"),
    (("--outtype",), "--dtype", "or --quantize"),
    (_DEVICES, "--device", "such as --device cuda"),
    (("--chat-template-kwargs", "--chat-template-args"), "--template-arg", "once for each variable"),
    (("--special", "--special-tokens"), "--allow-special", ""),
    (_MODELS, "--config", ""),
    (_MODELS, "MODEL", ""),
    (_MODELS, "--tokenizer", ""),
    *((("-t", "--tokenizer", *_MODELS), name, "") for name in ("NAME", "NAME|FILE", "NAME|FILE|DIRECTORY")),
    (("--train", "--train-file", "--dataset", "--data", *_INPUTS), "DIALOGS...", ""),
    (("--data", "--dataset", "--corpus", *_INPUTS), "CORPUS...", ""),
    (_INPUTS, "FILE...", ""),
    (("--input", "--source", "-i", *_MODELS), "IN", ""),
    (("-o", "--out", "--outfile", "--output", "--output-dir"), "OUT", ""),
]
"""Names in other programs, the option or the argument of ours that serves the purpose, and how it differs."""

OTHER_COMMANDS: dict[str, tuple[str, ...]] = {
    "ask": ("generate", "chat"),
    "attention": ("explain",),
    "bench": ("eval",),
    "benchmark": ("eval",),
    "complete": ("generate",),
    "cp": ("convert",),
    "delete": ("models",),
    "describe": ("info",),
    "detokenise": ("decode",),
    "detokenize": ("decode",),
    "diff": ("compare",),
    "download": ("pull",),
    "dpo": ("finetune",),
    "embed": ("encode",),
    "evaluate": ("eval",),
    "export": ("convert",),
    "fetch": ("pull",),
    "fit": ("train",),
    "get": ("pull",),
    "inspect": ("info", "explain"),
    "install": ("pull",),
    "learn": ("train",),
    "list": ("models",),
    "lora": ("finetune",),
    "ls": ("models",),
    "perplexity": ("eval",),
    "ppl": ("eval",),
    "prepare": ("shards",),
    "preprocess": ("shards",),
    "prompt": ("generate",),
    "quantise": ("convert",),
    "quantize": ("convert",),
    "repl": ("chat",),
    "rm": ("models",),
    "run": ("chat", "generate"),
    "sft": ("finetune",),
    "stats": ("info",),
    "talk": ("chat",),
    "test": ("verify", "eval"),
    "tok": ("encode",),
    "tokenise": ("encode",),
    "tokenize": ("encode",),
    "tokenizer": ("info", "train"),
    "tokens": ("encode", "count"),
    "tune": ("finetune",),
    "upload": ("convert",),
    "visualize": ("show", "explain"),
    "wc": ("count",),
}
"""Name in other programs -> the commands that serve the purpose."""


def with_other_names(option: click.Option, taken: Container[str]) -> click.Option:
    """Return an option like this one, by its other names: those of `OTHER_OPTIONS`, and underscores for hyphens.

    Args:
        option: The option.
        taken: Names that options of the command have, which are left out.
    """
    other = copy.copy(option)
    other.opts = [name for name in _other_names(option.opts) if name not in taken] or option.opts
    other.secondary_opts = [*_other_names(option.secondary_opts)] or option.secondary_opts
    return other


def _other_names(names: Sequence[str]) -> Iterator[str]:
    for name in names:
        for each in (name, *OTHER_OPTIONS.get(name, ())):
            if each != name:
                yield each
            if "-" in each[2:] and each.startswith("--"):
                yield "--" + each[2:].replace("-", "_")


def unknown_option(name: str, command: click.Command, context: click.Context) -> str:
    """Return the message about an option that a command does not have, with the likeliest ones that it has."""
    options = [each for each in command.get_params(context) if isinstance(each, click.Option) and not each.hidden]
    ours = {own: own for option in options for own in option.opts}
    for each in command.params:
        if isinstance(each, click.Argument):
            argument = each.make_metavar(context).replace("[", "").replace("]", "")
            ours[argument] = f"the argument {argument}"
    spelled = name.replace("_", "-")
    for names, target, note in RELATED_OPTIONS:
        if spelled in names and target in ours:
            return f"no such option: {name}; did you mean {ours[target]}{', ' * bool(note)}{note}?"
    if likely := _likely_options(spelled, options):
        return f"no such option: {name}; did you mean {' or '.join(likely)}?"
    return f"no such option: {name}{_elsewhere(spelled, context)}"


def _likely_options(name: str, options: Sequence[click.Option]) -> list[str]:
    """Return those of the options with similar names, at most three."""
    from difflib import get_close_matches  # here, because it would add to the start-up time of every command

    targets = {
        other: next((own for own in option.opts if own.startswith("--")), option.opts[0])
        for option in options
        for other in (*_other_names(option.opts), *option.opts)
    }
    targets |= {own: own for option in options for own in option.secondary_opts}
    found = get_close_matches(name, targets, 3, 0.75)
    if len(name) > 4:
        found += [other for other in targets if other.startswith(name)]
    return [*dict.fromkeys(targets[match] for match in found)][:3]


def _elsewhere(name: str, context: click.Context) -> str:
    """Return the end of a message that names the other commands that have an option, or nothing."""
    root = context.find_root()
    group = root.command
    if not isinstance(group, click.Group):
        return ""
    if any(name in option.opts for option in group.get_params(root)):
        return f"; it stands before the command: bpe {name} {context.info_name} ..."
    commands = [(other, group.get_command(root, other)) for other in group.list_commands(root)]
    having = [
        f"bpe {other}"
        for other, command in commands
        if command is not None and any(name in (*option.opts, *_other_names(option.opts)) for option in command.params)
    ]
    if not 0 < len(having) <= 6:
        return "; other commands have it" if having else ""
    listed = ", ".join(having[:-1]) + " and " * (len(having) > 1) + having[-1]
    return f"; it is an option of {listed}"


def unknown_command(name: str, commands: Sequence[str]) -> str:
    """Return the message about a command that does not exist, with the likeliest ones."""
    from difflib import get_close_matches

    spelled = name.lower().replace("-", "").replace("_", "")
    likely = [each for each in OTHER_COMMANDS.get(spelled, ()) if each in commands]
    if not likely:
        matches = get_close_matches(spelled, [*commands, *OTHER_COMMANDS], 1, 0.7)
        matches += [
            each for each in commands if len(spelled) > 2 and (each.startswith(spelled) or spelled.startswith(each))
        ]
        likely = [each for match in matches for each in OTHER_COMMANDS.get(match, (match,)) if each in commands]
    names = " or ".join(f"bpe {each}" for each in dict.fromkeys(likely))
    return f"no such command: {name}" + (f"; did you mean {names}?" if names else "; bpe --help lists the commands")
