// The table of the pairs of ids that merge. The functions are static: files compiled for newer processors include this
// header, and the linker must not choose their copies for every processor.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/hash.hpp"
#include "base/types.hpp"

namespace bpe {

inline constexpr int kIdBits = 21;
inline constexpr std::uint32_t kIdMask = (1u << kIdBits) - 1;  // no token has this id

// The key of a pair in a word: 1 + left, then right. It is never 0.
static inline std::uint64_t pair_key(Id left, Id right) { return std::uint64_t{left + 1} << kIdBits | right; }
inline constexpr std::uint64_t kNoPair = ~std::uint64_t{0};  // a key that no table holds

// A hash table of words with 3 * kIdBits bits: a pair's key, then the rank of its merge. Free entries are 0. A pair is
// in the cache line that its hash names or, if that line is full, in one of the next lines.
struct PairTable {
    static constexpr std::size_t kLine = 8;  // entries in a cache line
    const std::uint64_t* entries;
    std::size_t line_mask;
    const Id* ids;  // the id of the token that the merge of a rank makes; null if the rank is that id
};

// Returns the id of the token that the merge of a rank makes.
static inline Id token_of_rank(const PairTable& pairs, std::uint32_t rank) {
    return pairs.ids ? pairs.ids[rank] : static_cast<Id>(rank);
}

// An entry of the table, taken apart.
struct MergingPair {
    Id left;
    Id right;
    std::uint32_t rank;
};
static inline MergingPair merging_pair(std::uint64_t entry) {
    return {static_cast<Id>(entry >> 2 * kIdBits) - 1, static_cast<Id>(entry >> kIdBits & kIdMask),
            static_cast<std::uint32_t>(entry & kIdMask)};
}

// Returns the first line where a pair may be.
static inline std::size_t line_of(std::uint64_t pair, const PairTable& pairs) { return mix(pair) & pairs.line_mask; }

// Returns the rank of a pair's merge, or kNoId if the pair does not merge. `line` is the pair's `line_of`.
static inline std::uint32_t find_pair(const PairTable& pairs, std::uint64_t pair, std::size_t line) {
    for (;; line = (line + 1) & pairs.line_mask) {
        const std::uint64_t* entries = pairs.entries + line * PairTable::kLine;
        for (std::size_t i = 0; i < PairTable::kLine; ++i) {
            if (!entries[i]) return kNoId;
            if (entries[i] >> kIdBits == pair) return entries[i] & kIdMask;
        }
    }
}

}  // namespace bpe
