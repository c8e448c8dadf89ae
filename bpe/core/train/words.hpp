// Distinct pretokens, and how often each was seen.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "encode/cache.hpp"
#include "base/memory.hpp"

namespace bpe {

using Bytes = std::span<const std::uint8_t>;

// A pretoken to be looked up: its hash, and the key of those that are short.
struct WordKey {
    std::uint64_t hash;
    std::uint64_t word;  // the bytes and the length, see ShortTable; kLong for longer ones
    static constexpr std::uint64_t kLong = std::uint64_t{0xFF} << 56;

    static WordKey of(const Batch& batch, std::size_t i);
    static WordKey of(Bytes bytes) {
        const std::uint32_t edges[] = {0, static_cast<std::uint32_t>(bytes.size())};
        return of({bytes.data(), bytes.size(), edges, 1}, 0);
    }
};

// Words are numbered from 1 on as they are first seen, so that the counts of those that are seen often stand close
// together. A word of up to 7 bytes stands in its entry; of others, the entry tells where their length and bytes stand.
// Slots hold 32 bits of the hash, which also say where the slot is, so that the table grows without a look at the
// words.
class WordCounts {
 public:
    WordCounts() : slots_(kFirstSlots), shift_(32 - kFirstBits) { clear_entries(); }

    std::size_t size() const { return counts_.size() - 1; }
    Bytes bytes_of(std::uint32_t number) const;
    std::uint64_t count_of(std::uint32_t number) const { return counts_[number]; }

    // The number of the word, which is entered with a count of 0 if it is new. What was had by `prefetch_slot` and then
    // `prefetch_word` is at hand.
    std::uint32_t number_of(const WordKey& key, Bytes bytes);
    void prefetch_slot(const WordKey& key) const { __builtin_prefetch(slots_.data() + slot_of(key.hash >> 32)); }
    void prefetch_word(const WordKey& key) const {
        const std::uint64_t entry = slots_[slot_of(key.hash >> 32)];
        if (entry >> 32 == key.hash >> 32) __builtin_prefetch(entries_.data() + static_cast<std::uint32_t>(entry));
    }

    // By number. Number 0 is no word: what is added there is lost.
    std::uint64_t* counts() { return counts_.data(); }
    void add(Bytes bytes, std::uint64_t count) { counts_[number_of(WordKey::of(bytes), bytes)] += count; }
    void add(const WordCounts& other);

    void clear();
    // In bytes; what the table takes when it grows next is included when that is near.
    std::size_t memory() const;

 private:
    static constexpr unsigned kFirstBits = 14;
    static constexpr std::size_t kFirstSlots = std::size_t{1} << kFirstBits;
    using Entry = std::array<std::uint8_t, 8>;  // the last byte is the length, or 0xFF, and the others then a place

    std::size_t slot_of(std::uint64_t tag) const { return tag >> shift_; }
    bool stands_at(std::uint32_t number, const WordKey& key, Bytes bytes) const;
    void grow();
    void clear_entries();

    ZeroedArray<std::uint64_t> slots_;  // the tag, then the number; 0 for a free one
    unsigned shift_;
    Buffer<Entry> entries_;
    Buffer<std::uint64_t> counts_;
    Buffer<std::uint8_t> bytes_;
};

}  // namespace bpe
