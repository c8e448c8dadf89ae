"""The commands about tokenizers and corpora, one file each, and the code they share.

A module imports only click and other light modules. Each command imports what it needs when it is called, so that
`bpe --help` and short commands start quickly.
"""
