// Character classes, pinned to the Unicode version of the reference (see generate_unicode.py), and a function that
// reads one character from possibly malformed UTF-8. The functions are static: files compiled for newer processors
// include this header, and the linker must not choose their copies for every processor.
#pragma once

#include <cstddef>
#include <cstdint>

namespace bpe {

// A bit for each set of characters that a split pattern names. generate_unicode.py uses the same numbers.
enum CharacterClass : std::uint8_t {
    kLetter = 1,    // \p{L}
    kUpperSet = 2,  // [\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]
    kLowerSet = 4,  // [\p{Ll}\p{Lm}\p{Lo}\p{M}]
    kNumber = 8,    // \p{N}
    kSpace = 16,    // \s
    kNewline = 32,  // [\r\n]
};

namespace unicode_tables {
#include "text/unicode_tables.inc"
}

struct Character {
    std::uint32_t
        classes;  // bits of CharacterClass; 0 for punctuation, symbols, unassigned code points and malformed bytes
    std::uint32_t length;  // in bytes, 1 to 4
};

// Returns the classes of a code point below 0x110000. The first 128 entries of kClasses are code points 0 to 127.
static inline std::uint32_t classes_of(std::uint32_t code_point) {
    return unicode_tables::kClasses[unicode_tables::kBlockOf[code_point >> 6] * 64 + (code_point & 63)];
}

// Whether a byte continues a character of several bytes: 0x80 to 0xBF.
static inline bool is_continuation(std::uint8_t byte) { return (byte & 0xC0) == 0x80; }

// Returns the code point of a well-formed character of two or three bytes.
static inline std::uint32_t code_point_of(const std::uint8_t* character, std::size_t length) {
    if (length == 2) return (character[0] & 0x1Fu) << 6 | (character[1] & 0x3Fu);
    return (character[0] & 0x0Fu) << 12 | (character[1] & 0x3Fu) << 6 | (character[2] & 0x3Fu);
}

struct RawCharacter {
    std::uint32_t value;
    std::uint32_t length;  // in bytes, 1 to 4
};

// Returns the character at text[position], position < end. A byte that does not begin a well-formed sequence within
// [position, end) (Unicode 16, table 3-7: no overlong forms, no surrogates, nothing above 0x10FFFF) counts as a
// character of one byte: the lone surrogate that Python's "surrogateescape" makes of it, U+DC80 to U+DCFF.
static inline RawCharacter read_code_point(const std::uint8_t* text, std::size_t position, std::size_t end) {
    const std::uint8_t* p = text + position;
    const std::uint32_t first = p[0];
    if (first < 0x80) [[likely]]
        return {first, 1};
    const auto continues = [&](std::size_t i) { return position + i < end && is_continuation(p[i]); };
    if (first >= 0xC2 && first < 0xE0) {
        if (continues(1)) return {code_point_of(p, 2), 2};
    } else if (first >= 0xE0 && first < 0xF0) {
        if (continues(1) && continues(2)) {
            const std::uint32_t code_point = code_point_of(p, 3);
            if (code_point >= 0x800 && code_point - 0xD800 >= 0x800) return {code_point, 3};
        }
    } else if (first >= 0xF0 && first < 0xF5) {
        if (continues(1) && continues(2) && continues(3)) {
            const std::uint32_t code_point =
                (first & 0x07) << 18 | (p[1] & 0x3F) << 12 | (p[2] & 0x3F) << 6 | (p[3] & 0x3F);
            if (code_point >= 0x10000 && code_point < 0x110000) return {code_point, 4};
        }
    }
    return {0xDC00 + first, 1};
}

// Returns the character at text[position], position < end. A malformed byte, a surrogate, has no class.
static inline Character read_character(const std::uint8_t* text, std::size_t position, std::size_t end) {
    if (text[position] < 0x80) [[likely]]
        return {unicode_tables::kClasses[text[position]], 1};
    const RawCharacter character = read_code_point(text, position, end);
    return {classes_of(character.value), character.length};
}

}  // namespace bpe
