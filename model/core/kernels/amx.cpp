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

// Numbers split into sums of bfloat16 numbers: two are as precise as the integers, three as float32. A lane holds a
// part of two numbers.
template <std::size_t kParts>
struct Split {
    I parts[kParts];

    Split(F first, F second) {
        unrolled<kParts>([&](auto i) {
            const I a = rounded(first), b = rounded(second);
            parts[i] = V::bit_or(V::shift_right<16>(a), V::bit_and(b, static_cast<std::int32_t>(0xFFFF0000)));
            first = _mm512_sub_ps(first, upper(a)), second = _mm512_sub_ps(second, upper(b));
        });
    }

 private:
    static I rounded(F number) { return V::add(_mm512_castps_si512(number), V::set_integers(0x8000)); }
    static F upper(I bits) { return _mm512_castsi512_ps(V::bit_and(bits, static_cast<std::int32_t>(0xFFFF0000))); }
};

// Writes the first parts of the numbers of a tile, then the second parts, and so on.
template <std::size_t kParts>
void put_split(F half, F other, TileBytes* to) {
    const I even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    const I odd = V::add(even, V::set_integers(1));
    const Split<kParts> split(_mm512_permutex2var_ps(half, even, other), _mm512_permutex2var_ps(half, odd, other));
    unrolled<kParts>([&](auto i) { _mm512_store_si512(to[i].bytes, split.parts[i]); });
}

template <std::size_t kParts>
void split_vector(const float* numbers, std::size_t tiles, std::size_t step, TileBytes* bytes) {
    for (std::size_t tile = 0; tile < tiles; ++tile, numbers += kTile, bytes += kParts * step) {
        put_split<kParts>(V::load(numbers), V::load(numbers + kLanes), bytes);
    }
}

constexpr std::size_t kSplitFrom = 32;  // vectors

void quantize_or_split(const float* numbers, std::size_t tiles, std::size_t step, TileBytes* bytes, TileScale* scales) {
    if (step >= kSplitFrom) {
        split_vector<2>(numbers, tiles, step, bytes);
    } else {
        avx512_kernel().quantize(numbers, tiles, step, bytes, scales);
    }
}

// The split weights of a tile: a row of a part has two columns.
template <std::size_t kParts>
using SplitTile = I[kParts][kLanes];

template <std::size_t kParts>
void put_two_columns(F first, F second, std::size_t row, SplitTile<kParts>& to) {
    const Split<kParts> split(first, second);
    unrolled<kParts>([&](auto i) { to[i][row] = split.parts[i]; });
}

// Dequantizes and splits the weights of a tile.
template <class Tile>
void unpack_split(const Tile& tile, const std::uint8_t* bytes, SplitTile<2>& to) {
    F scales[Tile::kParts], offsets[Tile::kParts];
    for (std::size_t part = 0; part < Tile::kParts; ++part) tile.scale(bytes, part, scales[part], offsets[part]);
    tile.unpack(bytes, [&](auto number, const I& quad) {
        constexpr std::size_t part = number * Tile::kParts / 8;
        const auto column = [&](const I& shifted) {
            return V::fma(V::to_floats(V::bit_and(shifted, 255)), scales[part], offsets[part]);
        };
        put_two_columns<2>(column(quad), column(V::shift_right<8>(quad)), 2 * number, to);
        put_two_columns<2>(column(V::shift_right<16>(quad)), column(V::shift_right<24>(quad)), 2 * number + 1, to);
    });
}

// Loads the parts of a tile of weights, which are `step` registers apart, to the registers from 5 on.
template <std::size_t kParts>
[[gnu::always_inline]] inline void load_weights(const I* parts, std::size_t step) {
    _tile_loadd(5, parts, kQuad);
    if constexpr (kParts > 1) _tile_loadd(6, parts + step, kQuad);
    if constexpr (kParts > 2) _tile_loadd(7, parts + 2 * step, kQuad);
}

// Adds the products of sixteen vectors and the weights in registers. Of parts i and j, the product is no larger than
// the rounding error if i + j is the number of parts or more. A macro, because GCC's intrinsics are macros that need
// the register's number as a literal.
#define MODEL_ADD_PART(sum, x, part)                                             \
    do {                                                                         \
        if constexpr (kX > part) {                                               \
            _tile_loadd(4, (x)[part].bytes, kX * sizeof *(x));                   \
            _tile_dpbf16ps(sum, 4, 5);                                           \
            if constexpr (kW > 1 && part + 1 < kMost) _tile_dpbf16ps(sum, 4, 6); \
            if constexpr (kW > 2 && part + 2 < kMost) _tile_dpbf16ps(sum, 4, 7); \
        }                                                                        \
    } while (false)
