// How weights are stored: in files, row by row in ggml's blocks; here, sixteen rows side by side, one in each lane.
//
// A group is sixteen rows. Of quantized types it is a sequence of tiles of 32 columns, those of the K types with a
// header before every eight; of others, a sequence of columns. The integers of a tile are unsigned bytes, four
// neighbouring columns of a row in each lane of 32 bits, sixteen lanes to a "quad", eight quads to a tile; where they
// are narrower, quads share bytes. The numbers are scale * integer + offset. Nothing is lost, and nothing but two
// scales of Q4_K, which take 8 bits instead of 6, takes more room than in the file.
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

enum class Kind : std::uint8_t { kF32, kF16, kBF16, kQ4_0, kQ4_1, kQ8_0, kQ4_K, kQ6_K };

struct Format {
    std::string_view name;
    std::size_t block_columns, block_bytes;  // in a file
    std::size_t header, tile;                // bytes here; a column is the tile of a type that is not quantized

    constexpr bool quantized() const { return block_columns > 1; }
    std::size_t row_bytes(std::size_t columns) const { return columns / block_columns * block_bytes; }
    std::size_t group_bytes(std::size_t columns) const {
        return quantized() ? columns / kTile * tile + columns / (kTile * kTilesOfHeader) * header : columns * tile;
    }
};

// In the order of Kind. A tile has integers, then scales, then offsets.
inline constexpr Format kFormats[] = {
    {"F32", 1, 4, 0, 64},
    {"F16", 1, 2, 0, 32},
    {"BF16", 1, 2, 0, 32},
    {"Q4_0", 32, 18, 0, 4 * kQuad + 32},
    {"Q4_1", 32, 20, 0, 4 * kQuad + 64},
    {"Q8_0", 32, 34, 0, 8 * kQuad + 32},
    {"Q4_K", 256, 144, 64, 4 * kQuad + 32},
    {"Q6_K", 256, 210, 32, 6 * kQuad + 32},
};
inline constexpr std::size_t kKinds = std::size(kFormats);

inline constexpr const Format& format_of(Kind kind) { return kFormats[static_cast<std::size_t>(kind)]; }

// From rows as they are in a file to a group; absent rows, which are null, become zeros. `columns` is a multiple of the
// block's. Returns whether all scales and plain numbers are finite.
bool pack_group(Kind kind, const std::uint8_t* const* rows, std::size_t columns, std::uint8_t* group);

// The numbers of one row of a group.
void read_row(Kind kind, const std::uint8_t* group, std::size_t lane, std::size_t columns, float* numbers);

}  // namespace model
