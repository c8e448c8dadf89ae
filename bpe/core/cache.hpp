// The ids of pretokens seen before: tables of fixed size, made to be looked up in batches so that the waits for memory
// overlap.
#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

#include "memory.hpp"
#include "vocab.hpp"

namespace bpe {

// An array of zeros from the system, which gives memory only once it is touched: an encoder that sees little text takes
// little of it, and starts at once. In large pages where there are such, since lookups go everywhere.
template <class T>
class ZeroedArray {
 public:
    explicit ZeroedArray(std::size_t size) : memory_(zeroed_memory(size * sizeof(T))) {}
    T& operator[](std::size_t i) { return data()[i]; }
    T* data() { return static_cast<T*>(memory_.get()); }
    const T* data() const { return static_cast<const T*>(memory_.get()); }

 private:
    ZeroedMemory memory_;
};

// What is known of one pretoken, in one word, so that it can be written out without following a pointer:
//   bits  0..23, 24..47   the first two ids; or, with more than two, the place in the store where the ids begin
//   bits 48..              how many ids; 0 where nothing is known
class Encoding {
 public:
    static constexpr std::size_t kInline = 2;
    static constexpr std::size_t kMostIds = 255;

    Encoding() = default;
    static Encoding of(const Id* ids, std::size_t count) {
        return Encoding(ids[0] | std::uint64_t{count > 1 ? ids[1] : 0} << 24, count);
    }
    static Encoding stored(std::uint64_t place, std::size_t count) { return Encoding(place, count); }

    std::size_t count() const { return bits_ >> 48; }
    std::uint64_t place() const { return bits_ & 0xFFFFFFFFFFFF; }
    Id first() const { return bits_ & 0xFFFFFF; }
    Id second() const { return bits_ >> 24 & 0xFFFFFF; }

    // This one if `condition`, else nothing; without a branch.
    Encoding where(bool condition) const { return Encoding(bits_ & -std::uint64_t{condition}); }
    friend Encoding operator|(Encoding a, Encoding b) { return Encoding(a.bits_ | b.bits_); }

 private:
    explicit Encoding(std::uint64_t bits) : bits_(bits) {}
    Encoding(std::uint64_t low, std::size_t count) : bits_(low | std::uint64_t{count} << 48) {}
    std::uint64_t bits_ = 0;
};
static_assert(kMaxRank < 1u << 24, "two ids share the low 48 bits");

// Where the tables keep what does not fit into their entries: a ring, in which the newest takes the room of the oldest.
// A place is counted from the beginning of time, so that it tells whether what stood there still does.
class Store {
 public:
    // What a batch may add while places found in it must stay good.
    static constexpr std::size_t kSlack = 1u << 17;

    const Id* at(std::uint64_t place) const { return ids_.data() + (place & (kSize - 1)); }
    bool holds(Encoding encoding) const {
        return encoding.count() <= Encoding::kInline || head_ - encoding.place() <= kSize - kSlack;
    }

    Encoding keep(std::span<const Id> ids) {
        if (ids.size() <= Encoding::kInline) return Encoding::of(ids.data(), ids.size());
        const std::uint64_t place = take(ids.size());
        std::copy(ids.begin(), ids.end(), begin_of(place));
        return Encoding::stored(place, ids.size());
    }

    // The ids, then the length of the text, then the text; the place is that of the ids, however few they are.
    Encoding keep_with_text(std::span<const Id> ids, std::span<const std::uint8_t> text) {
        const std::uint64_t place = take(ids.size() + 1 + (text.size() + sizeof(Id) - 1) / sizeof(Id));
        Id* out = std::copy(ids.begin(), ids.end(), begin_of(place));
        *out = static_cast<Id>(text.size());
        std::memcpy(out + 1, text.data(), text.size());
        return Encoding::stored(place, ids.size());
    }
    // What keep_with_text gave, if it is still there and its text is this one, with the ids in it if they are few.
    Encoding with_text(Encoding kept, std::span<const std::uint8_t> text) const {
        if (head_ - kept.place() > kSize - kSlack) return {};
        const Id* ids = at(kept.place());
        const Id* length = ids + kept.count();
        if (*length != text.size() || std::memcmp(length + 1, text.data(), text.size()) != 0) return {};
        return kept.count() <= Encoding::kInline ? Encoding::of(ids, kept.count()) : kept;
    }

