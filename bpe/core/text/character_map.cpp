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

// Visits all strings. A damaged trie may have nodes with several parents, even circles; each is visited once.
void CharacterMap::check() {
    std::vector<bool> is_known(units_.size());
    std::vector<std::uint32_t> open;  // where the children of a node begin
    const auto visit = [&](std::uint32_t children) {
        if (children >= units_.size()) throw InputError("the charsmap's trie refers to a unit beyond its end");
        if (is_known[children]) return;
        is_known[children] = true;
        open.push_back(children);
    };
    visit(offset(units_[0]));
    for (std::uint32_t byte = 1; byte < 256; ++byte) first_[byte] = label(units_[open[0] ^ byte]) == byte;
    while (!open.empty()) {
        const std::uint32_t children = open.back();
        open.pop_back();
        for (std::uint32_t byte = 1; byte < 256; ++byte) {
            const std::uint32_t at = children ^ byte;
            const std::uint32_t unit = units_[at];
            if (label(unit) != byte) continue;
            const std::uint32_t next = at ^ offset(unit);
            visit(next);
            if (has_value(unit)) check_value(value(units_[next]));
        }
    }
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
