#include "text/utf8.hpp"

#include <array>
#include <cstring>

#ifdef BPE_X86_KERNELS
#include <immintrin.h>
#endif

#include "text/unicode.hpp"
#include "text/utf8_errors.hpp"

namespace bpe {
namespace {

// The states of an automaton, each of which is a distance to shift by. The table's entry for a byte holds six bits for
// each state: the state that the byte leads to from there. The lookup depends on the byte alone, never on the state, so
// the chain from byte to byte is a single shift.
enum State : std::uint64_t {
    kError = 0,
    kBetween = 6,  // between two characters
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

// Returns a position up to which the text is well-formed, except that its last character may be cut off there.
std::size_t checked_plain(Bytes text, std::size_t position) {
    std::uint64_t state = kBetween;
    for (; position + kBlock <= text.size(); position += kBlock) {
        if ((state & 63) == kBetween && is_ascii(text.data() + position)) continue;
        std::uint64_t after = state;
        for (std::size_t i = 0; i < kBlock; ++i) after = next_state(after, text[position + i]);
        if ((after & 63) == kError) break;
        state = after;
    }
    return position;
}

#ifdef BPE_X86_KERNELS

// Validates 32 bytes at once; see utf8_errors.hpp.
__attribute__((target("avx2"))) inline __m256i errors_of(const ErrorTable& table, __m256i halves) {
    const __m128i row = _mm_load_si128(reinterpret_cast<const __m128i*>(table.of));
    return _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(row), halves);
}

// Returns the errors in 32 bytes. `before` holds the 32 bytes before them.
__attribute__((target("avx2"))) inline __m256i errors_in(__m256i bytes, __m256i before) {
    const __m256i low = _mm256_set1_epi8(0x0F);
    const __m256i across = _mm256_permute2x128_si256(before, bytes, 0x21);
    const __m256i one = _mm256_alignr_epi8(bytes, across, 15), two = _mm256_alignr_epi8(bytes, across, 14),
                  three = _mm256_alignr_epi8(bytes, across, 13);
    const __m256i pairs =
        _mm256_and_si256(_mm256_and_si256(errors_of(kFirstHigh, _mm256_and_si256(_mm256_srli_epi16(one, 4), low)),
                                          errors_of(kFirstLow, _mm256_and_si256(one, low))),
                         errors_of(kSecondHigh, _mm256_and_si256(_mm256_srli_epi16(bytes, 4), low)));
    // Sets the highest bit at each place that must be a character's third or fourth byte.
    const __m256i longer = _mm256_or_si256(_mm256_subs_epu8(two, _mm256_set1_epi8(0xE0 - 0x80)),
                                           _mm256_subs_epu8(three, _mm256_set1_epi8(0xF0 - 0x80)));
    return _mm256_xor_si256(pairs, _mm256_and_si256(longer, _mm256_set1_epi8(static_cast<char>(0x80))));
}

__attribute__((target("avx2"))) std::size_t checked_avx2(Bytes text, std::size_t position) {
    __m256i before = _mm256_setzero_si256();
    for (; position + kBlock <= text.size(); position += kBlock) {
        const auto* at = reinterpret_cast<const __m256i*>(text.data() + position);
        const __m256i first = _mm256_loadu_si256(at), second = _mm256_loadu_si256(at + 1);
        // ASCII after ASCII needs no check.
        if (_mm256_movemask_epi8(_mm256_or_si256(_mm256_or_si256(first, second), before)) != 0) {
            const __m256i errors = _mm256_or_si256(errors_in(first, before), errors_in(second, first));
            if (!_mm256_testz_si256(errors, errors)) break;
        }
        before = second;
    }
    return position;
}

#endif
#ifdef BPE_ARM_KERNELS

// See checked_avx2.
std::size_t checked_neon(Bytes text, std::size_t position) {
    uint8x16_t before = vdupq_n_u8(0);
    for (; position + kBlock <= text.size(); position += kBlock) {
        const uint8x16x4_t bytes = vld1q_u8_x4(text.data() + position);
        if (is_utf8_ascii(bytes, before)) {
            before = bytes.val[3];
            continue;
        }
        if (has_utf8_errors(bytes, before)) break;
        before = bytes.val[3];
    }
    return position;
}

#endif

// Returns the length in bytes of the malformed sequence that begins at `position`.
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

std::size_t invalid_utf8(Bytes text, std::size_t begin, bool plain) {
    std::size_t position = 0;
#ifdef BPE_X86_KERNELS
    static const bool has_avx2 = __builtin_cpu_supports("avx2");
    position = has_avx2 && !plain ? checked_avx2(text, begin) : checked_plain(text, begin);
#elif defined(BPE_ARM_KERNELS)
    position = plain ? checked_plain(text, begin) : checked_neon(text, begin);
#else
    static_cast<void>(plain);
    position = checked_plain(text, begin);
#endif
    // What remains is the end of the text or a block with an error in it. Start at the character before it.
    if (position > begin) {
        do --position;
        while (is_continuation(text[position]));
    }
    std::uint64_t state = kBetween;
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
