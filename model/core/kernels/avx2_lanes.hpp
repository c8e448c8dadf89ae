// The lanes (lanes.hpp) of AVX2, FMA and F16C. Every file that includes this header is compiled for all three.
#pragma once

#include <immintrin.h>

#include "kernels/products.hpp"

namespace model {
namespace {

template <class T>
struct Two {
    T low, high;  // lanes 0 to 7, and 8 to 15
};

template <class Operation, class T, class... Others>
auto both(Operation operation, const Two<T>& first, const Others&... others) {
    return Two<decltype(operation(first.low, others.low...))>{operation(first.low, others.low...),
                                                              operation(first.high, others.high...)};
}

struct Avx2 {
    using F = Two<__m256>;
    using I = Two<__m256i>;
    static constexpr std::size_t kSums = 4, kQueries = 4;
    static constexpr std::size_t kSizes = 5;
    static constexpr std::size_t kTileRows = 6, kTileWide = 1;
    static constexpr bool kSignedBytes = false;

    static void prefetch(const void* place) { _mm_prefetch(static_cast<const char*>(place), _MM_HINT_T0); }
    static F set(float number) { return {_mm256_set1_ps(number), _mm256_set1_ps(number)}; }
    static F load(const float* numbers) { return {_mm256_loadu_ps(numbers), _mm256_loadu_ps(numbers + 8)}; }
    static F load(const Half* numbers) { return {_mm256_cvtph_ps(some(numbers)), _mm256_cvtph_ps(some(numbers + 8))}; }
    static F load(const BFloat16* numbers) {
        const auto widen = [](__m128i eight) {
            return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(eight), 16));
        };
        return {widen(some(numbers)), widen(some(numbers + 8))};
    }
    static F load(const std::int8_t* numbers) {
        const __m128i sixteen = some(numbers);
        return {_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(sixteen)),
                _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_srli_si128(sixteen, 8)))};
    }
    static void store(float* numbers, const F& x) {
        _mm256_storeu_ps(numbers, x.low);
        _mm256_storeu_ps(numbers + 8, x.high);
    }
    static void store_halves(Half* numbers, const F& x) {
        const auto halves = both([](__m256 a) { return _mm256_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT); }, x);
        _mm_storeu_si128(reinterpret_cast<__m128i*>(numbers), halves.low);
        _mm_storeu_si128(reinterpret_cast<__m128i*>(numbers + 8), halves.high);
    }

    static F add(const F& x, const F& y) {
        return both([](__m256 a, __m256 b) { return _mm256_add_ps(a, b); }, x, y);
    }
    static F mul(const F& x, const F& y) {
        return both([](__m256 a, __m256 b) { return _mm256_mul_ps(a, b); }, x, y);
    }
    static F div(const F& x, const F& y) {
        return both([](__m256 a, __m256 b) { return _mm256_div_ps(a, b); }, x, y);
    }
    static F max(const F& x, const F& y) {
        return both([](__m256 a, __m256 b) { return _mm256_max_ps(a, b); }, x, y);
    }
    static F min(const F& x, const F& y) {
        return both([](__m256 a, __m256 b) { return _mm256_min_ps(a, b); }, x, y);
    }
    static F fma(const F& x, const F& y, const F& z) {
        return both([](__m256 a, __m256 b, __m256 c) { return _mm256_fmadd_ps(a, b, c); }, x, y, z);
    }
    static F absolute(const F& x) {
        return both([](__m256 a) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), a); }, x);
    }
    static float root(float x) { return _mm_cvtss_f32(_mm_sqrt_ss(_mm_set_ss(x))); }
    static float sum(const F& x) {
        const __m256 eight = _mm256_add_ps(x.low, x.high);
        __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
        four = _mm_add_ps(four, _mm_movehl_ps(four, four));
        return _mm_cvtss_f32(_mm_add_ss(four, _mm_movehdup_ps(four)));
    }
    static float largest(const F& x) {
        const __m256 eight = _mm256_max_ps(x.low, x.high);
        __m128 four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
        four = _mm_max_ps(four, _mm_movehl_ps(four, four));
        return _mm_cvtss_f32(_mm_max_ss(four, _mm_movehdup_ps(four)));
    }

    static I zeros() { return {_mm256_setzero_si256(), _mm256_setzero_si256()}; }
    static I set_integers(std::int32_t number) { return {_mm256_set1_epi32(number), _mm256_set1_epi32(number)}; }
    static I load_bytes(const std::uint8_t* bytes) {
        return {_mm256_loadu_si256(reinterpret_cast<const __m256i*>(bytes)),
                _mm256_loadu_si256(reinterpret_cast<const __m256i*>(bytes + 32))};
    }
    static I add(const I& x, const I& y) {
        return both([](__m256i a, __m256i b) { return _mm256_add_epi32(a, b); }, x, y);
    }
    static I bit_or(const I& x, const I& y) {
        return both([](__m256i a, __m256i b) { return _mm256_or_si256(a, b); }, x, y);
    }
    static I bit_and(const I& x, std::int32_t mask) {
        return both([mask](__m256i a) { return _mm256_and_si256(a, _mm256_set1_epi32(mask)); }, x);
    }
    template <int kBits>
    static I shift_left(const I& x) {
        return both([](__m256i a) { return _mm256_slli_epi32(a, kBits); }, x);
    }
    template <int kBits>
    static I shift_right(const I& x) {
        return both([](__m256i a) { return _mm256_srli_epi32(a, kBits); }, x);
    }
    static F to_floats(const I& x) {
        return both([](__m256i a) { return _mm256_cvtepi32_ps(a); }, x);
    }
    static I to_integers(const F& x) {
        return both([](__m256 a) { return _mm256_cvtps_epi32(a); }, x);
    }
    static F times_power_of_two(const F& x, const I& power) {
        return both(
            [](__m256 a, __m256i n) {
                const __m256i exponent = _mm256_slli_epi32(_mm256_add_epi32(n, _mm256_set1_epi32(127)), 23);
                return _mm256_mul_ps(a, _mm256_castsi256_ps(exponent));
            },
            x, power);
    }

 private:
    static __m128i some(const void* numbers) { return _mm_loadu_si128(static_cast<const __m128i*>(numbers)); }
};