 private:
    static constexpr std::size_t kSize = 1u << 22;  // in ids: 16 MiB

    Id* begin_of(std::uint64_t place) { return ids_.data() + (place & (kSize - 1)); }

    // Room for so many ids, side by side.
    std::uint64_t take(std::size_t count) {
        const std::size_t left = kSize - (head_ & (kSize - 1));
        if (left < count) head_ += left;
        head_ += count;
        return head_ - count;
    }

    ZeroedArray<Id> ids_{kSize + 4};  // ids are read four by four
    std::uint64_t head_ = kSize;      // so that place 0, which a table's empty entries name, is never alive
};

// Eight bytes as a word, the first in its lowest bits, on any machine.
inline std::uint64_t load_word(const std::uint8_t* bytes) {
    std::uint64_t word;
    std::memcpy(&word, bytes, 8);
    if constexpr (std::endian::native == std::endian::big) word = __builtin_bswap64(word);
    return word;
}
// The first `count` bytes of a word, zeros in place of the others. count < 8.
inline std::uint64_t first_bytes(std::uint64_t word, std::size_t count) {
    return word & ((std::uint64_t{1} << 8 * count) - 1);
}

// A pretoken: where it begins in a text, its length, and how many bytes of the text may be read from there.
struct Pretoken {
    const std::uint8_t* bytes;
    std::size_t length;
    std::size_t readable;

    std::span<const std::uint8_t> span() const { return {bytes, length}; }

    // Its first 7 bytes, or all if it has fewer.
    Pretoken start() const { return {bytes, std::min<std::size_t>(length, 7), readable}; }

    // Bytes [at, at + 8) of the pretoken as a word, zeros after its end.
    std::uint64_t word(std::size_t at) const {
        if (readable >= at + 8) [[likely]] {
            const std::uint64_t word = load_word(bytes + at);
            return length >= at + 8 ? word : first_bytes(word, length - at);
        }
        std::uint64_t word = 0;
        for (std::size_t i = at; i < length && i < at + 8; ++i) word |= std::uint64_t{bytes[i]} << 8 * (i - at);
        return word;
    }
};

// The tables, one for each class of lengths. Each has a Key, made from a pretoken; buckets, a cache line or two each,
// among which the key names one; and entries in a bucket, of which the newest stand first and the oldest gives way.
// Nothing is searched for beyond one bucket, and no table ever grows. The length stands in the last byte of a key of
// padded bytes, since zeros may be text. All entries of a bucket are compared, without a branch: which one it is cannot
// be predicted.

// Makes this the first entry of the bucket: in the place of one with the same key, which the store has lost, or else of
// the oldest.
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

class ShortTable {  // up to 7 bytes
 public:
    static constexpr std::size_t kLongest = 7;
    using Key = std::uint64_t;
    struct alignas(64) Bucket {
        static constexpr int kEntries = 4;
        Key keys[kEntries];
        Encoding values[kEntries];
    };

    static Key key_of(const Pretoken& pretoken) { return pretoken.word(0) | std::uint64_t{pretoken.length} << 56; }
    // key_of(pretoken.start()), where 8 bytes may be read: 5% of all the time less, without the branches.
    static Key key_of_start(const Pretoken& pretoken) {
        const std::size_t length = std::min(pretoken.length, kLongest);
        return first_bytes(load_word(pretoken.bytes), length) | std::uint64_t{length} << 56;
    }

    // In front of the buckets stands a table that stays in the second-level cache, with what was asked for last in each
    // of its places.
    struct Recent {
        Key key;
        Encoding value;
    };
    Recent& recent(Key key) { return recent_[mix(key) & (kRecent - 1)]; }
    Bucket& bucket(Key key) { return buckets_[mix(key) >> 14 & (kBuckets - 1)]; }

