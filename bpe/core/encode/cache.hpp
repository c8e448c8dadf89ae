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

#include "kernels/front.hpp"
#include "base/memory.hpp"
#include "encode/vocab.hpp"

namespace bpe {

// One block of memory, given out in parts. It is in large pages where there are such, since lookups go everywhere, and
// the system gives it only as it is touched: an encoder that sees little text takes little of it, and starts at once.
class Arena {
 public:
    explicit Arena(std::size_t bytes) : memory_(bytes) {}
    // The sizes of all parts but the last are multiples of 128, so that entries do not lie across cache lines.
    template <class T>
    T* take(std::size_t count) {
        used_ += count * sizeof(T);
        return reinterpret_cast<T*>(memory_.data() + used_ - count * sizeof(T));
    }

 private:
    ZeroedArray<std::byte> memory_;
    std::size_t used_ = 0;
};

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
    Store(Arena& arena, std::size_t size) : ids_(arena.take<Id>(size)), size_(size - kReadBeyond), head_(size_) {}

    // Places found from now on stay good until this is called again.
    void begin_batch() { batch_ = head_; }

    bool holds(Encoding encoding) const { return encoding.is_inline() || holds(encoding.place()); }
    // What stands at a place that is held, or is to be asked for.
    const Id* at(std::uint64_t place) const {
        const std::uint64_t age = std::min<std::uint64_t>(head_ - place, size_);
        return ids_ + (age <= next_ ? next_ - age : next_ + size_ - age);
    }

    // Nothing, if the batch has added all that it may.
    Encoding keep(std::span<const Id> ids) {
        if (Encoding::fit_into_a_word(ids)) return Encoding::of(ids);
        Id* out = take(ids.size());
        if (!out) return {};
        std::copy(ids.begin(), ids.end(), out);
        return Encoding::stored(head_ - ids.size(), ids.size());
    }

    // The ids, then the length of the text, then the text; the place is that of the ids, however few they are.
    Encoding keep_with_text(std::span<const Id> ids, std::span<const std::uint8_t> text) {
        const std::size_t count = ids.size() + 1 + (text.size() + sizeof(Id) - 1) / sizeof(Id);
        Id* out = take(count);
        if (!out) return {};
        out = std::copy(ids.begin(), ids.end(), out);
        *out = static_cast<Id>(text.size());
        std::memcpy(out + 1, text.data(), text.size());
        return Encoding::stored(head_ - count, ids.size());
    }
    // What keep_with_text gave, if it is still there and its text is this one, with the ids in it if they are few.
    Encoding with_text(Encoding kept, std::span<const std::uint8_t> text) const {
        if (!kept.known() || !holds(kept.place())) return {};
        const std::span<const Id> ids(at(kept.place()), kept.stored_count());
        const Id* length = ids.data() + ids.size();
        if (*length != text.size() || std::memcmp(length + 1, text.data(), text.size()) != 0) return {};
        return Encoding::fit_into_a_word(ids) ? Encoding::of(ids) : kept;
    }

 private:
    static constexpr std::size_t kReadBeyond = 4;  // ids are read four by four

    // What a batch may add.
    std::size_t slack() const { return size_ / 8; }
    // What is older than this may be overwritten before the batch ends.
    bool holds(std::uint64_t place) const { return head_ - place <= size_ - slack(); }

    // Room for so many ids, side by side.
    Id* take(std::size_t count) {
        const std::size_t left = size_ - next_;
        const bool begins_again = left < count;
        const std::uint64_t head = head_ + (begins_again ? left : 0) + count;
        if (head - batch_ > slack()) return nullptr;
        head_ = head;
        next_ = (begins_again ? 0 : next_) + count;
        return ids_ + next_ - count;
    }

    Id* ids_;
    std::size_t size_;
    std::size_t next_ = 0;     // where the next ids go,
    std::uint64_t head_;       // and the place that this is; at first such that place 0, of empty entries, is not held
    std::uint64_t batch_ = 0;  // the place where the batch began
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

