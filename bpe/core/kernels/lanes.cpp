#include "kernels/lanes.hpp"

#include <algorithm>
#include <bit>

namespace bpe {

namespace {

std::uint64_t before(std::uint64_t live, std::uint32_t place) { return live & ((std::uint64_t{1} << place) - 1); }
std::uint64_t after(std::uint64_t live, std::uint32_t place) { return live & (~std::uint64_t{1} << place); }
std::uint32_t highest(std::uint64_t bits) { return static_cast<std::uint32_t>(63 - std::countl_zero(bits)); }
std::uint32_t lowest(std::uint64_t bits) { return static_cast<std::uint32_t>(std::countr_zero(bits)); }

}  // namespace

// First all lanes look up the pairs that their last merges made, then all lanes make a merge. A lane reads in one half
// what it wrote in the other, long after the stores have completed.
std::uint32_t merge_round_plain(Lane* lanes, std::size_t count, const PairTable& pairs) {
    for (Lane* lane = lanes; lane < lanes + count; ++lane) look_up_pairs(*lane, pairs);
    std::uint32_t done = 0;
    for (std::size_t i = 0; i < count; ++i) {
        Lane& lane = lanes[i];
        // The lowest rank; among equals the leftmost, since the low bits of a candidate are its place.
        const std::int32_t best = *std::min_element(lane.candidates, lane.candidates + lane.padded);
        if (best >= kNoCandidate) {
            done |= 1u << i;
            continue;
        }
        const std::uint32_t place = static_cast<std::uint32_t>(best) & (kLaneSymbols - 1);
        const std::uint32_t absorbed = lowest(after(lane.live, place));
        const Id id = token_of_rank(pairs, static_cast<std::uint32_t>(best) >> 6);
        lane.symbols[place] = id;
        lane.live &= ~(std::uint64_t{1} << absorbed);
        lane.candidates[absorbed] = kNoCandidate;
        lane.candidates[place] = kNoCandidate;
        const std::uint64_t preceding = before(lane.live, place);
        const std::uint64_t following = after(lane.live, place);
        const std::uint32_t previous = preceding ? highest(preceding) : place;
        ask_for(lane, 0, previous, preceding ? pair_key(lane.symbols[previous], id) : kNoPair, pairs);
        ask_for(lane, 1, place, following ? pair_key(id, lane.symbols[lowest(following)]) : kNoPair, pairs);
    }
    return done;
}

}  // namespace bpe
