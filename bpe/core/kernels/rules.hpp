// The split patterns as rules that work character by character and can be compared with the patterns line by line.
// Scanning by blocks (blocks.hpp) uses them at the end of a text and wherever 64 bytes do not decide. The tests use
// them as the reference for scanning by blocks.
//
// Everything here is local to the file that includes it, since each of these files is compiled for another processor.
#pragma once

#include <cstddef>
#include <cstdint>
#include <stdexcept>

#include "kernels/pattern.hpp"
#include "text/unicode.hpp"

namespace bpe {
namespace {

// A text, and the questions that every pattern asks of it. A position is the offset of a character's first byte.
struct ScannedText {
    const std::uint8_t* bytes;
    std::size_t size;

    Character at(std::size_t position) const { return read_character(bytes, position, size); }

    // Returns the classes of the character at `position`, or 0 at the end of the text.
    std::uint32_t classes(std::size_t position) const { return position < size ? at(position).classes : 0; }

    // Returns the end of the run of characters from `position` on that have one of `classes`.
    std::size_t run_of(std::uint32_t classes, std::size_t position) const {
        while (position < size) {
            const Character character = at(position);
            if (!(character.classes & classes)) break;
            position += character.length;
        }
        return position;
    }

    // Returns the end of the run of characters from `position` on that have none of `classes`.
    std::size_t run_outside(std::uint32_t classes, std::size_t position) const {
        while (position < size) {
            const Character character = at(position);
            if (character.classes & classes) break;
            position += character.length;
        }
        return position;
    }

    // Returns the end of a match of \p{N}{1,most} whose first number ends at `position`.
    std::size_t numbers(std::size_t position, int most) const {
        for (int i = 1; i < most && position < size; ++i) {
            const Character character = at(position);
            if (!(character.classes & kNumber)) break;
            position += character.length;
        }
        return position;
    }
};

constexpr std::uint32_t kWordOrSpace = kLetter | kNumber | kSpace;

// Matches '(?:[sdmt]|ll|ve|re) at an apostrophe. Returns the number of bytes after the apostrophe, or 0 if there is no
// contraction. `ignore_case` folds letters as (?i:) does, so that U+017F, the long s (C5 BF), matches "s".
std::size_t contraction(const ScannedText& text, std::size_t apostrophe, bool ignore_case) {
    const std::uint8_t* p = text.bytes + apostrophe + 1;
    const std::size_t left = text.size - apostrophe - 1;
    if (left == 0) return 0;
    const std::uint8_t fold = ignore_case ? 0x20 : 0;
    const std::uint8_t first = p[0] | fold;
    if (first == 's' || first == 'd' || first == 'm' || first == 't') return 1;
    if (left == 1) return 0;
    const std::uint8_t second = p[1] | fold;
    if (first == 'l' && second == 'l') return 2;
    if ((first == 'v' || first == 'r') && second == 'e') return 2;
    if (ignore_case && p[0] == 0xC5 && p[1] == 0xBF) return 2;
    return 0;
}

// Matches \s+(?!\S)|\s+ at a run of white space and returns the end of the match. The match is the whole run if the run
// is a single character or is followed by the end of the text or by one of the `ending` classes. Otherwise the match
// leaves out the run's last character, which belongs to the next pretoken.
std::size_t white_space(const ScannedText& text, std::size_t position, std::uint32_t ending) {
    std::size_t last = position;
    std::size_t end = position;
    while (end < text.size) {
        const Character character = text.at(end);
        if (character.classes & ending) return end;
        if (!(character.classes & kSpace)) return last > position ? last : end;
        last = end;
        end += character.length;
    }
    return end;
}

// Matches \s++$ (cl100k only), then \s*[\r\n]+, then \s+(?!\S)|\s+. Returns the end of the match.
template <bool kWholeAtEnd>
std::size_t newlines_and_space(const ScannedText& text, std::size_t position) {
    std::size_t after_newline = 0;
    std::size_t last = position;
    std::size_t end = position;
    while (end < text.size) {
        const Character character = text.at(end);
        if (!(character.classes & kSpace)) {
            if (after_newline) return after_newline;
            return last > position ? last : end;
        }
        last = end;
        end += character.length;
        if (character.classes & kNewline) after_newline = end;
    }
    return after_newline && !kWholeAtEnd ? after_newline : end;
}

// GPT-2 and SmolLM2. In SmolLM2, a number is a pretoken by itself and ends the pretoken before it.
//   's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
//   's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+|\s+(?![^\s\p{N}])|\s+
template <bool kNumbersApart>
struct Gpt2 {
    static constexpr std::uint32_t kEnding = kNumbersApart ? kNumber : 0;

