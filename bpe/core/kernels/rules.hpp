// The split patterns as rules that can be read beside them, character by character: how a text is scanned at its end,
// and wherever a block of 64 bytes does not decide, and what the tests hold the scanning by blocks against.
//
// All of it is local to the file that includes it, since each of them is compiled for another processor.
#pragma once

#include <cstddef>
#include <cstdint>
#include <stdexcept>

#include "kernels/scan.hpp"
#include "text/unicode.hpp"

namespace bpe {
namespace {

// A text and the questions that every pattern asks of it. A position is a byte offset at a character's first byte.
struct Text {
    const std::uint8_t* bytes;
    std::size_t size;

    Character at(std::size_t position) const { return read_character(bytes, position, size); }

    // Classes of the character at `position`, none at the end of the text.
    std::uint32_t classes(std::size_t position) const { return position < size ? at(position).classes : 0; }

    // The end of the longest run, from `position` on, of characters that have one of `classes`.
    std::size_t run_of(std::uint32_t classes, std::size_t position) const {
        while (position < size) {
            const Character character = at(position);
            if (!(character.classes & classes)) break;
            position += character.length;
        }
        return position;
    }

    // The same for characters that have none of `classes`.
    std::size_t run_outside(std::uint32_t classes, std::size_t position) const {
        while (position < size) {
            const Character character = at(position);
            if (character.classes & classes) break;
            position += character.length;
        }
        return position;
    }

    // The end of \p{N}{1,most}, whose first number ends at `position`.
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

// '(?:[sdmt]|ll|ve|re) at an apostrophe: bytes after the apostrophe, 0 where there is no contraction. With
// `ignore_case` the letters fold as (?i:) folds them, which makes U+017F, the long s (C5 BF), an "s".
std::size_t contraction(const Text& text, std::size_t apostrophe, bool ignore_case) {
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

// What a run of white space that begins a pretoken gives up, for \s+(?!\S)|\s+: all of it at the end of the text, or
// before one of the `ending` classes, else all but its last character, which goes with what follows, unless that is all
// there is.
std::size_t white_space(const Text& text, std::size_t position, std::uint32_t ending) {
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

// The same with newlines apart: \s++$ (cl100k only), then \s*[\r\n]+, then \s+(?!\S)|\s+.
template <bool kWholeAtEnd>
std::size_t newlines_and_space(const Text& text, std::size_t position) {
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

// GPT-2, and SmolLM2, where each number is by itself and ends what is before it:
//   's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
//   's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+|\s+(?![^\s\p{N}])|\s+
template <bool kNumbersApart>
struct Gpt2 {
    static constexpr std::uint32_t kEnding = kNumbersApart ? kNumber : 0;

    static std::size_t next(const Text& text, std::size_t position) {
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

// cl100k, Llama 3, whose pattern is its older form, and Qwen 2, where each number is by itself (\p{N}). The first two
// part only where white space that has a newline in it and more after the newline ends the text: cl100k's \s++$ takes
// it whole, Llama 3 cuts after the last newline.
//   '(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+|
//   ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]|\s+(?!\S)|\s
//   (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+
template <bool kWholeAtEnd, int kMostNumbers>
struct Cl100k {
    static std::size_t next(const Text& text, std::size_t position) {
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

    // The rest of [^\s\p{L}\p{N}]+[\r\n]*.
    static std::size_t punctuation(const Text& text, std::size_t position) {
        return text.run_of(kNewline, text.run_outside(kWordOrSpace, position));
    }
};

// o200k, and Llama 4. Words begin with capitals, if with any, and a contraction stays with its word:
//   [^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?
//   [^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?
//   \p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+
struct O200k {
    static std::size_t next(const Text& text, std::size_t position) {
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

    // The end of a word without its contraction, 0 where none begins: the four ways of the first two alternatives, each
    // with and without the character in front, in the order in which they are tried.
    static std::size_t word(const Text& text, std::size_t position, Character first) {
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

    // [\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+: where no small letter follows the run of the first
    // set, the match goes back to the last character in it that is in both sets.
    static std::size_t with_small(const Text& text, std::size_t position) {
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

    // The rest of [^\s\p{L}\p{N}]+[\r\n/]*.
    static std::size_t punctuation(const Text& text, std::size_t position) {
        position = text.run_outside(kWordOrSpace, position);
        while (position < text.size &&
               (text.bytes[position] == '\r' || text.bytes[position] == '\n' || text.bytes[position] == '/')) {
            ++position;
        }
        return position;
    }
};

// Calls body.template operator()<Rules>() with the rules of a pattern.
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
    throw std::logic_error("unknown pattern");
}

}  // namespace
}  // namespace bpe
