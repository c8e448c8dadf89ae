// Batches of pretokens, and the keys under which tables hold pretokens of up to 15 bytes.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "base/types.hpp"

namespace bpe {

inline constexpr std::size_t kBatch = 1024;  // pretokens that are scanned before the first is looked up

// Neighbouring pretokens. Pretoken i spans text[edges[i], edges[i + 1]). All edges are below 2^31.
struct Batch {
    const std::uint8_t* text;
    std::size_t readable;  // bytes of `text`, which may extend beyond the batch
    const std::uint32_t* edges;
    std::size_t size;

    std::size_t length(std::size_t i) const { return edges[i + 1] - edges[i]; }
    Bytes operator[](std::size_t i) const { return {text + edges[i], length(i)}; }
};

// Loads eight bytes as a word. The first byte is the lowest on every machine.
inline std::uint64_t load_word(const std::uint8_t* bytes) {
    std::uint64_t word;
    std::memcpy(&word, bytes, 8);
    if constexpr (std::endian::native == std::endian::big) word = __builtin_bswap64(word);
    return word;
}

// A key is the pretoken's bytes padded with zeros, and its length in the last byte. The length is part of the key
// because a text may contain zero bytes.
inline constexpr std::uint32_t kLongestShort = 7;
inline constexpr std::uint32_t kLongestMedium = 15;

using ShortKey = std::uint64_t;  // of up to kLongestShort bytes

struct MediumKey {  // of up to kLongestMedium bytes
    std::uint64_t low;
    std::uint64_t high;
    bool operator==(const MediumKey&) const = default;
};

// Returns the key of pretoken i, which has at most kLongestShort bytes.
inline ShortKey short_key(const Batch& batch, std::size_t i) {
    const std::uint8_t* bytes = batch.text + batch.edges[i];
    const std::size_t length = batch.length(i);
    std::uint64_t word = 0;
    if (batch.readable - batch.edges[i] >= 8) [[likely]] {
        word = load_word(bytes) & ((std::uint64_t{1} << 8 * length) - 1);
    } else {
        for (std::size_t k = 0; k < length; ++k) word |= std::uint64_t{bytes[k]} << 8 * k;
    }
    return word | std::uint64_t{length} << 56;
}

// Returns the key of pretoken i, which has more than kLongestShort and at most kLongestMedium bytes. Its high word
// holds the last eight bytes. The shift drops those of them, one to eight, that the low word holds as well.
inline MediumKey medium_key(const Batch& batch, std::size_t i) {
    const std::uint8_t* bytes = batch.text + batch.edges[i];
    const std::size_t length = batch.length(i);
    const std::uint64_t rest = load_word(bytes + length - 8) >> 8 >> 8 * (kLongestMedium - length);
    return {load_word(bytes), rest | std::uint64_t{length} << 56};
}

}  // namespace bpe
