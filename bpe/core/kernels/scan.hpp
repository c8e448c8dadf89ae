// Splitting text into pretokens without a regex engine: each split pattern has a hand-written scanner.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/pattern.hpp"

namespace bpe {

// Finds the pretokens of text[position, size) and writes the end of each to `ends`, until it has written `capacity`
// ends or reached the end of the text. Returns how many it has written. `position` must be the start of a pretoken. The
// pretokens join up to the whole text. Bytes at `size` and beyond are never read: a pattern's "$" and "(?!\S)" see the
// end of the text there.
using Scan = std::size_t (*)(Pattern pattern, const std::uint8_t* text, std::size_t position, std::size_t size,
                             std::uint64_t* ends, std::size_t capacity);

std::size_t scan_plain(Pattern pattern, const std::uint8_t* text, std::size_t position, std::size_t size,
                       std::uint64_t* ends, std::size_t capacity);
std::size_t scan_avx2(Pattern pattern, const std::uint8_t* text, std::size_t position, std::size_t size,
                      std::uint64_t* ends, std::size_t capacity);
std::size_t scan_neon(Pattern pattern, const std::uint8_t* text, std::size_t position, std::size_t size,
                      std::uint64_t* ends, std::size_t capacity);
std::size_t scan_avx512(Pattern pattern, const std::uint8_t* text, std::size_t position, std::size_t size,
                        std::uint64_t* ends, std::size_t capacity);

}  // namespace bpe
