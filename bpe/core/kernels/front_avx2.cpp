// Compiled with AVX2 and called only if the processor supports it. Must not call inline functions with external linkage
// from headers: the linker might choose this file's copy for every processor.
#include <immintrin.h>

#include "kernels/front.hpp"
#include "kernels/packings.hpp"

namespace bpe {

namespace {

inline __m128i load(const void* at) { return _mm_loadu_si128(static_cast<const __m128i*>(at)); }
inline __m256i joined(__m128i low, __m128i high) {
    return _mm256_inserti128_si256(_mm256_castsi128_si256(low), high, 1);
}
inline __m256i all(std::uint64_t word) { return _mm256_set1_epi64x(static_cast<long long>(word)); }
inline unsigned lanes_of(__m256i mask) { return static_cast<unsigned>(_mm256_movemask_pd(_mm256_castsi256_pd(mask))); }
inline unsigned lanes_of(__m128i mask) { return static_cast<unsigned>(_mm_movemask_ps(_mm_castsi128_ps(mask))); }

// Returns the low words of the products of four words with kHashFactor.
inline __m256i multiplied(__m256i words) {
    const __m256i factor = all(kHashFactor);
    const __m256i across = _mm256_mullo_epi32(words, _mm256_shuffle_epi32(factor, 0xB1));  // low * high, high * low
    const __m256i upper = _mm256_slli_epi64(_mm256_add_epi32(across, _mm256_srli_epi64(across, 32)), 32);
    return _mm256_add_epi64(_mm256_mul_epu32(words, factor), upper);
}

// Returns hash_of of four keys.
inline __m256i hash4(__m256i keys) { return multiplied(_mm256_xor_si256(keys, _mm256_srli_epi64(keys, 32))); }

constexpr Packings<4, 4> kPackings;

// Appends the numbers in `lanes` to a list. Writes four places.
inline void append(std::uint32_t* list, std::size_t& count, unsigned lanes, __m128i numbers) {
    const __m128i packing = _mm_load_si128(reinterpret_cast<const __m128i*>(kPackings.of[lanes].bytes));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(list + count), _mm_shuffle_epi8(numbers, packing));
    count += static_cast<std::size_t>(__builtin_popcount(lanes));
}

// Returns the words at four places.
template <class PlaceOf>
inline __m256i load_words(const PlaceOf& place_of) {
    const auto two = [&](int i) {
        const __m128d low = _mm_load_sd(reinterpret_cast<const double*>(place_of(i)));
        return _mm_castpd_si128(_mm_loadh_pd(low, reinterpret_cast<const double*>(place_of(i + 1))));
    };
    return joined(two(0), two(2));
}

// Loads the first two words of four entries.
template <class Entry>
inline void load_entries(const Entry* table, const std::uint64_t* n, __m256i& first, __m256i& second) {
    const __m256i even = joined(load(table + n[0]), load(table + n[2]));
    const __m256i odd = joined(load(table + n[1]), load(table + n[3]));
    first = _mm256_unpacklo_epi64(even, odd);
    second = _mm256_unpackhi_epi64(even, odd);
}

// Looks up the first `count` pretokens, a multiple of four, as if all were short. The others get a length that no key
// in the table has, so they are not found. Lists the pretokens that are not found by length.
void probe_shorts(const Batch& batch, std::size_t count, const Fronts& fronts, std::uint64_t* values,
                  Missing& missing) {
    std::size_t shorts = 0, mediums = 0, longs = 0;
    alignas(32) std::uint64_t entry[4];
    __m128i numbers = _mm_setr_epi32(0, 1, 2, 3);
    for (std::size_t i = 0; i < count; i += 4, numbers = _mm_add_epi32(numbers, _mm_set1_epi32(4))) {
        const __m128i lengths = _mm_sub_epi32(load(batch.edges + i + 1), load(batch.edges + i));
        const __m256i length = _mm256_cvtepu32_epi64(_mm_min_epu32(lengths, _mm_set1_epi32(kLongestShort + 1)));
        const __m256i words = load_words([&](int k) { return batch.text + batch.edges[i + k]; });
        const __m256i beyond = _mm256_sllv_epi64(all(~std::uint64_t{0}), _mm256_slli_epi64(length, 3));
        const __m256i key = _mm256_or_si256(_mm256_andnot_si256(beyond, words), _mm256_slli_epi64(length, 56));
        _mm256_store_si256(reinterpret_cast<__m256i*>(entry), _mm256_srli_epi64(hash4(key), 64 - kShortFrontBits));
        __m256i keys, known;
        load_entries(fronts.shorts, entry, keys, known);
        const __m256i found = _mm256_cmpeq_epi64(keys, key);
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(values + i), _mm256_and_si256(found, known));

        const unsigned not_short = lanes_of(_mm_cmpgt_epi32(lengths, _mm_set1_epi32(kLongestShort)));
        const unsigned is_long = lanes_of(_mm_cmpgt_epi32(lengths, _mm_set1_epi32(kLongestMedium)));
        append(missing.shorts, shorts, (not_short | lanes_of(found)) ^ 15, numbers);
        append(missing.mediums, mediums, not_short ^ is_long, numbers);
        append(missing.longs, longs, is_long, numbers);
    }
    missing.short_count = shorts;
    missing.medium_count = mediums;
    missing.long_count = longs;
}

