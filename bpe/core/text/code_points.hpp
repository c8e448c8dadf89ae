// Reading code points from possibly malformed UTF-8.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/types.hpp"

namespace bpe {

struct DecodedCharacter {
    std::uint32_t value;   // kMalformedByte + byte for a byte that is part of no well-formed character
    std::uint32_t length;  // in bytes, 1 to 4
};
inline constexpr std::uint32_t kMalformedByte = 0x110000;

// Returns the code point at text[position], which must exist.
inline DecodedCharacter decode_character(Bytes text, std::size_t position) {
    const std::uint8_t* p = text.data() + position;
    const std::size_t left = text.size() - position;
    const std::uint32_t first = p[0];
    if (first < 0x80) [[likely]]
        return {first, 1};
    const auto continues = [&](std::size_t i) { return i < left && (p[i] & 0xC0) == 0x80; };
    if (first >= 0xC2 && first < 0xE0) {
        if (continues(1)) return {(first & 0x1F) << 6 | (p[1] & 0x3Fu), 2};
    } else if (first >= 0xE0 && first < 0xF0) {
        if (continues(1) && continues(2)) {
            const std::uint32_t value = (first & 0x0F) << 12 | (p[1] & 0x3Fu) << 6 | (p[2] & 0x3Fu);
            if (value >= 0x800 && value - 0xD800 >= 0x800) return {value, 3};
        }
    } else if (first >= 0xF0 && first < 0xF5) {
        if (continues(1) && continues(2) && continues(3)) {
            const std::uint32_t value =
                (first & 0x07) << 18 | (p[1] & 0x3Fu) << 12 | (p[2] & 0x3Fu) << 6 | (p[3] & 0x3Fu);
            if (value >= 0x10000 && value < 0x110000) return {value, 4};
        }
    }
    return {kMalformedByte + first, 1};
}

}  // namespace bpe
