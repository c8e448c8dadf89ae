// The ids of pretokens seen before, in tables of fixed size. They are looked up in batches, so that the waits for
// memory overlap.
#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>
#include <type_traits>

#include "base/hash.hpp"
#include "base/types.hpp"
#include "encode/encoding.hpp"
#include "kernels/front.hpp"
#include "kernels/keys.hpp"

namespace bpe {

// There is a table for each class of lengths. A pretoken's key names a bucket of one or two cache lines. The newest
// entry of a bucket comes first, and a new entry replaces the oldest one. A lookup never leaves its bucket, and no
// table ever grows. A lookup compares all entries of the bucket without a branch, since the processor cannot predict
// which one it will be.

template <class EntryKey, int kCount, std::size_t kAlignment>
struct alignas(kAlignment) CacheBucket {
    static constexpr int kEntries = kCount;
    EntryKey keys[kCount];
    Encoding values[kCount];
};

// Makes this the first entry of the bucket. It replaces the entry with the same key, which the store has overwritten,
// or else the oldest entry.
template <class Bucket, class Key>
Encoding put_first(Bucket& bucket, const Key& key, Encoding value) {
    int place = 0;
    while (place < Bucket::kEntries - 1 && !(bucket.keys[place] == key)) ++place;
    for (; place > 0; --place) {
        bucket.keys[place] = bucket.keys[place - 1];
        bucket.values[place] = bucket.values[place - 1];
    }
    bucket.keys[0] = key;
    return bucket.values[0] = value;
}

class ShortTable {  // up to kLongestShort bytes
 public:
    using Key = ShortKey;
    using Bucket = CacheBucket<Key, 4, 64>;

    ShortTable(CacheMemory& memory, unsigned bits)
        : buckets_(memory.take<Bucket>(std::size_t{1} << bits)), shift_(64 - bits) {}

    static Key key_of(const Batch& batch, std::size_t i) { return short_key(batch, i); }
    Bucket& bucket(Key key) { return buckets_[hash_of(key) >> shift_]; }

    static Encoding find(const Bucket& bucket, Key key, const Batch&, std::size_t, const EncodingStore& store) {
        Encoding found;
        for (int i = 0; i < Bucket::kEntries; ++i) found = found | bucket.values[i].where(bucket.keys[i] == key);
        return found.where(store.holds(found));
    }
    static Encoding put(Bucket& bucket, Key key, Bytes, std::span<const Id> ids, EncodingStore& store) {
        const Encoding kept = store.keep(ids);
        return kept.known() ? put_first(bucket, key, kept) : kept;
    }

 private:
    Bucket* buckets_;
    unsigned shift_;
};

class MediumTable {  // up to kLongestMedium bytes; a bucket takes two cache lines, since one would hold only two
                     // entries
 public:
    using Key = MediumKey;
    using Bucket = CacheBucket<Key, 5, 128>;

    MediumTable(CacheMemory& memory, unsigned bits)
        : buckets_(memory.take<Bucket>(std::size_t{1} << bits)), shift_(64 - bits) {}

    static Key key_of(const Batch& batch, std::size_t i) { return medium_key(batch, i); }
    Bucket& bucket(const Key& key) { return buckets_[hash_of(key.low, key.high) >> shift_]; }

    static Encoding find(const Bucket& bucket, const Key& key, const Batch&, std::size_t, const EncodingStore& store) {
        Encoding found;
        for (int i = 0; i < Bucket::kEntries; ++i) {
            const std::uint64_t difference = (bucket.keys[i].low ^ key.low) | (bucket.keys[i].high ^ key.high);
            found = found | bucket.values[i].where(difference == 0);
        }
        return found.where(store.holds(found));
    }
    static Encoding put(Bucket& bucket, const Key& key, Bytes, std::span<const Id> ids, EncodingStore& store) {
        const Encoding kept = store.keep(ids);
        return kept.known() ? put_first(bucket, key, kept) : kept;
    }

 private:
    Bucket* buckets_;
    unsigned shift_;
};

class LongTable {  // up to kLongest bytes; the table holds parts of hashes, the store holds the ids and bytes
 public:
    static constexpr std::size_t kLongest = 256;
    using Key = std::uint64_t;
    using Tag = std::uint32_t;
    using Bucket = CacheBucket<Tag, 5, 64>;

    LongTable(CacheMemory& memory, unsigned bits)
        : buckets_(memory.take<Bucket>(std::size_t{1} << bits)), shift_(64 - bits) {}

