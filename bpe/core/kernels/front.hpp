// The two ends of encoding a batch of pretokens, which every pretoken passes: looking up whether it is one of those
// asked for last, in tables that stay in the second-level cache; and writing out the ids that were found. Each way
// that a processor has for it (kernels.hpp) gives the same.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace bpe {

inline constexpr std::size_t kBatch = 1024;  // pretokens that are scanned before any is looked up

// Pretokens side by side: number i stands in `text` from edges[i] to edges[i + 1]. All edges are below 2^31.
struct Batch {
    const std::uint8_t* text;
    std::size_t readable;  // bytes of the text, which may go on after the batch
    const std::uint32_t* edges;
    std::size_t size;

    std::size_t length(std::size_t i) const { return edges[i + 1] - edges[i]; }
    std::span<const std::uint8_t> operator[](std::size_t i) const { return {text + edges[i], length(i)}; }
};

// An entry for each value of a hash: what was asked for last among those that share it. A key is the bytes, padded with
// zeros, and the length in the last byte. A value is up to three ids, see Encoding.
struct ShortFront {  // up to kLongestShort bytes
    std::uint64_t key;
    std::uint64_t value;
};
struct MediumFront {  // up to kLongestMedium bytes
    std::uint64_t low;
    std::uint64_t high;
    std::uint64_t value;
    std::uint64_t unused;
};
struct Fronts {
    ShortFront* shorts;
    MediumFront* mediums;
};
inline constexpr unsigned kShortFrontBits = 14;   // 256 KiB
inline constexpr unsigned kMediumFrontBits = 13;  // 256 KiB
inline constexpr std::uint32_t kLongestShort = 7;
inline constexpr std::uint32_t kLongestMedium = 15;

inline constexpr unsigned kInlineBits = 20;  // of an id that stands in a value
inline constexpr std::size_t kInlineIds = 3;

// The high bits of these say where a key stands, in these tables and in those behind them.
inline constexpr std::uint64_t kHashFactor = 0x9E3779B97F4A7C15ull;
inline std::uint64_t hash_of(std::uint64_t key) { return (key ^ key >> 32) * kHashFactor; }
inline std::uint64_t hash_of(std::uint64_t low, std::uint64_t high) { return hash_of(low * kHashFactor ^ high); }

// The numbers of the pretokens that were not found, by length. (Eight at a time are written.)
struct Missing {
    std::uint32_t shorts[kBatch + 8];
    std::uint32_t mediums[kBatch + 8];
    std::uint32_t longs[kBatch + 8];
    std::size_t short_count;
    std::size_t medium_count;
    std::size_t long_count;
};

// Looks up the pretokens of a batch. values[i] gets what stands in the front tables, or 0.
using Probe = void (*)(const Batch& batch, const Fronts& fronts, std::uint64_t* values, Missing& missing);

// Writes the ids in values[first, last) to `out`, and stops where a value holds none. Returns how far it came: up to
// four values before that one may be left. `out` moves on; after it there is room for 16 ids more.
using Write = std::size_t (*)(const std::uint64_t* values, std::size_t first, std::size_t last, std::uint32_t*& out);

void probe_plain(const Batch& batch, const Fronts& fronts, std::uint64_t* values, Missing& missing);
void probe_avx512(const Batch& batch, const Fronts& fronts, std::uint64_t* values, Missing& missing);
// The plain way for the pretokens from `first` on, added to what is missing already.
void probe_from(std::size_t first, const Batch& batch, const Fronts& fronts, std::uint64_t* values, Missing& missing);

std::size_t write_plain(const std::uint64_t* values, std::size_t first, std::size_t last, std::uint32_t*& out);
std::size_t write_avx512(const std::uint64_t* values, std::size_t first, std::size_t last, std::uint32_t*& out);

}  // namespace bpe
