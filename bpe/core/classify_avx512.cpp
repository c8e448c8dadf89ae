// Compiled with AVX-512BW, and called only where the processor has it.
#include <immintrin.h>

#include "kernels.hpp"

namespace bpe {

BlockBits classify_avx512(const std::uint8_t* bytes) {
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

}  // namespace bpe
