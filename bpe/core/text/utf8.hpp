// Finding and replacing malformed UTF-8.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/types.hpp"

namespace bpe {

// Returns the position of the first malformed sequence at or after `begin`, or text.size() if there is none. A
// character must begin at `begin`. A character that the end of the text cuts off is malformed. With `plain`, which the
// tests use, runs the portable code on every processor.
std::size_t invalid_utf8(Bytes text, std::size_t begin = 0, bool plain = false);

struct ReplacedText {
    std::vector<std::uint8_t> bytes;
    std::size_t count = 0;  // malformed sequences that were replaced
};

// Returns the text with each malformed sequence replaced. As in Python's decoder, a malformed sequence is a maximal
// subpart as in the Unicode Standard, section 3.9, "U+FFFD Substitution of Maximal Subparts".
ReplacedText replace_invalid_utf8(Bytes text, Bytes replacement);

}  // namespace bpe
