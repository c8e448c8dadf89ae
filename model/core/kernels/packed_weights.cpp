#include "kernels/packed_weights.hpp"

namespace model {

namespace {

template <class T>
T read(const std::uint8_t* bytes, std::size_t index = 0) {
    T value;
    std::memcpy(&value, bytes + index * sizeof(T), sizeof(T));
    return value;
}

template <class T>
void write(std::uint8_t* bytes, std::size_t index, T value) {
    std::memcpy(bytes + index * sizeof(T), &value, sizeof(T));
}

using Word = std::uint32_t;  // a quad's four columns of one row

// Writes the word of one lane of a quad.
void put(std::uint8_t* tile, std::size_t quad, std::size_t lane, Word word) { write(tile + quad * kQuad, lane, word); }

constexpr Word kLow = 0x0F0F0F0F;

// Each function packs one block of one row into the tiles (and their header) that start at `to`.

bool pack_q4_0(const std::uint8_t* block, std::size_t lane, std::uint8_t* to) {
    // Byte i of a block holds columns i and 16 + i, and so does byte i of the packed row.
    for (std::size_t i = 0; i < 4; ++i) put(to, i, lane, read<Word>(block + 2, i));
    const Half scale = read<Half>(block);
    write(to + 4 * kQuad, lane, scale);
    return is_finite(scale);
}

bool pack_q4_1(const std::uint8_t* block, std::size_t lane, std::uint8_t* to) {
    for (std::size_t i = 0; i < 4; ++i) put(to, i, lane, read<Word>(block + 4, i));
    const Half scale = read<Half>(block), offset = read<Half>(block, 1);
    write(to + 4 * kQuad, lane, scale);
    write(to + 4 * kQuad + 32, lane, offset);
    return is_finite(scale) && is_finite(offset);
}

// Writes the fifth bits of 32 columns, given a callback from a column to its bit: quad i has bit i of each byte.
template <class Bit>
void put_fifth_bits(std::uint8_t* tile, std::size_t lane, const Bit& bit) {
    Word word = 0;
    for (std::size_t column = 0; column < kTile; ++column) word |= bit(column) << (column % 4 * 8 + column / 4);
    put(tile, 4, lane, word);
}

bool pack_q5_0(const std::uint8_t* block, std::size_t lane, std::uint8_t* to) {
    for (std::size_t i = 0; i < 4; ++i) put(to, i, lane, read<Word>(block + 6, i));
    put_fifth_bits(to, lane, [bits = read<Word>(block + 2)](std::size_t column) { return bits >> column & 1; });
    const Half scale = read<Half>(block);
    write(to + 5 * kQuad, lane, scale);
    return is_finite(scale);
}

bool pack_q5_1(const std::uint8_t* block, std::size_t lane, std::uint8_t* to) {
    for (std::size_t i = 0; i < 4; ++i) put(to, i, lane, read<Word>(block + 8, i));
    put_fifth_bits(to, lane, [bits = read<Word>(block + 4)](std::size_t column) { return bits >> column & 1; });
    const Half scale = read<Half>(block), offset = read<Half>(block, 1);
    write(to + 5 * kQuad, lane, scale);
    write(to + 5 * kQuad + 32, lane, offset);
    return is_finite(scale) && is_finite(offset);
}

bool pack_q8_0(const std::uint8_t* block, std::size_t lane, std::uint8_t* to) {
    for (std::size_t i = 0; i < 8; ++i) put(to, i, lane, read<Word>(block + 2, i) ^ 0x80808080);
    const Half scale = read<Half>(block);
    write(to + 8 * kQuad, lane, scale);
    return is_finite(scale);
}

// Q4_K, and Q5_K, which has 32 bytes of fifth bits before the halves: bit i of each belongs to tile i.
template <Kind kind>
bool pack_k(const std::uint8_t* block, std::size_t lane, std::uint8_t* to) {
    constexpr bool kFive = kind == Kind::kQ5_K;
    constexpr std::size_t kQuads = kFive ? 5 : 4;
    const Half scale = read<Half>(block), offset = read<Half>(block, 1);
    write(to, lane, scale);
    write(to + 32, lane, offset);
    to += format_of(kind).header;
    const std::uint8_t *scales = block + 4, *offsets = block + 8, *shared = block + 12, *bits = block + 16;
    const std::uint8_t* integers = bits + (kFive ? 32 : 0);
    for (std::size_t tile = 0; tile < kTilesOfHeader; ++tile, to += format_of(kind).tile) {
        // Two tiles share 32 bytes: the first has the low half of each byte, the second the high half.
        const std::uint8_t* words = integers + tile / 2 * 32;
        const unsigned shift = tile % 2 * 4;
        for (std::size_t i = 0; i < 4; ++i) {
            const Word first = read<Word>(words, i) >> shift & kLow, second = read<Word>(words, i + 4) >> shift & kLow;
            put(to, i, lane, first | second << 4);
        }
        if constexpr (kFive) {
            put_fifth_bits(to, lane, [&](std::size_t column) { return Word{bits[column]} >> tile & 1; });
        }
        const std::size_t i = tile % 4;
        const bool late = tile >= 4;
        to[kQuads * kQuad + lane] = late ? scales[i] >> 6 << 4 | (shared[i] & 15) : scales[i] & 63;
        to[kQuads * kQuad + 16 + lane] = late ? offsets[i] >> 6 << 4 | shared[i] >> 4 : offsets[i] & 63;
    }
    return is_finite(scale) && is_finite(offset);
}

bool pack_q6_k(const std::uint8_t* block, std::size_t lane, std::uint8_t* to) {
    const std::uint8_t *low = block, *high = block + 128, *scales = block + 192;
    const Half scale = read<Half>(block + 208);
    write(to, lane, scale);
    to += format_of(Kind::kQ6_K).header;
    for (std::size_t tile = 0; tile < kTilesOfHeader; ++tile, to += format_of(Kind::kQ6_K).tile) {
        // Four tiles share 64 bytes with the lower 4 bits of each integer, and 32 bytes with the upper 2 bits.
        const std::size_t half = tile / 4, part = tile % 4;
        const std::uint8_t *lows = low + half * 64 + part % 2 * 32, *highs = high + half * 32;
        Word quarters[2] = {};
        for (std::size_t i = 0; i < 8; ++i) {
            quarters[i / 4] |= (read<Word>(highs, i) >> 2 * part & 0x03030303) << i % 4 * 2;
        }
        for (std::size_t i = 0; i < 4; ++i) {
            const unsigned shift = part / 2 * 4;
            const Word first = read<Word>(lows, i) >> shift & kLow, second = read<Word>(lows, i + 4) >> shift & kLow;
            put(to, i, lane, first | second << 4);
        }
        for (std::size_t i = 0; i < 2; ++i) {
            put(to, 4 + i, lane, quarters[i]);
            to[6 * kQuad + i * kLanes + lane] = scales[2 * tile + i];
        }
    }
    return is_finite(scale);
}

template <class T>
bool pack_number(const std::uint8_t* block, std::size_t lane, std::uint8_t* to) {
    const T number = read<T>(block);
    write(to, lane, number);
    return is_finite(number);
}

constexpr decltype(&pack_q4_0) kPack[] = {
    pack_number<float>, pack_number<Half>, pack_number<BFloat16>, pack_q4_0,           pack_q4_1, pack_q5_0,
    pack_q5_1,          pack_q8_0,         pack_k<Kind::kQ4_K>,   pack_k<Kind::kQ5_K>, pack_q6_k};

float half_at(const std::uint8_t* bytes, std::size_t lane) { return to_float(read<Half>(bytes, lane)); }

// Each reads bits of the integer at a row and column of a tile.
int low_half(const std::uint8_t* tile, std::size_t lane, std::size_t column) {
    return tile[column % 16 / 4 * kQuad + 4 * lane + column % 4] >> column / 16 * 4 & 15;
}

int five_bits(const std::uint8_t* tile, std::size_t lane, std::size_t column) {
    const int fifth = tile[4 * kQuad + 4 * lane + column % 4] >> column / 4 & 1;
    return low_half(tile, lane, column) | fifth << 4;
}

int high_quarter(const std::uint8_t* tile, std::size_t lane, std::size_t column) {
    return tile[column / 16 * kQuad + 4 * lane + column % 4] >> column % 16 / 4 * 2 & 3;
}

}  // namespace

bool pack_group(Kind kind, const std::uint8_t* const* rows, std::size_t columns, std::uint8_t* group) {
    const Format& format = format_of(kind);
    const std::size_t blocks = columns / format.block_columns;
    const std::size_t step = format.group_bytes(format.block_columns);
    const auto pack = kPack[static_cast<std::size_t>(kind)];
    bool finite = true;
    std::memset(group, 0, format.group_bytes(columns));
    // Packs some blocks of every row before the next blocks, so that the written tiles stay in the L1 cache.
    constexpr std::size_t kPiece = 16;
    for (std::size_t begin = 0; begin < blocks; begin += kPiece) {
        const std::size_t end = begin + kPiece < blocks ? begin + kPiece : blocks;
        for (std::size_t lane = 0; lane < kLanes; ++lane) {
            if (!rows[lane]) continue;
            for (std::size_t i = begin; i < end; ++i) {
                finite &= pack(rows[lane] + i * format.block_bytes, lane, group + i * step);
            }
        }
    }
    return finite;
}

void read_row(Kind kind, const std::uint8_t* group, std::size_t lane, std::size_t columns, float* numbers) {
    const Format& format = format_of(kind);
    const std::uint8_t* header = group;
    for (std::size_t column = 0; column < columns; ++column) {
        const std::size_t inner = format.quantized() ? column % kTile : 0;
        if (column && inner == 0) group += format.tile;
        if (format.header && column % (kTile * kTilesOfHeader) == 0) {
            header = group;
            group += format.header;
        }
        float& number = numbers[column];
        switch (kind) {
            case Kind::kF32: number = read<float>(group, lane); break;
            case Kind::kF16: number = half_at(group, lane); break;
            case Kind::kBF16: number = to_float(read<BFloat16>(group, lane)); break;
            case Kind::kQ4_0:
                number = half_at(group + 4 * kQuad, lane) * static_cast<float>(low_half(group, lane, inner) - 8);
                break;
            case Kind::kQ4_1:
                number = half_at(group + 4 * kQuad, lane) * static_cast<float>(low_half(group, lane, inner)) +
                         half_at(group + 4 * kQuad + 32, lane);
                break;
            case Kind::kQ5_0:
                number = half_at(group + 5 * kQuad, lane) * static_cast<float>(five_bits(group, lane, inner) - 16);
                break;
            case Kind::kQ5_1:
                number = half_at(group + 5 * kQuad, lane) * static_cast<float>(five_bits(group, lane, inner)) +
                         half_at(group + 5 * kQuad + 32, lane);
                break;
            case Kind::kQ8_0:
                number = half_at(group + 8 * kQuad, lane) *
                         static_cast<float>(group[inner / 4 * kQuad + 4 * lane + inner % 4] - 128);
                break;
            case Kind::kQ4_K: {
                const float scale = half_at(header, lane) * group[4 * kQuad + lane];
                const float offset = half_at(header + 32, lane) * group[4 * kQuad + 16 + lane];
                number = scale * static_cast<float>(low_half(group, lane, inner)) - offset;
                break;
            }
            case Kind::kQ5_K: {
                const float scale = half_at(header, lane) * group[5 * kQuad + lane];
                const float offset = half_at(header + 32, lane) * group[5 * kQuad + 16 + lane];
                number = scale * static_cast<float>(five_bits(group, lane, inner)) - offset;
                break;
            }
            case Kind::kQ6_K: {
                const auto own = static_cast<std::int8_t>(group[6 * kQuad + inner / 16 * kLanes + lane]);
                const int integer = low_half(group, lane, inner) | high_quarter(group + 4 * kQuad, lane, inner) << 4;
                number = half_at(header, lane) * own * static_cast<float>(integer - 32);
                break;
            }
        }
    }
}

}  // namespace model
