// Text bytes -> pretoken boundaries, without a regex engine: one hand-written scanner for each split pattern.
#pragma once

#include <cstddef>
#include <cstdint>

namespace bpe {

// The patterns that have a scanner; bpe/patterns.py holds their texts, in the same order.
enum class Pattern : std::uint8_t { kGpt2, kCl100k, kLlama3, kQwen2, kO200k, kSmolLm };
inline constexpr int kPatternCount = 6;

// Finds the pretokens of text[position, size), beginning at `position`, which must be a pretoken's start, and writes
// the end of each to `ends` until `capacity` ends are written or the text is used up. Returns how many were written.
// The pretokens join up to the whole text. What follows `size` is never looked at: the text ends there, as it does for
// a pattern's "$" and "(?!\S)".
using Scan = std::size_t (*)(Pattern pattern, const std::uint8_t* text, std::size_t position, std::size_t size,
                             std::uint64_t* ends, std::size_t capacity);

// The ways to do it, see kernels.hpp; `scan` takes the best for this machine.
std::size_t scan(Pattern pattern, const std::uint8_t* text, std::size_t position, std::size_t size, std::uint64_t* ends,
                 std::size_t capacity);
std::size_t scan_plain(Pattern pattern, const std::uint8_t* text, std::size_t position, std::size_t size,
                       std::uint64_t* ends, std::size_t capacity);
std::size_t scan_avx2(Pattern pattern, const std::uint8_t* text, std::size_t position, std::size_t size,
                      std::uint64_t* ends, std::size_t capacity);
std::size_t scan_avx512(Pattern pattern, const std::uint8_t* text, std::size_t position, std::size_t size,
                        std::uint64_t* ends, std::size_t capacity);

}  // namespace bpe
