// Products of packed weights and activation vectors, as templates over the lanes V (lanes.hpp).
#pragma once

#include "kernels/kernels.hpp"
#include "kernels/lanes.hpp"

namespace model {

// --- quantized weights ---

// Calls take(compile-time number, bytes) for each quad of a tile of 4-bit integers.
template <class V, class Take>
void unpack_nibbles(const std::uint8_t* tile, const Take& take) {
    unrolled<4>([&](auto i) {
        const auto packed = V::load_bytes(tile + i * kQuad);
        take(i, V::bit_and(packed, 0x0F0F0F0F));
        take(std::integral_constant<std::size_t, i() + 4>(),
             V::bit_and(V::template shift_right<4>(packed), 0x0F0F0F0F));
    });
}

// As unpack_nibbles, for 5-bit integers.
template <class V, class Take>
void unpack_fives(const std::uint8_t* tile, const Take& take) {
    const auto fifths = V::load_bytes(tile + 4 * kQuad);
    unpack_nibbles<V>(tile, [&](auto number, const typename V::I& nibbles) {
        const auto shifted = [&] {  // bit `number` of each byte becomes bit 4
            if constexpr (number < 4) return V::template shift_left<4 - static_cast<int>(number())>(fifths);
            if constexpr (number == 4) return fifths;
            if constexpr (number > 4) return V::template shift_right<static_cast<int>(number()) - 4>(fifths);
        };
        take(number, V::bit_or(nibbles, V::bit_and(shifted(), 0x10101010)));
    });
}

template <class V>
typename V::F load_halves(const std::uint8_t* bytes) {
    return V::load(reinterpret_cast<const Half*>(bytes));
}

// The scale and offset of a part of a tile. A tile has one or two parts, each with its own scale. The members have no
// initial values: GCC would copy them in pieces, and a vector stored in pieces is slow to load as a whole.
template <class V>
struct Scales {
    typename V::F scale, offset;
    std::size_t part, sum;  // the number of the part, and which of TileScale::sums belongs to it

    void add(const typename V::I& dots, const TileScale& x, typename V::F& total) const {
        total = V::fma(V::mul(V::to_floats(dots), V::set(x.scale)), scale, total);
        total = V::fma(offset, V::set(x.sums[sum]), total);
    }
};

// How integers of activations are stored and multiplied: as two signed bytes each, integer = 256 * high + low, with all
// high bytes of a tile before the low ones. Instruction sets that multiply in another way specialize this template.
template <class V>
struct Integers {
    using I = typename V::I;
    struct Sum {
        I high = V::zeros(), low = V::zeros();
    };
    static constexpr std::size_t kFactors = 1;  // registers into which a quad is unpacked
    static constexpr std::size_t kAtOnce =
        V::kAtOnce;                              // vectors that are multiplied with a factor while it is in a register
    static constexpr std::size_t kUnpacked = 1;  // vectors whose sums fit in registers while quads are unpacked

    static void keep(const I& sixteen, std::size_t half, std::int8_t* bytes) {
        const I high = V::template shift_right_signed<8>(V::add(sixteen, V::set_integers(128)));
        V::store_bytes(bytes + half * kLanes, high);
        V::store_bytes(bytes + kTile + half * kLanes, V::subtract(sixteen, V::template shift_left<8>(high)));
    }
    template <std::size_t>
    static I factor(const I& quad) {
        return quad;
    }
    static void add(Sum& sum, const I& factor, std::size_t number, const std::int8_t* bytes) {
        sum.high = V::dot(sum.high, factor, bytes + 4 * number);
        sum.low = V::dot(sum.low, factor, bytes + kTile + 4 * number);
    }
    static I total(const Sum& sum) { return V::add(V::template shift_left<8>(sum.high), sum.low); }

