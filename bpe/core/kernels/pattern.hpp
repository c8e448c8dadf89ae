// The split patterns that have a scanner.
#pragma once

#include <cstdint>

namespace bpe {

// bpe/patterns.py holds the texts of the patterns, in the same order.
enum class Pattern : std::uint8_t { kGpt2, kCl100k, kLlama3, kQwen2, kO200k, kSmolLm };
inline constexpr int kPatternCount = 6;

}  // namespace bpe
