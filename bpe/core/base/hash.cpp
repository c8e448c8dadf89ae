#include "base/hash.hpp"

#include <cstring>

namespace bpe {

std::uint64_t hash_bytes(const std::uint8_t* bytes, std::size_t size) {
    const auto word = [](const std::uint8_t* at, auto zero) {
        std::memcpy(&zero, at, sizeof zero);
        return std::uint64_t{zero};
    };
    std::uint64_t hash = size * kHashFactor;
    if (size >= 8) {  // the last word may overlap the one before; the size says by how much
        for (std::size_t at = 0; at + 8 < size; at += 8) hash = mix(hash ^ word(bytes + at, std::uint64_t{}));
        return mix(mix(hash ^ word(bytes + size - 8, std::uint64_t{})));
    }
    if (size >= 4)
        return mix(mix(hash ^ (word(bytes, std::uint32_t{}) | word(bytes + size - 4, std::uint32_t{}) << 32)));
    if (size)
        hash ^= std::uint64_t{bytes[0]} | std::uint64_t{bytes[size / 2]} << 8 | std::uint64_t{bytes[size - 1]} << 16;
    return mix(mix(hash));
}

}  // namespace bpe
