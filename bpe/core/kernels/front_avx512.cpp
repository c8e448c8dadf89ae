// Compiled with AVX-512 (F, BW, DQ, VL, VBMI) and called only if the processor supports it. Must not call inline
// functions with external linkage from headers: the linker might choose this file's copy for every processor.
#include <immintrin.h>

#include "kernels/front.hpp"

namespace bpe {

namespace {

using Lanes = __mmask8;

// Returns hash_of of eight keys.
inline __m512i hash8(__m512i key) {
    const __m512i factor = _mm512_set1_epi64(static_cast<long long>(kHashFactor));
    return _mm512_mullo_epi64(_mm512_xor_si512(key, _mm512_srli_epi64(key, 32)), factor);
}

// Returns a mask of the first `count` of eight lanes.
inline Lanes first_lanes(std::size_t count) { return static_cast<Lanes>(count >= 8 ? 0xFF : (1u << count) - 1); }

// Appends the numbers in `lanes` to a list. Writes eight places.
inline void append(std::uint32_t* list, std::size_t& count, Lanes lanes, __m256i numbers) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(list + count), _mm256_maskz_compress_epi32(lanes, numbers));
    count += static_cast<std::size_t>(__builtin_popcount(lanes));
}

// Words and entries are loaded one by one and then combined. Gather instructions take longer, all the more on
// processors with mitigations for them.

inline __m256i load8(const std::uint32_t* at) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(at)); }

inline __m128i load(const void* at) { return _mm_loadu_si128(static_cast<const __m128i*>(at)); }

inline __m512i joined(__m128i a, __m128i b, __m128i c, __m128i d) {
    const __m256i low = _mm256_inserti128_si256(_mm256_castsi128_si256(a), b, 1);
    const __m256i high = _mm256_inserti128_si256(_mm256_castsi128_si256(c), d, 1);
    return _mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1);
}

// Returns the words at eight places.
template <class PlaceOf>
inline __m512i load_words(const PlaceOf& place_of) {
    const auto two = [&](int i) {
        return _mm_unpacklo_epi64(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(place_of(i))),
                                  _mm_loadl_epi64(reinterpret_cast<const __m128i*>(place_of(i + 1))));
    };
    return joined(two(0), two(2), two(4), two(6));
}

// Loads the first two words of eight entries.
template <class Entry>
inline void load_entries(const Entry* table, const std::uint64_t* n, __m512i& first, __m512i& second) {
    const __m512i even = joined(load(table + n[0]), load(table + n[2]), load(table + n[4]), load(table + n[6]));
    const __m512i odd = joined(load(table + n[1]), load(table + n[3]), load(table + n[5]), load(table + n[7]));
    first = _mm512_unpacklo_epi64(even, odd);
    second = _mm512_unpackhi_epi64(even, odd);
}

// Looks up the first `count` pretokens, a multiple of eight, as if all were short. The others get a length that no key
// in the table has, so they are not found. Lists the
// pretokens that are not found by length.
void probe_shorts(const Batch& batch, std::size_t count, const Fronts& fronts, std::uint64_t* values,
                  Missing& missing) {
    std::size_t shorts = 0, mediums = 0, longs = 0;
    alignas(64) std::uint64_t entry[8];
    const __m512i bytes_of_length =
        _mm512_set_epi64(-1, 0xFFFFFFFFFFFFFF, 0xFFFFFFFFFFFF, 0xFFFFFFFFFF, 0xFFFFFFFF, 0xFFFFFF, 0xFFFF, 0xFF);
    __m256i numbers = _mm256_set_epi32(7, 6, 5, 4, 3, 2, 1, 0);
    for (std::size_t i = 0; i < count; i += 8, numbers = _mm256_add_epi32(numbers, _mm256_set1_epi32(8))) {
        const __m256i begins = load8(batch.edges + i);
        const __m256i lengths = _mm256_sub_epi32(load8(batch.edges + i + 1), begins);
        const __m512i length = _mm512_cvtepu32_epi64(_mm256_min_epu32(lengths, _mm256_set1_epi32(kLongestShort + 1)));
        const __m512i words = load_words([&](int k) { return batch.text + batch.edges[i + k]; });
        const __m512i bytes = _mm512_permutexvar_epi64(_mm512_sub_epi64(length, _mm512_set1_epi64(1)), bytes_of_length);
        const __m512i key = _mm512_or_si512(_mm512_and_si512(words, bytes), _mm512_slli_epi64(length, 56));
        _mm512_store_si512(entry, _mm512_srli_epi64(hash8(key), 64 - kShortFrontBits));
        __m512i keys, known;
        load_entries(fronts.shorts, entry, keys, known);
        const Lanes found = _mm512_cmpeq_epi64_mask(keys, key);
        _mm512_storeu_si512(values + i, _mm512_maskz_mov_epi64(found, known));

        const Lanes is_short = _mm256_cmple_epu32_mask(lengths, _mm256_set1_epi32(kLongestShort));
        const Lanes is_long = _mm256_cmpgt_epu32_mask(lengths, _mm256_set1_epi32(kLongestMedium));
        append(missing.shorts, shorts, static_cast<Lanes>(is_short & ~found), numbers);
        append(missing.mediums, mediums, static_cast<Lanes>(~is_short & ~is_long), numbers);
        append(missing.longs, longs, is_long, numbers);
    }
    missing.short_count = shorts;
    missing.medium_count = mediums;
    missing.long_count = longs;
}

