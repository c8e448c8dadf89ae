// Kernels for AMX and AVX-512, called only where the processor and the operating system allow them. They differ from
// the avx512 kernels in products of quantized weights with eight or more vectors, in products of other weights with
// more than sixteen vectors, and in attention of sixteen or more queries.
#include "kernels/attention.hpp"
#include "kernels/avx512_lanes.hpp"
#include "kernels/products.hpp"
#include "kernels/vectors.hpp"

#ifdef __linux__
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace model {
namespace {

using V = Avx512;
using F = V::F;
using I = V::I;

// The configuration of the tile registers: rows, and bytes per row.
struct alignas(64) Configuration {
    std::uint8_t palette = 1, start = 0, reserved[14] = {};
    std::uint16_t row_bytes[16] = {};
    std::uint8_t rows[16] = {};
};

// Registers 0 to 3 hold sums, 4 and 5 vectors with kBytes per row, 6 and 7 weights with kRows rows.
template <std::size_t kBytes, std::size_t kRows>
constexpr Configuration kConfiguration = [] {
    Configuration made;
    for (std::size_t i = 0; i < 8; ++i) made.rows[i] = kLanes, made.row_bytes[i] = kQuad;
    for (const std::size_t i : {4, 5}) made.row_bytes[i] = kBytes;
    for (const std::size_t i : {6, 7}) made.rows[i] = kRows;
    return made;
}();

// --- products of eight or sixteen vectors: integers ---

// Computes the sums of Integers<Avx512>. A quad is a row of a tile register as it is; so are the high bytes and the low
// bytes of a vector, for eight vectors at a time. The sums pass through memory to be scaled while the next are
// computed.
template <class Tile, std::size_t kVectors>
void multiply_integers(const std::uint8_t* group, const Vectors& vectors, float* results) {
    static_assert(kVectors == 8 || kVectors == 16);
    constexpr std::size_t kParts = Tile::kParts, kColumns = kTile / kParts;
    constexpr std::size_t kLater = 2;     // sums are scaled this many parts later
    constexpr std::size_t kUnpacked = 8;  // tiles are unpacked half as many tiles ahead
    const std::size_t tiles = vectors.columns / kTile, parts = tiles * kParts;
    struct alignas(64) Sums {
        std::int32_t numbers[kVectors][2][kLanes];  // of high bytes, and of low bytes
        Scales<V> scales;
        const TileScale* x;
    } sums[kLater + 1];
    F totals[kVectors];
    for (F& total : totals) total = V::set(0.0f);
    const auto finish = [&](std::size_t turn) __attribute__((always_inline)) {
        const Sums& own = sums[turn % (kLater + 1)];
#pragma GCC unroll 16
        for (std::size_t i = 0; i < kVectors; ++i) {
            const I high = _mm512_load_si512(own.numbers[i][0]), low = _mm512_load_si512(own.numbers[i][1]);
            own.scales.add(V::add(V::shift_left<8>(high), low), own.x[i], totals[i]);
        }
    };
    Tile tile;
    I quads[kUnpacked][8];
    const std::uint8_t* ahead = group;
    std::size_t unpacked = 0;
    const auto unpack_to = [&](std::size_t end) __attribute__((always_inline)) {
        for (; unpacked < end && unpacked < tiles; ++unpacked, ahead += Tile::kFormat.tile) {
            fetch_ahead<V, Tile::kFormat.tile>(ahead);
            if (unpacked % kTilesOfHeader == 0) ahead += Tile::kFormat.header;
            tile.unpack(ahead, [&](auto number, const I& quad) { quads[unpacked % kUnpacked][number] = quad; });
        }
    };
    const auto load = [&](std::size_t turn) __attribute__((always_inline)) {
        const std::size_t number = turn / kParts, part = turn % kParts;
        const TileBytes* x = vectors.bytes + number * kVectors;
        _tile_loadd(6, quads[number % kUnpacked] + part * kColumns / 4, kQuad);
        _tile_loadd(4, x->bytes + part * kColumns, kTile);
        if constexpr (kVectors == 16) _tile_loadd(5, x[8].bytes + part * kColumns, kTile);
    };
    unpack_to(kUnpacked / 2);
    _tile_loadconfig(&kConfiguration<kColumns, kColumns / 4>);
    load(0);
    for (std::size_t turn = 0; turn < parts; ++turn) {
        const std::size_t number = turn / kParts, part = turn % kParts;
        _tile_zero(0);
        _tile_dpbsud(0, 4, 6);
        if constexpr (kVectors == 16) {
            _tile_zero(1);
            _tile_dpbsud(1, 5, 6);
        }
        if (part == 0) unpack_to(number + kUnpacked / 2);
        if (turn + 1 < parts) load(turn + 1);
        if (Tile::kFormat.header && turn % (kTilesOfHeader * kParts) == 0) {
            tile.open(group);
            group += Tile::kFormat.header;
        }
        Sums& own = sums[turn % (kLater + 1)];
        tile.scale(group, part, own.scales.scale, own.scales.offset);
        own.scales.part = part;
        own.scales.sum = kParts == 1 ? 0 : 1 + part;
        own.x = vectors.scales + number * kVectors;
        if (turn >= kLater) finish(turn - kLater);
        _tile_stored(0, own.numbers, kQuad);
        if constexpr (kVectors == 16) _tile_stored(1, own.numbers[8], kQuad);
        if (part + 1 == kParts) group += Tile::kFormat.tile;
    }
    for (std::size_t turn = parts < kLater ? 0 : parts - kLater; turn < parts; ++turn) finish(turn);
    _tile_release();
    for (std::size_t i = 0; i < kVectors; ++i) V::store(results + i * kLanes, totals[i]);
}

// --- products of more vectors: bfloat16 ---

// Numbers split into the sum of two bfloat16 numbers, which together are as precise as the integers. A lane holds two.
struct Split {
    I high, low;

    Split(F first, F second) {
        const I a = rounded(first), b = rounded(second);
        high = pairs(a, b);
        low = pairs(rounded(_mm512_sub_ps(first, upper(a))), rounded(_mm512_sub_ps(second, upper(b))));
    }

 private:
    static I rounded(F number) { return V::add(_mm512_castps_si512(number), V::set_integers(0x8000)); }
    static F upper(I bits) { return _mm512_castsi512_ps(V::bit_and(bits, static_cast<std::int32_t>(0xFFFF0000))); }
    static I pairs(I first, I second) {
        return V::bit_or(V::shift_right<16>(first), V::bit_and(second, static_cast<std::int32_t>(0xFFFF0000)));
    }
};

// Writes the high parts of the numbers of a tile, then the low parts.
void put_split(F half, F other, TileBytes* to) {
    const I even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    const I odd = V::add(even, V::set_integers(1));
    const Split split(_mm512_permutex2var_ps(half, even, other), _mm512_permutex2var_ps(half, odd, other));
    _mm512_store_si512(to[0].bytes, split.high);
    _mm512_store_si512(to[1].bytes, split.low);
}

void split_vector(const float* numbers, std::size_t tiles, std::size_t step, TileBytes* bytes) {
    for (std::size_t tile = 0; tile < tiles; ++tile, numbers += kTile, bytes += 2 * step) {
        put_split(V::load(numbers), V::load(numbers + kLanes), bytes);
    }
}

constexpr std::size_t kSplitFrom = 32;  // vectors

void quantize_or_split(const float* numbers, std::size_t tiles, std::size_t step, TileBytes* bytes, TileScale* scales) {
    if (step >= kSplitFrom) {
        split_vector(numbers, tiles, step, bytes);
    } else {
        avx512_kernel().quantize(numbers, tiles, step, bytes, scales);
    }
}

// Dequantizes and splits the weights of a tile. A row of the results has two columns.
template <class Tile>
void unpack_split(const Tile& tile, const std::uint8_t* bytes, I* high, I* low) {
    F scales[Tile::kParts], offsets[Tile::kParts];
    for (std::size_t part = 0; part < Tile::kParts; ++part) tile.scale(bytes, part, scales[part], offsets[part]);
    tile.unpack(bytes, [&](auto number, const I& quad) {
        constexpr std::size_t part = number * Tile::kParts / 8;
        const auto column = [&](const I& shifted) {
            return V::fma(V::to_floats(V::bit_and(shifted, 255)), scales[part], offsets[part]);
        };
        const Split first(column(quad), column(V::shift_right<8>(quad)));
        const Split second(column(V::shift_right<16>(quad)), column(V::shift_right<24>(quad)));
        high[2 * number] = first.high, high[2 * number + 1] = second.high;
        low[2 * number] = first.low, low[2 * number + 1] = second.low;
    });
}

// Adds high * high + high * low + low * high; the missing low * low is no larger than the rounding error. A macro,
// because GCC's intrinsics are macros that need the register's number as a literal.
#define MODEL_ADD_SPLIT(sum, x)                        \
    do {                                               \
        _tile_loadd(4, (x)[0].bytes, 2 * sizeof *(x)); \
        _tile_dpbf16ps(sum, 4, 6);                     \
        _tile_dpbf16ps(sum, 4, 7);                     \
        _tile_loadd(5, (x)[1].bytes, 2 * sizeof *(x)); \
        _tile_dpbf16ps(sum, 5, 6);                     \
    } while (false)

// Up to four registers hold sums, each of sixteen vectors.
[[gnu::always_inline]] inline void zero_sums() {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
}

[[gnu::always_inline]] inline void add_to_sums(const TileBytes* x, std::size_t sixteens) {
    MODEL_ADD_SPLIT(0, x);
    if (sixteens > 1) MODEL_ADD_SPLIT(1, x + 2 * 16);
    if (sixteens > 2) MODEL_ADD_SPLIT(2, x + 2 * 32);
    if (sixteens > 3) MODEL_ADD_SPLIT(3, x + 2 * 48);
}

[[gnu::always_inline]] inline void load_sums(const float* from, std::size_t stride, std::size_t sixteens) {
    const std::size_t step = stride * sizeof(float);
    _tile_loadd(0, from, step);
    if (sixteens > 1) _tile_loadd(1, from + 16 * stride, step);
    if (sixteens > 2) _tile_loadd(2, from + 32 * stride, step);
    if (sixteens > 3) _tile_loadd(3, from + 48 * stride, step);
}

[[gnu::always_inline]] inline void store_sums(float* to, std::size_t stride, std::size_t sixteens) {
    const std::size_t step = stride * sizeof(float);
    _tile_stored(0, to, step);
    if (sixteens > 1) _tile_stored(1, to + 16 * stride, step);
    if (sixteens > 2) _tile_stored(2, to + 32 * stride, step);
    if (sixteens > 3) _tile_stored(3, to + 48 * stride, step);
}

// Calls unpack(number, high, low) to write the split weights of a tile. Sums stay in registers, and one tile is
// unpacked while the previous one is multiplied. With 64 vectors, each takes three quarters of its time with 16.
template <std::size_t kVectors, class Unpack>
void multiply_split(const Vectors& vectors, float* results, const Unpack& unpack) {
    static_assert(kVectors == 32 || kVectors == 64);
    const std::size_t tiles = vectors.columns / kTile;
    I high[2][kLanes], low[2][kLanes];
    unpack(0, high[0], low[0]);
    _tile_loadconfig(&kConfiguration<kQuad, kLanes>);
    zero_sums();
    for (std::size_t number = 0; number < tiles; ++number) {
        const TileBytes* x = vectors.bytes + number * 2 * kVectors;
        _tile_loadd(6, high[number % 2], kQuad);
        _tile_loadd(7, low[number % 2], kQuad);
        add_to_sums(x, kVectors / 16);
        const std::size_t next = number + 1;
        if (next < tiles) unpack(next, high[next % 2], low[next % 2]);
    }
    store_sums(results, kLanes, kVectors / 16);
    _tile_release();
}

template <class Tile, std::size_t kVectors>
void multiply_many(const std::uint8_t* group, const Vectors& vectors, float* results) {
    Tile tile;
    multiply_split<kVectors>(vectors, results, [&](std::size_t number, I* high, I* low) __attribute__((always_inline)) {
        fetch_ahead<V, Tile::kFormat.tile>(group);
        if (Tile::kFormat.header && number % kTilesOfHeader == 0) {
            tile.open(group);
            group += Tile::kFormat.header;
        }
        unpack_split(tile, group, high, low);
        group += Tile::kFormat.tile;
    });
}

// Splits 16-bit weights likewise. 32-bit weights, and rows that do not end with a whole tile, are multiplied with
// sixteen vectors at a time.
template <class T, Kind kind, std::size_t kVectors>
void multiply_many_numbers(const std::uint8_t* group, const Vectors& vectors, float* results) {
    constexpr std::size_t kPower = 4, kSome = std::size_t{1} << kPower;
    if (sizeof(T) == 2 && vectors.columns % kTile == 0) {
        multiply_split<kVectors>(vectors, results, [&](std::size_t, I* high, I* low) __attribute__((always_inline)) {
            fetch_ahead<V, kTile * kLanes * sizeof(T)>(group);
            const auto* weights = reinterpret_cast<const T*>(group);
            for (std::size_t i = 0; i < kTile / 2; ++i) {
                const Split split(V::load(weights + 2 * i * kLanes), V::load(weights + (2 * i + 1) * kLanes));
                high[i] = split.high, low[i] = split.low;
            }
            group += kTile * kLanes * sizeof(T);
        });
        return;
    }
    for (std::size_t first = 0; first < kVectors; first += kSome) {
        const Vectors some{vectors.numbers + first * vectors.columns, nullptr, nullptr, vectors.columns};
        avx512_kernel().products[static_cast<std::size_t>(kind)][kPower](group, some, results + first * kLanes);
    }
}

// --- attention of sixteen or more queries ---

constexpr std::size_t kQueries = 64;  // at a time, at most
constexpr std::size_t kWidest = 128;  // the largest head_dim

// Missing queries, up to a multiple of sixteen, count as zeros; `scores` has room for their scores.
template <class T, CacheKind kind>
void score_split(const void* all_keys, std::size_t blocks, std::size_t head_dim, const float* queries,
                 std::size_t count, float* scores, std::size_t stride) {
    if (count < 16 || count > kQueries || head_dim % kTile || head_dim > kWidest) {
        avx512_kernel().attention[static_cast<std::size_t>(kind)].score(all_keys, blocks, head_dim, queries, count,
                                                                        scores, stride);
        return;
    }
    const std::size_t tiles = head_dim / kTile, sixteens = (count + 15) / 16;
    TileBytes x[kWidest / kTile * kQueries * 2];
    for (std::size_t i = 0; i < count; ++i) split_vector(queries + i * head_dim, tiles, kQueries, x + 2 * i);
    for (std::size_t i = count; i < sixteens * 16; ++i) {
        for (std::size_t tile = 0; tile < tiles; ++tile) {
            std::memset(x + 2 * (tile * kQueries + i), 0, 2 * sizeof(TileBytes));
        }
    }
    I high[kWidest / 2], low[kWidest / 2];
    const T* keys = static_cast<const T*>(all_keys);
    _tile_loadconfig(&kConfiguration<kQuad, kLanes>);
    for (std::size_t block = 0; block < blocks; ++block, keys += head_dim * kLanes) {
        for (std::size_t i = 0; i < head_dim; i += 2) {
            fetch_ahead<V, 2 * kLanes * sizeof(T)>(reinterpret_cast<const std::uint8_t*>(keys + i * kLanes));
            const Split split(V::load(keys + i * kLanes), V::load(keys + (i + 1) * kLanes));
            high[i / 2] = split.high, low[i / 2] = split.low;
        }
        zero_sums();
        for (std::size_t tile = 0; tile < tiles; ++tile) {
            _tile_loadd(6, high + tile * 16, kQuad);
            _tile_loadd(7, low + tile * 16, kQuad);
            add_to_sums(x + 2 * tile * kQueries, sixteens);
        }
        store_sums(scores + block * kLanes, stride, sixteens);
    }
    _tile_release();
}

template <class T, CacheKind kind>
void mix_split(const void* all_values, std::size_t positions, std::size_t width, const float* weights,
               std::size_t count, std::size_t stride, float* results) {
    if (count < 16 || count > kQueries) {
        avx512_kernel().attention[static_cast<std::size_t>(kind)].mix(all_values, positions, width, weights, count,
                                                                      stride, results);
        return;
    }
    constexpr std::size_t kTiles = 8;  // of positions, whose split weights stay in the L1 and L2 caches
    const std::size_t sixteens = (count + 15) / 16;
    TileBytes x[kTiles * kQueries * 2];
    I high[kLanes], low[kLanes];
    const T* values = static_cast<const T*>(all_values);
    std::memset(results, 0, sixteens * 16 * width * sizeof(float));
    _tile_loadconfig(&kConfiguration<kQuad, kLanes>);
    for (std::size_t begin = 0; begin < positions; begin += kTiles * kTile) {
        const std::size_t size = positions - begin < kTiles * kTile ? positions - begin : kTiles * kTile;
        const std::size_t tiles = (size + kTile - 1) / kTile;
        for (std::size_t i = 0; i < sixteens * 16; ++i) {
            for (std::size_t tile = 0; tile < tiles; ++tile) {
                const std::size_t left = i < count ? size - tile * kTile : 0;
                const auto some = [&](std::size_t first) {
                    const std::size_t there = left < first ? 0 : left - first;
                    const auto mask = static_cast<__mmask16>(there < kLanes ? (1U << there) - 1 : 0xFFFF);
                    return _mm512_maskz_loadu_ps(mask, weights + i * stride + begin + tile * kTile + first);
                };
                put_split(some(0), some(kLanes), x + 2 * (tile * kQueries + i));
            }
        }
        for (std::size_t first = 0; first < width; first += kLanes) {
            load_sums(results + first, width, sixteens);
            for (std::size_t tile = 0; tile < tiles; ++tile) {
                for (std::size_t i = 0; i < kLanes; ++i) {
                    const std::size_t position =
                        tile * kTile + 2 * i;  // of two; memory reaches to a multiple of sixteen
                    const T* from = values + (begin + position) * width + first;
                    const F a = position < size ? V::load(from) : V::set(0.0f);
                    const F b = position + 1 < size ? V::load(from + width) : V::set(0.0f);
                    const Split split(a, b);
                    high[i] = split.high, low[i] = split.low;
                }
                _tile_loadd(6, high, kQuad);
                _tile_loadd(7, low, kQuad);
                add_to_sums(x + 2 * tile * kQueries, sixteens);
            }
            store_sums(results + first, width, sixteens);
        }
    }
    _tile_release();
}

}  // namespace

// Returns whether the processor has AMX with integers and bfloat16, and the operating system grants this process its
// use, for which a process has to ask.
bool can_amx() {
#ifdef __linux__
    constexpr unsigned kBFloat16 = 1U << 22, kTiles = 1U << 24, kBytes = 1U << 25, kAll = kBFloat16 | kTiles | kBytes;
    constexpr long kAskFor = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
    unsigned a = 0, b = 0, c = 0, d = 0;
    return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (d & kAll) == kAll &&
           syscall(SYS_arch_prctl, kAskFor, kTileData) == 0;
#else
    return false;
#endif
}

const Kernel& amx_kernel() {
    static const Kernel kernel = [] {
        Kernel made = avx512_kernel();
        made.name = "amx";
        made.most_vectors = 64, made.split_from = kSplitFrom;
        made.quantize = quantize_or_split;
        made.most_queries = kQueries;
        const auto set_attention = [&]<class T, CacheKind kind>(T, std::integral_constant<CacheKind, kind>) {
            made.attention[static_cast<std::size_t>(kind)] = {score_split<T, kind>, mix_split<T, kind>};
        };
        set_attention(Half(), std::integral_constant<CacheKind, CacheKind::kF16>());
        set_attention(BFloat16(), std::integral_constant<CacheKind, CacheKind::kBF16>());
        set_attention(std::int8_t(), std::integral_constant<CacheKind, CacheKind::kI8>());
        const auto products = [&](Kind kind) { return made.products[static_cast<std::size_t>(kind)]; };
        const auto set = [&]<class Tile>(Tile) {
            GroupProduct* const own = products(Tile::kKind);
            own[3] = multiply_integers<Tile, 8>, own[4] = multiply_integers<Tile, 16>;
            own[5] = multiply_many<Tile, 32>, own[6] = multiply_many<Tile, 64>;
        };
        set(Q4_0<V>()), set(Q4_1<V>()), set(Q5_0<V>()), set(Q5_1<V>()), set(Q8_0<V>());
        set(Q4_K<V>()), set(Q5_K<V>()), set(Q6_K<V>());
        const auto set_numbers = [&]<class T, Kind kind>(T, std::integral_constant<Kind, kind>) {
            products(kind)[5] = multiply_many_numbers<T, kind, 32>;
            products(kind)[6] = multiply_many_numbers<T, kind, 64>;
        };
        set_numbers(0.0f, std::integral_constant<Kind, Kind::kF32>());
        set_numbers(Half(), std::integral_constant<Kind, Kind::kF16>());
        set_numbers(BFloat16(), std::integral_constant<Kind, Kind::kBF16>());
        return made;
    }();
    return kernel;
}

}  // namespace model
