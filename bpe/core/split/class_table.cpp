#include "split/class_table.hpp"

#include <algorithm>
#include <cstring>
#include <map>

#include "text/unicode.hpp"

namespace bpe {

std::optional<ClassTable> ClassTable::of(std::span<const Program* const> programs) {
    constexpr std::uint32_t kBlock = 1u << Program::kBlockBits;
    ClassTable table;
    table.programs_ = programs.size();
    if (programs.size() == 1) {
        if (programs[0]->class_count() > kMostClasses) return std::nullopt;
        for (std::size_t c = 0; c < programs[0]->class_count(); ++c) table.parts_.push_back(static_cast<Class>(c));
    }
    std::map<std::vector<std::uint16_t>, std::uint16_t> known_blocks;
    std::map<std::vector<Class>, std::uint8_t> known;
    std::vector<std::uint16_t> block(programs.size());
    std::vector<Class> parts(programs.size());
    for (std::uint32_t first = 0; first < Program::kCodePoints; first += kBlock) {
        std::ranges::transform(programs, block.begin(),
                               [&](const Program* program) { return program->block_of(first); });
        const auto number = static_cast<std::uint16_t>(table.blocks_.size() >> kBlockBits);
        const auto [place, is_new] = known_blocks.try_emplace(block, number);
        table.block_of_.push_back(place->second);
        table.block_of_.push_back(static_cast<std::uint16_t>(place->second + 1));
        if (!is_new) continue;
        for (std::uint32_t at = first; at < first + kBlock; ++at) {
            std::ranges::transform(programs, parts.begin(),
                                   [&](const Program* program) { return program->class_of(at); });
            if (programs.size() == 1) {
                table.blocks_.push_back(static_cast<std::uint8_t>(parts[0]));
                continue;
            }
            const auto [found, is_new_class] = known.try_emplace(parts, static_cast<std::uint8_t>(known.size()));
            if (is_new_class) table.parts_.insert(table.parts_.end(), parts.begin(), parts.end());
            if (known.size() > kMostClasses) return std::nullopt;
            table.blocks_.push_back(found->second);
        }
    }
    for (std::size_t byte = 0; byte < table.ascii_.size(); ++byte) {
        table.ascii_[byte] = table.class_at(byte >> kBlockBits, static_cast<std::uint8_t>(byte));
    }
    return table;
}

std::size_t ClassTable::write(Bytes piece, std::size_t begin, std::size_t end, Symbols symbols) const {
    constexpr std::size_t kFirstOfThree = 0x800 >> kBlockBits;
    constexpr std::size_t kSurrogates = 0xD800 >> kBlockBits, kSurrogateBlocks = 0x800 >> kBlockBits;
    const std::uint8_t* text = piece.data() + begin;
    const std::size_t size = end - begin;
    std::size_t count = 0;
    const auto add = [&](std::size_t& at, std::uint8_t number, std::size_t length) {
        symbols.classes[count] = number;
        symbols.starts[count++] = static_cast<std::uint32_t>(at);
        at += length;
    };
    const auto is_valid = [](std::size_t block) {  // of three bytes: no overlong form, no surrogate
        return block >= kFirstOfThree && block - kSurrogates >= kSurrogateBlocks;
    };
    for (std::size_t at = 0; at < size;) {
        while (size - at >= 8) {
            std::uint64_t word;
            std::memcpy(&word, text + at, 8);
            if ((word & 0x8080808080808080) != 0) break;
            for (std::size_t i = 0; i < 8; ++i) symbols.classes[count + i] = ascii_[text[at + i]];
            for (std::size_t i = 0; i < 8; ++i) symbols.starts[count + i] = static_cast<std::uint32_t>(at + i);
            at += 8;
            count += 8;
        }
        // Characters of two or three bytes, and single ones of one byte between them.
        while (size - at >= 3) {
            const std::uint8_t* p = text + at;
            const std::size_t block = std::size_t{p[0] & 0x0Fu} << 6 | (p[1] & 0x3F);
            const std::uint32_t word = std::uint32_t{p[0]} | std::uint32_t{p[1]} << 8 | std::uint32_t{p[2]} << 16;
            if ((word & 0xC0C0F0) == 0x8080E0 && is_valid(block)) {
                add(at, class_at(block, p[2]), 3);
            } else if ((word & 0xC0E0) == 0x80C0 && p[0] >= 0xC2) {
                add(at, class_at(p[0] & 0x1F, p[1]), 2);
            } else if (p[0] < 0x80) {
                add(at, ascii_[p[0]], 1);
                if (p[1] < 0x80) break;
            } else {
                break;
            }
        }
        if (at == size) break;
        const RawCharacter character = read_code_point(text, at, size);
        const auto last_bits = static_cast<std::uint8_t>(character.value & 0x3F);
        add(at, class_at(character.value >> kBlockBits, last_bits), character.length);
    }
    return count;
}

}  // namespace bpe
