// For arm64, where every processor has NEON.
#include <arm_neon.h>

#include "kernels/lanes.hpp"

namespace bpe {

namespace {

// Returns the candidate of a pair. Like find_pair, but compares all entries of a line at once and does not branch on
// whether the pair merges. An entry xor the pair is the merge's rank if the entry is the pair's, else it has bits above
// the rank's, also when it is cut to 32 bits with saturation. So the rank is the lowest of the eight.
inline std::int32_t look_up(std::uint64_t pair, std::size_t line, std::uint32_t place, const PairTable& pairs) {
    const uint64x2_t wanted = vdupq_n_u64(pair << kIdBits);
    for (;; line = (line + 1) & pairs.line_mask) {
        const std::uint64_t* entries = pairs.entries + line * PairTable::kLine;
        const auto difference = [&](int i) { return vld1q_u64(entries + i) ^ wanted; };
        const uint32x4_t low = vqmovn_high_u64(vqmovn_u64(difference(0)), difference(2));
        const uint32x4_t high = vqmovn_high_u64(vqmovn_u64(difference(4)), difference(6));
        std::uint32_t rank = vminvq_u32(vminq_u32(low, high));
        if ((rank > kIdMask) & (entries[PairTable::kLine - 1] != 0)) [[unlikely]]  // the line is full
            continue;
        rank = rank < kIdMask ? rank : kIdMask;
        return static_cast<std::int32_t>(rank << 6 | place);
    }
}

// Returns the lowest candidate of a lane.
inline std::int32_t lowest_candidate(const Lane& lane) {
    const auto lowest_of_block = [&](std::size_t k) {
        const std::int32_t* at = lane.candidates + k;
        return vminq_s32(vminq_s32(vld1q_s32(at), vld1q_s32(at + 4)), vminq_s32(vld1q_s32(at + 8), vld1q_s32(at + 12)));
    };
    int32x4_t lowest = lowest_of_block(0);
    for (std::size_t k = kLaneBlock; k < lane.padded; k += kLaneBlock) lowest = vminq_s32(lowest, lowest_of_block(k));
    return vminvq_s32(lowest);
}

}  // namespace

std::uint32_t merge_round_neon(Lane* lanes, std::size_t count, const PairTable& pairs) {
    return merge_round_with(lanes, count, pairs, look_up, lowest_candidate);
}

void look_up_all_neon(Lane& lane, std::size_t count, const PairTable& pairs) {
    look_up_all_with(lane, count, pairs, look_up);
}

}  // namespace bpe
