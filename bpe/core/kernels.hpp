// The parts of encoding that each kind of processor does in its own way. All ways give the same.
#pragma once

#include <cstdint>
#include <span>

#include "front.hpp"
#include "lanes.hpp"

namespace bpe {

// Bit i speaks of byte i. Only bytes below 0x80 are classified here, and the leading bytes of characters that can be
// told for letters by one or two bytes more, which spares most of the decoding in these scripts: D0 and D1 (Cyrillic,
// U+0400 to U+047F), E5 to E9 (Chinese, U+5000 to U+9FFF), EB and EC (Korean, U+B000 to U+CFFF), and E3 before 81 or 83
// and 81 to BA (Japanese, U+3041 to U+307A and U+30C1 to U+30FA). The others are left to whoever decodes them.
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

using Classify = BlockBits (*)(const std::uint8_t* bytes);

// A way of doing the hot parts of encoding, by what this machine's processor can do; the best first. The last is always
// "plain", in portable C++, which classifies nothing and scans character by character.
struct Kernel {
    const char* name;
    Classify classify;
    Probe probe;
    Write write;
    MergeRound merge_round;
};
std::span<const Kernel> kernels();

}  // namespace bpe
