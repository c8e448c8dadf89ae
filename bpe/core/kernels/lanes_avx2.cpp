// Compiled with AVX2 and called only if the processor supports it. Must not call inline functions with external linkage
// from headers: the linker might choose this file's copy for every processor.
#include <immintrin.h>

#include "kernels/lanes.hpp"

namespace bpe {

namespace {

inline __m256i load(const std::int32_t* at) { return _mm256_load_si256(reinterpret_cast<const __m256i*>(at)); }

// Returns the lowest candidate of a lane.
inline std::int32_t lowest_candidate(const Lane& lane) {
    __m256i lowest = _mm256_min_epi32(load(lane.candidates), load(lane.candidates + 8));
    for (std::size_t k = kLaneBlock; k < lane.padded; k += kLaneBlock) {
        lowest = _mm256_min_epi32(lowest, _mm256_min_epi32(load(lane.candidates + k), load(lane.candidates + k + 8)));
    }
    __m128i four = _mm_min_epi32(_mm256_castsi256_si128(lowest), _mm256_extracti128_si256(lowest, 1));
    four = _mm_min_epi32(four, _mm_shuffle_epi32(four, 0x4E));
    four = _mm_min_epi32(four, _mm_shuffle_epi32(four, 0xB1));
    return _mm_cvtsi128_si32(four);
}

}  // namespace

std::uint32_t merge_round_avx2(Lane* lanes, std::size_t count, const PairTable& pairs) {
    return merge_round_with(lanes, count, pairs, lowest_candidate);
}

}  // namespace bpe