    // Adds the products of one part of a tile to the sums of kVectors vectors, at most kAtOnce.
    template <std::size_t kVectors, std::size_t kParts>
    static void add_part(const I* factors, const Scales<V>& scales, const TileBytes* bytes, const TileScale* x,
                         typename V::F* sums) {
        constexpr std::size_t kCount = 8 / kParts;
        Sum dots[kVectors];
        for (std::size_t j = scales.part * kCount; j < (scales.part + 1) * kCount; ++j) {
            unrolled<kVectors>([&](auto i) { add(dots[i], factors[j], j, bytes[i].bytes); });
        }
        unrolled<kVectors>([&](auto i) { scales.add(total(dots[i]), x[i], sums[i]); });
    }
};

// The base of all types of tiles. A tile has kParts parts, each with its own scale.
template <Kind kind, std::size_t parts = 1>
struct TileOf {
    static constexpr Kind kKind = kind;
    static constexpr Format kFormat = format_of(kind);
    static constexpr std::size_t kParts = parts;
};

// A tile of 4-bit or 5-bit integers: it has as many quads as an integer has bits, and then the scales.
template <class V, Kind kind, std::size_t bits>
struct LowBits : TileOf<kind> {
    static constexpr std::size_t kScales = bits * kQuad;
    void open(const std::uint8_t*) {}
    template <class Take>
    void unpack(const std::uint8_t* tile, const Take& take) const {
        if constexpr (bits == 5) {
            unpack_fives<V>(tile, take);
        } else {
            unpack_nibbles<V>(tile, take);
        }
    }
};

template <class V, Kind kind, std::size_t bits>
struct Centred : LowBits<V, kind, bits> {
    void scale(const std::uint8_t* tile, std::size_t, typename V::F& scale, typename V::F& offset) const {
        scale = load_halves<V>(tile + Centred::kScales);
        offset = V::mul(scale, V::set(bits == 5 ? -16.0f : -8.0f));
    }
};

template <class V>
using Q4_0 = Centred<V, Kind::kQ4_0, 4>;
template <class V>
using Q5_0 = Centred<V, Kind::kQ5_0, 5>;

template <class V, Kind kind, std::size_t bits>
struct Shifted : LowBits<V, kind, bits> {
    void scale(const std::uint8_t* tile, std::size_t, typename V::F& scale, typename V::F& offset) const {
        scale = load_halves<V>(tile + Shifted::kScales);
        offset = load_halves<V>(tile + Shifted::kScales + 32);
    }
};

template <class V>
using Q4_1 = Shifted<V, Kind::kQ4_1, 4>;
template <class V>
using Q5_1 = Shifted<V, Kind::kQ5_1, 5>;

template <class V>
struct Q8_0 : TileOf<Kind::kQ8_0> {
    void open(const std::uint8_t*) {}
    template <class Take>
    void unpack(const std::uint8_t* tile, const Take& take) const {
        unrolled<8>([&](auto i) {
            const auto quad = V::load_bytes(tile + i * kQuad);
            if constexpr (V::kSignedBytes) {
                take(i, V::bit_xor(quad, 0x80808080));  // subtracts 128
            } else {
                take(i, quad);
            }
        });
    }
    void scale(const std::uint8_t* tile, std::size_t, typename V::F& scale, typename V::F& offset) const {
        scale = load_halves<V>(tile + 8 * kQuad);
        offset = V::mul(scale, V::set(V::kSignedBytes ? 0.0f : -128.0f));
    }
};

template <class V, Kind kind, std::size_t bits>
struct WithHeader : LowBits<V, kind, bits> {
    typename V::F scales = V::set(0.0f), offsets = scales;
    void open(const std::uint8_t* header) {
        scales = load_halves<V>(header);
        offsets = V::mul(load_halves<V>(header + 32), V::set(-1.0f));
    }
    void scale(const std::uint8_t* tile, std::size_t, typename V::F& scale, typename V::F& offset) const {
        const auto* own = reinterpret_cast<const std::int8_t*>(tile + WithHeader::kScales);  // below 64
        scale = V::mul(scales, V::load(own));
        offset = V::mul(offsets, V::load(own + kLanes));
    }
};

template <class V>
using Q4_K = WithHeader<V, Kind::kQ4_K, 4>;
template <class V>
using Q5_K = WithHeader<V, Kind::kQ5_K, 5>;

template <class V>
struct Q6_K : TileOf<Kind::kQ6_K, 2> {
    typename V::F scales = V::set(0.0f);
    void open(const std::uint8_t* header) { scales = load_halves<V>(header); }
    template <class Take>
    void unpack(const std::uint8_t* tile, const Take& take) const {
        unpack_nibbles<V>(tile, [&](auto number, const typename V::I& nibbles) {
            const auto quarters = V::load_bytes(tile + (4 + number / 4) * kQuad);
            const auto shifted = [&] {
                if constexpr (number % 4 == 0) return V::template shift_left<4>(quarters);
                if constexpr (number % 4 == 1) return V::template shift_left<2>(quarters);
                if constexpr (number % 4 == 2) return quarters;
                if constexpr (number % 4 == 3) return V::template shift_right<2>(quarters);
            };
            take(number, V::bit_or(nibbles, V::bit_and(shifted(), 0x30303030)));
        });
    }
    void scale(const std::uint8_t* tile, std::size_t part, typename V::F& scale, typename V::F& offset) const {
        scale = V::mul(scales, V::load(reinterpret_cast<const std::int8_t*>(tile + 6 * kQuad + part * kLanes)));
        offset = V::mul(scale, V::set(-32.0f));
    }
};

template <class V, class Tile, std::size_t kVectors>
void multiply_tiles(const std::uint8_t* group, const Vectors& vectors, float* results) {
    using F = typename V::F;
    using I = typename V::I;
    const std::size_t tiles = vectors.columns / kTile;
    F sums[kVectors];
    for (auto& sum : sums) sum = V::set(0.0f);
    Tile tile;
    for (std::size_t number = 0; number < tiles; ++number) {
        fetch_ahead<V, Tile::kFormat.tile>(group);
        if constexpr (Tile::kFormat.header) {
            if (number % kTilesOfHeader == 0) {
                tile.open(group);
                group += Tile::kFormat.header;
            }
        }
        constexpr std::size_t kParts = Tile::kParts, kQuads = 8 / kParts, kFactors = Integers<V>::kFactors;
        Scales<V> scales[kParts];
        unrolled<kParts>([&](auto part) {
            tile.scale(group, part, scales[part].scale, scales[part].offset);
            scales[part].part = part;
            scales[part].sum = kParts == 1 ? 0 : 1 + part;
        });
        const TileBytes* bytes = vectors.bytes + number * kVectors;
        const TileScale* x = vectors.scales + number * kVectors;
        if constexpr (kVectors <= Integers<V>::kUnpacked) {  // multiply each quad as soon as it is unpacked
            typename Integers<V>::Sum dots[kParts][kVectors];
            tile.unpack(group, [&](auto number_of_quad, const I& quad) {
                unrolled<kFactors>([&](auto j) {
                    const I factor = Integers<V>::template factor<j>(quad);
                    unrolled<kVectors>([&](auto i) {
                        Integers<V>::add(dots[number_of_quad / kQuads][i], factor, number_of_quad * kFactors + j,
                                         bytes[i].bytes);
                    });
                });
            });
            unrolled<kParts>([&](auto part) {
                unrolled<kVectors>([&](auto i) { scales[part].add(Integers<V>::total(dots[part][i]), x[i], sums[i]); });
            });
        } else {
            I factors[8 * kFactors];
            tile.unpack(group, [&](auto number_of_quad, const I& quad) {
                unrolled<kFactors>(
                    [&](auto j) { factors[number_of_quad * kFactors + j] = Integers<V>::template factor<j>(quad); });
            });
            constexpr std::size_t kSome = kVectors < Integers<V>::kAtOnce ? kVectors : Integers<V>::kAtOnce;
            for (const Scales<V>& own : scales) {
                for (std::size_t first = 0; first < kVectors; first += kSome) {
                    Integers<V>::template add_part<kSome, kParts>(factors, own, bytes + first, x + first, sums + first);
                }
            }
        }
        group += Tile::kFormat.tile;
    }
    for (std::size_t i = 0; i < kVectors; ++i) V::store(results + i * kLanes, sums[i]);
}

// --- unquantized weights ---

// Sums are added up in blocks of columns: a single float32 sum of all columns would lose twice as much to rounding (the
// logits of SmolLM2 in float32 were off by 1.2e-4).
constexpr std::size_t kColumnsOfSum = 64;

template <class V, class T, std::size_t kVectors>
void multiply_numbers(const std::uint8_t* group, const Vectors& vectors, float* results) {
    using F = typename V::F;
    constexpr std::size_t kAtOnce = kVectors < V::kSums ? kVectors : V::kSums;
    // Each vector has several sums, because an addition takes longer than the work between two additions to one sum.
    constexpr std::size_t kMost = V::kSums < 8 ? V::kSums : 8;
    constexpr std::size_t kSums = kAtOnce < kMost ? kMost / kAtOnce : 1;
    const std::size_t columns = vectors.columns;
    for (std::size_t first = 0; first < kVectors; first += kAtOnce) {
        const auto* weights = reinterpret_cast<const T*>(group);
        const float* numbers = vectors.numbers + first * columns;
        float* const totals = results + first * kLanes;
        for (std::size_t i = 0; i < kAtOnce; ++i) V::store(totals + i * kLanes, V::set(0.0f));
        for (std::size_t begin = 0; begin < columns; begin += kSums * kColumnsOfSum) {
            const std::size_t end = begin + kSums * kColumnsOfSum < columns ? begin + kSums * kColumnsOfSum : columns;
            F sums[kAtOnce][kSums];
            for (auto& own : sums) {
                for (F& sum : own) sum = V::set(0.0f);
            }
            std::size_t column = begin;
            for (; column + kSums <= end; column += kSums) {
                fetch_ahead<V, kSums * kLanes * sizeof(T)>(
                    reinterpret_cast<const std::uint8_t*>(weights + column * kLanes));
                unrolled<kSums>([&](auto j) {
                    const F weight = V::load(weights + (column + j) * kLanes);
                    unrolled<kAtOnce>([&](auto i) {
                        sums[i][j] = V::fma(weight, V::set(numbers[i * columns + column + j]), sums[i][j]);
                    });
                });
            }
            for (; column < end; ++column) {
                const F weight = V::load(weights + column * kLanes);
                unrolled<kAtOnce>(
                    [&](auto i) { sums[i][0] = V::fma(weight, V::set(numbers[i * columns + column]), sums[i][0]); });
            }
            unrolled<kAtOnce>([&](auto i) {
                unrolled<kSums - 1>([&](auto j) { sums[i][0] = V::add(sums[i][0], sums[i][j + 1]); });
                V::store(totals + i * kLanes, V::add(V::load(totals + i * kLanes), sums[i][0]));
            });
        }
    }
}

}  // namespace model
