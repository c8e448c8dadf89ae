// Compiled with AVX2 and POPCNT, and called only if the processor supports them. Must not call inline functions with
// external linkage from headers: the linker might choose this file's copy for every processor.
#include <immintrin.h>

#include <cstring>

#include "kernels/character_blocks.hpp"
#include "kernels/characters.hpp"
#include "kernels/packings.hpp"

namespace bpe {

namespace {

constexpr std::size_t kBlock = kCharacterBlock;

inline __m256i all(int byte) { return _mm256_set1_epi8(static_cast<char>(byte)); }
inline __m256i load(const std::uint8_t* at) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(at)); }
inline __m256i at_least(__m256i bytes, int least) {
    return _mm256_cmpeq_epi8(_mm256_max_epu8(bytes, all(least)), bytes);
}
inline std::uint64_t bits_of(__m256i low, __m256i high) {
    return std::uint64_t{static_cast<std::uint32_t>(_mm256_movemask_epi8(high))} << 32 |
           static_cast<std::uint32_t>(_mm256_movemask_epi8(low));
}

// A block of 64 bytes, after which two more can be read.
struct Utf8Block {
    const std::uint8_t* text;
    __m256i low, high;

    explicit Utf8Block(const std::uint8_t* at) : text(at), low(load(at)), high(load(at + 32)) {}

    std::uint64_t beyond_ascii() const { return bits_of(low, high); }
    std::uint64_t continued() const {  // 0x80 to 0xBF
        return bits_of(_mm256_cmpgt_epi8(all(-0x40), low), _mm256_cmpgt_epi8(all(-0x40), high));
    }
    std::uint64_t from(int least) const { return bits_of(at_least(low, least), at_least(high, least)); }
    std::uint64_t equal(int byte) const {
        return bits_of(_mm256_cmpeq_epi8(low, all(byte)), _mm256_cmpeq_epi8(high, all(byte)));
    }

    // Checks the block by table 3-7 of Unicode 16, for leading bytes up to 0xEF. On entry, `carried` has a bit for each
    // byte of this block that belongs to the last character of the block before. On return, it has those of the next
    // block.
    bool well_formed(std::uint64_t continuation, std::uint64_t& carried) const {
        const std::uint64_t two = from(0xC0), three = from(0xE0);
        const std::uint64_t expected = carried | two << 1 | three << 2;
        carried = two >> 63 | three >> 62;
        // Overlong forms: 0xC0 and 0xC1, and 0xE0 before a byte below 0xA0. Surrogates: 0xED before 0xA0 and above.
        const std::uint64_t too_long = two & ~from(0xC2);
        const std::uint64_t high_next = Utf8Block(text + 1).from(0xA0);
        const std::uint64_t wrong = (equal(0xE0) & ~high_next) | (equal(0xED) & high_next);
        return !((expected ^ continuation) | too_long | wrong);
    }
};

constexpr Packings<8, 1> kNarrow;
constexpr Packings<8, 2> kWide;

// Stores the characters of a block whose first bytes are in `begins`, and advances `out`.
struct Narrow {
    using Character = std::uint8_t;

    static void copy_ascii(const Utf8Block& block, Character*& out) {
        std::memcpy(out, block.text, kBlock);
        out += kBlock;
    }
    static void decode(const Utf8Block& block, std::uint64_t begins, Character*& out) {
        for (unsigned at = 0; at < kBlock; at += 16) {
            const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(block.text + at));
            const __m128i next = _mm_loadu_si128(reinterpret_cast<const __m128i*>(block.text + at + 1));
            // 110000ab 10cdefgh -> abcdefgh
            const __m128i joined = _mm_or_si128(_mm_and_si128(_mm_slli_epi16(bytes, 6), _mm_set1_epi8(-0x40)),
                                                _mm_and_si128(next, _mm_set1_epi8(0x3F)));
            const __m128i characters = _mm_blendv_epi8(bytes, joined, bytes);  // other high bytes are left out
            store(characters, static_cast<unsigned>(begins >> at & 0xFF), out);
            store(_mm_unpackhi_epi64(characters, characters), static_cast<unsigned>(begins >> at >> 8 & 0xFF), out);
        }
    }
    static void store(__m128i characters, unsigned lanes, Character*& out) {
        const __m128i packing = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(kNarrow.of[lanes].bytes));
        _mm_storel_epi64(reinterpret_cast<__m128i*>(out), _mm_shuffle_epi8(characters, packing));
        out += __builtin_popcount(lanes);
    }
};

