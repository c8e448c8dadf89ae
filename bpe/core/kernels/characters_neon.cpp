// For arm64, where every processor has NEON.
#include <arm_neon.h>

#include <cstring>

#include "kernels/character_blocks.hpp"
#include "kernels/characters.hpp"
#include "kernels/packings.hpp"
#include "text/utf8_errors.hpp"

namespace bpe {

namespace {

constexpr Packings<8, 1> kNarrow;
constexpr Packings<8, 2> kWide;

using Block = uint8x16x4_t;  // 64 bytes, in order

// Returns a mask of the bytes that do not continue a character. NEON has no instruction that makes bits of bytes, so
// each keeps the bit of its place among eight, which are then added up.
inline std::uint64_t begins_of(const Block& block) {
    const uint8x16_t bit = vreinterpretq_u8_u64(vdupq_n_u64(0x8040201008040201));
    const auto bits = [&](uint8x16_t bytes) {
        return vcgeq_s8(vreinterpretq_s8_u8(bytes), vdupq_n_s8(-0x40)) & bit;  // 0x80 to 0xBF are less
    };
    const uint8x16_t low = vpaddq_u8(bits(block.val[0]), bits(block.val[1]));
    const uint8x16_t high = vpaddq_u8(bits(block.val[2]), bits(block.val[3]));
    const uint8x16_t quarters = vpaddq_u8(low, high);
    return vgetq_lane_u64(vreinterpretq_u64_u8(vpaddq_u8(quarters, quarters)), 0);
}

// Stores the characters of a block whose first bytes are in `begins`, and advances `out`.
struct Narrow {
    using Character = std::uint8_t;

    static void copy_ascii(const Block& block, Character*& out) {
        vst1q_u8_x4(out, block);
        out += kCharacterBlock;
    }
    static void decode(const Block& block, const std::uint8_t* text, std::uint64_t begins, Character*& out) {
        for (int i = 0; i < 4; ++i, begins >>= 16) {
            const uint8x16_t bytes = block.val[i];
            const uint8x16_t joined = vsliq_n_u8(vld1q_u8(text + 16 * i + 1), bytes, 6);  // abcdefgh from 10cdefgh
            // Other high bytes are left out.
            const uint8x16_t characters = vbslq_u8(vcltzq_s8(vreinterpretq_s8_u8(bytes)), joined, bytes);
            store(vget_low_u8(characters), begins & 0xFF, out);
            store(vget_high_u8(characters), begins >> 8 & 0xFF, out);
        }
    }
    static void store(uint8x8_t characters, std::uint64_t lanes, Character*& out) {
        vst1_u8(out, vtbl1_u8(characters, vld1_u8(kNarrow.of[lanes].bytes)));
        out += kNarrow.count[lanes];
    }
};

struct Wide {
    using Character = std::uint16_t;

    static void copy_ascii(const Block& block, Character*& out) {
        for (int i = 0; i < 4; ++i, out += 16) {
            vst1q_u16(out, vmovl_u8(vget_low_u8(block.val[i])));
            vst1q_u16(out + 8, vmovl_high_u8(block.val[i]));
        }
    }
    static void decode(const Block& block, const std::uint8_t* text, std::uint64_t begins, Character*& out) {
        for (int i = 0; i < 4; ++i, begins >>= 16) {
            const uint8x16_t first = block.val[i];
            const uint8x16_t second = vld1q_u8(text + 16 * i + 1), third = vld1q_u8(text + 16 * i + 2);
            store(characters(vmovl_u8(vget_low_u8(first)), vmovl_u8(vget_low_u8(second)), vmovl_u8(vget_low_u8(third))),
                  begins & 0xFF, out);
            store(characters(vmovl_high_u8(first), vmovl_high_u8(second), vmovl_high_u8(third)), begins >> 8 & 0xFF,
                  out);
        }
    }
    // Returns the characters of up to three bytes each. The surplus high bits fall out.
    static uint16x8_t characters(uint16x8_t one, uint16x8_t second, uint16x8_t third) {
        const uint16x8_t two = vsliq_n_u16(second, one, 6), three = vsliq_n_u16(third, two, 6);
        const uint16x8_t shorter = vbslq_u16(vcgtq_u16(one, vdupq_n_u16(0xBF)), two & vdupq_n_u16(0x7FF), one);
        return vbslq_u16(vcgtq_u16(one, vdupq_n_u16(0xDF)), three, shorter);
    }
    static void store(uint16x8_t characters, std::uint64_t lanes, Character*& out) {
        const uint8x16_t packing = vld1q_u8(kWide.of[lanes].bytes);
        vst1q_u16(out, vreinterpretq_u16_u8(vqtbl1q_u8(vreinterpretq_u8_u16(characters), packing)));
        out += kWide.count[lanes];
    }
};

// See decode_blocks.
template <class To>
struct Decoder {
    uint8x16_t before = vdupq_n_u8(0);

    // A zero after a character that is cut off is an error.
    bool complete() const { return vmaxvq_u8(utf8_errors(vdupq_n_u8(0), before)) == 0; }
    bool block(const std::uint8_t* text, typename To::Character*& out) {
        const Block block = vld1q_u8_x4(text);
        const bool is_ascii = is_utf8_ascii(block, before);
        if (!is_ascii && has_utf8_errors(block, before)) return false;
        before = block.val[3];
        if (is_ascii) {
            To::copy_ascii(block, out);
        } else {
            To::decode(block, text, begins_of(block), out);
        }
        return true;
    }
};

Utf8Shape measure(const std::uint8_t* text, std::size_t size) {
    std::size_t continued = 0, begin = 0;
    uint8x16_t highest = vdupq_n_u8(0);
    while (size - begin >= kCharacterBlock) {
        // A lane of 16 bits counts up to eight in a block.
        const std::size_t blocks = (size - begin) / kCharacterBlock;
        const std::size_t end = begin + kCharacterBlock * (blocks < 4096 ? blocks : 4096);
        int16x8_t counted = vdupq_n_s16(0);
        for (; begin < end; begin += kCharacterBlock) {
            const Block block = vld1q_u8_x4(text + begin);
            const auto is_continued = [](uint8x16_t bytes) {
                return vreinterpretq_s8_u8(vcltq_s8(vreinterpretq_s8_u8(bytes), vdupq_n_s8(-0x40)));  // -1 or 0
            };
            counted = vpadalq_s8(counted, (is_continued(block.val[0]) + is_continued(block.val[1])) +
                                              (is_continued(block.val[2]) + is_continued(block.val[3])));
            highest =
                vmaxq_u8(highest, vmaxq_u8(vmaxq_u8(block.val[0], block.val[1]), vmaxq_u8(block.val[2], block.val[3])));
        }
        continued += static_cast<std::size_t>(-vaddlvq_s16(counted));
    }
    std::uint8_t top = vmaxvq_u8(highest);
    for (; begin < size; ++begin) {
        continued += text[begin] >= 0x80 && text[begin] < 0xC0;
        top = text[begin] > top ? text[begin] : top;
    }
    return {size - continued, top};
}

}  // namespace

const Utf8Kernel kUtf8Neon{measure, decode_blocks<Decoder<Narrow>, std::uint8_t>,
                           decode_blocks<Decoder<Wide>, std::uint16_t>};

}  // namespace bpe
