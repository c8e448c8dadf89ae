// Scanning by blocks of 64 bytes.
//
// A match of these patterns depends on nothing before it. So a block of 64 bytes that begins where a pretoken begins is
// looked at by itself: what its bytes are is put into masks, a bit for each byte; the starts of the pretokens in it
// follow by bit arithmetic; and the last of them, whose pretoken may go on beyond the block, is where the next block
// begins. All bytes of a character carry its class, so that neighbours of a character are neighbours of its bytes.
//
// All of it is local to the file that includes it, since each of them is compiled for another processor, of which it
// knows how to do two things:
//     static BlockBits classify(const std::uint8_t* bytes);
//     static void write_places(std::uint64_t places, std::uint64_t base, std::uint64_t* ends);
// The second writes base + i for each bit i of `places`, in order, and has room for 64.
#pragma once

#include <bit>
#include <type_traits>

#include "kernels/rules.hpp"

namespace bpe {
namespace {

// What the bytes of a block are. Bit i speaks of byte i. Only bytes below 0x80 are classified here, and the leading
// bytes of characters that can be told for letters by one or two bytes more, which spares most of the decoding in these
// scripts: D0 and D1 (Cyrillic, U+0400 to U+047F), E5 to E9 (Chinese, U+5000 to U+9FFF), EB and EC (Korean, U+B000 to
// U+CFFF), and E3 before 81 or 83 and 81 to BA (Japanese, U+3041 to U+307A and U+30C1 to U+30FA). The others are left
// to whoever decodes them.
struct BlockBits {
    std::uint64_t letter;
    std::uint64_t upper;  // capital letters
    std::uint64_t number;
    std::uint64_t space;    // white space, newlines among it
    std::uint64_t newline;  // \r and \n
    std::uint64_t blank;    // the space character itself
    std::uint64_t apostrophe;
    std::uint64_t slash;
    std::uint64_t high;          // 0x80 and above
    std::uint64_t continuation;  // 0x80 to 0xBF
    std::uint64_t three;         // 0xE0 and above: the first of at least three bytes
    std::uint64_t four;          // 0xF0 and above: the first of four bytes
    std::uint64_t letter_lead;   // one of those leading bytes
    std::uint64_t capital_lead;  // of these, D0 before 80 to AF, which is a capital letter
    std::uint64_t small_lead;    // D0 before B0 to BF and D1 before 80 to 9F, which are small letters
};

// The bits of `run` that are reached from `from`, bits at which runs of ones in `run` begin, going up.
inline std::uint64_t run_from(std::uint64_t from, std::uint64_t run) { return run & ~(run + from); }

// The same from any bits in `run`.
inline std::uint64_t reach(std::uint64_t from, std::uint64_t run) { return from | run_from(from, run); }

inline std::uint64_t below(unsigned bit) { return bit < 64 ? (std::uint64_t{1} << bit) - 1 : ~std::uint64_t{0}; }

// A first byte of each character in `from` -> all its bytes.
inline std::uint64_t whole_characters(std::uint64_t from, std::uint64_t continuation) {
    from |= from << 1 & continuation;
    from |= from << 1 & continuation;
    return from | (from << 1 & continuation);
}

// The characters of several bytes in a block; `upper` and `lower` only if kCased, as they take more decoding. By
// itself, so that Masks stays small enough to be inlined: as a part of it, it cost ASCII text under gpt2 and qwen2 a
// fifth.
template <bool kCased>
struct Multibyte {
    std::uint64_t letter, number = 0, space = 0;
    std::uint64_t upper = 0, lower = 0;  // kUpperSet and kLowerSet
    std::uint64_t valid = ~std::uint64_t{0};
    bool well_formed = true;

    Multibyte(const std::uint8_t* bytes, const BlockBits& block);

 private:
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
    // Most of these characters are letters without case, so all are until they are seen to be others. Those of some
    // leading bytes need not be looked at.
    std::uint64_t unknown = lead & ~block.letter_lead;
    if constexpr (kCased) {
        upper = block.high & ~whole_characters(block.small_lead, block.continuation);
        lower = block.high & ~whole_characters(block.capital_lead, block.continuation);
        unknown |= block.letter_lead & ~(block.three | block.small_lead | block.capital_lead);
    }
    // The last character may be cut by the block's end; then nothing is known of it.
    const auto last = static_cast<unsigned>(63 - std::countl_zero(~block.continuation));
    const std::uint64_t length = 1 + (lead >> last & 1) + (block.three >> last & 1) + (block.four >> last & 1);
    if (last + length > 64) valid = below(last);
    unknown &= valid;

