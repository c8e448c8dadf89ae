// SHA-256 by the processor's own instructions.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace bpe {

inline constexpr std::size_t kSha256Size = 32;

// Whether the processor has them. Where it has not, a library with a kernel for each processor is the better choice.
bool can_sha256();

// Writes the SHA-256 (FIPS 180-4) of each text to `digests`, one after the other. Only where `can_sha256()`.
void sha256_all(std::span<const std::span<const std::uint8_t>> texts, std::uint8_t* digests);

}  // namespace bpe