// Integers of 16 bits: of each four columns, the even ones, then the odd ones. An instruction then makes as many
// products as with bytes, and each vector needs one sum instead of two. kAdd(sum, x, y) adds the products of pairs.
// With kSix, sums of six vectors are kept in registers, of four otherwise.
template <__m256i (*kAdd)(__m256i, __m256i, __m256i), bool kSix = false>
struct IntegersOf16 {
    using F = Avx2::F;
    using I = Avx2::I;
    struct Sum {
        I all = Avx2::zeros();
    };
    static constexpr std::size_t kFactors = 2, kAtOnce = kSix ? 16 : 4, kUnpacked = 2;

    static void keep(const I& sixteen, std::size_t half, std::int8_t* bytes) {
        const __m256i ordered = _mm256_permute4x64_epi64(_mm256_packs_epi32(sixteen.low, sixteen.high), 0xD8);
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(bytes + half * 2 * kLanes),
                            _mm256_shufflehi_epi16(_mm256_shufflelo_epi16(ordered, 0xD8), 0xD8));
    }
    template <std::size_t kNumber>
    static I factor(const I& quad) {
        if constexpr (kNumber == 0) {
            return both([](__m256i a) { return _mm256_and_si256(a, _mm256_set1_epi16(255)); }, quad);
        } else {
            return both([](__m256i a) { return _mm256_srli_epi16(a, 8); }, quad);
        }
    }
    static void add(Sum& sum, const I& factor, std::size_t number, const std::int8_t* bytes) {
        const __m256i numbers = pair(bytes + 4 * number);
        sum.all = both([=](__m256i all, __m256i x) { return kAdd(all, x, numbers); }, sum.all, factor);
    }
    static I total(const Sum& sum) { return sum.all; }

    template <std::size_t kVectors, std::size_t kParts, class V>
    static void add_part(const I* factors, const Scales<V>& scales, const TileBytes* bytes, const TileScale* x,
                         F* sums) {
        static_assert(kVectors % 4 == 0);
        constexpr std::size_t kCount = 8 * kFactors / kParts, kSixes = kSix && kVectors == 16 ? 12 : 0;
        const std::size_t begin = scales.part * kCount;
        for (std::size_t i = 0; i < kSixes; i += 6) add_six(factors, begin, kCount, scales, bytes + i, x + i, sums + i);
        for (std::size_t i = kSixes; i < kVectors; i += 4) {
            add_four(factors, begin, kCount, scales, bytes + i, x + i, sums + i);
        }
    }

 private:
    static __m256i pair(const std::int8_t* bytes) {
        std::int32_t two;
        std::memcpy(&two, bytes, sizeof two);
        return _mm256_set1_epi32(two);
    }
    // A separate function with a variable for each sum makes GCC keep all sums in registers. On one core of Zen 3, a
    // tile of Q4_1 takes 140 cycles for 4 vectors and 245 for 8; with this loop inlined, 184 and 260.
    template <class V>
    [[gnu::noinline]] static void add_four(const I* factors, std::size_t first, std::size_t count,
                                           const Scales<V>& scales, const TileBytes* bytes, const TileScale* x,
                                           F* sums) {
        __m256i low0 = _mm256_setzero_si256(), low1 = low0, low2 = low0, low3 = low0;
        __m256i high0 = low0, high1 = low0, high2 = low0, high3 = low0;
#pragma GCC unroll 2
        for (std::size_t j = first; j < first + count; ++j) {
            const __m256i factor_low = factors[j].low, factor_high = factors[j].high;
            const auto add = [&](__m256i& low, __m256i& high, const TileBytes& own) {
                const __m256i numbers = pair(own.bytes + 4 * j);
                low = kAdd(low, factor_low, numbers);
                high = kAdd(high, factor_high, numbers);
            };
            add(low0, high0, bytes[0]), add(low1, high1, bytes[1]);
            add(low2, high2, bytes[2]), add(low3, high3, bytes[3]);
        }
        scales.add({low0, high0}, x[0], sums[0]);
        scales.add({low1, high1}, x[1], sums[1]);
        scales.add({low2, high2}, x[2], sums[2]);
        scales.add({low3, high3}, x[3], sums[3]);
    }
    template <class V>
    [[gnu::noinline]] static void add_six(const I* factors, std::size_t first, std::size_t count,
                                          const Scales<V>& scales, const TileBytes* bytes, const TileScale* x,
                                          F* sums) {
        __m256i low0 = _mm256_setzero_si256(), low1 = low0, low2 = low0, low3 = low0, low4 = low0, low5 = low0;
        __m256i high0 = low0, high1 = low0, high2 = low0, high3 = low0, high4 = low0, high5 = low0;
        for (std::size_t j = first; j < first + count; ++j) {
            const __m256i factor_low = factors[j].low, factor_high = factors[j].high;
            const auto add = [&](__m256i& low, __m256i& high, const TileBytes& own) {
                const __m256i numbers = pair(own.bytes + 4 * j);
                low = kAdd(low, factor_low, numbers);
                high = kAdd(high, factor_high, numbers);
            };
            add(low0, high0, bytes[0]), add(low1, high1, bytes[1]), add(low2, high2, bytes[2]);
            add(low3, high3, bytes[3]), add(low4, high4, bytes[4]), add(low5, high5, bytes[5]);
        }
        scales.add({low0, high0}, x[0], sums[0]);
        scales.add({low1, high1}, x[1], sums[1]);
        scales.add({low2, high2}, x[2], sums[2]);
        scales.add({low3, high3}, x[3], sums[3]);
        scales.add({low4, high4}, x[4], sums[4]);
        scales.add({low5, high5}, x[5], sums[5]);
    }
};

}  // namespace
}  // namespace model
