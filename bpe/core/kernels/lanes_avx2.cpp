// Compiled with AVX2 and called only if the processor supports it. Must not call inline functions with external linkage
// from headers: the linker might choose this file's copy for every processor.
#include <immintrin.h>

#include "kernels/lanes.hpp"

namespace bpe {

namespace {

// Returns the candidate of a pair. Like find_pair, but compares all entries of a line at once and does not branch on
// whether the pair merges, which half of them do.
inline std::int32_t look_up(std::uint64_t pair, std::size_t line, std::uint32_t place, const PairTable& pairs) {
    const __m256i wanted = _mm256_set1_epi64x(static_cast<long long>(pair));
    for (;; line = (line + 1) & pairs.line_mask) {
        const std::uint64_t* entries = pairs.entries + line * PairTable::kLine;
        const __m256i low = _mm256_load_si256(reinterpret_cast<const __m256i*>(entries));
        const __m256i high = _mm256_load_si256(reinterpret_cast<const __m256i*>(entries + 4));
        const __m256i in_low = _mm256_cmpeq_epi64(_mm256_srli_epi64(low, kIdBits), wanted);
        const __m256i in_high = _mm256_cmpeq_epi64(_mm256_srli_epi64(high, kIdBits), wanted);
        const __m256i in_both = _mm256_or_si256(in_low, in_high);
        const bool found = !_mm256_testz_si256(in_both, in_both);
        if (!found && entries[PairTable::kLine - 1]) [[unlikely]]  // the line is full
            continue;
        const __m256i both = _mm256_or_si256(_mm256_and_si256(low, in_low), _mm256_and_si256(high, in_high));
        const __m128i two = _mm_or_si128(_mm256_castsi256_si128(both), _mm256_extracti128_si256(both, 1));
        const auto entry =
            static_cast<std::uint32_t>(_mm_cvtsi128_si32(_mm_or_si128(two, _mm_unpackhi_epi64(two, two))));
        const std::uint32_t rank = (entry | (found ? 0 : kIdMask)) & kIdMask;
        return static_cast<std::int32_t>(rank << 6 | place);
    }
}

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
    return merge_round_with(lanes, count, pairs, look_up, lowest_candidate);
}

void look_up_all_avx2(Lane& lane, std::size_t count, const PairTable& pairs) {
    look_up_all_with(lane, count, pairs, look_up);
}

}  // namespace bpe
