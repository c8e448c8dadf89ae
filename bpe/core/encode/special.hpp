// Finding special tokens in a text: strings that stand for a single id and are never split or merged.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/types.hpp"

namespace bpe {

class SpecialTokens {
 public:
    struct Match {
        std::size_t begin;
        std::size_t end;
        Id id;
    };

    // Token i has the id ids[i]. Throws std::invalid_argument if a token is empty.
    SpecialTokens(std::vector<std::string> tokens, std::span<const Id> ids);

    bool empty() const { return ids_.empty(); }

    // Returns the first token at or after `position`; of several that begin at the same place, the longest. Without a
    // match, `begin` is text.size().
    Match find(Bytes text, std::size_t position) const;

    // Whether a token begins before `position` and ends after it, including one that `find` would skip.
    bool cross(Bytes text, std::size_t position) const;

    // Whether a token begins at `position` or before it and ends there or behind it, including one that `find` would
    // skip.
    bool touch(Bytes text, std::size_t position) const;

    // Returns the first place at or after `position` from which the rest of the text is a proper prefix of a token, or
    // text.size().
    std::size_t unfinished(Bytes text, std::size_t position) const;

    // The length of the longest token in bytes, or 0 without tokens.
    std::size_t longest() const { return longest_; }

 private:
    // The tokens that begin with the same byte.
    struct PrefixGroup {
        std::string prefix;                // the longest common prefix
        std::vector<std::size_t> lengths;  // of the tokens, without repeats, the longest first
    };
    struct StringHash {
        using is_transparent = void;
        std::size_t operator()(std::string_view text) const { return std::hash<std::string_view>{}(text); }
    };

    std::unordered_map<std::string, Id, StringHash, std::equal_to<>> ids_;
    std::vector<PrefixGroup> groups_;
    std::uint8_t group_of_[256];  // by first byte: 1 + index in groups_, or 0 for none
    std::vector<std::string> sorted_;
    std::size_t longest_ = 0;
};

}  // namespace bpe
