"""`bpe chat`: talk with a model."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bpe.commands.inputs import announce_keyboard, check_files, refuse_text
from bpe.commands.options import Command, examples, files_argument, group, progress_options
from bpe.commands.terminal import amount, print_pieces
from bpe.progress import current, say
from model.commands.grammars import compiled, grammar_options, read_grammar
from model.commands.options import (
    computation_options,
    eos_token_option,
    image_option,
    load_model,
    penalty_options,
    place_of,
    read_images,
    sampling_options,
    sampling_settings,
    template_options,
    template_variables,
)
from model.commands.speculating import check_speculation, open_speculation, speculation_line, speculation_options

if TYPE_CHECKING:
    from bpe.chat import ChatFormat
    from model.checkpoint.opened import Checkpoint
    from model.commands.chat_files import SavedDialogs, Saving
    from model.generation.conversation import Conversation


TEMPERATURE, TOP_P = 0.6, 0.9


@click.command(cls=Command)
@click.argument("name", metavar="MODEL")
@files_argument
@group(
    "Dialog",
    click.option(
        "-p",
        "--prompt",
        "--text",
        "prompts",
        multiple=True,
        metavar="TEXT",
        help="Question to answer; repeatable. The contents of FILEs follow it.",
    ),
    click.option("-c", "--continue", "continues", is_flag=True, help="Continue the last dialog with this model."),
    image_option,
    click.option("--system", metavar="TEXT", help="System message before the first question.  [default: none]"),
    click.option(
        "--save/--no-save", default=True, help="Save the dialog, for --continue, and the lines that are typed."
    ),
    click.option(
        "--forget/--no-forget",
        default=True,
        help="Drop the oldest messages from what the model reads when its context is full, or end with an error.",
    ),
)
@group(
    "Answers",
    click.option(
        "--max-tokens",
        type=click.IntRange(min=0),
        default=1024,
        metavar="N",
        help="Largest number of tokens in an answer.",
    ),
    click.option("--stop", multiple=True, metavar="TEXT", help="Text to stop before; repeatable."),
    click.option("--prefill", metavar="TEXT", help="Text that each answer begins with.  [default: none]"),
    eos_token_option,
)
@grammar_options
@template_options
@sampling_options(TEMPERATURE, TOP_P, *penalty_options)
@computation_options()
@speculation_options
@progress_options(with_events=False)
@examples(
    "bpe chat smollm2",
    "bpe chat smollm2 -p 'How many legs has a spider?'",
    "bpe chat smollm2 -c -p 'And an ant?'",
    "bpe chat smollm2 -p 'Summarize this text:' notes.txt",
    "bpe chat smollm2 -p 'Name a color.' --regex '[A-Z][a-z]+'",
    "bpe chat smollm2 -p 'Rename add to plus:' sums.py --speculate ngram",
    "bpe chat runs/assistant --system 'Answer in one sentence.' --temperature 0",
)
def chat(
    name: str,
    files: Sequence[str],
    prompts: Sequence[str],
    continues: bool,
    image_files: Sequence[str],
    system: str | None,
    save: bool,
    forget: bool,
    prefill: str | None,
    template: str | None,
    template_args: Sequence[str],
    dtype: str | None,
    device: str,
    backend: str,
    cache_dtype: str | None,
    threads: int | None,
    ignore_unknown: bool,
    eos_tokens: Sequence[str],
    speculate: str | None,
    draft: str | None,
    draft_layers: int | None,
    **settings: Any,
) -> None:
    """Chat with a model that was trained on dialogs.

    In a terminal, type a message and press Enter. Lines that begin with / are commands; /help lists them and the keys.
    Ctrl-C stops an answer, and Ctrl-D ends the chat.

    With -p TEXT, answers the question and exits. Otherwise, in a pipe or with FILEs (- is stdin), each line is a
    question of one dialog. Answers go to stdout, separated by empty lines.

    Images are part of the first question. They are not saved: give them again with --continue.

    Dialogs are saved in $BPE_STATE, by default ~/.local/state/bpe-llama, where only you can read them.
    """
    variables = template_variables(template_args)
    _check_questions(prompts, files)
    source = read_grammar(settings)
    if source is not None and prefill:
        raise click.UsageError(f"--{source.kind} describes whole answers, and --prefill begins them; give only one")
    talks = not prompts and not files and sys.stdin.isatty()
    is_edited = talks and (sys.stdout.isatty() or sys.stderr.isatty())
    with ExitStack() as stack:
        if is_edited:
            from model.commands.chat_editor import quiet_keyboard

            stack.enter_context(quiet_keyboard())
        from bpe.locate import locate

        refuse_text(name)
        path = locate(name, "model")  # before torch is imported, so that a wrong name fails at once
        check_speculation(speculate, draft, draft_layers)
        from model.checkpoint import open_checkpoint
        from model.generation.conversation import Conversation

        checkpoint = open_checkpoint(path, ignore_unknown)
        settings = sampling_settings(checkpoint, settings, TEMPERATURE, TOP_P)
        images = read_images(name, checkpoint.config, image_files)
        model, tokenizer = load_model(
            path, dtype, device, backend, threads, None, eos_tokens, ignore_unknown, cache_dtype
        )
        speculation = open_speculation(
            speculate,
            draft,
            draft_layers,
            path,
            checkpoint.config,
            tokenizer,
            dtype=dtype,
            device=device,
            backend=backend,
            threads=threads,
            ignore_unknown=ignore_unknown,
        )
        format = _chat_format(name, checkpoint, tokenizer, template, variables)
        grammar = compiled(source, model, tokenizer, format.end_ids)
        conversation = Conversation(
            model,
            tokenizer,
            format,
            prefill=prefill or "",
            forget=forget,
            images=images,
            grammar=grammar,
            speculation=speculation,
            **settings,
        )
        saving = _saving(name, conversation, continues, save)
        if system is not None:
            conversation.system = system
        if hint := _untrained(name, path, checkpoint, format):
            click.echo(f"bpe: {hint}", err=True)
        if talks:
            stored = checkpoint.stored or checkpoint.dtype
            size, place = amount(checkpoint.config.n_parameters), place_of(model)
            first = f"{name} ({size.strip()}, context {conversation.context:,}) {place}"
            facts = [("model", f"{name}, {size} parameters in {stored}"), ("computes", place)]
            _talk(first, facts, conversation, saving, is_edited)
        else:
            # It is not read, because in a script it may be meant for another command, and may never end.
            if prompts and "-" not in files and _has_unread_pipe():
                click.echo("bpe: stdin is not read; to put it after the question, add - to the command", err=True)
            _answer(conversation, saving, _questions(prompts, files))


def _check_questions(prompts: Sequence[str], files: Sequence[str]) -> None:
    """Refuse questions that cannot be asked, before a model is loaded."""
    if not all(prompt.strip() for prompt in prompts):
        raise click.UsageError("-p: the question is empty; write -p TEXT")
    if len(prompts) > 1 and files:
        raise click.UsageError("files follow one question; give -p once, or no files")
    if files.count("-") > 1:
        raise click.UsageError("stdin (-) can be read only once")
    check_files(files, "-p")
    announce_keyboard("text that follows the question" if prompts else "questions, one on each line,", files)


def _has_unread_pipe() -> bool:
    """Return whether something has been piped in."""
    with suppress(ImportError, OSError, ValueError):
        import fcntl
        import termios

        descriptor = sys.stdin.fileno()
        if stat.S_ISFIFO(os.fstat(descriptor).st_mode):
            size = fcntl.ioctl(descriptor, termios.FIONREAD, bytes(4))
            return int.from_bytes(size, sys.byteorder) > 0
    return False


def _questions(prompts: Sequence[str], files: Sequence[str]) -> Iterator[str]:
    """Yield the questions of a chat that is not held at a terminal."""
    if prompts:
        contents = [_decoded(sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()) for file in files]
        for prompt in prompts:
            yield "\n\n".join([os.fsencode(prompt).decode(errors="replace"), *contents])
        return
    for file in files or ["-"]:
        with nullcontext(sys.stdin.buffer) if file == "-" else open(file, "rb") as lines:
            yield from filter(None, (_decoded(line).strip() for line in lines))


def _decoded(content: bytes) -> str:
    return content.decode("utf-8-sig", errors="replace").replace("\r\n", "\n").rstrip("\n")


def _chat_format(
    name: str, checkpoint: Checkpoint, tokenizer: Any, template: str | None, variables: dict[str, Any]
) -> ChatFormat:
    from bpe.chat import NoChatFormatError, chat_format

    try:
        # The chat template is next to the tokenizer, which for an adapter may be that of its base.
        return chat_format(checkpoint.tokenizer, tokenizer, template, variables)
    except NoChatFormatError as error:
        raise NoChatFormatError(
            f"{error}. The model was not trained to chat: `bpe generate {name}` continues a text with it, and"
            " `bpe finetune` trains a model on dialogs"
        ) from error


def _untrained(name: str, path: Path, checkpoint: Checkpoint, format: ChatFormat) -> str | None:
    """Return a line on a model that was never trained to chat, as far as its files show that; None for others.

    A template shows that it was. Without one, Llama 3's format is used, whose tokens base models have too: the record
    of a run says what the model was trained on, and the formats of Hugging Face and llama.cpp would hold the template.
    Meta's format has no place for one.
    """
    from bpe.chat import Llama3Chat
    from bpe.files import read_json
    from model.checkpoint import format_of

    if not isinstance(format, Llama3Chat):
        return None
    record = path / "run.json"
    if record.is_file():
        settings = read_json(record).get("settings")
        kind = settings.get("kind") if isinstance(settings, dict) else None
        if kind not in ("pretraining", "continued pretraining"):
            return None
        why = "it was trained on texts only"
    elif format_of(checkpoint.source) in ("huggingface", "gguf"):
        why = "its files have no chat template"
    else:
        return None
    return (
        f"{name}: this model was never trained to chat ({why}), so expect no answers. `bpe finetune` trains it on"
        " dialogs, and `bpe generate` continues a text"
    )


def _saving(name: str, conversation: Conversation, continues: bool, save: bool) -> Saving:
    """Return where the dialog is saved, and continue the last one if that is asked for."""
    from model.commands.chat_files import SavedDialogs, Saving

    dialogs = SavedDialogs(name)
    path = _continue(name, conversation, dialogs) if continues else None
    return Saving(dialogs if save else None, path)


def _continue(name: str, conversation: Conversation, dialogs: SavedDialogs) -> Path | None:
    from bpe import InputError
    from model.commands.chat_files import read_dialog

    path = dialogs.newest()
    if path is None:
        click.echo(f"bpe: {name}: there is no dialog to continue; this one is the first", err=True)
        return None
    try:
        messages = read_dialog(path)
        try:
            conversation.restore(messages)
        except InputError as error:
            raise InputError(f"{path}: {error}") from error
    except InputError as error:
        raise InputError(f"{error}; delete the file, or chat without --continue") from error
    return path


def _answer(conversation: Conversation, saving: Saving, questions: Iterator[str]) -> None:
    """Print the answers to questions."""
    forgotten = False
    for number, question in enumerate(questions):
        click.echo("\n" if number else "", nl=False)
        before = conversation.messages
        try:
            print_pieces(conversation.answer(question))
        finally:
            if conversation.messages is not before:  # also what an interrupted answer has said
                saving.save(conversation.messages)
        if conversation.speculation is not None:
            say(speculation_line(conversation.speculation.by, conversation.speculated))
        forgets = conversation.forgotten and not forgotten
        if conversation.is_full or forgets:
            from model.commands.chat_screen import end_of_context, forgetting

            click.echo((end_of_context if conversation.is_full else forgetting)(conversation), err=True)
        forgotten = conversation.forgotten > 0


def _talk(
    first: str, facts: list[tuple[str, str]], conversation: Conversation, saving: Saving, is_edited: bool
) -> None:
    """Chat at a terminal.

    Args:
        first: The first line.
        facts: Labels and values about the model.
        conversation: The dialog.
        saving: Where it is saved.
        is_edited: Whether an editor can be shown at the terminal.
    """
    from model.commands.chat_editor import PROMPT, LineEditor, PlainLines
    from model.commands.chat_files import state_directory
    from model.commands.chat_screen import say as tell
    from model.commands.chat_settings import SETTINGS
    from model.commands.chat_talk import COMPLETIONS, Editor, Talk, show_last_turns

    editor: Editor = PlainLines()
    if is_edited:
        help = {name: setting.help for name, setting in SETTINGS.items()}
        history = state_directory() / "chat_history" if saving.dialogs is not None else None
        editor = LineEditor(COMPLETIONS, help, history)
    if current().is_for_people:  # without --quiet
        tell(first)
        tell("Type a message. /help lists commands and keys, Ctrl-D ends the chat.")
    if saving.path is not None:  # with --continue
        tell(f"\nContinuing {saving.path.name}:\n")
        show_last_turns(conversation.messages, PROMPT)
    Talk(conversation, editor, saving, facts).run()
