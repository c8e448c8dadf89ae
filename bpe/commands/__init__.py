"""The commands about tokenizers and corpora, a file each, and what they share."""
