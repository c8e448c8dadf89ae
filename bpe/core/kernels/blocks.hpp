// Scanning by blocks of 64 bytes.
//
// A match of these patterns never depends on the text before it, so a block of 64 bytes that begins at the start of a
// pretoken can be scanned by itself. The classes of its bytes become masks with a bit for each byte, and bit arithmetic
// on the masks gives the starts of the pretokens. The next block begins at the last of these starts, since the pretoken
// there may continue beyond the block. All bytes of a character have its class, so the neighbours of a character are
// the neighbours of its bytes.
//
// Everything here is local to the file that includes it, since each of these files is compiled for another processor.
// The file supplies a class with two functions:
//     static BlockBits classify(const std::uint8_t* bytes);
//     static void write_places(std::uint64_t places, std::uint64_t base, std::uint64_t* ends);
// `write_places` writes base + i for each bit i of `places`, in order. It may write up to 64 words.
#pragma once

#include <bit>
#include <type_traits>

#include "kernels/rules.hpp"

namespace bpe {
namespace {

// The classes of the bytes of a block. Bit i is for byte i. `classify` handles bytes below 0x80 and those leading bytes
// that, with at most two more bytes, show that the character is a letter. This avoids most of the decoding in these
// scripts: D0 and D1 (Cyrillic, U+0400 to U+047F), E5 to E9 (Chinese, U+5000 to U+9FFF), EB and EC (Korean, U+B000 to
// U+CFFF), and E3 before 81 or 83 and 81 to BA (Japanese, U+3041 to U+307A and U+30C1 to U+30FA). Multibyte decodes the
// other characters.
struct BlockBits {
    std::uint64_t letter;
    std::uint64_t upper;  // capital letters
    std::uint64_t number;
    std::uint64_t space;    // white space, including newlines
    std::uint64_t newline;  // \r and \n
    std::uint64_t blank;    // the space character itself
    std::uint64_t apostrophe;
    std::uint64_t slash;
    std::uint64_t high;          // 0x80 and above
    std::uint64_t continuation;  // 0x80 to 0xBF
    std::uint64_t three;         // 0xE0 and above: the first of three or four bytes
    std::uint64_t four;          // 0xF0 and above: the first of four bytes
    std::uint64_t letter_lead;   // the leading bytes listed above
    std::uint64_t capital_lead;  // D0 before 80 to AF: a capital letter
    std::uint64_t small_lead;    // D0 before B0 to BF and D1 before 80 to 9F: a small letter
};

// Returns the runs of ones in `run` that begin at the bits of `from`.
inline std::uint64_t run_from(std::uint64_t from, std::uint64_t run) { return run & ~(run + from); }

// Returns `from` and the ones in `run` above each of its bits, up to the end of the bit's run. `from` lies in `run`.
inline std::uint64_t reach(std::uint64_t from, std::uint64_t run) { return from | run_from(from, run); }

// Returns a mask of the bits below `bit`.
inline std::uint64_t below(unsigned bit) { return bit < 64 ? (std::uint64_t{1} << bit) - 1 : ~std::uint64_t{0}; }

// Returns all bytes of the characters whose first bytes are in `from`.
inline std::uint64_t whole_characters(std::uint64_t from, std::uint64_t continuation) {
    from |= from << 1 & continuation;
    from |= from << 1 & continuation;
    return from | (from << 1 & continuation);
}

// The characters of several bytes in a block. `upper` and `lower` are set only if kCased, since they take more
// decoding. This is apart from Masks so that Masks stays small enough to be inlined: as a part of Masks, it slowed
// ASCII text under gpt2 and qwen2 by a fifth.
template <bool kCased>
struct Multibyte {
    std::uint64_t letter, number = 0, space = 0;
    std::uint64_t upper = 0, lower = 0;  // kUpperSet and kLowerSet
    std::uint64_t valid = ~std::uint64_t{0};
    bool well_formed = true;

    Multibyte(const std::uint8_t* bytes, const BlockBits& block);

