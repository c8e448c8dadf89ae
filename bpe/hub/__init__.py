"""Tokenizers and models from the Hugging Face hub, through ``huggingface_hub``: its cache, access token and settings.

- `bpe.hub.names`: names such as "org/name" and "org/name:file.gguf".
- `bpe.hub.repository`: the files that a tokenizer or a model needs, from the cache or downloaded.
- `bpe.hub.download`: downloading one file.
- `bpe.hub.reasons`: what an error means, in one line.

``huggingface_hub`` is imported only when it is used, because that takes a third of a second.
"""