    ShortTable(Arena& arena, unsigned bits) : buckets_(arena.take<Bucket>(std::size_t{1} << bits)), shift_(64 - bits) {}

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
    Bucket& bucket(Key key) { return buckets_[hash_of(key) >> shift_]; }

    static Encoding find(const Bucket& bucket, Key key, const Batch&, std::size_t, const Store& store) {
        Encoding found;
        for (int i = 0; i < Bucket::kEntries; ++i) found = found | bucket.values[i].where(bucket.keys[i] == key);
        return found.where(store.holds(found));
    }
    static Encoding put(Bucket& bucket, Key key, std::span<const std::uint8_t>, std::span<const Id> ids, Store& store) {
        const Encoding kept = store.keep(ids);
        return kept.known() ? put_first(bucket, key, kept) : kept;
    }

 private:
    Bucket* buckets_;
    unsigned shift_;
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
    MediumTable(Arena& arena, unsigned bits)
        : buckets_(arena.take<Bucket>(std::size_t{1} << bits)), shift_(64 - bits) {}

    static Key key_of(const Batch& batch, std::size_t i) {
        const std::uint8_t* bytes = batch.text + batch.edges[i];
        const std::size_t length = batch.length(i);
        const std::uint64_t rest = load_word(bytes + length - 8) >> 8 >> 8 * (kLongestMedium - length);
        return {load_word(bytes), rest | std::uint64_t{length} << 56};
    }
    Bucket& bucket(const Key& key) { return buckets_[hash_of(key.low, key.high) >> shift_]; }

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
        const Encoding kept = store.keep(ids);
        return kept.known() ? put_first(bucket, key, kept) : kept;
    }

 private:
    Bucket* buckets_;
    unsigned shift_;
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

    LongTable(Arena& arena, unsigned bits) : buckets_(arena.take<Bucket>(std::size_t{1} << bits)), shift_(64 - bits) {}

    static Key key_of(const Batch& batch, std::size_t i) {
        return hash_bytes(batch.text + batch.edges[i], std::min<std::size_t>(batch.length(i), kLongest + 1));
    }
    Bucket& bucket(Key key) { return buckets_[key >> shift_]; }

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
        const Encoding kept = store.keep_with_text(ids, text);
        if (kept.known()) put_first(bucket, static_cast<Tag>(key), kept);
        return store.with_text(kept, text);
    }

 private:
    Bucket* buckets_;
    unsigned shift_;
};

class PretokenCache {
 public:
    static constexpr std::size_t kLeastBytes = std::size_t{2} << 20;
    static constexpr std::size_t kMostBytes = std::size_t{32} << 20;

    // Takes `bytes` in all, of kLeastBytes to kMostBytes: up to half for the tables, the rest for the store.
    explicit PretokenCache(std::size_t bytes)
        : arena_(bytes),
          short_front_(arena_.take<ShortFront>(std::size_t{1} << kShortFrontBits)),
          medium_front_(arena_.take<MediumFront>(std::size_t{1} << kMediumFrontBits)),
          short_table(arena_, table_bits(bytes)),
          medium_table(arena_, table_bits(bytes)),
          long_table(arena_, table_bits(bytes)),
          store(arena_, (bytes - kFrontBytes - (kBucketBytes << table_bits(bytes))) / sizeof(Id)) {}

    Fronts fronts() { return {short_front_, medium_front_}; }

    void put_in_front(ShortTable::Key key, Encoding value) {
        short_front_[hash_of(key) >> (64 - kShortFrontBits)] = {key, value.bits()};
    }
    void put_in_front(const MediumTable::Key& key, Encoding value) {
        medium_front_[hash_of(key.low, key.high) >> (64 - kMediumFrontBits)] = {key.low, key.high, value.bits(), 0};
    }

    // Remembers the ids of pretoken i of the batch, which has at most LongTable::kLongest bytes.
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

    Arena arena_;
    ShortFront* short_front_;
    MediumFront* medium_front_;

 public:
    ShortTable short_table;
    MediumTable medium_table;
    LongTable long_table;
    Store store;
};

}  // namespace bpe