// Looks up the pretokens in missing.mediums and removes those that are found. Fills the last group of eight by looking
// up the last pretoken again.
void probe_mediums(const Batch& batch, const Fronts& fronts, std::uint64_t* values, Missing& missing) {
    const std::size_t mediums = missing.medium_count;
    if (!mediums) return;
    alignas(64) std::uint64_t entry[8];
    const __m256i again = _mm256_set1_epi32(static_cast<int>(missing.mediums[mediums - 1]));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(missing.mediums + mediums), again);
    std::size_t left = 0;
    for (std::size_t j = 0; j < mediums; j += 8) {
        std::uint32_t number[8];
        const __m256i numbers_here = load8(missing.mediums + j);
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(number), numbers_here);
        const auto end = [&](int k) { return batch.text + batch.edges[number[k] + 1]; };
        const __m512i low = load_words([&](int k) { return batch.text + batch.edges[number[k]]; });
        const __m512i last = load_words([&](int k) { return end(k) - 8; });
        const __m512i length = _mm512_cvtepu32_epi64(
            _mm256_sub_epi32(_mm256_i32gather_epi32(reinterpret_cast<const int*>(batch.edges + 1), numbers_here, 4),
                             _mm256_i32gather_epi32(reinterpret_cast<const int*>(batch.edges), numbers_here, 4)));
        const __m512i doubled = _mm512_slli_epi64(_mm512_sub_epi64(_mm512_set1_epi64(16), length), 3);
        const __m512i high = _mm512_or_si512(_mm512_srlv_epi64(last, doubled), _mm512_slli_epi64(length, 56));
        const __m512i factor = _mm512_set1_epi64(static_cast<long long>(kHashFactor));
        const __m512i hash = hash8(_mm512_xor_si512(_mm512_mullo_epi64(low, factor), high));
        _mm512_store_si512(entry, _mm512_srli_epi64(hash, 64 - kMediumFrontBits));
        __m512i lows, highs;
        load_entries(fronts.mediums, entry, lows, highs);
        const Lanes found = _mm512_mask_cmpeq_epi64_mask(_mm512_cmpeq_epi64_mask(lows, low), highs, high);
        for (int k = 0; k < 8; ++k)
            values[number[k]] = fronts.mediums[entry[k]].value & -std::uint64_t{found >> k & 1u};
        append(missing.mediums, left, static_cast<Lanes>(first_lanes(mediums - j) & ~found), numbers_here);
    }
    missing.medium_count = left;
}

}  // namespace

void probe_avx512(const Batch& batch, const Fronts& fronts, std::uint64_t* values, Missing& missing) {
    // Vectors load eight bytes of each pretoken. The last few pretokens may be too near the end of the text for that.
    std::size_t readable = batch.size;
    while (readable > 0 && batch.edges[readable - 1] + std::size_t{8} > batch.readable) --readable;
    readable = readable / 8 * 8;
    probe_shorts(batch, readable, fronts, values, missing);
    probe_mediums(batch, fronts, values, missing);
    probe_from(readable, batch, fronts, values, missing);
}

// Handles four values at a time. Spreads each value over two words, so that each id has 32 bits, then packs the lanes
// that hold ids.
std::size_t write_avx512(const std::uint64_t* values, std::size_t first, std::size_t last, std::uint32_t*& out) {
    const __m512i twice = _mm512_set_epi64(3, 3, 2, 2, 1, 1, 0, 0);
    const auto at = [](int bit) { return (bit + 24LL) << 24 | (bit + 16LL) << 16 | (bit + 8LL) << 8 | bit; };
    const long long ids01 = at(2 + kInlineBits) << 32 | at(2);
    const long long id2 = at(2 + 2 * kInlineBits);
    const __m512i places = _mm512_set_epi64(id2, ids01, id2, ids01, id2, ids01, id2, ids01);
    const __m512i id = _mm512_set1_epi32((1 << kInlineBits) - 1);
    const __m512i order = _mm512_set4_epi32(3, 2, 1, 0);
    const __m256i count = _mm256_set1_epi64x(3);
    std::uint32_t* to = out;
    std::size_t i = first;
    for (; i + 4 <= last; i += 4) {
        const __m256i four = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(values + i));
        if (_mm256_testn_epi64_mask(four, count)) break;
        const __m512i spread = _mm512_permutexvar_epi64(twice, _mm512_castsi256_si512(four));
        const __m512i ids = _mm512_and_si512(_mm512_multishift_epi64_epi8(places, spread), id);
        const __m512i counts = _mm512_and_si512(_mm512_shuffle_epi32(spread, _MM_PERM_CCAA), _mm512_set1_epi32(3));
        const __mmask16 used = _mm512_cmplt_epu32_mask(order, counts);
        _mm512_storeu_si512(to, _mm512_maskz_compress_epi32(used, ids));
        to += __builtin_popcount(used);
    }
    out = to;
    return i;
}

}  // namespace bpe
