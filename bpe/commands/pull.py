"""`bpe pull`: download a tokenizer or a model from the hub."""

from __future__ import annotations

import click

from bpe.commands import next_steps
from bpe.commands.next_steps import name_next
from bpe.commands.options import Command, examples, progress_options, refuse_given
from bpe.commands.terminal import amount, counted
from bpe.progress import current, say


@click.command(cls=Command)
@click.argument("name", metavar="NAME")
@click.option("--revision", metavar="REVISION", help="Branch, tag or commit to download.  [default: the main branch]")
@click.option("--tokenizer", "only_tokenizer", is_flag=True, help="Download the tokenizer only.")
@progress_options()
@examples(
    "bpe pull gpt2",
    "bpe pull ORG/NAME",
    "bpe pull ORG/NAME:model-Q8_0.gguf",
    "bpe pull ORG/NAME:Q8_0 --revision v1.0",
    'bpe chat "$(bpe pull ORG/NAME --revision v1.0)"',
)
def pull(name: str, revision: str | None, only_tokenizer: bool) -> None:
    """Download a tokenizer or a model from the hub.

    NAME is ORG/NAME, a repository on the Hugging Face hub; ORG/NAME:FILE.gguf, one of its GGUF files, which a part of
    its name may stand for (ORG/NAME:Q8_0); or a known name. Only the files that are needed are downloaded, to the cache
    of the hub's own tools, and never pickled weights. An interrupted download resumes. Prints the path of the download,
    which other commands take, as they take NAME.
    """
    from bpe import InputError
    from bpe.errors import did_you_mean
    from bpe.hub.names import FORM, parse, without_address
    from bpe.hub.repository import pull
    from bpe.locate import SOURCES, locate

    if name in SOURCES:
        refuse_given(f"on the known name {name}", "revision", "only_tokenizer")
        path = locate(name)
    else:
        repository = parse(name)
        if repository is None:
            address = without_address(name)
            meant = f"; did you mean {address}?" if address else did_you_mean(name, SOURCES)
            raise InputError(f"{name}: not a known name ({', '.join(SOURCES)}) nor a repository; write {FORM}{meant}")
        path = pull(repository, "tokenizer" if only_tokenizer else "any", revision)
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    size = sum(file.stat().st_size for file in files)
    if not current().is_for_programs:
        say(f"{name}: {counted(len(files), 'file')}, {amount(size)}B")
    current().done(str(path), to_stdout=True, name=name, path=str(path), files=len(files), bytes=size)
    chosen = path if revision else name  # the name alone is the main branch
    if any(file.suffix in (".gguf", ".safetensors") for file in files):
        name_next(next_steps.chat(chosen), next_steps.generate(chosen))
    else:
        name_next(["show", "-t", chosen, "-c", "Hello, world!"])