// Looks up the pretokens in missing.mediums and removes those that are found. Fills the last group of four by looking
// up the last pretoken again.
void probe_mediums(const Batch& batch, const Fronts& fronts, std::uint64_t* values, Missing& missing) {
    const std::size_t mediums = missing.medium_count;
    if (!mediums) return;
    alignas(32) std::uint64_t entry[4];
    for (std::size_t k = 0; k < 3; ++k) missing.mediums[mediums + k] = missing.mediums[mediums - 1];
    std::size_t left = 0;
    for (std::size_t j = 0; j < mediums; j += 4) {
        const __m128i numbers = load(missing.mediums + j);
        std::uint32_t number[4];
        _mm_storeu_si128(reinterpret_cast<__m128i*>(number), numbers);
        const auto begin = [&](int k) { return batch.edges[number[k]]; };
        const auto end = [&](int k) { return batch.edges[number[k] + 1]; };
        const __m256i low = load_words([&](int k) { return batch.text + begin(k); });
        const __m256i last = load_words([&](int k) { return batch.text + end(k) - 8; });
        const __m256i length = _mm256_cvtepu32_epi64(
            _mm_sub_epi32(_mm_setr_epi32(static_cast<int>(end(0)), static_cast<int>(end(1)), static_cast<int>(end(2)),
                                         static_cast<int>(end(3))),
                          _mm_setr_epi32(static_cast<int>(begin(0)), static_cast<int>(begin(1)),
                                         static_cast<int>(begin(2)), static_cast<int>(begin(3)))));
        const __m256i doubled = _mm256_slli_epi64(_mm256_sub_epi64(all(16), length), 3);
        const __m256i high = _mm256_or_si256(_mm256_srlv_epi64(last, doubled), _mm256_slli_epi64(length, 56));
        const __m256i hash = hash4(_mm256_xor_si256(multiplied(low), high));
        _mm256_store_si256(reinterpret_cast<__m256i*>(entry), _mm256_srli_epi64(hash, 64 - kMediumFrontBits));
        __m256i lows, highs;
        load_entries(fronts.mediums, entry, lows, highs);
        const unsigned found =
            lanes_of(_mm256_and_si256(_mm256_cmpeq_epi64(lows, low), _mm256_cmpeq_epi64(highs, high)));
        for (int k = 0; k < 4; ++k)
            values[number[k]] = fronts.mediums[entry[k]].value & -std::uint64_t{found >> k & 1u};
        const std::size_t rest = mediums - j;
        append(missing.mediums, left, (found ^ 15) & ((rest >= 4 ? 16u : 1u << rest) - 1), numbers);
    }
    missing.medium_count = left;
}

}  // namespace

void probe_avx2(const Batch& batch, const Fronts& fronts, std::uint64_t* values, Missing& missing) {
    // Vectors load eight bytes of each pretoken. The last few pretokens may be too near the end of the text for that.
    std::size_t readable = batch.size;
    while (readable > 0 && batch.edges[readable - 1] + std::size_t{8} > batch.readable) --readable;
    readable = readable / 4 * 4;
    probe_shorts(batch, readable, fronts, values, missing);
    probe_mediums(batch, fronts, values, missing);
    probe_from(readable, batch, fronts, values, missing);
}

}  // namespace bpe