#define MODEL_ADD_SPLIT(sum, x)    \
    do {                           \
        MODEL_ADD_PART(sum, x, 0); \
        MODEL_ADD_PART(sum, x, 1); \
        MODEL_ADD_PART(sum, x, 2); \
    } while (false)

// Up to four registers hold sums, each of sixteen vectors.
[[gnu::always_inline]] inline void zero_sums() {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
}

// Adds the products of vectors with kX parts and weights with kW parts.
template <std::size_t kX, std::size_t kW>
[[gnu::always_inline]] inline void add_to_sums(const TileBytes* x, std::size_t sixteens) {
    constexpr std::size_t kMost = kX > kW ? kX : kW;
    MODEL_ADD_SPLIT(0, x);
    if (sixteens > 1) MODEL_ADD_SPLIT(1, x + kX * 16);
    if (sixteens > 2) MODEL_ADD_SPLIT(2, x + kX * 32);
    if (sixteens > 3) MODEL_ADD_SPLIT(3, x + kX * 48);
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

template <std::size_t kVectors>
void add_up(const float* sums, float* results) {
    for (std::size_t i = 0; i < kVectors * kLanes; i += kLanes) {
        V::store(results + i, V::add(V::load(results + i), V::load(sums + i)));
    }
}

// Calls unpack(number, to) to write the split weights of a tile. Sums stay in registers, and one tile is unpacked while
// the previous one is multiplied. With 64 vectors, each takes three quarters of its time with 16. With the precision of
// float32, sums are added up in blocks of tiles: as a single sum, they would lose twice as much to rounding.
template <std::size_t kVectors, std::size_t kX, std::size_t kW, class Unpack>
void multiply_split(const TileBytes* x, std::size_t columns, float* results, const Unpack& unpack) {
    static_assert(kVectors == 32 || kVectors == 64);
    constexpr bool kExact = kX == kFloatParts;
    constexpr std::size_t kTilesOfSum = 4;
    const std::size_t tiles = columns / kTile;
    SplitTile<kW> weights[2];
    alignas(64) float sums[kVectors * kLanes];
    unpack(0, weights[0]);
    _tile_loadconfig(&kConfiguration<kQuad, kLanes>);
    zero_sums();
    for (std::size_t number = 0; number < tiles; ++number, x += kX * kVectors) {
        load_weights<kW>(weights[number % 2][0], kLanes);
        add_to_sums<kX, kW>(x, kVectors / 16);
        const std::size_t next = number + 1;
        if (next < tiles) unpack(next, weights[next % 2]);
        if (kExact && next % kTilesOfSum == 0 && next < tiles) {
            store_sums(next == kTilesOfSum ? results : sums, kLanes, kVectors / 16);
            zero_sums();
            if (next > kTilesOfSum) add_up<kVectors>(sums, results);
        }
    }
    const bool whole = !kExact || tiles <= kTilesOfSum;
    store_sums(whole ? results : sums, kLanes, kVectors / 16);
    _tile_release();
    if (!whole) add_up<kVectors>(sums, results);
}

template <class Tile, std::size_t kVectors>
void multiply_many(const std::uint8_t* group, const Vectors& vectors, float* results) {
    Tile tile;
    const auto unpack = [&](std::size_t number, SplitTile<2>& to) __attribute__((always_inline)) {
        fetch_ahead<V, Tile::kFormat.tile>(group);
        if (Tile::kFormat.header && number % kTilesOfHeader == 0) {
            tile.open(group);
            group += Tile::kFormat.header;
        }
        unpack_split(tile, group, to);
        group += Tile::kFormat.tile;
    };
    multiply_split<kVectors, 2, 2>(vectors.bytes, vectors.columns, results, unpack);
}

// The number of bfloat16 numbers whose sum is a number of this type.
template <class T>
constexpr std::size_t kPartsOf = sizeof(T) == 4 ? 3 : 2;
template <>
constexpr std::size_t kPartsOf<BFloat16> = 1;

// Splits two columns of weights.
template <class T>
void put_two_weights(const T* columns, std::size_t row, SplitTile<kPartsOf<T>>& to) {
    if constexpr (kPartsOf<T> == 1) {
        const I pairs = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6, 21,
                                         5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
        to[0][row] = _mm512_permutexvar_epi16(pairs, _mm512_loadu_si512(columns));
    } else {
        put_two_columns<kPartsOf<T>>(V::load(columns), V::load(columns + kLanes), row, to);
    }
}

// With the precision of float32. Rows that do not end with a whole tile are multiplied with sixteen vectors at a time.
template <class T, Kind kind, std::size_t kVectors>
void multiply_many_numbers(const std::uint8_t* group, const Vectors& vectors, float* results) {
    constexpr std::size_t kPower = 4, kSome = std::size_t{1} << kPower;
    if (vectors.columns % kTile == 0) {
        const auto unpack = [&](std::size_t, SplitTile<kPartsOf<T>>& to) __attribute__((always_inline)) {
            fetch_ahead<V, kTile * kLanes * sizeof(T)>(group);
            const auto* weights = reinterpret_cast<const T*>(group);
            for (std::size_t i = 0; i < kLanes; ++i) put_two_weights(weights + 2 * i * kLanes, i, to);
            group += kTile * kLanes * sizeof(T);
        };
        multiply_split<kVectors, kFloatParts, kPartsOf<T>>(vectors.parts, vectors.columns, results, unpack);
        return;
    }
    for (std::size_t first = 0; first < kVectors; first += kSome) {
        const Vectors some{vectors.numbers + first * vectors.columns, nullptr, nullptr, nullptr, vectors.columns};
        avx512_kernel().products[static_cast<std::size_t>(kind)][kPower](group, some, results + first * kLanes);
    }
}

// --- attention of sixteen or more queries ---

constexpr std::size_t kQueries = 64;  // at a time, at most
constexpr std::size_t kWidest = 128;  // the largest head_dim

// The number of parts into which queries, weights, and keys and values of a type are split.
template <class T>
constexpr std::size_t kCacheParts = sizeof(T) == 4 ? 3 : 2;

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
    constexpr std::size_t kParts = kCacheParts<T>;
    TileBytes x[kWidest / kTile * kQueries * kParts];
    for (std::size_t i = 0; i < count; ++i) {
        split_vector<kParts>(queries + i * head_dim, tiles, kQueries, x + kParts * i);
    }
    for (std::size_t i = count; i < sixteens * 16; ++i) {
        for (std::size_t tile = 0; tile < tiles; ++tile) {
            std::memset(x + kParts * (tile * kQueries + i), 0, kParts * sizeof(TileBytes));
        }
    }
    SplitTile<kParts> weights[kWidest / kTile];
    const T* keys = static_cast<const T*>(all_keys);
    _tile_loadconfig(&kConfiguration<kQuad, kLanes>);
    for (std::size_t block = 0; block < blocks; ++block, keys += head_dim * kLanes) {
        for (std::size_t i = 0; i < head_dim; i += 2) {
            fetch_ahead<V, 2 * kLanes * sizeof(T)>(reinterpret_cast<const std::uint8_t*>(keys + i * kLanes));
            put_two_columns<kParts>(V::load(keys + i * kLanes), V::load(keys + (i + 1) * kLanes), i % kTile / 2,
                                    weights[i / kTile]);
        }
        zero_sums();
        for (std::size_t tile = 0; tile < tiles; ++tile) {
            load_weights<kParts>(weights[tile][0], kLanes);
            add_to_sums<kParts, kParts>(x + kParts * tile * kQueries, sixteens);
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
    constexpr std::size_t kParts = kCacheParts<T>;
    const std::size_t sixteens = (count + 15) / 16;
    TileBytes x[kTiles * kQueries * kParts];
    SplitTile<kParts> split;
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
                put_split<kParts>(some(0), some(kLanes), x + kParts * (tile * kQueries + i));
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
                    put_two_columns<kParts>(a, b, i, split);
                }
                load_weights<kParts>(split[0], kLanes);
                add_to_sums<kParts, kParts>(x + kParts * tile * kQueries, sixteens);
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
        made.quantize = quantize_or_split, made.split = split_vector<kFloatParts>;
        made.most_queries = kQueries;
        const auto set_attention = [&]<class T, CacheKind kind>(T, std::integral_constant<CacheKind, kind>) {
            made.attention[static_cast<std::size_t>(kind)] = {score_split<T, kind>, mix_split<T, kind>};
        };
        set_attention(Half(), std::integral_constant<CacheKind, CacheKind::kF16>());
        set_attention(BFloat16(), std::integral_constant<CacheKind, CacheKind::kBF16>());
        set_attention(std::int8_t(), std::integral_constant<CacheKind, CacheKind::kI8>());
        set_attention(0.0f, std::integral_constant<CacheKind, CacheKind::kF32>());
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
