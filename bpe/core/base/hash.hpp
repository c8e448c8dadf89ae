// Hash functions for tables that live in this process only. The small functions are static: files compiled for newer
// processors include this header, and the linker must not choose their copies for every processor.
#pragma once

#include <cstddef>
#include <cstdint>

namespace bpe {

inline constexpr std::uint64_t kHashFactor = 0x9E3779B97F4A7C15ull;

// Returns a word whose low bits, which index tables, depend on every bit of `x`. Without the first shift, words that
// differ only in their last two bytes would collide.
static inline std::uint64_t mix(std::uint64_t x) {
    x = (x ^ x >> 32) * kHashFactor;
    return x ^ x >> 32;
}

// Returns a word whose high bits, which index tables, depend on every bit of the key.
static inline std::uint64_t hash_of(std::uint64_t key) { return (key ^ key >> 32) * kHashFactor; }
static inline std::uint64_t hash_of(std::uint64_t low, std::uint64_t high) { return hash_of(low * kHashFactor ^ high); }

// Returns a hash of `size` bytes, which it reads eight at a time.
std::uint64_t hash_bytes(const std::uint8_t* bytes, std::size_t size);

}  // namespace bpe