    static Key key_of(const Batch& batch, std::size_t i) {
        return hash_bytes(batch.text + batch.edges[i], std::min<std::size_t>(batch.length(i), kLongest + 1));
    }
    Bucket& bucket(Key key) { return buckets_[key >> shift_]; }

    // Prefetches what `find` will compare in the store.
    static void prefetch(const Bucket& bucket, Key key, const EncodingStore& store) {
        for (int i = 0; i < Bucket::kEntries; ++i) {
            if (bucket.keys[i] == static_cast<Tag>(key)) __builtin_prefetch(store.at(bucket.values[i].place()));
        }
    }
    static Encoding find(const Bucket& bucket, Key key, const Batch& batch, std::size_t i, const EncodingStore& store) {
        for (int k = 0; k < Bucket::kEntries; ++k) {
            if (bucket.keys[k] == static_cast<Tag>(key) && bucket.values[k].known()) {
                return store.with_text(bucket.values[k], batch[i]);
            }
        }
        return {};
    }
    static Encoding put(Bucket& bucket, Key key, Bytes text, std::span<const Id> ids, EncodingStore& store) {
        const Encoding kept = store.keep_with_text(ids, text);
        if (kept.known()) put_first(bucket, static_cast<Tag>(key), kept);
        return store.with_text(kept, text);
    }

 private:
    Bucket* buckets_;
    unsigned shift_;
};

// The front tables (see front.hpp), the tables behind them, and their store.
class PretokenCache {
 public:
    static constexpr std::size_t kLeastBytes = std::size_t{2} << 20;
    static constexpr std::size_t kMostBytes = std::size_t{32} << 20;

    // Takes `bytes` in total, from kLeastBytes to kMostBytes. The tables take up to half of it, the store the rest.
    explicit PretokenCache(std::size_t bytes)
        : memory_(bytes),
          short_front_(memory_.take<ShortFront>(std::size_t{1} << kShortFrontBits)),
          medium_front_(memory_.take<MediumFront>(std::size_t{1} << kMediumFrontBits)),
          short_table(memory_, table_bits(bytes)),
          medium_table(memory_, table_bits(bytes)),
          long_table(memory_, table_bits(bytes)),
          store(memory_, (bytes - kFrontBytes - (kBucketBytes << table_bits(bytes))) / sizeof(Id)) {}

    Fronts fronts() { return {short_front_, medium_front_}; }

    void put_in_front(ShortTable::Key key, Encoding value) {
        short_front_[hash_of(key) >> (64 - kShortFrontBits)] = {key, value.bits()};
    }
    void put_in_front(const MediumTable::Key& key, Encoding value) {
        medium_front_[hash_of(key.low, key.high) >> (64 - kMediumFrontBits)] = {key.low, key.high, value.bits(), 0};
    }

    // Stores the ids of pretoken i of the batch, which has at most LongTable::kLongest bytes. Returns an unknown
    // encoding if the store has no room left for this batch.
    Encoding put(const Batch& batch, std::size_t i, std::span<const Id> ids) {
        const std::size_t length = batch.length(i);
        if (length > kLongestMedium) return put_into(long_table, batch, i, ids);
        return length > kLongestShort ? put_into(medium_table, batch, i, ids) : put_into(short_table, batch, i, ids);
    }

 private:
    static constexpr std::size_t kFrontBytes =
        (sizeof(ShortFront) << kShortFrontBits) + (sizeof(MediumFront) << kMediumFrontBits);
    static constexpr std::size_t kBucketBytes =
        sizeof(ShortTable::Bucket) + sizeof(MediumTable::Bucket) + sizeof(LongTable::Bucket);

    static unsigned table_bits(std::size_t bytes) {
        return static_cast<unsigned>(std::bit_width(bytes / 2 / kBucketBytes) - 1);
    }

    template <class Table>
    Encoding put_into(Table& table, const Batch& batch, std::size_t i, std::span<const Id> ids) {
        const auto key = Table::key_of(batch, i);
        const Encoding value = Table::put(table.bucket(key), key, batch[i], ids, store);
        if constexpr (!std::is_same_v<Table, LongTable>) {
            if (value.is_inline()) put_in_front(key, value);
        }
        return value;
    }

    CacheMemory memory_;
    ShortFront* short_front_;
    MediumFront* medium_front_;

 public:
    ShortTable short_table;
    MediumTable medium_table;
    LongTable long_table;
    EncodingStore store;
};

}  // namespace bpe
