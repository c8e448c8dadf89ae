"""The commands about models, a file each, and what they share."""
