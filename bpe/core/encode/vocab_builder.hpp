// Making a vocabulary from its tokens.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>

#include "base/types.hpp"
#include "encode/vocab.hpp"

namespace bpe {

// Makes a vocabulary. Token i has the bytes [offsets[i], offsets[i + 1]) of `bytes` and the id ids[i], which is also
// its rank: any two neighbours merge whose joined bytes are a token, and the merge that makes the lower id comes first.
// With `merges`, only the listed pairs merge, in the order of the list: left, right and merged id of each, one after
// the other, no pair twice. With `merges_only`, merging alone makes tokens, and bytes without a token are left out
// before it. Otherwise a pretoken that is a token is taken whole. Throws std::invalid_argument if a token is empty, if
// a token or an id appears twice, if, without `merges_only`, a single byte has no token, or if a listed pair does not
// join to the token that it is listed with.
std::shared_ptr<const Vocabulary> build_vocabulary(Bytes bytes, std::span<const std::uint64_t> offsets,
                                                   std::span<const Id> ids, bool merges_only = false,
                                                   std::optional<std::span<const Id>> merges = std::nullopt);

// Makes a vocabulary of characters that merge by the rules of `pieces`, whose ids are those of `ids`. The tokens are
// what ids decode to; several may be the same.
std::shared_ptr<const Vocabulary> build_piece_vocabulary(Bytes bytes, std::span<const std::uint64_t> offsets,
                                                         std::span<const Id> ids, std::shared_ptr<const Pieces> pieces);

}  // namespace bpe
