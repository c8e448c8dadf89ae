// Tokens of the base vocabulary that merging does not reach.
#pragma once

#include <span>
#include <string>
#include <unordered_set>

#include "encode/vocab.hpp"
#include "train/cells.hpp"
#include "train/merged_tokens.hpp"

namespace bpe {

// Encoding takes a pretoken that is a token whole, so a vocabulary may hold tokens that merging does not lead to. A new
// merge may bring two neighbours together whose bytes are such a token. Then one of the two is the token just made, and
// its bytes are a prefix or suffix of the unreached token.
class UnreachedTokens {
 public:
    explicit UnreachedTokens(const Vocabulary& base);

    // Returns whether the merge of a pair may bring an unreached token together.
    bool may_follow(Pair pair, const MergedTokens& tokens) const {
        return !affixes_.empty() && affixes_.contains(tokens.bytes_of(pair));
    }

    // Merges the pair as encoding does: at one place after the other, and at each place merges on with the neighbours
    // for as long as they make tokens of the base. This is rare, and leaves the counts of pairs out of date.
    void merge(Pair pair, Id made, std::span<const Position> places, const MergedTokens& tokens, Cells& cells) const;

 private:
    std::unordered_set<std::string> affixes_;  // all prefixes and suffixes of unreached tokens
};

}  // namespace bpe
