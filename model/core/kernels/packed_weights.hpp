// Storage of weights: row by row in ggml's blocks in files, and sixteen rows side by side, one per lane, in memory.
//
// A group holds sixteen rows. A group of a quantized type is a sequence of tiles of 32 columns; the K types put a
// header before every eight tiles. A group of any other type is a sequence of columns. The integers of a tile are
// unsigned bytes. A "quad" is four neighbouring columns: sixteen lanes of 32 bits, one byte per column. A tile has
// eight quads; integers of fewer than 8 bits share the bytes of a quad. A weight is scale * integer + offset. Packing
// is lossless, and takes no more memory than the file, except that two scales of Q4_K and Q5_K take 8 bits instead
// of 6.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string_view>

#include "kernels/numbers.hpp"

namespace model {

inline constexpr std::size_t kLanes = 16;
inline constexpr std::size_t kTile = 32;  // columns
inline constexpr std::size_t kTilesOfHeader = 8;
inline constexpr std::size_t kQuad = 4 * kLanes;  // bytes

enum class Kind : std::uint8_t { kF32, kF16, kBF16, kQ4_0, kQ4_1, kQ5_0, kQ5_1, kQ8_0, kQ4_K, kQ5_K, kQ6_K };

struct Format {
    std::string_view name;
    std::size_t block_columns, block_bytes;  // in a file
    std::size_t header, tile;                // bytes in memory; a "tile" of an unquantized type is one column

    constexpr bool quantized() const { return block_columns > 1; }
    std::size_t row_bytes(std::size_t columns) const { return columns / block_columns * block_bytes; }
    std::size_t group_bytes(std::size_t columns) const {
        return quantized() ? columns / kTile * tile + columns / (kTile * kTilesOfHeader) * header : columns * tile;
    }
};

// In the order of Kind. A tile stores its integers, then its scales, then its offsets.
inline constexpr Format kFormats[] = {
    {"F32", 1, 4, 0, 64},
    {"F16", 1, 2, 0, 32},
    {"BF16", 1, 2, 0, 32},
    {"Q4_0", 32, 18, 0, 4 * kQuad + 32},
    {"Q4_1", 32, 20, 0, 4 * kQuad + 64},
    {"Q5_0", 32, 22, 0, 5 * kQuad + 32},
    {"Q5_1", 32, 24, 0, 5 * kQuad + 64},
    {"Q8_0", 32, 34, 0, 8 * kQuad + 32},
    {"Q4_K", 256, 144, 64, 4 * kQuad + 32},
    {"Q5_K", 256, 176, 64, 5 * kQuad + 32},
    {"Q6_K", 256, 210, 32, 6 * kQuad + 32},
};
inline constexpr std::size_t kKinds = std::size(kFormats);

inline constexpr const Format& format_of(Kind kind) { return kFormats[static_cast<std::size_t>(kind)]; }

// Packs sixteen rows, stored as in a file, into a group. A null row becomes zeros. `columns` is a multiple of the block
// size. Returns whether all scales and unquantized numbers are finite.
bool pack_group(Kind kind, const std::uint8_t* const* rows, std::size_t columns, std::uint8_t* group);

// Dequantizes one row of a group to [columns].
void read_row(Kind kind, const std::uint8_t* group, std::size_t lane, std::size_t columns, float* numbers);

}  // namespace model
