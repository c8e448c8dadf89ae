// Compiled with AVX2 and BMI, and called only if the processor supports them.
#include <immintrin.h>

#include "kernels/blocks.hpp"

namespace bpe {
namespace {

struct ScanAvx2 {
    static BlockBits classify(const std::uint8_t* bytes);
    static void write_places(std::uint64_t places, std::uint64_t base, std::uint64_t* ends);
};

BlockBits ScanAvx2::classify(const std::uint8_t* bytes) {
    const auto splat = [](int value) { return _mm256_set1_epi8(static_cast<char>(value)); };
    const __m256i halves[2] = {_mm256_loadu_si256(reinterpret_cast<const __m256i*>(bytes)),
                               _mm256_loadu_si256(reinterpret_cast<const __m256i*>(bytes + 32))};
    const auto bits = [](const __m256i& low, const __m256i& high) {
        return std::uint64_t{static_cast<std::uint32_t>(_mm256_movemask_epi8(high))} << 32 |
               static_cast<std::uint32_t>(_mm256_movemask_epi8(low));
    };
    const auto equal = [&](int value) {
        return bits(_mm256_cmpeq_epi8(halves[0], splat(value)), _mm256_cmpeq_epi8(halves[1], splat(value)));
    };
    // first <= byte < first + count, unsigned: true if min(byte - first, count - 1) is byte - first
    const auto between = [&](int first, int count, int fold = 0) {
        __m256i found[2];
        for (int i = 0; i < 2; ++i) {
            const __m256i distance = _mm256_sub_epi8(_mm256_or_si256(halves[i], splat(fold)), splat(first));
            found[i] = _mm256_cmpeq_epi8(_mm256_min_epu8(distance, splat(count - 1)), distance);
        }
        return bits(found[0], found[1]);
    };
    BlockBits block;
    block.letter = between('a', 26, 0x20);
    // 0x20 is the bit in which a small letter differs from a capital. The shift moves it to the bit that movemask
    // reads.
    block.upper = block.letter & ~bits(_mm256_slli_epi16(halves[0], 2), _mm256_slli_epi16(halves[1], 2));
    block.number = between('0', 10);
    block.blank = equal(' ');
    block.space = block.blank | between('\t', 5);
    block.newline = equal('\n') | equal('\r');
    block.apostrophe = equal('\'');
    block.slash = equal('/');
    block.high = bits(halves[0], halves[1]);
    block.continuation = block.three = block.four = block.letter_lead = block.capital_lead = block.small_lead = 0;
    if (block.high) {
        block.continuation = between(0x80, 0x40);
        block.three = between(0xE0, 0x20);
        block.four = between(0xF0, 0x10);
        const std::uint64_t before_b = between(0xB0, 0x10) >> 1;
        const std::uint64_t before_8_or_9 = between(0x80, 0x20) >> 1;
        const std::uint64_t d0 = equal(0xD0);
        const std::uint64_t d1 = equal(0xD1);
        block.capital_lead = d0 & ~before_b;
        block.small_lead = (d0 & before_b) | (d1 & before_8_or_9);
        const std::uint64_t kana = equal(0xE3) & (equal(0x81) | equal(0x83)) >> 1 & between(0x81, 0x3A) >> 2;
        block.letter_lead = kana | d0 | d1 | between(0xE5, 5) | between(0xEB, 2);
    }
    return block;
}

// Writes eight at a time. The first sixteen need no branch on the count, and few blocks have more than 16 places.
void ScanAvx2::write_places(std::uint64_t places, std::uint64_t base, std::uint64_t* ends) {
    const auto write_eight = [&] {
        for (int i = 0; i < 8; ++i) {
            *ends++ = base + _tzcnt_u64(places);
            places = _blsr_u64(places);
        }
    };
    write_eight();
    write_eight();
    while (places) [[unlikely]]
        write_eight();
}

}  // namespace

std::size_t scan_avx2(Pattern pattern, const std::uint8_t* text, std::size_t position, std::size_t size,
                      std::uint64_t* ends, std::size_t capacity) {
    return scan_with<ScanAvx2>(pattern, text, position, size, ends, capacity);
}

}  // namespace bpe
