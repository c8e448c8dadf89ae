"""The server of `bpe serve`: a scheduler that continues many texts at once, and an API like OpenAI's in front of it.

The modules that speak HTTP need the extra `serve`, so only the command imports them.
"""
