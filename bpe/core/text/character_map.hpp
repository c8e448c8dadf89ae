// The precompiled map of SentencePiece's normalizer ("precompiled_charsmap"): strings and what replaces them.
#pragma once

#include <cstddef>
#include <cstdint>
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

    // Calls visit(string, replacement) for all strings of the map. Strings may share the nodes of their ends, so a
    // damaged trie may have circles or far more strings than units: then it stops and returns false.
    template <class Visit>
    bool for_each(Visit&& visit) const;

 private:
    static constexpr std::size_t kLongestString = 1024;

    // A unit of the double array. Bits 0 to 7 are the label, bit 8 says that a string ends here, and bits 9 to 30 hold
    // the offset to the block of the children. The unit of a value, a child with the label 0, has bit 31 set.
    static bool has_value(std::uint32_t unit) { return unit >> 8 & 1; }
    static std::uint32_t value(std::uint32_t unit) { return unit & 0x7FFFFFFF; }
    static std::uint32_t label(std::uint32_t unit) { return unit & 0x800000FF; }
    static std::uint32_t offset(std::uint32_t unit) { return unit >> 10 << ((unit & 1u << 9) >> 6); }

    bool may_begin(Bytes text) const { return !text.empty() && first_[text[0]]; }
    template <bool kShortest>
    Match search(Bytes text) const;
    void check();
    void check_value(std::uint32_t at) const;
    Bytes replacement(std::uint32_t at) const;

    std::vector<std::uint32_t> units_;  // whole blocks of 256
    std::vector<std::uint8_t> replacements_;
    bool first_[256] = {};  // the bytes that begin strings
};

template <class Visit>
bool CharacterMap::for_each(Visit&& visit) const {
    if (units_.empty()) return true;
    struct Place {
        std::uint32_t at;
        std::size_t depth;
        std::uint8_t byte;
    };
    std::vector<Place> open;
    std::vector<std::uint8_t> string;
    const auto open_children = [&](std::uint32_t children, std::size_t depth) {
        for (std::uint32_t byte = 1; byte < 256; ++byte) {
            const std::uint32_t at = children ^ byte;
            if (label(units_[at]) == byte) open.push_back({at, depth, static_cast<std::uint8_t>(byte)});
        }
    };
    open_children(offset(units_[0]), 0);
    for (std::size_t left = 4 * units_.size(); !open.empty(); --left) {
        if (!left || string.size() > kLongestString) return false;
        const Place place = open.back();
        open.pop_back();
        string.resize(place.depth);
        string.push_back(place.byte);
        const std::uint32_t unit = units_[place.at];
        const std::uint32_t children = place.at ^ offset(unit);
        if (has_value(unit)) visit(Bytes(string), replacement(value(units_[children])));
        open_children(children, place.depth + 1);
    }
    return true;
}

}  // namespace bpe