    static Encoding find(const Bucket& bucket, Key key, const Pretoken&, const Store& store) {
        Encoding found;
        for (int i = 0; i < Bucket::kEntries; ++i) found = found | bucket.values[i].where(bucket.keys[i] == key);
        return found.where(store.holds(found));
    }
    static Encoding put(Bucket& bucket, Key key, const Pretoken&, std::span<const Id> ids, Store& store) {
        return put_first(bucket, key, store.keep(ids));
    }

 private:
    static constexpr std::size_t kRecent = 1 << 14;   // 256 KiB
    static constexpr std::size_t kBuckets = 1 << 16;  // 4 MiB
    ZeroedArray<Recent> recent_{kRecent};
    ZeroedArray<Bucket> buckets_{kBuckets};
};

class MediumTable {  // 8 to 15 bytes; a bucket is two cache lines, since one would hold only two entries
 public:
    static constexpr std::size_t kLongest = 15;
    struct Key {
        std::uint64_t low;
        std::uint64_t high;
        bool operator==(const Key&) const = default;
    };
    struct alignas(128) Bucket {
        static constexpr int kEntries = 5;
        Key keys[kEntries];
        Encoding values[kEntries];
    };

    static Key key_of(const Pretoken& pretoken) {
        return {pretoken.word(0), pretoken.word(8) | std::uint64_t{pretoken.length} << 56};
    }
    Bucket& bucket(const Key& key) { return buckets_[mix(key.low ^ mix(key.high)) & (kBuckets - 1)]; }

    static Encoding find(const Bucket& bucket, const Key& key, const Pretoken&, const Store& store) {
        Encoding found;
        for (int i = 0; i < Bucket::kEntries; ++i) {
            const std::uint64_t difference = (bucket.keys[i].low ^ key.low) | (bucket.keys[i].high ^ key.high);
            found = found | bucket.values[i].where(difference == 0);
        }
        return found.where(store.holds(found));
    }
    static Encoding put(Bucket& bucket, const Key& key, const Pretoken&, std::span<const Id> ids, Store& store) {
        return put_first(bucket, key, store.keep(ids));
    }

 private:
    static constexpr std::size_t kBuckets = 1 << 16;  // 8 MiB
    ZeroedArray<Bucket> buckets_{kBuckets};
};

class LongTable {  // up to 256 bytes: the table holds hashes, the store ids and bytes
 public:
    static constexpr std::size_t kLongest = 256;
    using Key = std::uint64_t;
    struct alignas(64) Bucket {
        static constexpr int kEntries = 4;
        Key keys[kEntries];
        Encoding values[kEntries];
    };

    static Key key_of(const Pretoken& pretoken) { return hash_bytes(pretoken.bytes, pretoken.length); }
    Bucket& bucket(Key key) { return buckets_[key & (kBuckets - 1)]; }

    // Asks for what `find` will compare in the store.
    static void prefetch(const Bucket& bucket, Key key, const Store& store) {
        for (int i = 0; i < Bucket::kEntries; ++i) {
            if (bucket.keys[i] == key) __builtin_prefetch(store.at(bucket.values[i].place()));
        }
    }
    static Encoding find(const Bucket& bucket, Key key, const Pretoken& pretoken, const Store& store) {
        for (int i = 0; i < Bucket::kEntries; ++i) {
            if (bucket.keys[i] == key && bucket.values[i].count()) {
                return store.with_text(bucket.values[i], pretoken.span());
            }
        }
        return {};
    }
    static Encoding put(Bucket& bucket, Key key, const Pretoken& pretoken, std::span<const Id> ids, Store& store) {
        const Encoding kept = put_first(bucket, key, store.keep_with_text(ids, pretoken.span()));
        return store.with_text(kept, pretoken.span());
    }

 private:
    static constexpr std::size_t kBuckets = 1 << 17;  // 8 MiB
    ZeroedArray<Bucket> buckets_{kBuckets};
};

struct PretokenCache {
    ShortTable short_table;
    MediumTable medium_table;
    LongTable long_table;
    Store store;
};

// The most that a batch of `pretokens` can add to a store.
constexpr std::size_t most_stored(std::size_t pretokens) {
    return pretokens * (Encoding::kMostIds + 1 + LongTable::kLongest / sizeof(Id));
}

}  // namespace bpe
