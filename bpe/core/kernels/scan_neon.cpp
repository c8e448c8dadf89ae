// For arm64, where every processor has NEON.
#include <arm_neon.h>

#include "kernels/blocks.hpp"

namespace bpe {
namespace {

struct ScanNeon {
    static BlockBits classify(const std::uint8_t* bytes);
    static void write_places(std::uint64_t places, std::uint64_t base, std::uint64_t* ends);
};

// Sixty-four bytes. Byte i is in lane i / 4 of vector i % 4, as vld4q loads them.
using Bytes64 = uint8x16x4_t;

template <class Function>
inline Bytes64 each(const Function& function, const Bytes64& bytes) {
    return {{function(bytes.val[0]), function(bytes.val[1]), function(bytes.val[2]), function(bytes.val[3])}};
}
inline Bytes64 operator|(const Bytes64& a, const Bytes64& b) {
    return {{a.val[0] | b.val[0], a.val[1] | b.val[1], a.val[2] | b.val[2], a.val[3] | b.val[3]}};
}

// Returns the highest bit of each byte. NEON has no instruction for that. The four vectors hold the bytes of each four
// neighbours in the same lane, so that three insertions make a nibble of them.
inline std::uint64_t bits(const Bytes64& bytes) {
    const uint8x16_t low = vsriq_n_u8(bytes.val[1], bytes.val[0], 1);
    const uint8x16_t high = vsriq_n_u8(bytes.val[3], bytes.val[2], 1);
    const uint8x16_t nibble = vsriq_n_u8(high, low, 2);
    const uint8x16_t twice = vsriq_n_u8(nibble, nibble, 4);
    return vget_lane_u64(vreinterpret_u64_u8(vshrn_n_u16(vreinterpretq_u16_u8(twice), 4)), 0);
}

BlockBits ScanNeon::classify(const std::uint8_t* bytes) {
    const Bytes64 text = vld4q_u8(bytes);
    const auto equal = [&](std::uint8_t value) {
        return each([&](uint8x16_t part) { return vceqq_u8(part, vdupq_n_u8(value)); }, text);
    };
    // first <= byte < first + count
    const auto between = [&](std::uint8_t first, std::uint8_t count) {
        return each([&](uint8x16_t part) { return vcltq_u8(part - vdupq_n_u8(first), vdupq_n_u8(count)); }, text);
    };
    BlockBits block;
    block.letter = bits(each(
        [](uint8x16_t part) { return vcltq_u8((part | vdupq_n_u8(0x20)) - vdupq_n_u8('a'), vdupq_n_u8(26)); }, text));
    // 0x20 is the bit in which a small letter differs from a capital. The shift moves it to the highest bit.
    block.upper = block.letter & ~bits(each([](uint8x16_t part) { return vshlq_n_u8(part, 2); }, text));
    block.number = bits(between('0', 10));
    const Bytes64 blank = equal(' ');
    block.blank = bits(blank);
    block.space = bits(blank | between('\t', 5));
    block.newline = bits(equal('\n') | equal('\r'));
    block.apostrophe = bits(equal('\''));
    block.slash = bits(equal('/'));
    block.high = bits(text);
    block.continuation = block.three = block.four = block.letter_lead = block.capital_lead = block.small_lead = 0;
    if (block.high) {
        block.continuation = bits(between(0x80, 0x40));
        block.three = bits(between(0xE0, 0x20));
        block.four = bits(between(0xF0, 0x10));
        const std::uint64_t before_b = bits(between(0xB0, 0x10)) >> 1;
        const std::uint64_t before_8_or_9 = bits(between(0x80, 0x20)) >> 1;
        const std::uint64_t d0 = bits(equal(0xD0));
        const std::uint64_t d1 = bits(equal(0xD1));
        block.capital_lead = d0 & ~before_b;
        block.small_lead = (d0 & before_b) | (d1 & before_8_or_9);
        const std::uint64_t kana =
            bits(equal(0xE3)) & bits(equal(0x81) | equal(0x83)) >> 1 & bits(between(0x81, 0x3A)) >> 2;
        block.letter_lead = kana | d0 | d1 | bits(between(0xE5, 5) | between(0xEB, 2));
    }
    return block;
}

// Writes eight at a time, like AVX2's. The bits are reversed once, since the processor counts zeros from the top only.
void ScanNeon::write_places(std::uint64_t places, std::uint64_t base, std::uint64_t* ends) {
    std::uint64_t reversed;
    __asm__("rbit %0, %1" : "=r"(reversed) : "r"(places));
    const auto write_eight = [&] {
        for (int i = 0; i < 8; ++i) {
            const int place = std::countl_zero(reversed);
            *ends++ = base + static_cast<std::uint64_t>(place);
            reversed &= ~(std::uint64_t{1} << 63 >> (place & 63));
        }
    };
    write_eight();
    write_eight();
    while (reversed) [[unlikely]]
        write_eight();
}

}  // namespace

std::size_t scan_neon(Pattern pattern, const std::uint8_t* text, std::size_t position, std::size_t size,
                      std::uint64_t* ends, std::size_t capacity) {
    return scan_with<ScanNeon>(pattern, text, position, size, ends, capacity);
}

}  // namespace bpe
