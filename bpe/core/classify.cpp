#include "classify.hpp"

#include <vector>

#if defined(__x86_64__) && defined(__GNUC__)
#define BPE_X86 1
#include <immintrin.h>
#endif

namespace bpe {

#ifdef BPE_X86
namespace {

__attribute__((target("avx512f,avx512bw"))) Block classify_avx512(const std::uint8_t* bytes) {
    const __m512i text = _mm512_loadu_si512(bytes);
    const auto splat = [](int value) __attribute__((target("avx512f,avx512bw"))) {
        return _mm512_set1_epi8(static_cast<char>(value));
    };
    // first <= byte < first + count, unsigned
    const auto between = [&](const __m512i& value, int first, int count) __attribute__((target("avx512f,avx512bw"))) {
        return _mm512_cmplt_epu8_mask(_mm512_sub_epi8(value, splat(first)), splat(count));
    };
    Block block;
    block.letter = between(_mm512_or_si512(text, splat(0x20)), 'a', 26);
    block.number = between(text, '0', 10);
    block.blank = _mm512_cmpeq_epi8_mask(text, splat(' '));
    block.space = block.blank | between(text, '\t', 5);
    block.newline = _mm512_cmpeq_epi8_mask(text, splat('\n')) | _mm512_cmpeq_epi8_mask(text, splat('\r'));
    block.apostrophe = _mm512_cmpeq_epi8_mask(text, splat('\''));
    block.high = _mm512_movepi8_mask(text);
    block.continuation = block.three = block.four = block.letter_lead = 0;
    if (block.high) {
        block.continuation = between(text, 0x80, 0x40);
        block.three = between(text, 0xE0, 0x20);
        block.four = between(text, 0xF0, 0x10);
        block.letter_lead = between(text, 0xD0, 2) | between(text, 0xE5, 5) | between(text, 0xEB, 2);
    }
    return block;
}

__attribute__((target("avx2"))) Block classify_avx2(const std::uint8_t* bytes) {
    const auto splat = [](int value)
                           __attribute__((target("avx2"))) { return _mm256_set1_epi8(static_cast<char>(value)); };
    const __m256i halves[2] = {_mm256_loadu_si256(reinterpret_cast<const __m256i*>(bytes)),
                               _mm256_loadu_si256(reinterpret_cast<const __m256i*>(bytes + 32))};
    const auto bits = [](const __m256i& low, const __m256i& high) __attribute__((target("avx2"))) {
        return std::uint64_t{static_cast<std::uint32_t>(_mm256_movemask_epi8(high))} << 32 |
               static_cast<std::uint32_t>(_mm256_movemask_epi8(low));
    };
    const auto equal = [&](int value) __attribute__((target("avx2"))) {
        return bits(_mm256_cmpeq_epi8(halves[0], splat(value)), _mm256_cmpeq_epi8(halves[1], splat(value)));
    };
    // first <= byte < first + count, unsigned: the smaller of (byte - first) and (count - 1) is the former
    const auto between = [&](int first, int count, int fold) __attribute__((target("avx2"))) {
        __m256i found[2];
        for (int i = 0; i < 2; ++i) {
            const __m256i distance = _mm256_sub_epi8(_mm256_or_si256(halves[i], splat(fold)), splat(first));
            found[i] = _mm256_cmpeq_epi8(_mm256_min_epu8(distance, splat(count - 1)), distance);
        }
        return bits(found[0], found[1]);
    };
    Block block;
    block.letter = between('a', 26, 0x20);
    block.number = between('0', 10, 0);
    block.blank = equal(' ');
    block.space = block.blank | between('\t', 5, 0);
    block.newline = equal('\n') | equal('\r');
    block.apostrophe = equal('\'');
    block.high = bits(halves[0], halves[1]);
    block.continuation = block.three = block.four = block.letter_lead = 0;
    if (block.high) {
        block.continuation = between(0x80, 0x40, 0);
        block.three = between(0xE0, 0x20, 0);
        block.four = between(0xF0, 0x10, 0);
        block.letter_lead = between(0xD0, 2, 0) | between(0xE5, 5, 0) | between(0xEB, 2, 0);
    }
    return block;
}

}  // namespace
#endif

static std::vector<Kernel> available_kernels() {
    std::vector<Kernel> found;
#ifdef BPE_X86
    if (__builtin_cpu_supports("avx512bw")) found.push_back({"avx512", classify_avx512});
    if (__builtin_cpu_supports("avx2")) found.push_back({"avx2", classify_avx2});
#endif
    found.push_back({"plain", nullptr});
    return found;
}

std::span<const Kernel> kernels() {
    static const std::vector<Kernel> found = available_kernels();
    return found;
}

}  // namespace bpe