    static std::size_t next(const ScannedText& text, std::size_t position) {
        const Character first = text.at(position);
        if (text.bytes[position] == '\'') {
            if (const std::size_t length = contraction(text, position, false)) return position + 1 + length;
        }
        if constexpr (kNumbersApart) {
            if (first.classes & kNumber) return position + first.length;
        }
        // " ?" takes a space only where something other than white space follows it.
        std::size_t body = position;
        std::uint32_t classes = first.classes;
        if (text.bytes[position] == ' ' && position + 1 < text.size) {
            const std::uint32_t following = text.classes(position + 1);
            if (!(following & (kSpace | kEnding))) {
                body = position + 1;
                classes = following;
            }
        }
        if (classes & kLetter) return text.run_of(kLetter, body);
        if (classes & kNumber) return text.run_of(kNumber, body);
        if (!(classes & kSpace)) return text.run_outside(kWordOrSpace, body);
        return white_space(text, position, kEnding);
    }
};

// cl100k; Llama 3, which uses an older form of the same pattern; and Qwen 2, where a number is a pretoken by itself
// (\p{N}). The first two differ only if the text ends in white space that contains a newline and does not end with one:
// cl100k's \s++$ matches the white space whole, Llama 3 cuts it after the last newline.
//   '(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+|
//   ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]|\s+(?!\S)|\s
//   (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+
template <bool kWholeAtEnd, int kMostNumbers>
struct Cl100k {
    static std::size_t next(const ScannedText& text, std::size_t position) {
        const Character first = text.at(position);
        const std::size_t second = position + first.length;
        if (first.classes & kLetter) return text.run_of(kLetter, second);
        if (first.classes & kNumber) return text.numbers(second, kMostNumbers);
        if (text.bytes[position] == '\'') {
            if (const std::size_t length = contraction(text, position, true)) return second + length;
        }
        const std::uint32_t following = text.classes(second);
        if (!(first.classes & kNewline) && (following & kLetter)) return text.run_of(kLetter, second);
        if (!(first.classes & kSpace)) return punctuation(text, second);
        if (text.bytes[position] == ' ' && second < text.size && !(following & kWordOrSpace)) {
            return punctuation(text, second);
        }
        return newlines_and_space<kWholeAtEnd>(text, position);
    }

    // Matches the rest of [^\s\p{L}\p{N}]+[\r\n]*.
    static std::size_t punctuation(const ScannedText& text, std::size_t position) {
        return text.run_of(kNewline, text.run_outside(kWordOrSpace, position));
    }
};

// o200k and Llama 4. Capitals come first in a word, and a contraction belongs to the word before it.
//   [^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?
//   [^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?
//   \p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+
struct O200k {
    static std::size_t next(const ScannedText& text, std::size_t position) {
        const Character first = text.at(position);
        const std::size_t second = position + first.length;
        if (const std::size_t end = word(text, position, first)) {
            if (end == text.size || text.bytes[end] != '\'') return end;
            const std::size_t length = contraction(text, end, true);
            return length ? end + 1 + length : end;
        }
        if (first.classes & kNumber) return text.numbers(second, 3);
        if (!(first.classes & kSpace)) return punctuation(text, second);
        if (text.bytes[position] == ' ' && second < text.size && !(text.classes(second) & kWordOrSpace)) {
            return punctuation(text, second);
        }
        return newlines_and_space<false>(text, position);
    }

    // Returns the end of a word without its contraction, or 0 if no word begins here. Tries the first two alternatives,
    // each with and without the character in front, in the order in which the pattern tries them.
    static std::size_t word(const ScannedText& text, std::size_t position, Character first) {
        const bool may_precede = !(first.classes & (kLetter | kNumber | kNewline));
        const std::size_t second = position + first.length;
        if (may_precede) {
            if (const std::size_t end = with_small(text, second)) return end;
        }
        if (const std::size_t end = with_small(text, position)) return end;
        if (may_precede) {
            if (const std::size_t end = text.run_of(kUpperSet, second); end > second) return end;
        }
        const std::size_t end = text.run_of(kUpperSet, position);
        return end > position ? end : 0;
    }

    // Matches [\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+ and returns the end, or 0 without a match. If
    // no small letter follows the run of the first set, the match ends after the run's last character that is in both
    // sets.
    static std::size_t with_small(const ScannedText& text, std::size_t position) {
        std::size_t after_common = 0;
        while (position < text.size) {
            const Character character = text.at(position);
            if (!(character.classes & kUpperSet)) {
                if (character.classes & kLowerSet) return text.run_of(kLowerSet, position);
                break;
            }
            position += character.length;
            if (character.classes & kLowerSet) after_common = position;
        }
        return after_common;
    }

    // Matches the rest of [^\s\p{L}\p{N}]+[\r\n/]*.
    static std::size_t punctuation(const ScannedText& text, std::size_t position) {
        position = text.run_outside(kWordOrSpace, position);
        while (position < text.size &&
               (text.bytes[position] == '\r' || text.bytes[position] == '\n' || text.bytes[position] == '/')) {
            ++position;
        }
        return position;
    }
};

// Calls body.template operator()<Rules>() with the rules of a pattern and returns its result.
template <class Body>
std::size_t with_rules(Pattern pattern, const Body& body) {
    switch (pattern) {
        case Pattern::kGpt2: return body.template operator()<Gpt2<false>>();
        case Pattern::kCl100k: return body.template operator()<Cl100k<true, 3>>();
        case Pattern::kLlama3: return body.template operator()<Cl100k<false, 3>>();
        case Pattern::kQwen2: return body.template operator()<Cl100k<false, 1>>();
        case Pattern::kO200k: return body.template operator()<O200k>();
        case Pattern::kSmolLm: return body.template operator()<Gpt2<true>>();
    }
    throw std::logic_error("the pattern has no scanner");
}

}  // namespace
}  // namespace bpe
