// The ids of pretokens seen before: tables of fixed size, made to be looked up in batches so that the waits for memory
// overlap.
#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <type_traits>

#include "front.hpp"
#include "memory.hpp"
#include "vocab.hpp"

namespace bpe {

// What is known of one pretoken, in one word, so that it can be written out without following a pointer:
//   bits 0..1     how many ids stand in the word; 0 if they stand in the store, or nothing is known
//   bits 2..61    up to three ids of 20 bits
// or, where they stand in the store,
//   bits 2..9     how many there are
//   bits 10..63   the place where they begin, which is never 0
// Nothing is known where all bits are 0. The first form is what the kernels of front.hpp write out.
class Encoding {
 public:
    static constexpr std::size_t kMostIds = 255;

    Encoding() = default;
    explicit Encoding(std::uint64_t bits) : bits_(bits) {}
    static Encoding of(std::span<const Id> ids) {
        std::uint64_t bits = ids.size();
        for (std::size_t i = 0; i < ids.size(); ++i) bits |= std::uint64_t{ids[i]} << (2 + kInlineBits * i);
        return Encoding(bits);
    }
    static Encoding stored(std::uint64_t place, std::size_t count) { return Encoding(place << 10 | count << 2); }
    static bool fit_into_a_word(std::span<const Id> ids) {
        if (ids.size() > kInlineIds) return false;
        return std::all_of(ids.begin(), ids.end(), [](Id id) { return id >> kInlineBits == 0; });
    }

    std::uint64_t bits() const { return bits_; }
    bool known() const { return bits_ != 0; }
    bool is_inline() const { return inline_count() != 0; }
    bool is_stored() const { return known() && !is_inline(); }
    std::size_t inline_count() const { return bits_ & 3; }
    Id inline_id(std::size_t i) const { return bits_ >> (2 + kInlineBits * i) & ((1u << kInlineBits) - 1); }
    std::size_t stored_count() const { return bits_ >> 2 & 0xFF; }
    std::uint64_t place() const { return bits_ >> 10; }

    // This one if `condition`, else nothing; without a branch.
    Encoding where(bool condition) const { return Encoding(bits_ & -std::uint64_t{condition}); }
    friend Encoding operator|(Encoding a, Encoding b) { return Encoding(a.bits_ | b.bits_); }

 private:
    std::uint64_t bits_ = 0;
};

// Where the tables keep what does not fit into their entries: a ring, in which the newest takes the room of the oldest.
// A place is counted from the beginning of time, so that it tells whether what stood there still does.
class Store {
 public:
    // What a batch may add while places found in it must stay good.
    static constexpr std::size_t kSlack = 1u << 19;

    const Id* at(std::uint64_t place) const { return ids_.data() + (place & (kSize - 1)); }
    bool holds(Encoding encoding) const { return encoding.is_inline() || head_ - encoding.place() <= kSize - kSlack; }

    Encoding keep(std::span<const Id> ids) {
        if (Encoding::fit_into_a_word(ids)) return Encoding::of(ids);
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
        const std::span<const Id> ids(at(kept.place()), kept.stored_count());
        const Id* length = ids.data() + ids.size();
        if (*length != text.size() || std::memcmp(length + 1, text.data(), text.size()) != 0) return {};
        return Encoding::fit_into_a_word(ids) ? Encoding::of(ids) : kept;
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
    using Key = std::uint64_t;
    struct alignas(64) Bucket {
        static constexpr int kEntries = 4;
        Key keys[kEntries];
        Encoding values[kEntries];
    };

    static Key key_of(const Batch& batch, std::size_t i) {
        const std::uint8_t* bytes = batch.text + batch.edges[i];
        const std::size_t length = batch.length(i);
        std::uint64_t word = 0;
        if (batch.readable - batch.edges[i] >= 8) [[likely]] {
            word = load_word(bytes) & ((std::uint64_t{1} << 8 * length) - 1);
        } else {
            for (std::size_t k = 0; k < length; ++k) word |= std::uint64_t{bytes[k]} << 8 * k;
        }
        return word | std::uint64_t{length} << 56;
    }
    Bucket& bucket(Key key) { return buckets_[hash_of(key) >> (64 - kBits)]; }

    static Encoding find(const Bucket& bucket, Key key, const Batch&, std::size_t, const Store& store) {
        Encoding found;
        for (int i = 0; i < Bucket::kEntries; ++i) found = found | bucket.values[i].where(bucket.keys[i] == key);
        return found.where(store.holds(found));
    }
    static Encoding put(Bucket& bucket, Key key, std::span<const std::uint8_t>, std::span<const Id> ids, Store& store) {
        return put_first(bucket, key, store.keep(ids));
    }

 private:
    static constexpr unsigned kBits = 16;  // 4 MiB
    ZeroedArray<Bucket> buckets_{std::size_t{1} << kBits};
};

class MediumTable {  // 8 to 15 bytes; a bucket is two cache lines, since one would hold only two entries
 public:
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

