// Pretokens that are merged side by side, one merge of each in a round. The functions are static, since some files that
// include them are compiled for processors that not everybody has, and the linker must not take theirs for all.
#pragma once

#include <cstddef>
#include <cstdint>

namespace bpe {

inline constexpr std::size_t kLanes = 16;
inline constexpr std::size_t kLaneSymbols = 64;  // a bit for each
inline constexpr std::size_t kLaneBlock = 16;    // candidates that are compared at once

// Every bit of x has a say in the low bits of the result, by which tables are indexed. Without the first shift, words
// that differ in their last two bytes only would collide.
static inline std::uint64_t mix(std::uint64_t x) {
    x = (x ^ x >> 32) * 0x9E3779B97F4A7C15ull;
    return x ^ x >> 32;
}

// The pairs of ids that merge: 1 + left, right and merged id in one word of 3 * kIdBits bits, 0 where free. A pair
// stands in the cache line that its hash names or, where that is full, in one of the next.
inline constexpr int kIdBits = 21;
inline constexpr std::uint32_t kIdMask = (1u << kIdBits) - 1;  // no token has this id
static inline std::uint64_t pair_key(std::uint32_t left, std::uint32_t right) {
    return std::uint64_t{left + 1} << kIdBits | right;
}
struct PairTable {
    static constexpr std::size_t kLine = 8;  // words
    const std::uint64_t* entries;
    std::size_t line_mask;
};
static inline std::size_t line_of(std::uint64_t pair, const PairTable& pairs) { return mix(pair) & pairs.line_mask; }
inline constexpr std::uint64_t kNoPair = ~std::uint64_t{0};  // in place of left and right: stands nowhere

// Where nothing merges, the rank is kIdMask; so all candidates that are none are at least this.
inline constexpr std::int32_t kNoCandidate = static_cast<std::int32_t>(kIdMask << 6);

// A pretoken at work. A token stands at the first symbol that it was made from; its bit in `live` is set.
struct alignas(64) Lane {
    std::int32_t
        candidates[kLaneSymbols];  // by place: rank << 6 | place of what merges with the next; or one that is none
    std::uint32_t symbols[kLaneSymbols];
    std::uint64_t live;
    std::uint64_t padded;  // candidates up to here are set
    // Two pairs that are still to be looked up: where they begin, what they are, and the line where they stand.
    std::uint32_t places[2];
    std::uint64_t pairs[2];
    std::size_t lines[2];
};

// Looks up the pairs that are still to be looked up, then makes a merge in each of the first `count` lanes. Returns a
// bit for each lane in which no merge was left.
using MergeRound = std::uint32_t (*)(Lane* lanes, std::size_t count, const PairTable& pairs);

// Looks up all pairs of the first `count` symbols of a lane.
using LookUpAll = void (*)(Lane& lane, std::size_t count, const PairTable& pairs);

std::uint32_t merge_round_plain(Lane* lanes, std::size_t count, const PairTable& pairs);
std::uint32_t merge_round_avx512(Lane* lanes, std::size_t count, const PairTable& pairs);
void look_up_all_plain(Lane& lane, std::size_t count, const PairTable& pairs);
void look_up_all_avx512(Lane& lane, std::size_t count, const PairTable& pairs);

}  // namespace bpe
