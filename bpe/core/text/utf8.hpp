// Which bytes of a text are well-formed UTF-8.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace bpe {

// Where the first sequence at or after `begin`, at which a character must begin, is malformed; text.size() if none is.
// A character that the end of the text cuts off is malformed. `plain` is for the tests: in portable C++ alone.
std::size_t invalid_utf8(std::span<const std::uint8_t> text, std::size_t begin = 0, bool plain = false);

struct ReplacedText {
    std::vector<std::uint8_t> bytes;
    std::size_t count = 0;  // of malformed sequences
};

// The text with `replacement` in the place of each malformed sequence, which are those of the Unicode Standard's
// "substitution of maximal subparts" (section 3.9), as in Python's decoder.
ReplacedText replace_invalid_utf8(std::span<const std::uint8_t> text, std::span<const std::uint8_t> replacement);

}  // namespace bpe
