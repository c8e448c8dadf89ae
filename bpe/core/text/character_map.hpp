// The precompiled map of SentencePiece's normalizer ("precompiled_charsmap"): strings and what replaces them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "base/types.hpp"

namespace bpe {

// The strings are in a trie, a double array of the Darts library. Each has at least one byte and no NUL. The content
// comes from a file and may be damaged: the constructor checks all that a search can reach. Immutable, so any number of
// threads may use it.
class CharacterMap {
 public:
    // A map that replaces nothing.
    CharacterMap() = default;
    // Copies a map: the size of the trie in bytes, the trie as units of 32 bits, both little-endian, and the
    // replacements, each with a NUL behind it. Throws InputError if it is damaged.
    explicit CharacterMap(Bytes content);

    bool is_empty() const { return units_.empty(); }

    struct Match {
        std::size_t length = 0;  // bytes of the text; 0 if no string of the map begins the text
        Bytes replacement;       // valid while the map lives

        explicit operator bool() const { return length != 0; }
    };
    // Return the shortest and the longest string of the map that begins a text.
    Match shortest(Bytes text) const { return may_begin(text) ? search<true>(text) : Match(); }
    Match longest(Bytes text) const { return may_begin(text) ? search<false>(text) : Match(); }

    // Returns whether a string of the map begins with this character, or the character with a string.
    bool touches(Bytes character) const;

    // Whether a string ends with this byte, and whether one has a space after its first byte.
    bool may_end_with(std::uint8_t byte) const { return last_[byte]; }
    bool has_inner_space() const { return has_inner_space_; }

    // Returns the distinct beginnings of all strings: their first two characters, or the whole string if it has one.
    // Returns nullopt if one is no character, or there are too many, as in a damaged trie with circles.
    std::optional<std::vector<std::vector<std::uint8_t>>> beginnings() const;

 private:
    // A unit of the double array. Bits 0 to 7 are the label, bit 8 says that a string ends here, and bits 9 to 30 hold
    // the offset to the block of the children. The unit of a value, a child with the label 0, has bit 31 set.
    static bool has_value(std::uint32_t unit) { return unit >> 8 & 1; }
    static std::uint32_t value(std::uint32_t unit) { return unit & 0x7FFFFFFF; }
    static std::uint32_t label(std::uint32_t unit) { return unit & 0x800000FF; }
    static std::uint32_t offset(std::uint32_t unit) { return unit >> 10 << ((unit & 1u << 9) >> 6); }

    // The bytes that lead to children, of which the first `count` are set.
    struct Labels {
        std::uint8_t bytes[256];
        std::size_t count;
    };
    Labels labels(std::uint32_t children) const;

    bool may_begin(Bytes text) const { return !text.empty() && first_[text[0]]; }
    template <bool kShortest>
    Match search(Bytes text) const;
    void check();
    void check_value(std::uint32_t at) const;
    Bytes replacement(std::uint32_t at) const;

    std::vector<std::uint32_t> units_;  // whole blocks of 256
    std::vector<std::uint8_t> replacements_;
    bool first_[256] = {};  // the bytes that begin strings
    bool last_[256] = {};   // the bytes that end strings
    bool has_inner_space_ = false;
};

}  // namespace bpe
