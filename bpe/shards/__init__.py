"""Token shards: the documents of a corpus as ids on disk, ready to train on.

`write_shards` encodes documents and writes a directory of shards. `Shards` opens it, `verify_shards` compares it
with its sources, and `export_shards` writes it in other formats. docs/reference/shards.md specifies the files.
"""

from bpe.shards.encoding import ShardTokenizer
from bpe.shards.exporting import export_shards
from bpe.shards.layout import HELD_OUT, TRAIN, Ids
from bpe.shards.origin import ShardSources
from bpe.shards.reading import Shard, Shards
from bpe.shards.verifying import VerifiedShards, verify_shards
from bpe.shards.writing import ShardsProgress, write_shards

__all__ = [
    "HELD_OUT",
    "TRAIN",
    "ShardSources",
    "Ids",
    "ShardsProgress",
    "Shard",
    "ShardTokenizer",
    "Shards",
    "VerifiedShards",
    "export_shards",
    "verify_shards",
    "write_shards",
]
