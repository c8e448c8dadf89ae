// Validating UTF-8 in vectors.
#pragma once

#include <cstdint>

#ifdef BPE_ARM_KERNELS
#include <arm_neon.h>
#endif

namespace bpe {

// The tables of an algorithm that validates vectors of bytes (Keiser and Lemire 2021, "Validating UTF-8 in less than
// one instruction per byte"). Three half-bytes decide whether a pair of neighbouring bytes is an error: both halves of
// the first byte and the high half of the second. A table gives the errors that each half allows, and an error allowed
// by all three is present. A continuation byte may follow another one only where the byte two or three places before
// begins a longer character.
enum Wrong : std::uint8_t {
    kTooShort = 1 << 0,   // a leading byte before a byte that is no continuation
    kTooLong = 1 << 1,    // ASCII before a continuation
    kLongThree = 1 << 2,  // E0 before 80 to 9F
    kTooLarge = 1 << 3,   // F4 and above before 90 to BF
    kSurrogate = 1 << 4,  // ED before A0 to BF
    kLongTwo = 1 << 5,    // C0 and C1
    kLongFour = 1 << 6,   // F0, or F5 and above, before 80 to 8F
    kTwoFollow = 1 << 7,  // a continuation before a continuation
    kAny = kTooShort | kTooLong | kTwoFollow,
};

struct alignas(16) ErrorTable {
    std::uint8_t of[16];
};

constexpr std::uint8_t kAbove = kAny | kTooLarge | kLongFour;
constexpr ErrorTable kFirstHigh = {{kTooLong, kTooLong, kTooLong, kTooLong, kTooLong, kTooLong, kTooLong, kTooLong,
                                    kTwoFollow, kTwoFollow, kTwoFollow, kTwoFollow, kTooShort | kLongTwo, kTooShort,
                                    kTooShort | kLongThree | kSurrogate, kTooShort | kTooLarge | kLongFour}};
constexpr ErrorTable kFirstLow = {{kAny | kLongTwo | kLongThree | kLongFour, kAny | kLongTwo, kAny, kAny,
                                   kAny | kTooLarge, kAbove, kAbove, kAbove, kAbove, kAbove, kAbove, kAbove, kAbove,
                                   kAbove | kSurrogate, kAbove, kAbove}};
constexpr std::uint8_t kContinued = kTooLong | kLongTwo | kTwoFollow;
constexpr ErrorTable kSecondHigh = {{kTooShort, kTooShort, kTooShort, kTooShort, kTooShort, kTooShort, kTooShort,
                                     kTooShort, kContinued | kLongThree | kLongFour,
                                     kContinued | kLongThree | kTooLarge, kContinued | kSurrogate | kTooLarge,
                                     kContinued | kSurrogate | kTooLarge, kTooShort, kTooShort, kTooShort, kTooShort}};

#ifdef BPE_ARM_KERNELS

// Returns the errors in 16 bytes. `before` holds the 16 bytes before them.
static inline uint8x16_t utf8_errors(uint8x16_t bytes, uint8x16_t before) {
    const auto errors_of = [](const ErrorTable& table, uint8x16_t halves) {
        return vqtbl1q_u8(vld1q_u8(table.of), halves);
    };
    const uint8x16_t one = vextq_u8(before, bytes, 15), two = vextq_u8(before, bytes, 14),
                     three = vextq_u8(before, bytes, 13);
    const uint8x16_t pairs = errors_of(kFirstHigh, vshrq_n_u8(one, 4)) & errors_of(kFirstLow, one & vdupq_n_u8(0x0F)) &
                             errors_of(kSecondHigh, vshrq_n_u8(bytes, 4));
    // Sets the highest bit at each place that must be a character's third or fourth byte.
    const uint8x16_t longer = vqsubq_u8(two, vdupq_n_u8(0xE0 - 0x80)) | vqsubq_u8(three, vdupq_n_u8(0xF0 - 0x80));
    return pairs ^ (longer & vdupq_n_u8(0x80));
}

// Returns whether 64 bytes, or the 16 bytes before them, have errors that end in the 64 bytes.
static inline bool has_utf8_errors(const uint8x16x4_t& bytes, uint8x16_t before) {
    uint8x16_t a = bytes.val[0], b = bytes.val[1], c = bytes.val[2], d = bytes.val[3];
    // Without this, GCC 12 computes the errors of ASCII as well, ahead of the branch that leaves them out.
    __asm__ volatile("" : "+w"(a), "+w"(b), "+w"(c), "+w"(d));
    const uint8x16_t errors = (utf8_errors(a, before) | utf8_errors(b, a)) | (utf8_errors(c, b) | utf8_errors(d, c));
    return vmaxvq_u32(vreinterpretq_u32_u8(errors)) != 0;
}

// Returns whether 64 bytes and the 16 bytes before them are ASCII, which needs no check.
static inline bool is_utf8_ascii(const uint8x16x4_t& bytes, uint8x16_t before) {
    return vmaxvq_u8((bytes.val[0] | bytes.val[1]) | (bytes.val[2] | bytes.val[3]) | before) < 0x80;
}

#endif

}  // namespace bpe
