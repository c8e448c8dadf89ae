#include "split/cuts.hpp"

#include <algorithm>

#include "text/unicode.hpp"

namespace bpe {

namespace {

constexpr std::uint32_t kWord = kLetter | kUpperSet | kLowerSet;  // letters and marks

bool is_like_gpt2(Pattern pattern) { return pattern == Pattern::kGpt2 || pattern == Pattern::kSmolLm; }

Character character_at(Bytes text, std::size_t position) { return read_character(text.data(), position, text.size()); }

// Whether (1) a pretoken ends between two neighbouring characters in any context, and (2) the text on the left scans
// the same if it ends there. `left` and `right` are the classes of the two, `byte` is the first byte of the second.
//
// Proof of 1: no alternative of the pattern matches the two as neighbours.
//
//   number, no number        Only \p{N}+, \p{N}{1,3} or \p{N} matches a number, and nothing comes after it. All negated
//                            classes, such as [^\s\p{L}\p{N}] and [^\r\n\p{L}\p{N}], exclude numbers.
//   letter, no letter        The same holds for \p{L}+ and the contractions, which end in letters. In o200k a word
//                            continues with marks and with a contraction's apostrophe, so neither may follow.
//   newline, no white space  Newlines are matched by \s and by [\r\n]* after other characters, and nothing comes after
//                            that. The character that may precede a word is no newline. In o200k it is [\r\n/]*, so no
//                            slash may follow. GPT-2 leaves out the last of several newlines, which depends on the
//                            others.
//   SmolLM2: number, any     Only \p{N} matches a number, and it matches nothing else. White space before a number is
//     and any, number        matched to its end, since (?![^\s\p{N}]) accepts a number as it accepts the end of the
//     text.
//
// Proof of 2: a match on the left of the cut could change in three ways. It could extend beyond the cut, which no match
// does. It could look beyond the cut, but that only shows that its run of one class ends there, as the end of the text
// does. Or a rule for the end of the text, $ or (?!\S), could apply. These rules come after white space, so never after
// a letter or a number. After white space that ends in a newline, (?!\S) is not reached, since \s*[\r\n]+ comes first
// and matches all of it, as does cl100k's \s++$, which comes even earlier, if the text ends there.
bool is_cut(Pattern pattern, std::uint32_t left, std::uint32_t right, std::uint8_t byte) {
    const bool o200k = pattern == Pattern::kO200k;
    if (pattern == Pattern::kSmolLm && ((left | right) & kNumber)) return true;
    if (left & kNumber) return !(right & kNumber);
    if (left & kLetter) return o200k ? !(right & kWord) && byte != '\'' : !(right & kLetter);
    if (left & kNewline) return !is_like_gpt2(pattern) && !(right & kSpace) && !(o200k && byte == '/');
    return false;
}

// The part of a contraction that follows an apostrophe: its length in bytes, and whether it is complete.
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

// Returns where the run of characters that have one of `classes` begins at the end of the text.
std::size_t last_run(Bytes text, std::size_t begin, std::uint32_t classes) {
    std::size_t start = text.size();
    while (start > begin) {
        const std::size_t previous = character_start(text, start - 1);
        if (!(character_at(text, previous).classes & classes)) break;
        start = previous;
    }
    return start;
}

// A text that may continue. More text may change these pretokens, for the patterns as rules.hpp matches them:
//
//   - The last pretoken. Every pretoken ends in a run of some class, and more of that class would lengthen it. But a
//     full \p{N}{1,3}, or \p{N}, takes no more, and nothing follows a contraction in its pretoken.
//   - Pretokens within white space at the end of the text, if there are several: the place of the cut depends on the
//     text that follows. The pretoken before the white space is final, since the white space has ended it.
//   - Pretokens within an apostrophe and the first letter of an incomplete contraction. These are two pretokens in
//   GPT-2
//     and SmolLM2, and one, the last, in the cl100k family. In o200k they are one or two, and the word before them is
//     open as well if it has no contraction yet.
//   - o200k's words, if a run of [\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}] ends the text: the run was cut behind the last of its
//     characters that is in the other set too, and becomes a single word if a small letter follows. The run may be
//     preceded by the one character that may come before a word.
//
// All other pretokens are final, since the text contains a character that has ended them.
class TextSoFar {
 public:
    // `begin` is where the pretokens in question begin.
    TextSoFar(Pattern pattern, Bytes text, std::size_t begin)
        : pattern_(pattern),
          is_o200k_(pattern == Pattern::kO200k),
          text_(text),
          white_(last_run(text, begin, kSpace)),
          capitals_(is_o200k_ ? last_run(text, begin, kUpperSet) : text.size()) {}

