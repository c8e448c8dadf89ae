// Compiled with AVX-512 (F, BW, DQ, VL, VBMI, VBMI2) and called only if the processor supports it. Must not call inline
// functions with external linkage from headers: the linker might choose this file's copy for every processor.
#include <immintrin.h>

#include "kernels/characters.hpp"

namespace bpe {

namespace {

inline __m512i all(int byte) { return _mm512_set1_epi8(static_cast<char>(byte)); }

// Returns a mask of the first `count` of 64 lanes.
inline __mmask64 first_lanes(std::size_t count) {
    return count >= 64 ? ~std::uint64_t{0} : (std::uint64_t{1} << count) - 1;
}

// Loads up to 64 bytes from `begin` on and fills the rest with zeros.
inline __m512i load(const std::uint8_t* text, std::size_t begin, std::size_t size) {
    const std::size_t left = begin < size ? size - begin : 0;
    return _mm512_maskz_loadu_epi8(first_lanes(left), text + begin);
}

// Up to 64 bytes of a text.
struct Utf8Block {
    __m512i bytes, next, last;  // for each place: its byte and the two that follow
    __mmask64 begins;           // the first bytes of characters

    Utf8Block(const std::uint8_t* text, std::size_t begin, std::size_t size)
        : bytes(load(text, begin, size)), next(load(text, begin + 1, size)), last(load(text, begin + 2, size)) {
        begins = first_lanes(size - begin) & ~continued();
    }
    __mmask64 continued() const { return _mm512_cmplt_epi8_mask(bytes, all(-0x40)); }  // 0x80 to 0xBF

    // Checks the block by table 3-7 of Unicode 16, for leading bytes up to 0xEF. On entry, `carried` has a bit for each
    // byte of this block that belongs to the last character of the block before. On return, it has those of the next
    // block.
    bool well_formed(std::uint64_t& carried) const {
        const __mmask64 two = _mm512_cmpge_epu8_mask(bytes, all(0xC0));
        const __mmask64 three = _mm512_cmpge_epu8_mask(bytes, all(0xE0));
        const std::uint64_t expected = carried | two << 1 | three << 2;
        carried = two >> 63 | three >> 62;
        // Overlong forms: 0xC0 and 0xC1, and 0xE0 before a byte below 0xA0. Surrogates: 0xED before 0xA0 and above.
        const __mmask64 too_long = two & _mm512_cmple_epu8_mask(bytes, all(0xC1));
        const __mmask64 high = _mm512_cmpge_epu8_mask(next, all(0xA0));
        const __mmask64 wrong =
            (_mm512_cmpeq_epi8_mask(bytes, all(0xE0)) & ~high) | (_mm512_cmpeq_epi8_mask(bytes, all(0xED)) & high);
        return !((expected ^ continued()) | too_long | wrong);
    }
};

Utf8Shape measure(const std::uint8_t* text, std::size_t size) {
    std::size_t continued = 0;
    __m512i highest = _mm512_setzero_si512();
    for (std::size_t begin = 0; begin < size; begin += 64) {
        const __m512i bytes = load(text, begin, size);
        continued += static_cast<std::size_t>(__builtin_popcountll(_mm512_cmplt_epi8_mask(bytes, all(-0x40))));
        highest = _mm512_max_epu8(highest, bytes);
    }
    alignas(64) std::uint8_t lanes[64];
    _mm512_store_si512(lanes, highest);
    std::uint8_t top = 0;
    for (const std::uint8_t lane : lanes) top = lane > top ? lane : top;
    return {size - continued, top};
}

bool narrow(const std::uint8_t* text, std::size_t size, std::uint8_t* out) {
    std::uint64_t carried = 0;
    for (std::size_t begin = 0; begin < size; begin += 64) {
        const Utf8Block block(text, begin, size);
        if (!block.well_formed(carried)) return false;
        // 110000ab 10cdefgh -> abcdefgh
        const __m512i high = _mm512_and_si512(_mm512_slli_epi16(block.bytes, 6), all(0xC0));
        const __m512i joined = _mm512_or_si512(high, _mm512_and_si512(block.next, all(0x3F)));
        const __m512i characters =
            _mm512_mask_mov_epi8(block.bytes, _mm512_cmpge_epu8_mask(block.bytes, all(0xC0)), joined);
        const auto count = static_cast<std::size_t>(__builtin_popcountll(block.begins));
        _mm512_mask_storeu_epi8(out, first_lanes(count), _mm512_maskz_compress_epi8(block.begins, characters));
        out += count;
    }
    return carried == 0;
}

// Returns 32 characters, given the bytes of each.
inline __m512i wide_characters(__m256i first, __m256i second, __m256i third) {
    const auto bits = [](__m256i bytes) {
        return _mm512_and_si512(_mm512_cvtepu8_epi16(bytes), _mm512_set1_epi16(0x3F));
    };
    const __m512i one = _mm512_cvtepu8_epi16(first);
    const __m512i two = _mm512_or_si512(_mm512_slli_epi16(one, 6), bits(second));
    const __m512i three = _mm512_or_si512(_mm512_slli_epi16(two, 6), bits(third));  // the surplus high bits fall out
    const __mmask32 has_two = _mm512_cmpge_epu16_mask(one, _mm512_set1_epi16(0xC0));
    const __mmask32 has_three = _mm512_cmpge_epu16_mask(one, _mm512_set1_epi16(0xE0));
    const __m512i lower = _mm512_mask_mov_epi16(one, has_two, _mm512_and_si512(two, _mm512_set1_epi16(0x7FF)));
    return _mm512_mask_mov_epi16(lower, has_three, three);
}

bool wide(const std::uint8_t* text, std::size_t size, std::uint16_t* out) {
    std::uint64_t carried = 0;
    for (std::size_t begin = 0; begin < size; begin += 64) {
        const Utf8Block block(text, begin, size);
        if (!block.well_formed(carried)) return false;
        const __m512i first = _mm512_maskz_compress_epi8(block.begins, block.bytes);
        const __m512i second = _mm512_maskz_compress_epi8(block.begins, block.next);
        const __m512i third = _mm512_maskz_compress_epi8(block.begins, block.last);
        const auto count = static_cast<std::size_t>(__builtin_popcountll(block.begins));
        const __mmask64 stored = first_lanes(count);
        _mm512_mask_storeu_epi16(out, static_cast<__mmask32>(stored),
                                 wide_characters(_mm512_castsi512_si256(first), _mm512_castsi512_si256(second),
                                                 _mm512_castsi512_si256(third)));
        if (count > 32) {
            _mm512_mask_storeu_epi16(
                out + 32, static_cast<__mmask32>(stored >> 32),
                wide_characters(_mm512_extracti64x4_epi64(first, 1), _mm512_extracti64x4_epi64(second, 1),
                                _mm512_extracti64x4_epi64(third, 1)));
        }
        out += count;
    }
    return carried == 0;
}

}  // namespace

const Utf8Kernel kUtf8Avx512{measure, narrow, wide};

}  // namespace bpe
