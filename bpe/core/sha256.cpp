#include "sha256.hpp"

#include <stdexcept>

#ifdef BPE_X86_KERNELS
#include <cpuid.h>
#include <immintrin.h>

#include <algorithm>
#include <array>
#include <cstring>
#endif

namespace bpe {

#ifdef BPE_X86_KERNELS

namespace {

using Bytes = std::span<const std::uint8_t>;

constexpr std::size_t kBlock = 64;

alignas(16) constexpr std::array<std::uint32_t, 64> kRounds = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

// A text on its way through the rounds: its whole blocks, then what is left of it with the padding.
struct Lane {
    __m128i abef, cdgh;  // the eight words, in the order in which the instructions want them
    const std::uint8_t* at;
    std::size_t blocks;  // that follow at `at`
    bool in_tail;
    std::uint8_t tail[2 * kBlock];
    std::size_t tail_blocks;
    std::size_t number;  // of the text

    void begin(Bytes text, std::size_t which) {
        abef = _mm_set_epi32(0x6a09e667, static_cast<int>(0xbb67ae85), 0x510e527f, static_cast<int>(0x9b05688c));
        cdgh = _mm_set_epi32(0x3c6ef372, static_cast<int>(0xa54ff53a), 0x1f83d9ab, 0x5be0cd19);
        at = text.data();
        blocks = text.size() / kBlock;
        in_tail = false;
        number = which;
        const std::size_t left = text.size() % kBlock;
        tail_blocks = left + 9 <= kBlock ? 1 : 2;
        std::memset(tail, 0, sizeof tail);
        if (left) std::memcpy(tail, text.data() + blocks * kBlock, left);
        tail[left] = 0x80;
        const std::uint64_t bits = __builtin_bswap64(std::uint64_t{text.size()} * 8);
        std::memcpy(tail + tail_blocks * kBlock - 8, &bits, 8);
        if (!blocks) go_on();
    }

    // On to what follows the blocks that are done with; false at the end.
    bool go_on() {
        if (in_tail) return false;
        in_tail = true;
        at = tail;
        blocks = tail_blocks;
        return true;
    }

    __attribute__((target("sha,sse4.1"))) void finish(std::uint8_t* digest) const {
        const __m128i reverse = _mm_set_epi64x(0x0c0d0e0f08090a0b, 0x0405060700010203);
        const __m128i feba = _mm_shuffle_epi32(abef, 0x1B), dchg = _mm_shuffle_epi32(cdgh, 0xB1);
        const __m128i dcba = _mm_blend_epi16(feba, dchg, 0xF0), hgfe = _mm_alignr_epi8(dchg, feba, 8);
        _mm_storeu_si128(reinterpret_cast<__m128i*>(digest), _mm_shuffle_epi8(dcba, reverse));
        _mm_storeu_si128(reinterpret_cast<__m128i*>(digest + 16), _mm_shuffle_epi8(hgfe, reverse));
    }
};

// Takes `count` blocks of each lane through the rounds. An instruction waits for the one before it twice as long as it
// takes, so two texts side by side are done in little more time than one.
template <std::size_t kLanes>
__attribute__((target("sha,sse4.1"))) void compress(Lane* const (&lanes)[kLanes], std::size_t count) {
    const __m128i reverse = _mm_set_epi64x(0x0c0d0e0f08090a0b, 0x0405060700010203);
    __m128i abef[kLanes], cdgh[kLanes], words[kLanes][4];
    for (std::size_t k = 0; k < kLanes; ++k) {
        abef[k] = lanes[k]->abef;
        cdgh[k] = lanes[k]->cdgh;
    }
    for (std::size_t block = 0; block < count; ++block) {
        __m128i before_abef[kLanes], before_cdgh[kLanes];
        for (std::size_t k = 0; k < kLanes; ++k) {
            before_abef[k] = abef[k];
            before_cdgh[k] = cdgh[k];
            const auto* bytes = reinterpret_cast<const __m128i*>(lanes[k]->at + block * kBlock);
            for (std::size_t i = 0; i < 4; ++i) words[k][i] = _mm_shuffle_epi8(_mm_loadu_si128(bytes + i), reverse);
        }
#pragma GCC unroll 16
        for (std::size_t four = 0; four < 16; ++four) {  // rounds at a time
            const __m128i constants = _mm_load_si128(reinterpret_cast<const __m128i*>(kRounds.data()) + four);
#pragma GCC unroll 2
            for (std::size_t k = 0; k < kLanes; ++k) {
                __m128i(&w)[4] = words[k];
                if (four >= 4) {
                    const __m128i last = w[(four + 3) % 4];
                    const __m128i sum = _mm_add_epi32(_mm_sha256msg1_epu32(w[four % 4], w[(four + 1) % 4]),
                                                      _mm_alignr_epi8(last, w[(four + 2) % 4], 4));
                    w[four % 4] = _mm_sha256msg2_epu32(sum, last);
                }
                const __m128i added = _mm_add_epi32(w[four % 4], constants);
                cdgh[k] = _mm_sha256rnds2_epu32(cdgh[k], abef[k], added);
                abef[k] = _mm_sha256rnds2_epu32(abef[k], cdgh[k], _mm_shuffle_epi32(added, 0x0E));
            }
        }
        for (std::size_t k = 0; k < kLanes; ++k) {
            abef[k] = _mm_add_epi32(abef[k], before_abef[k]);
            cdgh[k] = _mm_add_epi32(cdgh[k], before_cdgh[k]);
        }
    }
    for (std::size_t k = 0; k < kLanes; ++k) {
        lanes[k]->abef = abef[k];
        lanes[k]->cdgh = cdgh[k];
        lanes[k]->at += count * kBlock;
        lanes[k]->blocks -= count;
    }
}

}  // namespace

bool can_sha256() {
    static const bool can = [] {
        unsigned a = 0, b = 0, c = 0, d = 0;
        return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (b >> 29 & 1) && __builtin_cpu_supports("sse4.1");
    }();
    return can;
}

void sha256_all(std::span<const Bytes> texts, std::uint8_t* digests) {
    if (!can_sha256()) throw std::runtime_error("this processor has no instructions for SHA-256");
    std::size_t next = 0;
    // Whether the lane has a text to go on with.
    const auto refill = [&](Lane& lane) {
        if (next == texts.size()) return false;
        lane.begin(texts[next], next);
        ++next;
        return true;
    };
    const auto is_done = [&](Lane& lane) {
        if (lane.blocks || lane.go_on()) return false;
        lane.finish(digests + lane.number * kSha256Size);
        return !refill(lane);
    };
    Lane first, second;
    bool has_first = refill(first), has_second = refill(second);
    while (has_first && has_second) {
        compress<2>({&first, &second}, std::min(first.blocks, second.blocks));
        has_first = !is_done(first);
        has_second = !is_done(second);
    }
    Lane& left = has_first ? first : second;
    for (bool has_left = has_first || has_second; has_left; has_left = !is_done(left)) {
        compress<1>({&left}, left.blocks);
    }
}

#else

bool can_sha256() { return false; }

void sha256_all(std::span<const std::span<const std::uint8_t> >, std::uint8_t*) {
    throw std::runtime_error("this processor has no instructions for SHA-256");
}

#endif

}  // namespace bpe
