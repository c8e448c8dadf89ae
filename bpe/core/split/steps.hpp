// The steps that split a text; see bpe/splitting/steps.py.
#pragma once

#include <cstdint>
#include <memory>
#include <variant>
#include <vector>

#include "split/segments.hpp"

namespace bpe {

// Splits each piece at the matches of a program.
struct SplitStep {
    std::shared_ptr<const SplitMatcher> matcher;
    Behavior behavior;
    bool invert;
};

// Puts a space before each piece that does not begin with a space.
struct PrefixSpaceStep {};

// Replaces spaces by a character, and splits before each of them.
struct MetaspaceStep {
    enum class Prepend : std::uint8_t { kFirst, kNever, kAlways };
    std::vector<std::uint8_t> replacement;  // a character in UTF-8
    Prepend prepend;
    bool split;
};

// Writes the character that stands for each byte, for the steps behind it.
struct ToByteCharactersStep {};

// Writes the byte that each character stands for. Other characters stay as they are.
struct FromByteCharactersStep {};

using AnyStep = std::variant<SplitStep, PrefixSpaceStep, MetaspaceStep, ToByteCharactersStep, FromByteCharactersStep>;

}  // namespace bpe
