#include "text/character_map.hpp"

#include <algorithm>
#include <stdexcept>

namespace bpe {

namespace {

// A unit of the double array. Bits 0..7 are the label, bit 8 says that a string ends here, and bits 9..30 hold the
// offset to the children. The unit of a value, which is a child with the label 0, has bit 31 set instead.
std::uint32_t offset_of(std::uint32_t unit) { return (unit >> 10) << ((unit & 0x200u) >> 6); }
bool has_label(std::uint32_t unit, std::uint8_t label) { return (unit & 0x800000FFu) == label; }
bool ends_string(std::uint32_t unit) { return unit >> 8 & 1; }
std::uint32_t value_of(std::uint32_t unit) { return unit & 0x7FFFFFFFu; }

std::uint32_t load_little_endian(const std::uint8_t* bytes) {
    return bytes[0] | std::uint32_t{bytes[1]} << 8 | std::uint32_t{bytes[2]} << 16 | std::uint32_t{bytes[3]} << 24;
}

}  // namespace

CharacterMap::CharacterMap(Bytes content) {
    if (content.empty()) return;
    if (content.size() < 4) throw std::invalid_argument("it has fewer than 4 bytes");
    const std::size_t size = load_little_endian(content.data());
    if (size > content.size() - 4) throw std::invalid_argument("its trie extends beyond its end");
    if (size % 4 || size == 0) throw std::invalid_argument("the size of its trie is not a multiple of 4");
    units_.resize(size / 4);
    for (std::size_t i = 0; i < units_.size(); ++i) units_[i] = load_little_endian(content.data() + 4 + 4 * i);
    const Bytes rest = content.subspan(4 + size);
    replacements_.assign(rest.begin(), rest.end());
    replacements_.push_back(0);
    for (int byte = 0; byte < 256; ++byte) {
        const std::optional<Node> node = root();
        first_[byte] = node && child(*node, static_cast<std::uint8_t>(byte));
    }
}

std::optional<CharacterMap::Node> CharacterMap::root() const {
    if (units_.empty()) return std::nullopt;
    return Node{0};
}

std::optional<CharacterMap::Node> CharacterMap::child(Node node, std::uint8_t byte) const {
    const std::uint32_t at = node ^ offset_of(units_[node]) ^ byte;
    if (at >= units_.size() || !has_label(units_[at], byte)) return std::nullopt;
    return at;
}

// The children lie in one block of 256 units, which a processor compares several at a time.
void CharacterMap::labels(Node node, std::vector<std::uint8_t>& bytes) const {
    const std::uint32_t base = node ^ offset_of(units_[node]);
    const std::size_t block = base & ~std::uint32_t{0xFF};
    if (block >= units_.size()) return;
    const std::size_t count = std::min<std::size_t>(256, units_.size() - block);
    const std::uint32_t* const units = units_.data() + block;
    bool is_child[256];
    for (std::uint32_t i = 0; i < count; ++i) is_child[i] = has_label(units[i], static_cast<std::uint8_t>(i ^ base));
    for (std::uint32_t i = 0; i < count; ++i) {
        if (is_child[i]) bytes.push_back(static_cast<std::uint8_t>(i ^ base));
    }
}

std::optional<Bytes> CharacterMap::replacement(Node node) const {
    const std::uint32_t unit = units_[node];
    if (!ends_string(unit)) return std::nullopt;
    const std::uint32_t at = node ^ offset_of(unit);
    if (at >= units_.size()) return std::nullopt;
    const std::uint32_t value = value_of(units_[at]);
    if (value >= replacements_.size()) return std::nullopt;
    const auto begin = replacements_.begin() + static_cast<std::ptrdiff_t>(value);
    const auto end = std::find(begin, replacements_.end(), std::uint8_t{0});
    return Bytes(begin, end);
}

CharacterMap::Match CharacterMap::search(Bytes text) const {
    Match longest{0, {}};
    Node node = 0;
    for (std::size_t i = 0; i < text.size(); ++i) {
        const std::optional<Node> next = child(node, text[i]);
        if (!next) break;
        node = *next;
        if (ends_string(units_[node])) {
            if (const std::optional<Bytes> found = replacement(node)) longest = {i + 1, *found};
        }
    }
    return longest;
}

}  // namespace bpe
