// The names of types that every room of the core uses.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace bpe {

using Bytes = std::span<const std::uint8_t>;

// A token id. In a tokenizer's file it is also the token's rank.
using Id = std::uint32_t;
inline constexpr Id kNoId = 0xFFFFFFFF;

// Bytes [begin, end) of a text.
struct Range {
    std::uint64_t begin;
    std::uint64_t end;
    bool operator==(const Range&) const = default;
};

}  // namespace bpe