    // The last eight bytes, of which those that the first eight hold as well are shifted out: one to eight of them.
    static Key key_of(const Batch& batch, std::size_t i) {
        const std::uint8_t* bytes = batch.text + batch.edges[i];
        const std::size_t length = batch.length(i);
        const std::uint64_t rest = load_word(bytes + length - 8) >> 8 >> 8 * (kLongestMedium - length);
        return {load_word(bytes), rest | std::uint64_t{length} << 56};
    }
    Bucket& bucket(const Key& key) { return buckets_[hash_of(key.low, key.high) >> (64 - kBits)]; }

    static Encoding find(const Bucket& bucket, const Key& key, const Batch&, std::size_t, const Store& store) {
        Encoding found;
        for (int i = 0; i < Bucket::kEntries; ++i) {
            const std::uint64_t difference = (bucket.keys[i].low ^ key.low) | (bucket.keys[i].high ^ key.high);
            found = found | bucket.values[i].where(difference == 0);
        }
        return found.where(store.holds(found));
    }
    static Encoding put(Bucket& bucket, const Key& key, std::span<const std::uint8_t>, std::span<const Id> ids,
                        Store& store) {
        return put_first(bucket, key, store.keep(ids));
    }

 private:
    static constexpr unsigned kBits = 16;  // 8 MiB
    ZeroedArray<Bucket> buckets_{std::size_t{1} << kBits};
};

class LongTable {  // 16 to 256 bytes: the table holds parts of hashes, the store ids and bytes
 public:
    static constexpr std::size_t kLongest = 256;
    using Key = std::uint64_t;
    using Tag = std::uint32_t;
    struct alignas(64) Bucket {
        static constexpr int kEntries = 5;
        Tag keys[kEntries];
        Encoding values[kEntries];
    };

    static Key key_of(const Batch& batch, std::size_t i) {
        return hash_bytes(batch.text + batch.edges[i], std::min<std::size_t>(batch.length(i), kLongest + 1));
    }
    Bucket& bucket(Key key) { return buckets_[key >> (64 - kBits)]; }

    // Asks for what `find` will compare in the store.
    static void prefetch(const Bucket& bucket, Key key, const Store& store) {
        for (int i = 0; i < Bucket::kEntries; ++i) {
            if (bucket.keys[i] == static_cast<Tag>(key)) __builtin_prefetch(store.at(bucket.values[i].place()));
        }
    }
    static Encoding find(const Bucket& bucket, Key key, const Batch& batch, std::size_t i, const Store& store) {
        for (int k = 0; k < Bucket::kEntries; ++k) {
            if (bucket.keys[k] == static_cast<Tag>(key) && bucket.values[k].known()) {
                return store.with_text(bucket.values[k], batch[i]);
            }
        }
        return {};
    }
    static Encoding put(Bucket& bucket, Key key, std::span<const std::uint8_t> text, std::span<const Id> ids,
                        Store& store) {
        return store.with_text(put_first(bucket, static_cast<Tag>(key), store.keep_with_text(ids, text)), text);
    }

 private:
    static constexpr unsigned kBits = 16;  // 4 MiB
    ZeroedArray<Bucket> buckets_{std::size_t{1} << kBits};
};

struct PretokenCache {
    ZeroedArray<ShortFront> short_front{std::size_t{1} << kShortFrontBits};
    ZeroedArray<MediumFront> medium_front{std::size_t{1} << kMediumFrontBits};
    ShortTable short_table;
    MediumTable medium_table;
    LongTable long_table;
    Store store;

    Fronts fronts() { return {short_front.data(), medium_front.data()}; }

    void put_in_front(ShortTable::Key key, Encoding value) {
        short_front[hash_of(key) >> (64 - kShortFrontBits)] = {key, value.bits()};
    }
    void put_in_front(const MediumTable::Key& key, Encoding value) {
        medium_front[hash_of(key.low, key.high) >> (64 - kMediumFrontBits)] = {key.low, key.high, value.bits(), 0};
    }

    // Remembers the ids of pretoken i of the batch, which has at most LongTable::kLongest bytes.
    Encoding put(const Batch& batch, std::size_t i, std::span<const Id> ids) {
        const std::size_t length = batch.length(i);
        if (length > kLongestMedium) return put_into(long_table, batch, i, ids);
        return length > kLongestShort ? put_into(medium_table, batch, i, ids) : put_into(short_table, batch, i, ids);
    }

 private:
    template <class Table>
    Encoding put_into(Table& table, const Batch& batch, std::size_t i, std::span<const Id> ids) {
        const auto key = Table::key_of(batch, i);
        const Encoding value = Table::put(table.bucket(key), key, batch[i], ids, store);
        if constexpr (!std::is_same_v<Table, LongTable>) {
            if (value.is_inline()) put_in_front(key, value);
        }
        return value;
    }
};

// The most that a batch of `pretokens` can add to a store.
constexpr std::size_t most_stored(std::size_t pretokens) {
    return pretokens * (Encoding::kMostIds + 1 + LongTable::kLongest / sizeof(Id));
}
static_assert(most_stored(kBatch) <= Store::kSlack);

}  // namespace bpe
