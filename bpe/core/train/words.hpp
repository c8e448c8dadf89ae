// Distinct pretokens (words, for short), with their counts.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>

#include "base/memory.hpp"
#include "base/types.hpp"
#include "kernels/keys.hpp"

namespace bpe {

// Distinct words with their counts, in any order. They can be visited several times.
class WordSource {
 public:
    virtual ~WordSource() = default;
    virtual void visit(const std::function<void(Bytes word, std::uint64_t count)>& visit) = 0;
    // Called when the words are not needed any more.
    virtual void release() {}
};

// What a word is looked up by: its hash, and a key that contains all of a short word.
struct WordKey {
    std::uint64_t hash;
    std::uint64_t word;  // the bytes and the length of a short word, see ShortKey; otherwise kLong
    static constexpr std::uint64_t kLong = std::uint64_t{0xFF} << 56;

    static WordKey of(const Batch& batch, std::size_t i);
    static WordKey of(Bytes bytes) {
        const std::uint32_t edges[] = {0, static_cast<std::uint32_t>(bytes.size())};
        return of({bytes.data(), bytes.size(), edges, 1}, 0);
    }
};

// A hash table of words. Words are numbered from 1 in the order in which they are first seen, so that the counts of
// frequent words are close together. An entry holds a word of up to 7 bytes, or the place of the length and bytes of a
// longer one. A slot holds 32 bits of the hash, which also determine the slot's place, so the table grows without
// reading the words.
class WordCounts {
 public:
    WordCounts() : slots_(kFirstSlots, Pages::kFitting), shift_(32 - kFirstBits) { clear_entries(); }

    std::size_t size() const { return counts_.size() - 1; }
    Bytes bytes_of(std::uint32_t number) const;
    std::uint64_t count_of(std::uint32_t number) const { return counts_[number]; }

    // Returns the number of the word, and adds it with a count of 0 if it is new. Call `prefetch_slot` and then
    // `prefetch_word` some time before, to save the wait for memory.
    std::uint32_t number_of(const WordKey& key, Bytes bytes);
    void prefetch_slot(const WordKey& key) const { __builtin_prefetch(slots_.data() + slot_of(key.hash >> 32)); }
    void prefetch_word(const WordKey& key) const {
        const std::uint64_t entry = slots_[slot_of(key.hash >> 32)];
        if (entry >> 32 == key.hash >> 32) __builtin_prefetch(entries_.data() + static_cast<std::uint32_t>(entry));
    }

    // By number. Number 0 is no word: counts added there are lost.
    std::uint64_t* counts() { return counts_.data(); }
    void add(Bytes bytes, std::uint64_t count) { counts_[number_of(WordKey::of(bytes), bytes)] += count; }
    void add(const WordCounts& other);

    void clear();
    // Returns the memory in bytes. Shortly before the table grows, this includes the memory that it will need then.
    std::size_t memory() const;

 private:
    static constexpr unsigned kFirstBits = 14;
    static constexpr std::size_t kFirstSlots = std::size_t{1} << kFirstBits;
    using Entry = std::array<std::uint8_t, 8>;  // the last byte is the length; if it is 0xFF, the others are a place

    std::size_t slot_of(std::uint64_t tag) const { return tag >> shift_; }
    bool is_word(std::uint32_t number, const WordKey& key, Bytes bytes) const;
    std::uint32_t add_word(const WordKey& key, Bytes bytes);
    void grow();
    void clear_entries();

    ZeroedArray<std::uint64_t> slots_;  // the tag in the high half and the number; 0 if free
    unsigned shift_;
    Buffer<Entry> entries_;
    Buffer<std::uint64_t> counts_;
    Buffer<std::uint8_t> bytes_;  // longer words: the length in one byte, or 0 and the length in four; the bytes
};

}  // namespace bpe
