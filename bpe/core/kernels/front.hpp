// The first and the last step of encoding a batch, which every pretoken passes through. `Probe` looks pretokens up in
// the front tables: small tables of the pretokens seen last, which stay in the second-level cache. `Write` writes the
// ids of the pretokens that have been found. All implementations give the same result (see kernels.hpp).
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/hash.hpp"
#include "kernels/keys.hpp"

namespace bpe {

// An entry of a front table. The key's hash names the entry, which holds the last pretoken with that hash. The value
// holds up to three ids (see Encoding).
struct ShortFront {
    ShortKey key;
    std::uint64_t value;
};
struct MediumFront {
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

inline constexpr unsigned kInlineBits = 20;  // of an id in a value
inline constexpr std::size_t kInlineIds = 3;

// The numbers of the pretokens that were not found, by length. The kernels write eight numbers at a time, hence the
// spare room.
struct Missing {
    std::uint32_t shorts[kBatch + 8];
    std::uint32_t mediums[kBatch + 8];
    std::uint32_t longs[kBatch + 8];
    std::size_t short_count;
    std::size_t medium_count;
    std::size_t long_count;
};

// Looks up the pretokens of a batch. Sets values[i] to the value in the front tables, or to 0 if there is none.
using Probe = void (*)(const Batch& batch, const Fronts& fronts, std::uint64_t* values, Missing& missing);

// Writes the ids in values[first, last) to `out` and advances `out`. Stops at a value without ids, or up to four values
// before it. Returns the number of the value at which it has stopped. `out` must have room for 16 more ids.
using Write = std::size_t (*)(const std::uint64_t* values, std::size_t first, std::size_t last, std::uint32_t*& out);

void probe_plain(const Batch& batch, const Fronts& fronts, std::uint64_t* values, Missing& missing);
void probe_avx2(const Batch& batch, const Fronts& fronts, std::uint64_t* values, Missing& missing);
void probe_avx512(const Batch& batch, const Fronts& fronts, std::uint64_t* values, Missing& missing);
// Looks up the pretokens from `first` on with portable code, and adds those not found to `missing`.
void probe_from(std::size_t first, const Batch& batch, const Fronts& fronts, std::uint64_t* values, Missing& missing);

std::size_t write_plain(const std::uint64_t* values, std::size_t first, std::size_t last, std::uint32_t*& out);
std::size_t write_neon(const std::uint64_t* values, std::size_t first, std::size_t last, std::uint32_t*& out);
std::size_t write_avx512(const std::uint64_t* values, std::size_t first, std::size_t last, std::uint32_t*& out);

}  // namespace bpe
