// Special tokens in a text: the strings that stand for one id and are never split or merged.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "vocab.hpp"

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
};

}  // namespace bpe
