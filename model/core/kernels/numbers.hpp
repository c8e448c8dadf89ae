// 16-bit floating-point numbers, which C++20 lacks.
#pragma once

#include <bit>
#include <cstdint>

namespace model {

struct Half {  // IEEE 754 binary16
    std::uint16_t bits;
};

struct BFloat16 {  // the upper half of a float
    std::uint16_t bits;
};

inline float to_float(float number) { return number; }
inline float to_float(std::int8_t number) { return number; }
inline float to_float(BFloat16 number) { return std::bit_cast<float>(std::uint32_t{number.bits} << 16); }

inline float to_float(Half number) {
    const std::uint32_t sign = std::uint32_t{number.bits} >> 15 << 31;
    const std::uint32_t rest = number.bits & 0x7FFFu;
    if (rest >= 0x7C00) return std::bit_cast<float>(sign | 0x7F800000 | rest << 13);
    // The shifted exponent is too small by 112. Multiplying by 2^112 corrects it, for subnormal numbers too.
    return std::bit_cast<float>(sign | std::bit_cast<std::uint32_t>(std::bit_cast<float>(rest << 13) * 0x1p112f));
}

// Rounds to the nearest number, and to the even one of two equally near.
inline BFloat16 to_bfloat16(float number) {
    const auto bits = std::bit_cast<std::uint32_t>(number);
    if ((bits & 0x7FFFFFFF) > 0x7F800000) return {static_cast<std::uint16_t>(bits >> 16 | 0x40)};
    return {static_cast<std::uint16_t>((bits + 0x7FFF + (bits >> 16 & 1)) >> 16)};
}

// Rounds as to_bfloat16 does.
inline Half to_half(float number) {
    const auto bits = std::bit_cast<std::uint32_t>(number);
    const std::uint32_t sign = bits >> 16 & 0x8000;
    const std::uint32_t rest = bits & 0x7FFFFFFF;
    const auto made = [&](std::uint32_t low) { return Half{static_cast<std::uint16_t>(sign | low)}; };
    if (rest > 0x7F800000) return made(0x7E00);
    if (rest >= 0x477FF000) return made(0x7C00);
    if (rest < 0x38800000) {  // subnormal: adding 0.5 rounds at the last remaining bit
        const float shifted = std::bit_cast<float>(rest) + 0.5f;
        return made(std::bit_cast<std::uint32_t>(shifted) - 0x3F000000);
    }
    return made((rest - 0x38000000 + 0xFFF + (rest >> 13 & 1)) >> 13);
}

inline bool is_finite(float number) { return (std::bit_cast<std::uint32_t>(number) & 0x7F800000) != 0x7F800000; }
inline bool is_finite(Half number) { return (number.bits & 0x7C00) != 0x7C00; }
inline bool is_finite(BFloat16 number) { return (number.bits & 0x7F80) != 0x7F80; }

}  // namespace model
