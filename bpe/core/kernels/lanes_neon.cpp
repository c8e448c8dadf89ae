// For arm64, where every processor has NEON.
#include <arm_neon.h>

#include "kernels/lanes.hpp"

namespace bpe {

namespace {

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
    return merge_round_with(lanes, count, pairs, lowest_candidate);
}

}  // namespace bpe
