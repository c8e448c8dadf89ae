#include "utf8.hpp"

#include <array>
#include <cstring>

namespace bpe {
namespace {

using Bytes = std::span<const std::uint8_t>;

// An automaton whose state is a distance to shift by: the entry of a byte holds, six bits for each state, the states
// that the byte leads to. Looking up the next byte waits for no state, so a byte takes as long as one shift.
enum State : std::uint64_t {
    kError = 0,
    kBetween = 6,  // characters
    kOneLeft = 12,
    kTwoLeft = 18,
    kThreeLeft = 24,
    kAfterE0 = 30,  // A0 to BF must follow, then one more
    kAfterED = 36,  // 80 to 9F, then one more
    kAfterF0 = 42,  // 90 to BF, then two more
    kAfterF4 = 48,  // 80 to 8F, then two more
};

constexpr std::array<std::uint64_t, 256> make_transitions() {
    std::array<std::uint64_t, 256> table{};
    const auto add = [&](unsigned first, unsigned last, State from, State to) {
        for (unsigned byte = first; byte <= last; ++byte) table[byte] |= std::uint64_t{to} << from;
    };
    add(0x00, 0x7F, kBetween, kBetween);
    add(0xC2, 0xDF, kBetween, kOneLeft);
    add(0xE0, 0xE0, kBetween, kAfterE0);
    add(0xE1, 0xEC, kBetween, kTwoLeft);
    add(0xED, 0xED, kBetween, kAfterED);
    add(0xEE, 0xEF, kBetween, kTwoLeft);
    add(0xF0, 0xF0, kBetween, kAfterF0);
    add(0xF1, 0xF3, kBetween, kThreeLeft);
    add(0xF4, 0xF4, kBetween, kAfterF4);
    add(0x80, 0xBF, kOneLeft, kBetween);
    add(0x80, 0xBF, kTwoLeft, kOneLeft);
    add(0x80, 0xBF, kThreeLeft, kTwoLeft);
    add(0xA0, 0xBF, kAfterE0, kOneLeft);
    add(0x80, 0x9F, kAfterED, kOneLeft);
    add(0x90, 0xBF, kAfterF0, kTwoLeft);
    add(0x80, 0x8F, kAfterF4, kTwoLeft);
    return table;
}

constexpr std::array<std::uint64_t, 256> kTransitions = make_transitions();

constexpr std::uint64_t next_state(std::uint64_t state, std::uint8_t byte) {
    return kTransitions[byte] >> (state & 63);
}

constexpr std::size_t kBlock = 64;

bool is_ascii(const std::uint8_t* block) {
    std::uint64_t words[kBlock / 8];
    std::memcpy(words, block, kBlock);
    std::uint64_t all = 0;
    for (const std::uint64_t word : words) all |= word;
    return (all & 0x8080808080808080) == 0;
}

// How many bytes belong to the malformed sequence that begins at `position`.
std::size_t malformed_length(Bytes text, std::size_t position) {
    std::uint64_t state = next_state(kBetween, text[position]);
    std::size_t end = position + 1;
    while (end < text.size() && (state & 63) != kError) {
        state = next_state(state, text[end]);
        if ((state & 63) != kError) ++end;
    }
    return end - position;
}

}  // namespace

std::size_t invalid_utf8(Bytes text, std::size_t begin) {
    std::uint64_t state = kBetween;
    std::size_t position = begin;
    for (; position + kBlock <= text.size(); position += kBlock) {
        if ((state & 63) == kBetween && is_ascii(text.data() + position)) continue;
        std::uint64_t after = state;
        for (std::size_t i = 0; i < kBlock; ++i) after = next_state(after, text[position + i]);
        if ((after & 63) == kError) break;
        state = after;
    }
    // What is left: the end of the text, or a block with an error in it. Back to the start of the character.
    if ((state & 63) != kBetween) {
        do --position;
        while ((text[position] & 0xC0) == 0x80);
    }
    state = kBetween;
    std::size_t start = position;
    for (; position < text.size(); ++position) {
        state = next_state(state, text[position]);
        if ((state & 63) == kError) return start;
        if ((state & 63) == kBetween) start = position + 1;
    }
    return start;
}

ReplacedText replace_invalid_utf8(Bytes text, Bytes replacement) {
    ReplacedText result;
    result.bytes.reserve(text.size());
    for (std::size_t begin = 0;;) {
        const std::size_t end = invalid_utf8(text, begin);
        result.bytes.insert(result.bytes.end(), text.begin() + begin, text.begin() + end);
        if (end == text.size()) return result;
        result.bytes.insert(result.bytes.end(), replacement.begin(), replacement.end());
        ++result.count;
        begin = end + malformed_length(text, end);
    }
}

}  // namespace bpe
