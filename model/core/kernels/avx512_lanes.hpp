// The lanes (lanes.hpp) of AVX-512 with VNNI. Every file that includes this header is compiled for both.
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "kernels/numbers.hpp"

namespace model {
namespace {

struct Avx512 {
    using F = __m512;
    using I = __m512i;
    // With kAtOnce = 1, each product waits for the one before and fills the processor's scheduler: products of eight
    // vectors took a fifth longer.
    static constexpr std::size_t kSums = 24, kQueries = 8, kAtOnce = 4;
    static constexpr std::size_t kSizes = 5;
    static constexpr std::size_t kTileRows = 12, kTileWide = 2;
    static constexpr bool kSignedBytes = false;

    static void prefetch(const void* place) { _mm_prefetch(static_cast<const char*>(place), _MM_HINT_T0); }
    static F set(float number) { return _mm512_set1_ps(number); }
    static F load(const float* numbers) { return _mm512_loadu_ps(numbers); }
    static F load(const Half* numbers) { return _mm512_cvtph_ps(sixteen(numbers)); }
    static F load(const BFloat16* numbers) {
        return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(sixteen(numbers)), 16));
    }
    static F load(const std::int8_t* numbers) {
        return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(numbers))));
    }
    static void store(float* numbers, F x) { _mm512_storeu_ps(numbers, x); }
    static void store_halves(Half* numbers, F x) {
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(numbers), _mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT));
    }

    static F add(F x, F y) { return _mm512_add_ps(x, y); }
    static F mul(F x, F y) { return _mm512_mul_ps(x, y); }
    static F div(F x, F y) { return _mm512_div_ps(x, y); }
    static F max(F x, F y) { return _mm512_max_ps(x, y); }
    static F min(F x, F y) { return _mm512_min_ps(x, y); }
    static F fma(F x, F y, F z) { return _mm512_fmadd_ps(x, y, z); }
    static F absolute(F x) { return _mm512_abs_ps(x); }
    static float root(float x) { return _mm_cvtss_f32(_mm_sqrt_ss(_mm_set_ss(x))); }
    static float sum(F x) { return _mm512_reduce_add_ps(x); }
    static float largest(F x) { return _mm512_reduce_max_ps(x); }

    static I zeros() { return _mm512_setzero_si512(); }
    static I set_integers(std::int32_t number) { return _mm512_set1_epi32(number); }
    static I load_bytes(const std::uint8_t* bytes) { return _mm512_loadu_si512(bytes); }
    static void store_bytes(std::int8_t* bytes, I x) {
        _mm_storeu_si128(reinterpret_cast<__m128i*>(bytes), _mm512_cvtepi32_epi8(x));
    }
    static I add(I x, I y) { return _mm512_add_epi32(x, y); }
    static I subtract(I x, I y) { return _mm512_sub_epi32(x, y); }
    static I bit_or(I x, I y) { return _mm512_or_si512(x, y); }
    static I bit_and(I x, std::int32_t mask) { return _mm512_and_si512(x, _mm512_set1_epi32(mask)); }
    template <int kBits>
    static I shift_left(I x) {
        return _mm512_slli_epi32(x, kBits);
    }
    template <int kBits>
    static I shift_right(I x) {
        return _mm512_srli_epi32(x, kBits);
    }
    template <int kBits>
    static I shift_right_signed(I x) {
        return _mm512_srai_epi32(x, kBits);
    }
    static F to_floats(I x) { return _mm512_cvtepi32_ps(x); }
    static I to_integers(F x) { return _mm512_cvtps_epi32(x); }
    static F times_power_of_two(F x, I power) { return _mm512_scalef_ps(x, to_floats(power)); }
    // Inline assembly, because compilers broadcast the four bytes with a separate instruction, which doubles the count.
    static I dot(I sums, I x, const std::int8_t* bytes) {
        using Four [[gnu::may_alias]] = std::int32_t;
        asm("vpdpbusd %2%{1to16%}, %1, %0" : "+v"(sums) : "v"(x), "m"(*reinterpret_cast<const Four*>(bytes)));
        return sums;
    }

 private:
    static __m256i sixteen(const void* numbers) { return _mm256_loadu_si256(static_cast<const __m256i*>(numbers)); }
};

}  // namespace

}  // namespace model
