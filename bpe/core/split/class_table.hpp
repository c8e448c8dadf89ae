// The classes of the characters of a text, for programs of few classes.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "base/types.hpp"
#include "split/program.hpp"

namespace bpe {

// The characters of a text in the order of the text.
struct Symbols {
    std::uint8_t* classes;
    std::uint32_t* starts;  // where each character begins, counted from the first
};

// Looks up the class of a character by its bytes, without decoding most of them. Two characters have the same class if
// each of some programs has the same class for both.
class ClassTable {
 public:
    static constexpr std::size_t kMostClasses = 255;

    // Returns none if there would be more than kMostClasses classes. For a single program, they are its own.
    static std::optional<ClassTable> of(std::span<const Program* const> programs);

    std::size_t class_count() const { return parts_.size() / programs_; }
    // Returns the class that a program, given by its place, has for the characters of a class.
    Class part(std::size_t number, std::size_t program) const { return parts_[number * programs_ + program]; }

    // Writes the symbols of piece[begin, end); both places are between two characters. Returns how many there are. The
    // symbols need room for end - begin + kSlack characters.
    std::size_t write(Bytes piece, std::size_t begin, std::size_t end, Symbols symbols) const;
    static constexpr std::size_t kSlack = 8;

 private:
    static constexpr unsigned kBlockBits = 6;  // the characters that differ in the last byte only

    ClassTable() = default;
    std::uint8_t class_at(std::size_t block, std::uint8_t last_byte) const {
        return blocks_[std::size_t{block_of_[block]} << kBlockBits | (last_byte & 0x3F)];
    }

    std::size_t programs_ = 1;
    std::vector<Class> parts_;
    std::array<std::uint8_t, 128> ascii_{};
    std::vector<std::uint16_t> block_of_;
    std::vector<std::uint8_t> blocks_;
};

}  // namespace bpe
