"""Vocabularies that another library encodes with: Unigram, WordPiece, and those of whole words or characters.

``encoder.py`` is what the two libraries have in common, in the form of the core's encoder, so that `bpe.Tokenizer`
works with either. ``sentencepiece_encoder.py`` and ``tokenizers_encoder.py`` are the two, and ``vocabulary.py`` is the
vocabulary that holds one of them.
"""
