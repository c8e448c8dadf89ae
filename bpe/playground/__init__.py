"""Pages in the browser without a model: the shell that all pages share, and the page of tokens.

The modules here need the extra `serve`, so only the commands `bpe playground` and `bpe serve` import them.
"""
