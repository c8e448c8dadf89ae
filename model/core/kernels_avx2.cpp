// Compiled with AVX2, FMA and F16C, and called only where the processor has them.
#include <immintrin.h>

#include "kernels_with.hpp"

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

    static F set(float number) { return {_mm256_set1_ps(number), _mm256_set1_ps(number)}; }
    static F load(const float* numbers) { return {_mm256_loadu_ps(numbers), _mm256_loadu_ps(numbers + 8)}; }
    static F load(const Half* numbers) { return {_mm256_cvtph_ps(some(numbers)), _mm256_cvtph_ps(some(numbers + 8))}; }
    static F load(const Brain* numbers) {
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
    static void store_bytes(std::int8_t* bytes, const I& x) {
        // 32 -> 16 -> 8 bits, with the lanes put in order again; nothing is beyond a byte, so nothing saturates
        const __m256i words = _mm256_permute4x64_epi64(_mm256_packs_epi32(x.low, x.high), 0xD8);
        _mm_storeu_si128(reinterpret_cast<__m128i*>(bytes),
                         _mm_packs_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1)));
    }
    static I add(const I& x, const I& y) {
        return both([](__m256i a, __m256i b) { return _mm256_add_epi32(a, b); }, x, y);
    }
    static I subtract(const I& x, const I& y) {
        return both([](__m256i a, __m256i b) { return _mm256_sub_epi32(a, b); }, x, y);
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
    template <int kBits>
    static I shift_right_signed(const I& x) {
        return both([](__m256i a) { return _mm256_srai_epi32(a, kBits); }, x);
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
    template <bool kNarrow>
    static I dot(const I& sums, const I& x, const std::int8_t* bytes) {
        std::int32_t four;
        std::memcpy(&four, bytes, sizeof four);
        const __m256i factors = _mm256_set1_epi32(four);
        return both(
            [factors](__m256i sum, __m256i a) {
                if constexpr (kNarrow) {  // two products of up to 63 * 128 are within 16 bits
                    const __m256i pairs = _mm256_maddubs_epi16(a, factors);
                    return _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
                } else {
                    const __m256i even = _mm256_madd_epi16(_mm256_and_si256(a, _mm256_set1_epi16(255)),
                                                           _mm256_srai_epi16(_mm256_slli_epi16(factors, 8), 8));
                    const __m256i odd = _mm256_madd_epi16(_mm256_srli_epi16(a, 8), _mm256_srai_epi16(factors, 8));
                    return _mm256_add_epi32(sum, _mm256_add_epi32(even, odd));
                }
            },
            sums, x);
    }

 private:
    static __m128i some(const void* numbers) { return _mm_loadu_si128(static_cast<const __m128i*>(numbers)); }
};

}  // namespace

const Kernel& avx2_kernel() {
    static const Kernel kernel = kernel_with<Avx2>("avx2");
    return kernel;
}

}  // namespace model
