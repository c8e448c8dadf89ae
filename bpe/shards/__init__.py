"""Token shards: the documents of a corpus as ids on disk, ready to train on.

`write_shards` encodes documents and writes a directory of shards, `Shards` opens one, `verify_shards` holds it against
its sources, `export_shards` writes it for others. LAYOUT.md, beside this file, says what is in it.
"""

from bpe.shards.exporting import export_shards
from bpe.shards.layout import HELD_OUT, TRAIN, Ids
from bpe.shards.origin import ShardSources
from bpe.shards.reading import Shard, Shards
from bpe.shards.verifying import VerifiedShards, verify_shards
from bpe.shards.writing import ShardsProgress, ShardTokenizer, write_shards

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
