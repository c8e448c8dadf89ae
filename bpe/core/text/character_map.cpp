#include "text/character_map.hpp"

#include <cstring>

#include "base/errors.hpp"
#include "text/unicode.hpp"
#include "text/utf8.hpp"

namespace bpe {

namespace {

std::uint32_t little_endian(const std::uint8_t* bytes) {
    return bytes[0] | static_cast<std::uint32_t>(bytes[1]) << 8 | static_cast<std::uint32_t>(bytes[2]) << 16 |
           static_cast<std::uint32_t>(bytes[3]) << 24;
}

}  // namespace

CharacterMap::CharacterMap(Bytes content) {
    if (content.size() < 4) throw InputError("the charsmap is shorter than the size of its trie");
    const std::size_t size = little_endian(content.data());
    content = content.subspan(4);
    if (size > content.size()) throw InputError("the charsmap ends inside its trie; is the file truncated?");
    if (size == 0 || size % 4 != 0) throw InputError("the charsmap's trie is not a number of units of 4 bytes");
    units_.resize((size / 4 + 255) / 256 * 256);  // the children of a node are in one block
    for (std::size_t i = 0; i < size / 4; ++i) units_[i] = little_endian(content.data() + 4 * i);
    content = content.subspan(size);
    if (invalid_utf8(content) != content.size()) throw InputError("a replacement of the charsmap is not UTF-8");
    replacements_.assign(content.begin(), content.end());
    check();
}

// The children lie in one block of 256 units, which a processor compares several at a time.
CharacterMap::Labels CharacterMap::labels(std::uint32_t children) const {
    const std::uint32_t* const block = units_.data() + (children & ~std::uint32_t{0xFF});
    const std::uint32_t first = children & 0xFF;
    bool is_child[256];
    for (std::uint32_t i = 0; i < 256; ++i) is_child[i] = label(block[i]) == (i ^ first);
    Labels found;
    found.count = 0;
    for (std::uint32_t i = 0; i < 256; ++i) {
        found.bytes[found.count] = static_cast<std::uint8_t>(i ^ first);
        found.count += is_child[i] && i != first;
    }
    return found;
}

// Visits all nodes. Strings may share the nodes of their ends, and a damaged trie may have circles; each node is
// visited once.
void CharacterMap::check() {
    std::vector<bool> is_known(units_.size());
    std::vector<std::uint32_t> open;  // where the children of a node begin
    const auto visit = [&](std::uint32_t children) {
        if (children >= units_.size()) throw InputError("the charsmap's trie refers to a unit beyond its end");
        if (is_known[children]) return;
        is_known[children] = true;
        open.push_back(children);
    };
    const std::uint32_t root = offset(units_[0]);
    visit(root);
    while (!open.empty()) {
        const std::uint32_t children = open.back();
        open.pop_back();
        const Labels found = labels(children);
        for (std::size_t i = 0; i < found.count; ++i) {
            const std::uint8_t byte = found.bytes[i];
            const std::uint32_t at = children ^ byte;
            const std::uint32_t next = at ^ offset(units_[at]);
            visit(next);
            if (children == root) first_[byte] = true;
            has_inner_space_ |= (children != root && byte == ' ') || next == root;
            if (!has_value(units_[at])) continue;
            last_[byte] = true;
            check_value(value(units_[next]));
        }
    }
}

std::optional<std::vector<std::vector<std::uint8_t>>> CharacterMap::beginnings() const {
    std::vector<std::vector<std::uint8_t>> found;
    if (units_.empty()) return found;
    struct Place {
        std::uint32_t children;
        std::uint8_t depth;      // bytes that lead to it
        std::uint8_t remaining;  // bytes until the end of the character
        bool is_second;          // whether that is the second one
        std::uint8_t byte;       // the last byte
    };
    std::vector<Place> open = {{offset(units_[0]), 0, 0, false, 0}};
    std::vector<std::uint8_t> string;
    for (std::size_t left = 16 * units_.size(); !open.empty(); --left) {
        if (!left) return std::nullopt;
        const Place place = open.back();
        open.pop_back();
        if (place.depth) {
            string.resize(place.depth - 1u);
            string.push_back(place.byte);
        }
        const Labels next = labels(place.children);
        for (std::size_t i = 0; i < next.count; ++i) {
            const std::uint8_t byte = next.bytes[i];
            const bool begins = place.remaining == 0;
            if (begins == is_continuation(byte) || byte >= 0xF5) return std::nullopt;
            const int length = byte < 0x80 ? 1 : byte < 0xE0 ? 2 : byte < 0xF0 ? 3 : 4;
            const auto remaining = static_cast<std::uint8_t>(begins ? length - 1 : place.remaining - 1);
            const bool is_second = place.is_second || (begins && place.depth);
            const std::uint32_t at = place.children ^ byte;
            const bool ends = has_value(units_[at]);
            if (ends && remaining) return std::nullopt;
            if (!remaining && (ends || is_second)) {
                found.push_back(string);
                found.back().push_back(byte);
            }
            if (remaining || !is_second) {
                const auto depth = static_cast<std::uint8_t>(place.depth + 1);
                open.push_back({at ^ offset(units_[at]), depth, remaining, is_second, byte});
            }
        }
    }
    return found;
}

void CharacterMap::check_value(std::uint32_t at) const {
    if (at > replacements_.size()) throw InputError("the charsmap refers to a replacement beyond its end");
    if (at < replacements_.size() && is_continuation(replacements_[at])) {
        throw InputError("the charsmap refers to a replacement that begins inside a character");
    }
}

Bytes CharacterMap::replacement(std::uint32_t at) const {
    const Bytes rest = Bytes(replacements_).subspan(at);
    if (rest.empty()) return rest;
    const void* end = std::memchr(rest.data(), 0, rest.size());
    return end ? rest.first(static_cast<std::size_t>(static_cast<const std::uint8_t*>(end) - rest.data())) : rest;
}

template <bool kShortest>
CharacterMap::Match CharacterMap::search(Bytes text) const {
    std::uint32_t found = 0;
    std::size_t length = 0;
    std::uint32_t at = offset(units_[0]);
    for (std::size_t i = 0; i < text.size() && text[i] != 0; ++i) {
        at ^= text[i];
        const std::uint32_t unit = units_[at];
        if (label(unit) != text[i]) break;
        at ^= offset(unit);
        if (!has_value(unit)) continue;
        found = value(units_[at]);
        length = i + 1;
        if (kShortest) break;
    }
    return length ? Match{length, replacement(found)} : Match();
}

template CharacterMap::Match CharacterMap::search<true>(Bytes text) const;
template CharacterMap::Match CharacterMap::search<false>(Bytes text) const;

bool CharacterMap::touches(Bytes character) const {
    if (units_.empty()) return false;
    std::uint32_t at = offset(units_[0]);
    for (const std::uint8_t byte : character) {
        at ^= byte;
        const std::uint32_t unit = units_[at];
        if (byte == 0 || label(unit) != byte) return false;
        if (has_value(unit)) return true;
        at ^= offset(unit);
    }
    return true;
}

}  // namespace bpe
