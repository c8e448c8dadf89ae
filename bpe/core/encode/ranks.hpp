// Parsing tiktoken's vocabulary format: lines of a token in base64, a space, and the token's rank.
#pragma once

#include <cstdint>
#include <vector>

#include "base/types.hpp"

namespace bpe {

struct Ranks {
    std::vector<std::uint8_t> bytes;     // of all tokens
    std::vector<std::uint64_t> offsets;  // where each token begins, then where the last one ends
    std::vector<Id> ids;
};

// Throws std::invalid_argument, with the line number, if a line is malformed.
Ranks parse_ranks(Bytes text);

}  // namespace bpe
