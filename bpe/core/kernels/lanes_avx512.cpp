// Compiled with AVX-512 (F, BW, DQ, VL, VBMI) and called only if the processor supports it. Must not call inline
// functions with external linkage from headers: the linker might choose this file's copy for every processor.
#include <immintrin.h>

#include "kernels/lanes.hpp"

namespace bpe {

namespace {

// Returns the candidate of a pair. Like find_pair, but compares all entries of a line at once and does not branch on
// whether the pair merges, which half of them do. With that branch a step took 65 cycles, without it 38.
inline std::int32_t look_up(std::uint64_t pair, std::size_t line, std::uint32_t place, const PairTable& pairs) {
    const __m512i wanted = _mm512_set1_epi64(static_cast<long long>(pair));
    for (;; line = (line + 1) & pairs.line_mask) {
        const __m512i entries = _mm512_load_si512(pairs.entries + line * PairTable::kLine);
        const __mmask8 found = _mm512_cmpeq_epi64_mask(_mm512_srli_epi64(entries, kIdBits), wanted);
        const __mmask8 free = _mm512_testn_epi64_mask(entries, entries);
        if (!(found | free)) [[unlikely]]
            continue;
        const __m512i entry = _mm512_mask_compress_epi64(_mm512_set1_epi64(kIdMask), found, entries);
        const auto rank = static_cast<std::uint32_t>(_mm_cvtsi128_si32(_mm512_castsi512_si128(entry))) & kIdMask;
        return static_cast<std::int32_t>(rank << 6 | place);
    }
}

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
    return merge_round_with(lanes, count, pairs, look_up, lowest_candidate);
}

void look_up_all_avx512(Lane& lane, std::size_t count, const PairTable& pairs) {
    look_up_all_with(lane, count, pairs, look_up);
}

}  // namespace bpe
