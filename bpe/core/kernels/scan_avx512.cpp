// Compiled with AVX-512 (F, BW, VBMI2) and called only if the processor supports it.
#include <immintrin.h>

#include "kernels/blocks.hpp"

namespace bpe {
namespace {

struct ScanAvx512 {
    static BlockBits classify(const std::uint8_t* bytes);
    static void write_places(std::uint64_t places, std::uint64_t base, std::uint64_t* ends);
};

BlockBits ScanAvx512::classify(const std::uint8_t* bytes) {
    const __m512i text = _mm512_loadu_si512(bytes);
    const auto splat = [](int value) { return _mm512_set1_epi8(static_cast<char>(value)); };
    const auto equal = [&](int value) { return _mm512_cmpeq_epi8_mask(text, splat(value)); };
    // first <= byte < first + count, unsigned
    const auto between = [&](const __m512i& value, int first, int count) {
        return _mm512_cmplt_epu8_mask(_mm512_sub_epi8(value, splat(first)), splat(count));
    };
    BlockBits block;
    block.letter = between(_mm512_or_si512(text, splat(0x20)), 'a', 26);
    block.upper = block.letter & ~_mm512_test_epi8_mask(text, splat(0x20));
    block.number = between(text, '0', 10);
    block.blank = equal(' ');
    block.space = block.blank | between(text, '\t', 5);
    block.newline = equal('\n') | equal('\r');
    block.apostrophe = equal('\'');
    block.slash = equal('/');
    block.high = _mm512_movepi8_mask(text);
    block.continuation = block.three = block.four = block.letter_lead = block.capital_lead = block.small_lead = 0;
    if (block.high) {
        block.continuation = between(text, 0x80, 0x40);
        block.three = between(text, 0xE0, 0x20);
        block.four = between(text, 0xF0, 0x10);
        const std::uint64_t before_b = between(text, 0xB0, 0x10) >> 1;
        const std::uint64_t before_8_or_9 = between(text, 0x80, 0x20) >> 1;
        const std::uint64_t d0 = equal(0xD0);
        const std::uint64_t d1 = equal(0xD1);
        block.capital_lead = d0 & ~before_b;
        block.small_lead = (d0 & before_b) | (d1 & before_8_or_9);
        const std::uint64_t kana = equal(0xE3) & (equal(0x81) | equal(0x83)) >> 1 & between(text, 0x81, 0x3A) >> 2;
        block.letter_lead = kana | d0 | d1 | between(text, 0xE5, 5) | between(text, 0xEB, 2);
    }
    return block;
}

// Writes sixteen at a time. The first 32 need no branch on the count, and few blocks have more than 32 places.
void ScanAvx512::write_places(std::uint64_t places, std::uint64_t base, std::uint64_t* ends) {
    alignas(64) static constexpr auto kNumbers = [] {
        struct {
            std::uint8_t at[64];
        } numbers{};
        for (std::uint8_t i = 0; i < 64; ++i) numbers.at[i] = i;
        return numbers;
    }();
    const __m512i numbers = _mm512_maskz_compress_epi8(places, _mm512_load_si512(kNumbers.at));
    const __m512i bases = _mm512_set1_epi64(static_cast<long long>(base));
    const auto write = [&](__m128i eight, int at) {
        _mm512_storeu_si512(ends + at, _mm512_add_epi64(_mm512_cvtepu8_epi64(eight), bases));
    };
    const auto write_sixteen = [&](__m128i sixteen, int at) {
        write(sixteen, at);
        write(_mm_unpackhi_epi64(sixteen, sixteen), at + 8);
    };
    write_sixteen(_mm512_castsi512_si128(numbers), 0);
    write_sixteen(_mm512_extracti32x4_epi32(numbers, 1), 16);
    if (__builtin_popcountll(places) > 32) [[unlikely]] {
        write_sixteen(_mm512_extracti32x4_epi32(numbers, 2), 32);
        write_sixteen(_mm512_extracti32x4_epi32(numbers, 3), 48);
    }
}

}  // namespace

std::size_t scan_avx512(Pattern pattern, const std::uint8_t* text, std::size_t position, std::size_t size,
                        std::uint64_t* ends, std::size_t capacity) {
    return scan_with<ScanAvx512>(pattern, text, position, size, ends, capacity);
}

}  // namespace bpe
