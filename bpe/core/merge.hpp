// Byte-pair encoding of one pretoken.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "vocab.hpp"

namespace bpe {

// The definition: start from single bytes; while some two neighbours merge into a token, merge those whose token has
// the lowest rank, the leftmost among equals. Quadratic; the tests hold `Merger` against it.
std::size_t merge_plain(const Vocabulary& vocabulary, const std::uint8_t* bytes, std::size_t size, Id* ids);

// The same result, quickly, with buffers that are kept from call to call. Not for two threads at once.
class Merger {
 public:
    explicit Merger(const Vocabulary& vocabulary) : vocabulary_(vocabulary) {}

    // Writes the ids of bytes[0, size), size > 0, to `ids`, which has room for `size`; returns how many there are.
    std::size_t merge(const std::uint8_t* bytes, std::size_t size, Id* ids);

 private:
    std::size_t merge_short(const std::uint8_t* bytes, std::size_t size, Id* ids);
    std::size_t merge_long(const std::uint8_t* bytes, std::size_t size, Id* ids);

    const Vocabulary& vocabulary_;
    std::vector<Id> symbols_;                // merge_long: the id that begins at a byte
    std::vector<std::uint32_t> next_;        // where the next one begins
    std::vector<std::uint32_t> previous_;    // where the one before begins
    std::vector<std::uint64_t> candidates_;  // a heap of rank << 32 | place
};

}  // namespace bpe
