// The ids of pretokens seen before: tables of fixed size, made to be looked up in batches so that the waits for memory
// overlap.
#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <span>

#include "vocab.hpp"

namespace bpe {

// An array of zeros from the system, which gives a page only once it is touched: an encoder that sees little text takes
// little memory, and starts at once.
template <class T>
class ZeroedArray {
 public:
    explicit ZeroedArray(std::size_t size) : memory_(std::calloc(size + 1, sizeof(T)), &std::free) {
        if (!memory_) throw std::bad_alloc();
        const auto address = reinterpret_cast<std::uintptr_t>(memory_.get());
        data_ = reinterpret_cast<T*>((address + alignof(T) - 1) / alignof(T) * alignof(T));
    }
    T& operator[](std::size_t i) { return data_[i]; }
    const T* data() const { return data_; }
    T* data() { return data_; }

 private:
    std::unique_ptr<void, decltype(&std::free)> memory_;
    T* data_;
};

// What is known of one pretoken, in one word, so that it can be written out without following a pointer:
//   bits  0..23, 24..47   the first two ids; or, with more than two, the place in the store where the ids begin
//   bits 48..55           how many ids; 0 where nothing is known
//   bits 56..63           the length of the pretoken, where it is part of a table's key
class Encoding {
 public:
    static constexpr std::size_t kInline = 2;
    static constexpr std::size_t kMostIds = 255;

    Encoding() = default;
    static Encoding of(const Id* ids, std::size_t count, std::size_t length) {
        return Encoding(ids[0] | std::uint64_t{count > 1 ? ids[1] : 0} << 24, count, length);
    }
    static Encoding stored(std::uint64_t place, std::size_t count, std::size_t length) {
        return Encoding(place, count, length);
    }

    std::size_t count() const { return bits_ >> 48 & 0xFF; }
    std::size_t length() const { return bits_ >> 56; }
    std::uint64_t place() const { return bits_ & 0xFFFFFFFFFFFF; }
    Id first() const { return bits_ & 0xFFFFFF; }
    Id second() const { return bits_ >> 24 & 0xFFFFFF; }

 private:
    Encoding(std::uint64_t low, std::size_t count, std::size_t length)
        : bits_(low | std::uint64_t{count} << 48 | std::uint64_t{length} << 56) {}
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

    Encoding keep(std::span<const Id> ids, std::size_t length) {
        if (ids.size() <= Encoding::kInline) return Encoding::of(ids.data(), ids.size(), length);
        const std::uint64_t place = take(ids.size());
        std::copy(ids.begin(), ids.end(), begin_of(place));
        return Encoding::stored(place, ids.size(), length);
    }

    // The ids, then the length of the text, then the text; the place is that of the ids, however few they are.
    Encoding keep_with_text(std::span<const Id> ids, std::span<const std::uint8_t> text) {
        const std::uint64_t place = take(ids.size() + 1 + (text.size() + sizeof(Id) - 1) / sizeof(Id));
        Id* out = std::copy(ids.begin(), ids.end(), begin_of(place));
        *out = static_cast<Id>(text.size());
        std::memcpy(out + 1, text.data(), text.size());
        return Encoding::stored(place, ids.size(), 0);
    }
    // What keep_with_text gave, if it is still there and its text is this one, with the ids in it if they are few.
    Encoding with_text(Encoding kept, std::span<const std::uint8_t> text) const {
        if (head_ - kept.place() > kSize - kSlack) return {};
        const Id* ids = at(kept.place());
        const Id* length = ids + kept.count();
        if (*length != text.size() || std::memcmp(length + 1, text.data(), text.size()) != 0) return {};
        return kept.count() <= Encoding::kInline ? Encoding::of(ids, kept.count(), 0) : kept;
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

    ZeroedArray<Id> ids_{kSize};
    std::uint64_t head_ = kSize;  // so that place 0, which a table's empty entries name, is never alive
};

// A pretoken: where it begins in a text, its length, and how many bytes of the text may be read from there.
struct Pretoken {
    const std::uint8_t* bytes;
    std::size_t length;
    std::size_t readable;

    std::span<const std::uint8_t> span() const { return {bytes, length}; }

    // Bytes [at, at + 8) of the pretoken as a word, zeros after its end.
    std::uint64_t word(std::size_t at) const {
        std::uint64_t word = 0;
        if (readable >= at + 8) [[likely]] {
            std::memcpy(&word, bytes + at, 8);
            if constexpr (std::endian::native == std::endian::big) word = __builtin_bswap64(word);
            return length >= at + 8 ? word : word & ((std::uint64_t{1} << 8 * (length - at)) - 1);
        }
        for (std::size_t i = at; i < length && i < at + 8; ++i) word |= std::uint64_t{bytes[i]} << 8 * (i - at);
        return word;
    }
};

// The tables, one for each class of lengths. Each has a Key, made from a pretoken; buckets, one cache line each, among
// which the key names one; and entries in a bucket, of which the newest stand first and the oldest gives way. Nothing
// is searched for beyond one line, and no table ever grows. A length stands beside a key of padded bytes, since
// zeros may be text.

class ShortTable {  // up to 8 bytes
 public:
    static constexpr std::size_t kLongest = 8;
    struct Key {
        std::uint64_t bytes;
        std::size_t length;
    };
    struct alignas(64) Bucket {
        std::uint64_t keys[4];
        Encoding values[4];
    };