struct Wide {
    using Character = std::uint16_t;

    static void copy_ascii(const Utf8Block& block, Character*& out) {
        for (unsigned at = 0; at < kBlock; at += 16)
            _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + at), widened(block.text + at));
        out += kBlock;
    }
    static void decode(const Utf8Block& block, std::uint64_t begins, Character*& out) {
        const __m256i six = _mm256_set1_epi16(0x3F);
        for (unsigned at = 0; at < kBlock; at += 16) {
            const std::uint8_t* const text = block.text + at;
            const __m256i one = widened(text);
            const __m256i two = _mm256_or_si256(_mm256_slli_epi16(one, 6), _mm256_and_si256(widened(text + 1), six));
            const __m256i three = _mm256_or_si256(_mm256_slli_epi16(two, 6), _mm256_and_si256(widened(text + 2), six));
            const __m256i has_two = _mm256_cmpgt_epi16(one, _mm256_set1_epi16(0xBF));
            const __m256i has_three = _mm256_cmpgt_epi16(one, _mm256_set1_epi16(0xDF));
            __m256i characters = _mm256_blendv_epi8(one, _mm256_and_si256(two, _mm256_set1_epi16(0x7FF)), has_two);
            characters = _mm256_blendv_epi8(characters, three, has_three);  // the surplus high bits fall out
            store(_mm256_castsi256_si128(characters), static_cast<unsigned>(begins >> at & 0xFF), out);
            store(_mm256_extracti128_si256(characters, 1), static_cast<unsigned>(begins >> at >> 8 & 0xFF), out);
        }
    }
    static __m256i widened(const std::uint8_t* sixteen) {
        return _mm256_cvtepu8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(sixteen)));
    }
    static void store(__m128i characters, unsigned lanes, Character*& out) {
        const __m128i packing = _mm_load_si128(reinterpret_cast<const __m128i*>(kWide.of[lanes].bytes));
        _mm_storeu_si128(reinterpret_cast<__m128i*>(out), _mm_shuffle_epi8(characters, packing));
        out += __builtin_popcount(lanes);
    }
};

// See decode_blocks.
template <class To>
struct Decoder {
    std::uint64_t carried = 0;

    bool complete() const { return !carried; }
    bool block(const std::uint8_t* text, typename To::Character*& out) {
        const Utf8Block block(text);
        if (!(block.beyond_ascii() | carried)) {
            To::copy_ascii(block, out);
            return true;
        }
        const std::uint64_t continuation = block.continued();
        if (!block.well_formed(continuation, carried)) return false;
        To::decode(block, ~continuation, out);
        return true;
    }
};

Utf8Shape measure(const std::uint8_t* text, std::size_t size) {
    std::size_t continued = 0;
    __m256i highest = _mm256_setzero_si256();
    std::size_t begin = 0;
    for (; size - begin >= kBlock; begin += kBlock) {
        const Utf8Block block(text + begin);
        continued += static_cast<std::size_t>(__builtin_popcountll(block.continued()));
        highest = _mm256_max_epu8(highest, _mm256_max_epu8(block.low, block.high));
    }
    alignas(32) std::uint8_t lanes[32];
    _mm256_store_si256(reinterpret_cast<__m256i*>(lanes), highest);
    std::uint8_t top = 0;
    for (const std::uint8_t lane : lanes) top = lane > top ? lane : top;
    for (; begin < size; ++begin) {
        continued += text[begin] >= 0x80 && text[begin] < 0xC0;
        top = text[begin] > top ? text[begin] : top;
    }
    return {size - continued, top};
}

}  // namespace

const Utf8Kernel kUtf8Avx2{measure, decode_blocks<Decoder<Narrow>, std::uint8_t>,
                           decode_blocks<Decoder<Wide>, std::uint16_t>};

}  // namespace bpe
