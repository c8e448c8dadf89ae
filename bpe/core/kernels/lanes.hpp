// Merging several pretokens side by side, one merge of each per round. While the memory for the next lookup of one
// pretoken is on its way, the others are worked on. The functions are static: files compiled for newer processors
// include this header, and the linker must not choose their copies for every processor.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/pairs.hpp"

namespace bpe {

inline constexpr std::size_t kLanes = 16;
inline constexpr std::size_t kLaneSymbols = 64;  // one for each bit of a word
inline constexpr std::size_t kLaneBlock = 16;    // candidates that are compared at once

// A candidate is a merge that may come next: rank << 6 | place of its left token. A pair that does not merge has the
// rank kIdMask, so every candidate from kNoCandidate on stands for no merge.
inline constexpr std::int32_t kNoCandidate = static_cast<std::int32_t>(kIdMask << 6);

static inline std::int32_t candidate_of(std::uint32_t rank, std::uint32_t place) {
    return static_cast<std::int32_t>((rank & kIdMask) << 6 | place);  // kNoId gives no merge
}

// A pretoken that is being merged. Each token is at the place of the first symbol it was made from, and its bit in
// `live` is set.
struct alignas(64) Lane {
    std::int32_t candidates[kLaneSymbols];  // by place: the merge with the next token
    std::uint32_t symbols[kLaneSymbols];
    std::uint64_t live;
    std::uint64_t padded;  // candidates up to here are set
    // The two pairs to look up next: the place where each begins, its key, and its slot in the pair table.
    std::uint32_t places[2];
    std::uint64_t pairs[2];
    std::size_t slots[2];
};

// Notes a pair to look up in the next round, and prefetches its slot.
static inline void ask_for(Lane& lane, int which, std::uint32_t place, std::uint64_t pair, const PairTable& pairs) {
    lane.places[which] = place;
    lane.pairs[which] = pair;
    lane.slots[which] = slot_of(pair, pairs);
    prefetch_slot(pairs, lane.slots[which]);
}

// Makes the merge of a candidate, without a branch, and asks for the two pairs that it makes.
static inline void merge_at(Lane& lane, std::int32_t candidate, const PairTable& pairs) {
    const std::uint32_t place = static_cast<std::uint32_t>(candidate) & (kLaneSymbols - 1);
    const Id id = token_of_rank(pairs, static_cast<std::uint32_t>(candidate) >> 6);
    const std::uint64_t upper = ~std::uint64_t{1} << place;
    const std::uint64_t without = lane.live & upper;
    const std::uint64_t following = without & (without - 1);
    const std::uint64_t preceding = lane.live & ~upper & ~(std::uint64_t{1} << place);
    lane.live = (lane.live & ~upper) | following;
    lane.symbols[place] = id;
    lane.candidates[__builtin_ctzll(without)] = kNoCandidate;
    lane.candidates[place] = kNoCandidate;
    // At an end of the pretoken there is no pair. (The extra bits keep the counts of zeros defined.)
    const auto previous = static_cast<std::uint32_t>(63 - __builtin_clzll(preceding | 1));
    const auto next = static_cast<std::uint32_t>(__builtin_ctzll(following | std::uint64_t{1} << 63));
    const std::uint64_t no_previous = -static_cast<std::uint64_t>(preceding == 0);
    const std::uint64_t no_next = -static_cast<std::uint64_t>(following == 0);
    ask_for(lane, 0, previous, pair_key(lane.symbols[previous], id) | no_previous, pairs);
    ask_for(lane, 1, place, pair_key(id, lane.symbols[next]) | no_next, pairs);
}

// Looks up the pairs that the last merge of a lane made.
static inline void look_up_pairs(Lane& lane, const PairTable& pairs) {
    for (int which = 0; which < 2; ++which) {
        const std::uint32_t place = lane.places[which];
        lane.candidates[place] = candidate_of(find_pair(pairs, lane.pairs[which], lane.slots[which]), place);
    }
}

// A round for kernels whose `lowest` returns the lowest candidate of a lane. First all lanes look up the pairs that
// their last merges made, then all lanes make a merge, so a lane reads what it wrote long after the stores have
// completed.
template <class Lowest>
static inline std::uint32_t merge_round_with(Lane* lanes, std::size_t count, const PairTable& table,
                                             const Lowest& lowest) {
    const PairTable pairs = table;
    for (std::size_t i = 0; i < count; ++i) look_up_pairs(lanes[i], pairs);
    std::uint32_t done = 0;
    for (std::size_t i = 0; i < count; ++i) {
        const std::int32_t best = lowest(lanes[i]);
        if (best >= kNoCandidate) {
            done |= 1u << i;
            continue;
        }
        merge_at(lanes[i], best, pairs);
    }
    return done;
}

// Looks up the pairs noted in the first `count` lanes, then makes one merge in each of these lanes. Returns a bit for
// each lane that had no merge left.
using MergeRound = std::uint32_t (*)(Lane* lanes, std::size_t count, const PairTable& pairs);

std::uint32_t merge_round_plain(Lane* lanes, std::size_t count, const PairTable& pairs);
std::uint32_t merge_round_neon(Lane* lanes, std::size_t count, const PairTable& pairs);
std::uint32_t merge_round_avx2(Lane* lanes, std::size_t count, const PairTable& pairs);
std::uint32_t merge_round_avx512(Lane* lanes, std::size_t count, const PairTable& pairs);

}  // namespace bpe
