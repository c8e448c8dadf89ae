"""Token shards: the documents of a corpus as ids on disk, ready to train on.

`write_shards` encodes documents and writes a directory of shards, `Shards` opens one. LAYOUT.md, beside this file, says
what is in it.
"""

from .layout import HELD_OUT, TRAIN, Ids
from .reading import Shard, Shards
from .sources import Corpus
from .writing import Progress, ShardTokenizer, write_shards

__all__ = ["HELD_OUT", "TRAIN", "Corpus", "Ids", "Progress", "Shard", "ShardTokenizer", "Shards", "write_shards"]