 private:
    // Corrects the masks for a character, which they take for a letter without case.
    void correct(std::uint32_t classes, std::uint64_t bits) {
        if constexpr (kCased) {
            if (classes == (kLetter | kUpperSet | kLowerSet)) return;
            if (!(classes & kUpperSet)) upper &= ~bits;
            if (!(classes & kLowerSet)) lower &= ~bits;
        }
        if (classes & kLetter) return;
        letter &= ~bits;
        if (classes & kNumber) number |= bits;
        if (classes & kSpace) space |= bits;
    }
};

template <bool kCased>
Multibyte<kCased>::Multibyte(const std::uint8_t* bytes, const BlockBits& block) : letter(block.high) {
    const std::uint64_t lead = block.high & ~block.continuation;
    well_formed = block.continuation == (lead << 1 | block.three << 2 | block.four << 3);
    if (!well_formed) return;
    // Most of these characters are letters without case, so the masks start out with all of them as such, and `correct`
    // handles the exceptions. The characters of some leading bytes need no look.
    std::uint64_t unknown = lead & ~block.letter_lead;
    if constexpr (kCased) {
        upper = block.high & ~whole_characters(block.small_lead, block.continuation);
        lower = block.high & ~whole_characters(block.capital_lead, block.continuation);
        unknown |= block.letter_lead & ~(block.three | block.small_lead | block.capital_lead);
    }
    // The end of the block may cut the last character off. Nothing is known of it then.
    const auto last = static_cast<unsigned>(63 - std::countl_zero(~block.continuation));
    const std::uint64_t length = 1 + (lead >> last & 1) + (block.three >> last & 1) + (block.four >> last & 1);
    if (last + length > 64) valid = below(last);
    unknown &= valid;

    for (std::uint64_t left = unknown & ~block.three; left; left &= left - 1) {
        const auto at = static_cast<unsigned>(std::countr_zero(left));
        const std::uint32_t code_point = code_point_of(bytes + at, 2);
        if (code_point < 0x80) well_formed = false;
        correct(classes_of(code_point), std::uint64_t{3} << at);
    }
    for (std::uint64_t left = unknown & block.three & ~block.four; left; left &= left - 1) {
        const auto at = static_cast<unsigned>(std::countr_zero(left));
        const std::uint32_t code_point = code_point_of(bytes + at, 3);
        if (code_point < 0x800 || code_point - 0xD800 < 0x800) well_formed = false;
        correct(classes_of(code_point), std::uint64_t{7} << at);
    }
    for (std::uint64_t left = unknown & block.four; left; left &= left - 1) {
        const auto at = static_cast<unsigned>(std::countr_zero(left));
        const Character character = read_character(bytes, at, 64);
        if (character.length == 1) well_formed = false;
        correct(character.classes, std::uint64_t{15} << at);
    }
}

struct Masks {
    std::uint64_t letter, number, space, newline, blank, apostrophe, slash, other, continuation;
    std::uint64_t upper, lower;               // kUpperSet and kLowerSet, if kCased
    std::uint64_t valid = ~std::uint64_t{0};  // the bytes of characters that are whole in the block
    bool well_formed = true;                  // if false, the other masks are meaningless

    template <bool kCased>
    Masks(const std::uint8_t* bytes, const BlockBits& block, std::bool_constant<kCased>) {
        letter = block.letter;
        number = block.number;
        space = block.space;
        newline = block.newline;
        blank = block.blank;
        apostrophe = block.apostrophe;
        slash = block.slash;
        continuation = block.continuation;
        upper = block.upper;
        lower = letter & ~upper;
        if (block.high) {
            const Multibyte<kCased> more(bytes, block);
            well_formed = more.well_formed;
            valid = more.valid;
            letter |= more.letter & valid;
            number |= more.number;
            space |= more.space;
            upper |= more.upper & valid;
            lower |= more.lower & valid;
            continuation &= valid;
        }
        other = valid & ~(letter | number | space);
    }

    // Returns all bytes of the characters whose first bytes are in `from`.
    std::uint64_t whole(std::uint64_t from) const { return whole_characters(from, continuation); }

