#include "encode/cuts.hpp"

#include <algorithm>

#include "text/unicode.hpp"

namespace bpe {

namespace {

using Bytes = std::span<const std::uint8_t>;

constexpr std::uint32_t kWord = kLetter | kUpperSet | kLowerSet;  // letters and marks

bool is_like_gpt2(Pattern pattern) { return pattern == Pattern::kGpt2 || pattern == Pattern::kSmolLm; }

Character character_at(Bytes text, std::size_t position) { return read_character(text.data(), position, text.size()); }

// Whether a pretoken ends between two neighbours, whatever stands around them, and what is left of there scans the same
// when the text ends there. `right` is the first byte of the second.
//
// The first: no alternative of the pattern matches the two as neighbours.
//
//   number, no number       A number is matched by \p{N}+, \p{N}{1,3} or \p{N} only, and nothing comes after it. The
//                           classes that exclude, such as [^\s\p{L}\p{N}] and [^\r\n\p{L}\p{N}], all exclude it.
//   letter, no letter       Likewise for \p{L}+ and the contractions, which end in letters. In o200k a word goes on
//                           with marks and with a contraction's apostrophe, so these are not to follow there.
//   newline, no white space Newlines are matched by \s and at the end of other characters, [\r\n]*, after which nothing
//                           comes; the character that may precede a word is none. In o200k it is [\r\n/]*, so no slash
//                           is to follow. GPT-2 gives the last of several newlines up, which depends on the others.
//   SmolLM2: number, any    A number is matched by \p{N} only, which matches nothing else. White space before it is
//     and any, number       matched to its end, since (?![^\s\p{N}]) is as content with a number as with the text's
//     end.
//
// The second: a match at a place left of the cut could change only by going on beyond the cut, which no match does, by
// reading on, which at most tells it that its run of one class ends there, as the end of the text does, or by the rules
// for the end of a text, $ and (?!\S). Those come after white space, so never after a letter or number. After white
// space that ends in a newline, (?!\S) is not reached, for \s*[\r\n]+ matches first and takes all, and so does cl100k's
// \s++$, which comes earlier, where the text ends.
bool is_cut(Pattern pattern, std::uint32_t left, std::uint32_t right, std::uint8_t byte) {
    const bool o200k = pattern == Pattern::kO200k;
    if (pattern == Pattern::kSmolLm && ((left | right) & kNumber)) return true;
    if (left & kNumber) return !(right & kNumber);
    if (left & kLetter) return o200k ? !(right & kWord) && byte != '\'' : !(right & kLetter);
    if (left & kNewline) return !is_like_gpt2(pattern) && !(right & kSpace) && !(o200k && byte == '/');
    return false;
}

// How many letters of a contraction stand after an apostrophe: as many as there are of it, and whether it is complete.
struct Contraction {
    std::size_t length;
    bool complete;
};

Contraction contraction_in(Bytes letters, bool ignore_case) {
    if (letters.empty()) return {0, false};
    const std::uint8_t fold = ignore_case ? 0x20 : 0;
    const std::uint8_t first = letters[0] | fold;
    if (first == 's' || first == 'd' || first == 'm' || first == 't') return {1, true};
    if (letters.size() >= 2 && ignore_case && letters[0] == 0xC5 && letters[1] == 0xBF) return {2, true};  // the long s
    if (first != 'l' && first != 'v' && first != 'r') return {0, false};
    if (letters.size() == 1) return {1, false};
    return (letters[1] | fold) == (first == 'l' ? 'l' : 'e') ? Contraction{2, true} : Contraction{0, false};
}

// Where the run of characters begins, at the end of the text, of which each has one of `classes`.
std::size_t last_run(Bytes text, std::size_t begin, std::uint32_t classes) {
    std::size_t start = text.size();
    while (start > begin) {
        const std::size_t previous = character_start(text, start - 1);
        if (!(character_at(text, previous).classes & classes)) break;
        start = previous;
    }
    return start;
}

}  // namespace

// No byte of a well-formed sequence but its first can begin another, so that these never overlap, and each of them is a
// character wherever one began to read.
std::size_t character_start(Bytes text, std::size_t position) {
    for (std::size_t back = std::min<std::size_t>(3, position); back; --back) {
        if (character_at(text, position - back).length > back) return position - back;
    }
    return position;
}

std::size_t next_cut(Pattern pattern, Bytes text, std::size_t position) {
    position = std::max<std::size_t>(position, 1);
    if (position >= text.size()) return text.size();
    std::size_t left_start = character_start(text, position - 1);
    Character left = character_at(text, left_start);
    for (position = left_start + left.length; position < text.size();) {
        const Character right = character_at(text, position);
        if (is_cut(pattern, left.classes, right.classes, text[position])) return position;
        left = right;
        position += right.length;
    }
    return text.size();
}

std::size_t unfinished_character(Bytes text) {
    for (std::size_t length = std::min<std::size_t>(3, text.size()); length; --length) {
        // Only the second byte of a character is bound to the first; those after it are any that continue.
        std::uint8_t whole[4] = {0, 0x80, 0x80, 0x80};
        std::copy(text.end() - static_cast<std::ptrdiff_t>(length), text.end(), whole);
        if (length == 1 && whole[0] >= 0xC2 && whole[0] < 0xF5) return 1;
        if (length > 1 && read_character(whole, 0, 4).length > length) return length;
    }
    return 0;
}

// Which pretokens more text may change, for the patterns as scan.cpp matches them:
//
//   - The last. Each pretoken ends in a run of some class, which more of that class would lengthen. But a full
//     \p{N}{1,3}, or \p{N}, is full, and a contraction has nothing after it.
//   - Those within white space that ends the text, if only one of several: where it is cut depends on how it goes on.
//     What stands before white space was ended by it.
//   - Those within an apostrophe and the letter of a contraction that lacks another one. In GPT-2 and SmolLM2 these are
//   two, in
//     the cl100k family one, the last. In o200k they are one or two, and the word before them as well, if it has no
//     contraction yet.
//   - o200k's words, where a run of [\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}] ends the text: it was cut behind the last of its
//     characters that is in the other set too, and goes on as one word when a small letter follows. Before it may stand
//     the one character that precedes a word.
//
// All others have been ended by a character that was read.
std::size_t certain_pretokens(Pattern pattern, Bytes text, std::span<const std::uint64_t> edges) {
    const std::size_t begin = edges.front();
    const std::size_t size = edges.back();
    text = text.first(size);
    const bool o200k = pattern == Pattern::kO200k;
    const std::size_t white = last_run(text, begin, kSpace);
    const std::size_t capitals = o200k ? last_run(text, begin, kUpperSet) : size;

    const auto stays = [&](std::size_t start, std::size_t end) {
        const Character first = character_at(text, start);
        const std::size_t second = start + first.length;
        if (o200k) {
            for (const std::size_t length : {1, 2}) {  // a word with its contraction
                const std::size_t apostrophe = end - length - 1;
                if (end < second + length + 1 || text[apostrophe] != '\'') continue;
                const Contraction found = contraction_in(text.subspan(apostrophe + 1, length), true);
                if (found.complete && found.length == length) return true;
            }
        }
        if (first.classes & kNumber) {
            if (end < size) return true;
            if (pattern == Pattern::kGpt2) return false;
            std::size_t count = 0;
            for (std::size_t at = start; at < end; at += character_at(text, at).length) ++count;
            return count == (pattern == Pattern::kQwen2 || pattern == Pattern::kSmolLm ? 1 : 3);
        }
        if (text[start] == '\'' && !o200k) {
            const Contraction found = contraction_in(text.subspan(second), !is_like_gpt2(pattern));
            if (found.complete) return true;
            if (second + found.length == size) return false;
        }
        if (end == size || start >= white) return false;
        if (!o200k) return true;
        if (text[end] == '\'' && (character_at(text, character_start(text, end - 1)).classes & kWord)) {
            const Contraction found = contraction_in(text.subspan(end + 1), true);
            if (!found.complete && end + 1 + found.length == size) return false;
        }
        if (capitals == size || second < capitals) return true;
        return start < capitals && (first.classes & (kLetter | kNewline));
    };

    std::size_t count = 0;
    while (count + 1 < edges.size() && stays(edges[count], edges[count + 1])) ++count;
    return count;
}

Kind kind_of(Bytes text, std::size_t position) {
    const std::uint32_t classes = character_at(text, position).classes;
    if (classes & kLetter) return Kind::kWord;
    if (classes & kNumber) return Kind::kNumber;
    if (classes & kSpace) return Kind::kSpace;
    return (classes & kWord) || text[position] == '/' ? Kind::kAny : Kind::kOther;
}

}  // namespace bpe
