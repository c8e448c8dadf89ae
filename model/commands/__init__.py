"""The commands about models, one file each, and the code they share.

As in `bpe.commands`, each command imports what it needs when it is called: PyTorch takes more than a second to import.
"""
