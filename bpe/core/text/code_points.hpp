// Code points of a text that may be malformed, and writing them.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/types.hpp"
#include "text/unicode.hpp"

namespace bpe {

struct CodePoint {
    std::uint32_t value;   // kMalformed for a byte that belongs to no well-formed character
    std::uint32_t length;  // in bytes, 1 to 4
};

inline constexpr std::uint32_t kMalformed = 0xFFFFFFFF;

// Returns the character at text[position], position < text.size().
inline CodePoint code_point_at(Bytes text, std::size_t position) {
    const RawCharacter character = read_code_point(text.data(), position, text.size());
    const bool is_malformed = character.value - 0xD800 < 0x800;  // see read_code_point
    return {is_malformed ? kMalformed : character.value, character.length};
}

// Returns the last character of text[0, end), end > 0.
inline CodePoint code_point_before(Bytes text, std::size_t end) {
    const Bytes head = text.first(end);
    for (std::size_t length = 1; length <= 4 && length <= end; ++length) {
        if (is_continuation(head[end - length])) continue;
        const CodePoint last = code_point_at(head, end - length);
        return last.length == length ? last : CodePoint{kMalformed, 1};
    }
    return {kMalformed, 1};
}

// Writes a code point as UTF-8 and returns its length.
inline std::size_t write_utf8(std::uint32_t value, std::uint8_t* out) {
    if (value < 0x80) {
        out[0] = static_cast<std::uint8_t>(value);
        return 1;
    }
    const auto tail = [&](std::size_t length) {
        for (std::size_t i = length - 1; i > 0; --i, value >>= 6)
            out[i] = static_cast<std::uint8_t>(0x80 | (value & 0x3F));
    };
    if (value < 0x800) {
        tail(2);
        out[0] = static_cast<std::uint8_t>(0xC0 | value);
        return 2;
    }
    if (value < 0x10000) {
        tail(3);
        out[0] = static_cast<std::uint8_t>(0xE0 | value);
        return 3;
    }
    tail(4);
    out[0] = static_cast<std::uint8_t>(0xF0 | value);
    return 4;
}

}  // namespace bpe
