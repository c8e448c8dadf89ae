// The map of sentencepiece's normalization ("precompiled_charsmap"): strings and what they are replaced by.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "base/types.hpp"

namespace bpe {

// The map's content is the size of a trie in bytes, the trie, and the replacements, each with a NUL behind it. The trie
// is a double array of the Darts library: little-endian units of 32 bits.
class CharsMap {
 public:
    struct Match {
        std::size_t size;   // of the key, in bytes
        Bytes replacement;  // valid while the map lives
    };

    // Copies the content. Throws InputError if it is damaged.
    explicit CharsMap(Bytes content);

    // Return the shortest and the longest key that the text begins with. A key has at least one byte and no NUL.
    std::optional<Match> shortest(Bytes text) const { return find<true>(text); }
    std::optional<Match> longest(Bytes text) const { return find<false>(text); }

    // Returns whether a key begins with this character, or the character with a key.
    bool touches(Bytes character) const;

 private:
    // A unit of the double array.
    static bool has_value(std::uint32_t unit) { return unit >> 8 & 1; }
    static std::uint32_t value(std::uint32_t unit) { return unit & 0x7FFFFFFF; }
    static std::uint32_t label(std::uint32_t unit) { return unit & 0x800000FF; }
    static std::uint32_t offset(std::uint32_t unit) { return unit >> 10 << ((unit & 1u << 9) >> 6); }

    template <bool kShortest>
    std::optional<Match> find(Bytes text) const;
    void check() const;
    void check_value(std::uint32_t at) const;
    Bytes replacement(std::uint32_t at) const;

    std::vector<std::uint32_t> units_;
    std::vector<std::uint8_t> replacements_;
};

}  // namespace bpe
