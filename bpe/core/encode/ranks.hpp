// The text of a tiktoken vocabulary (lines of base64, a space, a rank) -> tokens, offsets and ranks.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "encode/vocab.hpp"

namespace bpe {

struct Ranks {
    std::vector<std::uint8_t> bytes;
    std::vector<std::uint64_t> offsets;  // one more than there are tokens
    std::vector<Id> ids;
};

// Throws std::invalid_argument that names the line where the text is not such a vocabulary.
Ranks parse_ranks(std::span<const std::uint8_t> text);

}  // namespace bpe
