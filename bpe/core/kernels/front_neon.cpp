// For arm64, where every processor has NEON.
#include <arm_neon.h>

#include "kernels/front.hpp"

namespace bpe {

// Spreads the ids of a value over three lanes of 32 bits: a shuffle brings the bytes of each id into its lane, and a
// shift moves its bits to the lowest. Takes 12 instructions a value, the portable code 16.
std::size_t write_neon(const std::uint64_t* values, std::size_t first, std::size_t last, std::uint32_t*& out) {
    constexpr std::uint8_t kNone = 0xFF;
    alignas(16) static constexpr std::uint8_t kPlaces[16] = {0, 1, 2, kNone, 2,     3,     4,     5,
                                                             5, 6, 7, kNone, kNone, kNone, kNone, kNone};
    // The ids begin at bits 2, 22 and 42 of the value, and their first bytes at bits 0, 16 and 40.
    alignas(16) static constexpr std::int32_t kShifts[4] = {-2, -6, -2, 0};
    static_assert(kInlineBits == 20);
    const uint8x16_t places = vld1q_u8(kPlaces);
    const int32x4_t shifts = vld1q_s32(kShifts);
    const uint32x4_t id = vdupq_n_u32((1u << kInlineBits) - 1);
    std::uint32_t* to = out;
    std::size_t i = first;
    for (; i < last; ++i) {
        const std::uint64_t count = values[i] & 3;
        if (!count) break;
        const uint8x16_t spread = vqtbl1q_u8(vreinterpretq_u8_u64(vdupq_n_u64(values[i])), places);
        vst1q_u32(to, vshlq_u32(vreinterpretq_u32_u8(spread), shifts) & id);
        to += count;
    }
    out = to;
    return i;
}

}  // namespace bpe
