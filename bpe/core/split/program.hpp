// The program that a split pattern is compiled to. bpe/splitting/program.py documents the instructions.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "base/types.hpp"
#include "text/unicode.hpp"

namespace bpe {

enum class Op : std::uint8_t { kChar, kJump, kSplit, kMatch, kAhead, kBehind, kLook, kBack, kAtomic };
inline constexpr std::uint32_t kOpCount = 9;

struct Instruction {
    Op op;
    std::uint32_t x;  // kLook: whether it is negative; kJump, kSplit: the first target; others: a set, or a count
    std::uint32_t y;  // kSplit: the second target; kLook, kAtomic: where to continue; kAhead, kBehind: whether the edge
                      // of the text counts
};

// The number of a class. Two characters have the same class if the same sets of the program contain them.
using Class = std::uint16_t;

// A validated program: no target leads out of its body, no body ends without a match, and no loop consumes nothing.
class Program {
 public:
    // The first and the last code point of each range of a set. The ranges are sorted and disjoint.
    using Set = std::vector<std::uint32_t>;

    static constexpr std::size_t kMostInstructions = std::size_t{1} << 16;
    static constexpr std::uint32_t kCodePoints = 0x110000;
    static constexpr unsigned kBlockBits = 7;

    // `instructions` holds the operation, x and y of each instruction. Throws InputError.
    Program(std::span<const Set> sets, std::span<const std::uint32_t> instructions);

    std::span<const Instruction> code() const { return code_; }
    std::size_t class_count() const { return class_count_; }
    std::size_t set_count() const { return set_count_; }

    // Whether a set contains the characters of a class.
    bool contains(std::uint32_t set, Class c) const { return class_sets_[c * words_ + set / 64] >> (set % 64) & 1; }

    struct Character {
        Class number;
        std::uint32_t length;  // in bytes
    };

    // Returns the character at text[position], position < text.size(). A malformed byte counts as a surrogate, as in
    // Python's "surrogateescape".
    Character character_at(Bytes text, std::size_t position) const {
        const std::uint8_t first = text[position];
        if (first < 0x80) [[likely]]
            return {byte_classes_[first], 1};
        const RawCharacter character = read_code_point(text.data(), position, text.size());
        return {class_of(character.value), character.length};
    }
    // Returns the character that ends at `position`, 0 < position.
    Character character_before(Bytes text, std::size_t position) const;

    Class class_of(std::uint32_t code_point) const {
        return class_blocks_[class_block_of_[code_point >> kBlockBits] << kBlockBits |
                             (code_point & ((1u << kBlockBits) - 1))];
    }
    // Returns the number of the block of 2^kBlockBits code points around a code point. Blocks of the same number have
    // the same classes.
    std::uint16_t block_of(std::uint32_t code_point) const { return class_block_of_[code_point >> kBlockBits]; }
    // The class of each byte below 0x80.
    std::span<const Class> byte_classes() const { return byte_classes_; }

 private:
    void add_classes(std::span<const Set> sets);
    void add_class_table(std::span<const std::uint32_t> begins, std::span<const Class> classes);

    std::vector<Instruction> code_;
    std::size_t set_count_ = 0;
    std::size_t class_count_ = 0;
    std::size_t words_ = 0;                  // of 64 sets each
    std::vector<std::uint64_t> class_sets_;  // a bit for each set, for each class
    std::vector<std::uint16_t> class_block_of_;
    std::vector<Class> class_blocks_;
    Class byte_classes_[128] = {};
};

}  // namespace bpe
