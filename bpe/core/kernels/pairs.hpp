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

// A hash table of words with 3 * kIdBits bits: a pair's key, then the rank of its merge. Free entries are 0.
//
// A finished table is a perfect hash table, after Pibiri and Trani, "PTHash: Revisiting FCH Minimal Perfect Hashing"
// (2021): a pair's hash names a bucket, the pilot of the bucket gives the only slot where the pair may be, and no two
// pairs have the same slot. A lookup is one load and one comparison, and needs no branch. The pilots fit into the first
// or second level of the cache, and four of five slots are taken.
//
// A table that grows has no pilots. A pair is in the slot that its hash names, or in the next free one after it.
struct PairTable {
    const std::uint64_t* entries;
    std::size_t size;             // slots; a power of two while the table grows
    const std::uint16_t* pilots;  // by bucket; null while the table grows
    unsigned bucket_shift;        // from a hash to its bucket
    const Id* ids;                // the id of the token that the merge of a rank makes; null if the rank is that id
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

// Returns the slot of a pair with this hash in a finished table, if the pilot of its bucket is `pilot`.
static inline std::size_t slot_with_pilot(std::uint64_t hash, std::uint64_t pilot, std::size_t size) {
    const std::uint64_t mixed = (hash ^ hash >> 32 ^ pilot) * kHashFactor;
    return (mixed >> 32) * size >> 32;
}

// Returns the only slot where a pair may be or, while the table grows, the first.
static inline std::size_t slot_of(std::uint64_t pair, const PairTable& pairs) {
    const std::uint64_t hash = hash_of(pair);
    if (!pairs.pilots) [[unlikely]]
        return hash >> 32 & (pairs.size - 1);
    return slot_with_pilot(hash, pairs.pilots[hash >> pairs.bucket_shift], pairs.size);
}

static inline void prefetch_slot(const PairTable& pairs, std::size_t slot) { __builtin_prefetch(pairs.entries + slot); }

// Returns the rank of a pair's merge, or kIdMask if the pair does not merge. `slot` is the pair's `slot_of`. Half of
// the pairs merge, so whether one does causes no branch in a finished table.
static inline std::uint32_t find_pair(const PairTable& pairs, std::uint64_t pair, std::size_t slot) {
    if (!pairs.pilots) [[unlikely]] {
        const auto is_of_another = [&] {  // one condition, which is rarely true
            return (pairs.entries[slot] != 0) & (pairs.entries[slot] >> kIdBits != pair);
        };
        while (is_of_another()) slot = (slot + 1) & (pairs.size - 1);
    }
    const std::uint64_t entry = pairs.entries[slot];
    const std::uint64_t difference = (entry >> kIdBits) ^ pair;
    const std::uint64_t missed = (difference | (0 - difference)) >> 63;  // as a comparison, it would become a branch
    return static_cast<std::uint32_t>(entry | (0 - missed)) & kIdMask;
}

}  // namespace bpe