    for (std::uint64_t left = unknown & ~block.three; left; left &= left - 1) {
        const auto at = static_cast<unsigned>(std::countr_zero(left));
        const std::uint32_t code_point = (bytes[at] & 0x1Fu) << 6 | (bytes[at + 1] & 0x3Fu);
        if (code_point < 0x80) well_formed = false;
        correct(classes_of(code_point), std::uint64_t{3} << at);
    }
    for (std::uint64_t left = unknown & block.three & ~block.four; left; left &= left - 1) {
        const auto at = static_cast<unsigned>(std::countr_zero(left));
        const std::uint32_t code_point =
            (bytes[at] & 0x0Fu) << 12 | (bytes[at + 1] & 0x3Fu) << 6 | (bytes[at + 2] & 0x3Fu);
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
    std::uint64_t valid = ~std::uint64_t{0};  // the bytes of characters that lie whole in the block
    bool well_formed = true;                  // if not, the other masks mean nothing

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

    // A first byte of each character in `from` -> all its bytes.
    std::uint64_t whole(std::uint64_t from) const { return whole_characters(from, continuation); }

    // A last byte of each character in `from` -> its first.
    std::uint64_t first(std::uint64_t from) const {
        if (!continuation) return from;
        for (int i = 0; i < 3; ++i) from = (from & ~continuation) | (from & continuation) >> 1;
        return from;
    }
};

// The starts of the groups of \p{N}{1,3} after the first, in the runs that begin at `starts`.
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

// Starts within a run of white space that reaches the end of the block depend on what follows, but for its first.
inline std::uint64_t without_open_space(const Masks& masks, std::uint64_t space, std::uint64_t first,
                                        std::uint64_t starts) {
    const auto end = static_cast<unsigned>(64 - std::countl_zero(masks.valid));
    if (!end || !(space >> (end - 1) & 1)) return starts;
    const std::uint64_t before = masks.valid & ~space;
    const std::uint64_t open =
        before ? masks.valid & ~below(static_cast<unsigned>(64 - std::countl_zero(before))) : masks.valid;
    return starts & ~(open & ~first);
}

// Where a contraction ends behind each of `apostrophes`; `taken` gets the letters that belong to one.
inline std::uint64_t after_contractions(const Text& text, std::size_t base, std::uint64_t apostrophes, bool ignore_case,
                                        std::uint64_t* with_contraction) {
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

// The starts of the pretokens in a block at text.bytes + base, which is one. Bit 0 may be left out.
template <bool kNumbersApart>
std::uint64_t starts_of(const Gpt2<kNumbersApart>*, const Text& text, std::size_t base, const Masks& m) {
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

// What the patterns have in common that know newlines: the starts in a block with these `words`, and runs of `other`
// characters, the newlines after which are `taken`.
template <int kNumbers>
inline std::uint64_t starts_around(const Masks& m, std::uint64_t words, std::uint64_t other, std::uint64_t taken) {
    // A run of other characters takes a space before it.
    const std::uint64_t others = other & ~(other << 1) & ~(m.blank << 1);
    // A word takes one character before it: white space that is no newline, or a lone other one that took no space.
    const std::uint64_t white = m.space & ~m.newline;
    const std::uint64_t first_of_words = words & ~(words << 1) & ~((white | m.whole(others)) << 1);
    const std::uint64_t numbers = kNumbers == 1 ? m.number & ~m.continuation : m.number & ~(m.number << 1);
    // White space is cut where it begins, after its last newline, and before its last character if that is none.
    const std::uint64_t space = m.space & ~taken;
    const std::uint64_t first_space = space & ~(space << 1);
    std::uint64_t after_newline = white & (m.newline & ~taken) << 1;
    for (std::uint64_t more = (white + after_newline) & ~white & m.newline; more; more &= more - 1) {
        const std::uint64_t earlier = after_newline & ((more & -more) - 1);  // a newline follows: it was not the last
        after_newline &= ~(std::uint64_t{1} << (63 - std::countl_zero(earlier)));
    }
    const std::uint64_t last_space = m.first(white & ~(m.space >> 1));
    std::uint64_t starts = first_of_words | others | numbers | first_space | after_newline | last_space;
    if constexpr (kNumbers == 3) starts |= groups_of_three(m, numbers);
    return without_open_space(m, m.space, first_space, starts);
}

template <bool kWholeAtEnd, int kNumbers>
std::uint64_t starts_of(const Cl100k<kWholeAtEnd, kNumbers>*, const Text& text, std::size_t base, const Masks& m) {
    const std::uint64_t taken = run_from(m.newline & m.other << 1, m.newline);
    std::uint64_t starts = starts_around<kNumbers>(m, m.letter, m.other, taken);
    if (const std::uint64_t apostrophes = m.apostrophe & starts & m.letter >> 1) {
        std::uint64_t contracted = 0;
        starts |= after_contractions(text, base, apostrophes, true, &contracted) & m.valid;
    }
    return starts;
}

std::uint64_t starts_of(const O200k*, const Text& text, std::size_t base, const Masks& m) {
    // Marks are in words, wherever one may be; in a run of other characters none may be any more after two of them, or
    // after a space and one.
    std::uint64_t marks = m.upper & m.lower & ~m.letter;
    std::uint64_t other = m.other & ~marks;
    if (marks & other << 1) {
        if (m.slash & m.newline << 1) return 0;  // each may depend on the other
        const std::uint64_t closed = reach(other & ~m.continuation & (other | m.blank) << 1, m.other);
        other |= marks & closed;
        marks &= ~closed;
    }
    const std::uint64_t words = m.letter | marks;
    // Newlines after other characters are taken with the slashes among and after them.
    const std::uint64_t taken = reach(m.newline & other << 1, m.newline | m.slash);
    std::uint64_t starts = starts_around<3>(m, words, other & ~taken, taken);

    // A contraction goes with the word before it, but another one after it does not.
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

    // Within words, a capital is a start if a small letter came before it in the word, be it with letters without case
    // and marks between.
    const std::uint64_t cased = words & ~contracted;
    const std::uint64_t capitals = cased & ~m.lower;
    const std::uint64_t small = cased & ~m.upper;
    const std::uint64_t common = cased & m.upper & m.lower;
    starts |= capitals & reach(small, small | common) << 1;
    // If none came, the capitals that end a run of words are: the match goes back to the last character of both sets.
    for (std::uint64_t left = capitals & common << 1; left; left &= left - 1) {
        const std::uint64_t first = left & -left;
        if ((capitals + first) & ~capitals & m.valid & ~words) starts |= first;
    }
    return starts;
}

// The places in a block where white space follows a letter or a number. A pretoken ends there in every pattern,
// whatever comes before and after, since all alternatives that match a letter or a number match white space only before
// it.
inline std::uint64_t cuts_of(const Masks& m) { return m.space & (m.letter | m.number) << 1; }

// The next block begins at the last such place, if there is one. To find it takes less than to find the starts before
// it, so that a processor has the next block at hand while it is still busy with this one: with the places
// written many at a time, 1.4 times as fast as beginning at the last start.
template <class Processor, class Rules>
std::size_t scan_blocks(const Text& text, std::size_t position, std::uint64_t* ends, std::size_t capacity) {
    std::size_t count = 0;
    while (text.size - position > 64 && capacity - count >= 64) {
        const Masks masks(text.bytes + position, Processor::classify(text.bytes + position),
                          std::is_same<Rules, O200k>());
        std::uint64_t starts = 0;
        if (masks.well_formed) starts = starts_of(static_cast<const Rules*>(nullptr), text, position, masks);
        starts &= ~std::uint64_t{1};
        if (!starts) {  // a pretoken that may be longer than the block, or broken characters
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
    if (count && text.size - position > 64) return count;  // the last few places of `ends` stay empty
    while (position < text.size && count < capacity) {
        position = Rules::next(text, position);
        ends[count++] = position;
    }
    return count;
}

template <class Processor>
std::size_t scan_with(Pattern pattern, const std::uint8_t* bytes, std::size_t position, std::size_t size,
                      std::uint64_t* ends, std::size_t capacity) {
    const Text text{bytes, size};
    return with_rules(pattern,
                      [&]<class Rules>() { return scan_blocks<Processor, Rules>(text, position, ends, capacity); });
}

}  // namespace
}  // namespace bpe