    // Returns the first bytes of the characters whose last bytes are in `from`.
    std::uint64_t first(std::uint64_t from) const {
        if (!continuation) return from;
        for (int i = 0; i < 3; ++i) from = (from & ~continuation) | (from & continuation) >> 1;
        return from;
    }
};

// Returns the starts of the second and later matches of \p{N}{1,3} in the runs of numbers that begin at `starts`.
inline std::uint64_t groups_of_three(const Masks& masks, std::uint64_t starts) {
    const std::uint64_t number = masks.number;
    if (!(number & number >> 1 & number >> 2 & number >> 3)) return 0;
    std::uint64_t groups = 0;
    for (; starts; starts &= starts - 1) {
        std::uint64_t left = run_from(starts & -starts, number) & ~masks.continuation;
        for (int i = 0; left; ++i, left &= left - 1) {
            if (i == 3) {
                groups |= left & -left;
                i = 0;
            }
        }
    }
    return groups;
}

// Removes the starts in a run of white space that reaches the end of the block, since they depend on what follows.
// Keeps the run's own start.
inline std::uint64_t without_open_space(const Masks& masks, std::uint64_t space, std::uint64_t first,
                                        std::uint64_t starts) {
    const auto end = static_cast<unsigned>(64 - std::countl_zero(masks.valid));
    if (!end || !(space >> (end - 1) & 1)) return starts;
    const std::uint64_t before = masks.valid & ~space;
    const std::uint64_t open =
        before ? masks.valid & ~below(static_cast<unsigned>(64 - std::countl_zero(before))) : masks.valid;
    return starts & ~(open & ~first);
}

// Returns the places behind the contractions at `apostrophes`. Adds the apostrophes that begin a contraction to
// `with_contraction`.
inline std::uint64_t after_contractions(const ScannedText& text, std::size_t base, std::uint64_t apostrophes,
                                        bool ignore_case, std::uint64_t* with_contraction) {
    std::uint64_t ends = 0;
    for (; apostrophes; apostrophes &= apostrophes - 1) {
        const auto at = static_cast<unsigned>(std::countr_zero(apostrophes));
        const std::size_t length = contraction(text, base + at, ignore_case);
        if (!length) continue;
        *with_contraction |= apostrophes & -apostrophes;
        if (at + 1 + length < 64) ends |= std::uint64_t{1} << (at + 1 + length);
    }
    return ends;
}

// Each `starts_of` returns the starts of the pretokens in a block at text.bytes + base, where a pretoken begins. Bit 0
// may be missing.
template <bool kNumbersApart>
std::uint64_t starts_of(const Gpt2<kNumbersApart>*, const ScannedText& text, std::size_t base, const Masks& m) {
    const std::uint64_t after_blank = m.blank << 1;
    const std::uint64_t letters = m.letter & ~(m.letter << 1);
    const std::uint64_t others = m.other & ~(m.other << 1) & ~after_blank;
    const std::uint64_t numbers = m.number & ~(kNumbersApart ? m.continuation : m.number << 1 | after_blank);
    const std::uint64_t before_number = kNumbersApart ? m.number >> 1 : 0;
    const std::uint64_t first_space = m.space & ~(m.space << 1);
    const std::uint64_t last_space = m.first(m.space & ~(m.space >> 1 | before_number));
    std::uint64_t starts = (letters & ~after_blank) | others | numbers | first_space | last_space;
    if (const std::uint64_t apostrophes = m.apostrophe & others & m.letter >> 1) {
        std::uint64_t contracted = 0;
        const std::uint64_t after = after_contractions(text, base, apostrophes, false, &contracted);
        starts = (starts & ~(contracted << 1)) | (after & m.valid);
    }
    return without_open_space(m, m.space, first_space, starts);
}

// Returns the starts that the patterns with newlines have in common, given the words, the runs of other characters, and
// the newlines that belong to such a run.
template <int kNumbers>
inline std::uint64_t starts_around(const Masks& m, std::uint64_t words, std::uint64_t other, std::uint64_t taken) {
    // A run of other characters takes a space before it.
    const std::uint64_t others = other & ~(other << 1) & ~(m.blank << 1);
    // A word takes one character before it: white space other than a newline, or a single other character without a
    // space before it.
    const std::uint64_t white = m.space & ~m.newline;
    const std::uint64_t first_of_words = words & ~(words << 1) & ~((white | m.whole(others)) << 1);
    const std::uint64_t numbers = kNumbers == 1 ? m.number & ~m.continuation : m.number & ~(m.number << 1);
    // White space is cut at its start, after its last newline, and before its last character if that is no newline.
    const std::uint64_t space = m.space & ~taken;
    const std::uint64_t first_space = space & ~(space << 1);
    std::uint64_t after_newline = white & (m.newline & ~taken) << 1;
    for (std::uint64_t more = (white + after_newline) & ~white & m.newline; more; more &= more - 1) {
        const std::uint64_t earlier =
            after_newline & ((more & -more) - 1);  // a newline follows, so it was not the last
        after_newline &= ~(std::uint64_t{1} << (63 - std::countl_zero(earlier)));
    }
    const std::uint64_t last_space = m.first(white & ~(m.space >> 1));
    std::uint64_t starts = first_of_words | others | numbers | first_space | after_newline | last_space;
    if constexpr (kNumbers == 3) starts |= groups_of_three(m, numbers);
    return without_open_space(m, m.space, first_space, starts);
}

template <bool kWholeAtEnd, int kNumbers>
std::uint64_t starts_of(const Cl100k<kWholeAtEnd, kNumbers>*, const ScannedText& text, std::size_t base,
                        const Masks& m) {
    const std::uint64_t taken = run_from(m.newline & m.other << 1, m.newline);
    std::uint64_t starts = starts_around<kNumbers>(m, m.letter, m.other, taken);
    if (const std::uint64_t apostrophes = m.apostrophe & starts & m.letter >> 1) {
        std::uint64_t contracted = 0;
        starts |= after_contractions(text, base, apostrophes, true, &contracted) & m.valid;
    }
    return starts;
}

std::uint64_t starts_of(const O200k*, const ScannedText& text, std::size_t base, const Masks& m) {
    // A mark belongs to a word wherever a word may begin. In a run of other characters no word can begin any more after
    // two of them, or after a space and one of them.
    std::uint64_t marks = m.upper & m.lower & ~m.letter;
    std::uint64_t other = m.other & ~marks;
    if (marks & other << 1) {
        if (m.slash & m.newline << 1) return 0;  // marks and slashes may depend on each other
        const std::uint64_t closed = reach(other & ~m.continuation & (other | m.blank) << 1, m.other);
        other |= marks & closed;
        marks &= ~closed;
    }
    const std::uint64_t words = m.letter | marks;
    // Newlines after other characters belong to them, and so do the slashes among and after these newlines.
    const std::uint64_t taken = reach(m.newline & other << 1, m.newline | m.slash);
    std::uint64_t starts = starts_around<3>(m, words, other & ~taken, taken);

    // A contraction belongs to the word before it, but a second contraction does not.
    std::uint64_t contracted = 0;
    std::uint64_t after = 0;
    for (std::uint64_t left = m.apostrophe & words << 1; left; left &= left - 1) {
        const auto at = static_cast<unsigned>(std::countr_zero(left));
        if (after >> at & 1) continue;
        const std::size_t length = contraction(text, base + at, true);
        if (!length) continue;
        const auto end = static_cast<unsigned>(at + 1 + length);
        contracted |= below(end) & ~below(at);
        if (end < 64) after |= std::uint64_t{1} << end;
    }
    starts = (starts & ~contracted) | (after & m.valid);

    // Within a word, a capital is a start if a small letter precedes it, even with letters without case and marks
    // between the two.
    const std::uint64_t cased = words & ~contracted;
    const std::uint64_t capitals = cased & ~m.lower;
    const std::uint64_t small = cased & ~m.upper;
    const std::uint64_t common = cased & m.upper & m.lower;
    starts |= capitals & reach(small, small | common) << 1;
    // If no small letter precedes them, the capitals at the end of a run of words are a start: the match ends after the
    // last character that is in both sets.
    for (std::uint64_t left = capitals & common << 1; left; left &= left - 1) {
        const std::uint64_t first = left & -left;
        if ((capitals + first) & ~capitals & m.valid & ~words) starts |= first;
    }
    return starts;
}

// Returns the places where white space follows a letter or a number. A pretoken ends there in every pattern and in any
// context, since an alternative that matches a letter or a number matches white space only before it.
inline std::uint64_t cuts_of(const Masks& m) { return m.space & (m.letter | m.number) << 1; }

// Scans block by block. The next block begins at the last of `cuts_of`, if there is one. Finding that place takes less
// work than finding the starts before it, so the processor begins with the next block while it is still busy with this
// one. With the places written many at a time, this is 1.4 times as fast as beginning at the last start.
template <class Processor, class Rules>
std::size_t scan_blocks(const ScannedText& text, std::size_t position, std::uint64_t* ends, std::size_t capacity) {
    std::size_t count = 0;
    while (text.size - position > 64 && capacity - count >= 64) {
        const Masks masks(text.bytes + position, Processor::classify(text.bytes + position),
                          std::is_same<Rules, O200k>());
        std::uint64_t starts = 0;
        if (masks.well_formed) starts = starts_of(static_cast<const Rules*>(nullptr), text, position, masks);
        starts &= ~std::uint64_t{1};
        if (!starts) {  // a pretoken that may be longer than the block, or malformed characters
            position = Rules::next(text, position);
            ends[count++] = position;
            continue;
        }
        const std::uint64_t cuts = cuts_of(masks);
        unsigned last;
        if (cuts) [[likely]] {
            last = static_cast<unsigned>(63 - std::countl_zero(cuts));
            starts &= below(last + 1);
        } else {
            last = static_cast<unsigned>(63 - std::countl_zero(starts));
        }
        Processor::write_places(starts, position, ends + count);
        count += static_cast<std::size_t>(std::popcount(starts));
        position += last;
    }
    if (count && text.size - position > 64) return count;  // leaves the last few places of `ends` unused
    while (position < text.size && count < capacity) {
        position = Rules::next(text, position);
        ends[count++] = position;
    }
    return count;
}

template <class Processor>
std::size_t scan_with(Pattern pattern, const std::uint8_t* bytes, std::size_t position, std::size_t size,
                      std::uint64_t* ends, std::size_t capacity) {
    const ScannedText text{bytes, size};
    return with_rules(pattern,
                      [&]<class Rules>() { return scan_blocks<Processor, Rules>(text, position, ends, capacity); });
}

}  // namespace
}  // namespace bpe
