// Compiled with AVX-512 (F, BW, DQ, VL, VBMI), and called only where the processor has it. No inline function of a
// header is called here, since the linker might keep this file's version of it for all.
#include <immintrin.h>

#include "lanes.hpp"

namespace bpe {

namespace {

inline std::size_t line_of(std::uint64_t key, const PairTable& pairs) {
    const std::uint64_t mixed = (key ^ key >> 32) * 0x9E3779B97F4A7C15ull;
    return (mixed ^ mixed >> 32) & pairs.line_mask;
}

inline std::uint64_t pair_key(std::uint32_t left, std::uint32_t right) {
    return std::uint64_t{left + 1} << kIdBits | right;
}

// As merge_round_plain, with all entries of a line and all candidates compared at once.
inline void look_up(Lane& lane, std::uint32_t place, const PairTable& pairs) {
    const std::uint64_t following = lane.live & (~std::uint64_t{1} << place);
    if (!following) return;
    const std::uint64_t key = pair_key(lane.symbols[place], lane.symbols[__builtin_ctzll(following)]);
    for (std::size_t line = line_of(key, pairs);; line = (line + 1) & pairs.line_mask) {
        const __m512i entries = _mm512_load_si512(pairs.entries + line * PairTable::kLine);
        const __mmask8 found = _mm512_cmpeq_epi64_mask(_mm512_srli_epi64(entries, kIdBits),
                                                       _mm512_set1_epi64(static_cast<long long>(key)));
        if (!found && _mm512_test_epi64_mask(entries, entries) == 0xFF) [[unlikely]]
            continue;
        const __m128i entry = _mm512_castsi512_si128(_mm512_maskz_compress_epi64(found, entries));
        const auto id = static_cast<std::uint32_t>(_mm_cvtsi128_si32(entry)) & kIdMask;
        lane.candidates[place] = found ? static_cast<std::int32_t>(id << 6 | place) : kNoCandidate;
        return;
    }
}

}  // namespace

std::uint32_t merge_round_avx512(Lane* lanes, std::size_t count, const PairTable& pairs) {
    for (std::size_t i = 0; i < count; ++i) {
        look_up(lanes[i], lanes[i].left, pairs);
        look_up(lanes[i], lanes[i].right, pairs);
    }
    std::uint32_t done = 0;
    for (std::size_t i = 0; i < count; ++i) {
        Lane& lane = lanes[i];
        __m512i lowest = _mm512_load_si512(lane.candidates);
        for (std::uint32_t k = kLaneBlock; k < lane.padded; k += kLaneBlock) {
            lowest = _mm512_min_epi32(lowest, _mm512_load_si512(lane.candidates + k));
        }
        const std::int32_t best = _mm512_reduce_min_epi32(lowest);
        if (best == kNoCandidate) {
            done |= 1u << i;
            continue;
        }
        const std::uint32_t place = static_cast<std::uint32_t>(best) & (kLaneSymbols - 1);
        const std::uint32_t id = static_cast<std::uint32_t>(best) >> 6;
        const std::uint64_t upper = ~std::uint64_t{1} << place;
        const std::uint64_t without = lane.live & upper;
        const std::uint64_t following = without & (without - 1);
        lane.live = (lane.live & ~upper) | following;
        lane.symbols[place] = id;
        lane.candidates[__builtin_ctzll(without)] = kNoCandidate;
        lane.candidates[place] = kNoCandidate;
        const std::uint64_t preceding = lane.live & ~upper & ~(std::uint64_t{1} << place);
        lane.left = preceding ? static_cast<std::uint32_t>(63 - __builtin_clzll(preceding)) : place;
        lane.right = place;
        const std::uint32_t next = following ? static_cast<std::uint32_t>(__builtin_ctzll(following)) : place;
        const std::uint64_t before = pair_key(lane.symbols[lane.left], id);
        const std::uint64_t behind = pair_key(id, lane.symbols[next]);
        __builtin_prefetch(pairs.entries + line_of(before, pairs) * PairTable::kLine);
        __builtin_prefetch(pairs.entries + line_of(behind, pairs) * PairTable::kLine);
    }
    return done;
}

}  // namespace bpe
