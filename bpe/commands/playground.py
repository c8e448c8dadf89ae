"""`bpe playground`: a page in the browser that shows how tokenizers split a text."""

from __future__ import annotations

from collections.abc import Sequence

import click

from bpe.commands.options import Command, examples


@click.command(cls=Command)
@click.argument("tokenizers", nargs=-1, metavar="[TOKENIZER]...")
@click.option("--host", default="127.0.0.1", metavar="ADDRESS", help="Address to listen on.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8080, metavar="N", help="Port to listen on; 0 for any free port."
)
@click.option(
    "--allow-host",
    "hosts",
    multiple=True,
    metavar="NAME",
    help="Name of the server in addresses; repeatable.",
)
@click.option("--open", "is_opened", is_flag=True, help="Open the page in the browser.")
@examples("bpe playground", "bpe playground my.json llama3 cl100k_base --port 0")
def playground(tokenizers: Sequence[str], host: str, port: int, hosts: Sequence[str], is_opened: bool) -> None:
    """Show how tokenizers split a text, on a page in the browser.

    TOKENIZER is a tokenizer file, a model directory, or a known name; the page shows them side by side. It also offers
    the tokenizers on this machine that `bpe models` lists. The address of the page is printed. Ctrl-C ends the command.
    """
    from bpe.playground.app import playground as application
    from bpe.playground.listening import address_of, listen, new_server, run_until_stopped
    from bpe.playground.tokenizers import Shelf

    shelf = Shelf(tokenizers)
    app = application(shelf, hosts=[host, *hosts], chosen=shelf.given)
    listening = listen(host, port)
    address = address_of(listening)

    def started() -> None:
        click.echo(address)
        click.echo("bpe: open this address in a browser; Ctrl-C ends the command", err=True)
        if is_opened:
            click.launch(address)

    run_until_stopped(new_server(app, started=started), listening)
