// The characters of \w as Rust's regex engine has them, which `tokenizers` looks for around an added token.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <iterator>

#include "text/unicode.hpp"

namespace bpe {

namespace unicode_tables {
#include "text/word_ranges.inc"
}

// Whether the character at text[position], position < end, is a letter, a mark, a decimal number, a connector such as
// "_", or a joiner. A malformed byte is not.
static inline bool is_word_character(const std::uint8_t* text, std::size_t position, std::size_t end) {
    constexpr std::uint32_t kLetterOrMark = kLetter | kUpperSet | kLowerSet;
    const Character character = read_character(text, position, end);
    if (character.classes & kLetterOrMark) return true;
    const std::uint8_t* p = text + position;
    std::uint32_t code_point = p[0];
    if (character.length == 1 && code_point >= 0x80) return false;
    if (character.length == 2 || character.length == 3) code_point = code_point_of(p, character.length);
    if (character.length == 4) {
        code_point = (p[0] & 0x07u) << 18 | (p[1] & 0x3Fu) << 12 | (p[2] & 0x3Fu) << 6 | (p[3] & 0x3Fu);
    }
    // The ranges are sorted, with the first and the last of each. Between an even and an odd index lies a range.
    const auto* ranges = unicode_tables::kWordRanges;
    const auto* last = std::upper_bound(ranges, std::end(unicode_tables::kWordRanges), code_point);
    return (last - ranges) % 2 == 1 || (last != ranges && last[-1] == code_point);
}

}  // namespace bpe
