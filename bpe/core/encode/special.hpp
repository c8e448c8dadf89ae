// Special tokens in a text: the strings that stand for one id and are never split or merged.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "encode/vocab.hpp"

namespace bpe {

class SpecialTokens {
 public:
    struct Match {
        std::size_t begin;
        std::size_t end;
        Id id;
    };

    // Throws std::invalid_argument for an empty string.
    SpecialTokens(std::vector<std::string> tokens, std::span<const Id> ids);

    bool empty() const { return ids_.empty(); }

    // The first place at or after `position` where one of the tokens stands; of several that begin there, the longest.
    // `begin` is text.size() where there is none.
    Match find(std::span<const std::uint8_t> text, std::size_t position) const;

    // Whether one of the tokens begins before `position` and ends after it, be it one that `find` would pass over.
    bool cross(std::span<const std::uint8_t> text, std::size_t position) const;

    // The first place at or after `position` from which the text goes on to its end as a token begins that is longer.
    std::size_t unfinished(std::span<const std::uint8_t> text, std::size_t position) const;

    // In bytes, 0 where there are no tokens.
    std::size_t longest() const { return longest_; }

 private:
    // The tokens that begin with one byte.
    struct Group {
        std::string prefix;                // that all of them begin with
        std::vector<std::size_t> lengths;  // longest first, each once
    };
    struct Hash {
        using is_transparent = void;
        std::size_t operator()(std::string_view text) const { return std::hash<std::string_view>{}(text); }
    };

    std::unordered_map<std::string, Id, Hash, std::equal_to<>> ids_;
    std::vector<Group> groups_;
    std::uint8_t group_of_[256];  // 1 + index in groups_, 0 for none
    std::vector<std::string> sorted_;
    std::size_t longest_ = 0;
};

}  // namespace bpe
