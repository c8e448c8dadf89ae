// Character classes, pinned to the Unicode version of the reference (see generate_unicode.py), and the reading of
// one character from UTF-8 that may be broken. The functions are static, since some files that include them are
// compiled for processors that not everybody has, and the linker must not take theirs for all.
#pragma once

#include <cstddef>
#include <cstdint>

namespace bpe {

// One bit for each set of characters that a split pattern names.
enum CharacterClass : std::uint8_t {
    kLetter = 1,    // \p{L}
    kUpperSet = 2,  // [\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]
    kLowerSet = 4,  // [\p{Ll}\p{Lm}\p{Lo}\p{M}]
    kNumber = 8,    // \p{N}
    kSpace = 16,    // \s
    kNewline = 32,  // [\r\n]
};

namespace unicode_tables {
#include "unicode_tables.inc"
}

struct Character {
    std::uint32_t classes;  // bits of CharacterClass; 0 for punctuation, symbols, unassigned and broken bytes
    std::uint32_t length;   // in bytes, 1 to 4
};

// The classes of a code point below 0x110000. Code points below 128 stand first in kClasses, in order.
static inline std::uint32_t classes_of(std::uint32_t code_point) {
    return unicode_tables::kClasses[unicode_tables::kBlockOf[code_point >> 6] * 64 + (code_point & 63)];
}

// The character at text[position], position < end. A byte that does not begin a well-formed sequence within
// [position, end) (Unicode 16, table 3-7: no overlong forms, no surrogates, nothing above 0x10FFFF) is a character of
// one byte in no class: what Python's "surrogateescape" makes of it, seen by the same pattern.
static inline Character read_character(const std::uint8_t* text, std::size_t position, std::size_t end) {
    const std::uint8_t* p = text + position;
    const std::uint32_t first = p[0];
    if (first < 0x80) [[likely]]
        return {unicode_tables::kClasses[first], 1};
    const auto continues = [&](std::size_t i) { return position + i < end && (p[i] & 0xC0) == 0x80; };
    if (first >= 0xC2 && first < 0xE0) {
        if (continues(1)) return {classes_of((first & 0x1F) << 6 | (p[1] & 0x3F)), 2};
    } else if (first >= 0xE0 && first < 0xF0) {
        if (continues(1) && continues(2)) {
            const std::uint32_t code_point = (first & 0x0F) << 12 | (p[1] & 0x3F) << 6 | (p[2] & 0x3F);
            if (code_point >= 0x800 && code_point - 0xD800 >= 0x800) return {classes_of(code_point), 3};
        }
    } else if (first >= 0xF0 && first < 0xF5) {
        if (continues(1) && continues(2) && continues(3)) {
            const std::uint32_t code_point =
                (first & 0x07) << 18 | (p[1] & 0x3F) << 12 | (p[2] & 0x3F) << 6 | (p[3] & 0x3F);
            if (code_point >= 0x10000 && code_point < 0x110000) return {classes_of(code_point), 4};
        }
    }
    return {0, 1};
}

}  // namespace bpe