    static Key key_of(const Pretoken& pretoken) { return {pretoken.word(0), pretoken.length}; }
    Bucket& bucket(const Key& key) { return buckets_[mix(key.bytes) & (kBuckets - 1)]; }

    static Encoding find(const Bucket& bucket, const Key& key, const Pretoken&, const Store& store) {
        for (int i = 0; i < 4; ++i) {
            if (bucket.keys[i] == key.bytes && bucket.values[i].length() == key.length) {
                return store.holds(bucket.values[i]) ? bucket.values[i] : Encoding();
            }
        }
        return {};
    }
    static Encoding put(Bucket& bucket, const Key& key, const Pretoken&, std::span<const Id> ids, Store& store) {
        std::memmove(bucket.keys + 1, bucket.keys, 3 * sizeof bucket.keys[0]);
        std::memmove(bucket.values + 1, bucket.values, 3 * sizeof bucket.values[0]);
        bucket.keys[0] = key.bytes;
        return bucket.values[0] = store.keep(ids, key.length);
    }

 private:
    static constexpr std::size_t kBuckets = 1 << 16;  // 4 MiB
    ZeroedArray<Bucket> buckets_{kBuckets};
};

class MediumTable {  // 9 to 16 bytes
 public:
    static constexpr std::size_t kLongest = 16;
    struct Key {
        std::uint64_t low;
        std::uint64_t high;
        std::size_t length;
    };
    struct alignas(64) Bucket {
        std::uint64_t low[2];
        std::uint64_t high[2];
        Encoding values[2];
    };

    static Key key_of(const Pretoken& pretoken) { return {pretoken.word(0), pretoken.word(8), pretoken.length}; }
    Bucket& bucket(const Key& key) { return buckets_[mix(key.low ^ mix(key.high)) & (kBuckets - 1)]; }

    static Encoding find(const Bucket& bucket, const Key& key, const Pretoken&, const Store& store) {
        for (int i = 0; i < 2; ++i) {
            if (bucket.low[i] == key.low && bucket.high[i] == key.high && bucket.values[i].length() == key.length) {
                return store.holds(bucket.values[i]) ? bucket.values[i] : Encoding();
            }
        }
        return {};
    }
    static Encoding put(Bucket& bucket, const Key& key, const Pretoken&, std::span<const Id> ids, Store& store) {
        bucket.low[1] = bucket.low[0];
        bucket.high[1] = bucket.high[0];
        bucket.values[1] = bucket.values[0];
        bucket.low[0] = key.low;
        bucket.high[0] = key.high;
        return bucket.values[0] = store.keep(ids, key.length);
    }

 private:
    static constexpr std::size_t kBuckets = 1 << 17;  // 8 MiB
    ZeroedArray<Bucket> buckets_{kBuckets};
};

class LongTable {  // up to 256 bytes: the table holds hashes, the store ids and bytes
 public:
    static constexpr std::size_t kLongest = 256;
    struct Key {
        std::uint64_t hash;
    };
    struct alignas(64) Bucket {
        std::uint64_t hashes[4];
        Encoding values[4];
    };

    static Key key_of(const Pretoken& pretoken) { return {hash_bytes(pretoken.bytes, pretoken.length)}; }
    Bucket& bucket(const Key& key) { return buckets_[key.hash & (kBuckets - 1)]; }

    static Encoding find(const Bucket& bucket, const Key& key, const Pretoken& pretoken, const Store& store) {
        for (int i = 0; i < 4; ++i) {
            if (bucket.hashes[i] == key.hash && bucket.values[i].count()) {
                return store.with_text(bucket.values[i], pretoken.span());
            }
        }
        return {};
    }
    static Encoding put(Bucket& bucket, const Key& key, const Pretoken& pretoken, std::span<const Id> ids,
                        Store& store) {
        std::memmove(bucket.hashes + 1, bucket.hashes, 3 * sizeof bucket.hashes[0]);
        std::memmove(bucket.values + 1, bucket.values, 3 * sizeof bucket.values[0]);
        bucket.hashes[0] = key.hash;
        bucket.values[0] = store.keep_with_text(ids, pretoken.span());
        return store.with_text(bucket.values[0], pretoken.span());
    }

 private:
    static constexpr std::size_t kBuckets = 1 << 16;  // 4 MiB
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
