// Compiled with AVX-512 (F, BW, DQ, VL, VBMI) and called only if the processor supports it. Must not call inline
// functions with external linkage from headers: the linker might choose this file's copy for every processor.
#include <immintrin.h>

#include "kernels/lanes.hpp"

namespace bpe {

namespace {

// Returns the lowest candidate of a lane.
inline std::int32_t lowest_candidate(const Lane& lane) {
    __m512i lowest = _mm512_load_si512(lane.candidates);
    for (std::size_t k = kLaneBlock; k < lane.padded; k += kLaneBlock) {
        lowest = _mm512_min_epi32(lowest, _mm512_load_si512(lane.candidates + k));
    }
    return _mm512_reduce_min_epi32(lowest);
}

}  // namespace

std::uint32_t merge_round_avx512(Lane* lanes, std::size_t count, const PairTable& pairs) {
    return merge_round_with(lanes, count, pairs, lowest_candidate);
}

}  // namespace bpe
