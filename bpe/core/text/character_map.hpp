// The precompiled map of SentencePiece's normalizer: strings and what replaces them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "base/types.hpp"

namespace bpe {

// A trie of the strings in the form of a double array (the format of the darts-clone library), and the replacements
// side by side, each ended by a zero byte. The content comes from a file and may be damaged: every step is checked, and
// what leads outside counts as no match. Immutable, so any number of threads may use it.
class CharacterMap {
 public:
    // A map that replaces nothing.
    CharacterMap() = default;
    // Reads a map: the size of the trie in bytes as a little-endian uint32, the trie, the replacements. Throws
    // std::invalid_argument.
    explicit CharacterMap(Bytes content);

    bool is_empty() const { return units_.empty(); }

    struct Match {
        std::size_t length;  // bytes of the text; 0 if no string of the map begins the text
        Bytes replacement;
    };
    // Returns the longest string of the map that begins a text.
    Match longest(Bytes text) const {
        if (units_.empty() || text.empty() || !first_[text[0]]) return {0, {}};
        return search(text);
    }

    // A place in the trie.
    using Node = std::uint32_t;
    std::optional<Node> root() const;
    std::optional<Node> child(Node node, std::uint8_t byte) const;
    // Appends the bytes that lead from the node to others.
    void labels(Node node, std::vector<std::uint8_t>& bytes) const;
    // Returns what replaces the string that leads to the node, if it is a string of the map.
    std::optional<Bytes> replacement(Node node) const;
    std::size_t node_limit() const { return units_.size(); }

 private:
    Match search(Bytes text) const;

    std::vector<std::uint32_t> units_;
    std::vector<std::uint8_t> replacements_;
    bool first_[256] = {};  // the bytes that begin strings
};

}  // namespace bpe