    // Whether the pretoken [start, end) stays the same whatever follows the text.
    bool is_certain(std::size_t start, std::size_t end) const {
        const Character first = character_at(text_, start);
        const std::size_t second = start + first.length;
        if (is_o200k_ && has_contraction(second, end)) return true;
        if (first.classes & kNumber) return end < text_.size() || is_full_number(start, end);
        if (text_[start] == '\'' && !is_o200k_) {
            const Contraction found = contraction_in(text_.subspan(second), !is_like_gpt2(pattern_));
            if (found.complete) return true;
            if (second + found.length == text_.size()) return false;
        }
        if (end == text_.size() || start >= white_) return false;
        return !is_o200k_ || is_certain_in_o200k(start, end, first);
    }

 private:
    // Whether an o200k word, whose first character ends at `second`, ends in a contraction.
    bool has_contraction(std::size_t second, std::size_t end) const {
        for (const std::size_t length : {1, 2}) {
            const std::size_t apostrophe = end - length - 1;
            if (end < second + length + 1 || text_[apostrophe] != '\'') continue;
            const Contraction found = contraction_in(text_.subspan(apostrophe + 1, length), true);
            if (found.complete && found.length == length) return true;
        }
        return false;
    }

    // Whether a pretoken of numbers takes no further number.
    bool is_full_number(std::size_t start, std::size_t end) const {
        if (pattern_ == Pattern::kGpt2) return false;
        std::size_t count = 0;
        for (std::size_t at = start; at < end; at += character_at(text_, at).length) ++count;
        return count == (pattern_ == Pattern::kQwen2 || pattern_ == Pattern::kSmolLm ? 1 : 3);
    }

    // `is_certain` for o200k, for a pretoken that ends before the end of the text and the white space there.
    bool is_certain_in_o200k(std::size_t start, std::size_t end, Character first) const {
        const bool is_word = character_at(text_, character_start(text_, end - 1)).classes & kWord;
        if (text_[end] == '\'' && is_word) {
            const Contraction found = contraction_in(text_.subspan(end + 1), true);
            if (!found.complete && end + 1 + found.length == text_.size()) return false;
        }
        if (capitals_ == text_.size() || start + first.length < capitals_) return true;
        return start < capitals_ && (first.classes & (kLetter | kNewline));
    }

    Pattern pattern_;
    bool is_o200k_;
    Bytes text_;
    std::size_t white_;     // where the white space at the end of the text begins
    std::size_t capitals_;  // where the run of kUpperSet at the end of the text begins, for o200k
};

}  // namespace

// Only the first byte of a well-formed sequence can begin a sequence, so sequences never overlap, and each is a
// character no matter where reading began.
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
        // The first byte restricts the second. The bytes after that may be any continuation bytes.
        std::uint8_t whole[4] = {0, 0x80, 0x80, 0x80};
        std::copy(text.end() - static_cast<std::ptrdiff_t>(length), text.end(), whole);
        if (length == 1 && whole[0] >= 0xC2 && whole[0] < 0xF5) return 1;
        if (length > 1 && read_character(whole, 0, 4).length > length) return length;
    }
    return 0;
}

std::size_t certain_pretokens(Pattern pattern, Bytes text, std::span<const std::uint64_t> edges) {
    const TextSoFar so_far(pattern, text.first(edges.back()), edges.front());
    std::size_t count = 0;
    while (count + 1 < edges.size() && so_far.is_certain(edges[count], edges[count + 1])) ++count;
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
