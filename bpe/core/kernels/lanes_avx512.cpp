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

}  // namespace

std::uint32_t merge_round_avx512(Lane* lanes, std::size_t count, const PairTable& table) {
    const PairTable pairs = table;
    for (std::size_t i = 0; i < count; ++i) {
        Lane& lane = lanes[i];
        for (int which = 0; which < 2; ++which) {
            const std::uint32_t place = lane.places[which];
            lane.candidates[place] = look_up(lane.pairs[which], lane.lines[which], place, pairs);
        }
    }
    std::uint32_t done = 0;
    for (std::size_t i = 0; i < count; ++i) {
        Lane& lane = lanes[i];
        __m512i lowest = _mm512_load_si512(lane.candidates);
        for (std::size_t k = kLaneBlock; k < lane.padded; k += kLaneBlock) {
            lowest = _mm512_min_epi32(lowest, _mm512_load_si512(lane.candidates + k));
        }
        const std::int32_t best = _mm512_reduce_min_epi32(lowest);
        if (best >= kNoCandidate) {
            done |= 1u << i;
            continue;
        }
        merge_at(lane, best, pairs);
    }
    return done;
}

void look_up_all_avx512(Lane& lane, std::size_t count, const PairTable& table) {
    const PairTable pairs = table;
    std::uint64_t keys[kLaneSymbols];
    std::size_t lines[kLaneSymbols];
    for (std::size_t i = 0; i + 1 < count; ++i) {
        keys[i] = pair_key(lane.symbols[i], lane.symbols[i + 1]);
        lines[i] = line_of(keys[i], pairs);
        __builtin_prefetch(pairs.entries + lines[i] * PairTable::kLine);
    }
    for (std::size_t i = 0; i + 1 < count; ++i) {
        lane.candidates[i] = look_up(keys[i], lines[i], static_cast<std::uint32_t>(i), pairs);
    }
}

}  // namespace bpe
