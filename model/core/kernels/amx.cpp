// Kernels for AMX and AVX-512, called only where the processor and the operating system allow them. They differ from
// the avx512 kernels in products of quantized weights with eight or more vectors and in attention of sixteen or more
// queries to bytes, which are the same bit for bit; in products of other weights with more than sixteen vectors, and in
// attention to other numbers, which are the same up to rounding; and in training.
#include "kernels/attention.hpp"
#include "kernels/attention_bytes.hpp"
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

// --- products of more vectors with unquantized weights: bfloat16 ---

// Numbers split into sums of bfloat16 numbers: two have 16 bits, three are as precise as float32. A lane holds a part
// of two numbers.
template <std::size_t kParts>
struct Split {
    I parts[kParts];

    [[gnu::always_inline]] Split(F first, F second) {
        unrolled<kParts>([&](auto i) __attribute__((always_inline)) {
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

// The split weights of a tile: a row of a part has two columns.
template <std::size_t kParts>
using SplitTile = I[kParts][kLanes];

template <std::size_t kParts>
[[gnu::always_inline]] inline void put_two_columns(F first, F second, std::size_t row, SplitTile<kParts>& to) {
    const Split<kParts> split(first, second);
    unrolled<kParts>([&](auto i) __attribute__((always_inline)) { to[i][row] = split.parts[i]; });
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

template <class T>
void unpack_numbers(const std::uint8_t* group, std::size_t tiles, TileBytes* panel) {
    constexpr std::size_t kParts = kPartsOf<T>;
    for (std::size_t number = 0; number < tiles; ++number, panel += kParts * kLanes) {
        fetch_ahead<V, kTile * kLanes * sizeof(T)>(group);
        const auto* weights = reinterpret_cast<const T*>(group);
        auto& to = *reinterpret_cast<SplitTile<kParts>*>(panel);
        for (std::size_t i = 0; i < kLanes; ++i) put_two_weights(weights + 2 * i * kLanes, i, to);
        group += kTile * kLanes * sizeof(T);
    }
}

// Adds the products of one part of the weights of two groups with the parts of 32 vectors.
#define MODEL_ADD_PAIR(w)                                                            \
    do {                                                                             \
        if constexpr (kW > w) {                                                      \
            _tile_loadd(4, (first + w * kLanes)->bytes, kQuad);                      \
            if constexpr (kTwo) _tile_loadd(5, (second + w * kLanes)->bytes, kQuad); \
            MODEL_ADD_FOUR(0, w);                                                    \
            MODEL_ADD_FOUR(1, w);                                                    \
            MODEL_ADD_FOUR(2, w);                                                    \
        }                                                                            \
    } while (false)
#define MODEL_ADD_FOUR(part, w)                                      \
    do {                                                             \
        if constexpr (kX > part && part + w < kMost) {               \
            _tile_loadd(6, x[part].bytes, kX * sizeof *x);           \
            _tile_dpbf16ps(0, 6, 4);                                 \
            if constexpr (kTwo) _tile_dpbf16ps(2, 6, 5);             \
            _tile_loadd(7, x[part + kX * 16].bytes, kX * sizeof *x); \
            _tile_dpbf16ps(1, 7, 4);                                 \
            if constexpr (kTwo) _tile_dpbf16ps(3, 7, 5);             \
        }                                                            \
    } while (false)

// Multiplies the weights of one or two groups, which are `distance` apart, with 32 of `vectors` vectors.
template <std::size_t kX, std::size_t kW, bool kTwo>
void multiply_pair(const TileBytes* first, std::size_t distance, std::size_t tiles, const TileBytes* x,
                   std::size_t vectors, float* results, std::size_t stride, bool add) {
    constexpr std::size_t kMost = kX > kW ? kX : kW, kStep = kLanes * sizeof(float);
    // With the precision of float32, sums start anew: as a single sum, they would lose twice as much to rounding.
    constexpr bool kExact = kX == kFloatParts;
    alignas(64) float sums[4][kLanes * kLanes];
    float* const places[4] = {results, results + kLanes * kLanes, results + stride, results + stride + kLanes * kLanes};
    const TileBytes* second = first + distance;
    if (kExact || !add) {
        zero_sums();
    } else {
        _tile_loadd(0, places[0], kStep);
        _tile_loadd(1, places[1], kStep);
        if constexpr (kTwo) {
            _tile_loadd(2, places[2], kStep);
            _tile_loadd(3, places[3], kStep);
        }
    }
    for (std::size_t tile = 0; tile < tiles; ++tile) {
        MODEL_ADD_PAIR(0);
        MODEL_ADD_PAIR(1);
        MODEL_ADD_PAIR(2);
        first += kW * kLanes, second += kW * kLanes, x += kX * vectors;
    }
    const bool apart = kExact && add;
    _tile_stored(0, apart ? sums[0] : places[0], kStep);
    _tile_stored(1, apart ? sums[1] : places[1], kStep);
    if constexpr (kTwo) {
        _tile_stored(2, apart ? sums[2] : places[2], kStep);
        _tile_stored(3, apart ? sums[3] : places[3], kStep);
    }
    if (!apart) return;
    for (std::size_t i = 0; i < (kTwo ? 4 : 2); ++i) {
        for (std::size_t j = 0; j < kLanes * kLanes; j += kLanes) {
            V::store(places[i] + j, V::add(V::load(places[i] + j), V::load(sums[i] + j)));
        }
    }
}

// Some tiles of 32 vectors stay in the L1 cache while they are multiplied with all groups.
template <std::size_t kX, std::size_t kW>
void multiply_panels(const TileBytes* panels, std::size_t groups, std::size_t tiles, const TileBytes* x,
                     std::size_t vectors, float* results, std::size_t stride, bool add) {
    constexpr std::size_t kSome = kX == kFloatParts ? 4 : 8, kVectors = 32;
    const std::size_t distance = tiles * kW * kLanes;
    _tile_loadconfig(&kConfiguration<kQuad, kLanes>);
    for (std::size_t vector = 0; vector < vectors; vector += kVectors) {
        for (std::size_t tile = 0; tile < tiles; tile += kSome) {
            const std::size_t some = tiles - tile < kSome ? tiles - tile : kSome;
            const TileBytes* const own = x + (tile * vectors + vector) * kX;
            for (std::size_t group = 0; group < groups; group += 2) {
                const auto multiply = group + 1 < groups ? multiply_pair<kX, kW, true> : multiply_pair<kX, kW, false>;
                multiply(panels + group * distance + tile * kW * kLanes, distance, some, own, vectors,
                         results + group * stride + vector * kLanes, stride, add || tile > 0);
            }
        }
    }
    _tile_release();
}

template <class T>
constexpr PanelKernel kNumberPanels = {kPartsOf<T>, unpack_numbers<T>, multiply_panels<kFloatParts, kPartsOf<T>>};

// In the order of Kind, whose first are not quantized.
constexpr PanelKernel kPanels[] = {
    kNumberPanels<float>,
    kNumberPanels<Half>,
    kNumberPanels<BFloat16>,
};

// Rows of unquantized numbers that do not end with a whole tile are multiplied with sixteen vectors at a time.
template <Kind kind, std::size_t kVectors>
void multiply_many(const std::uint8_t* group, const Vectors& vectors, float* results) {
    constexpr std::size_t kPower = 4, kSome = std::size_t{1} << kPower;
    if (vectors.columns % kTile) {
        for (std::size_t first = 0; first < kVectors; first += kSome) {
            const Vectors some{vectors.numbers + first * vectors.columns, nullptr, nullptr, nullptr, vectors.columns};
            avx512_kernel().products[static_cast<std::size_t>(kind)][kPower](group, some, results + first * kLanes);
        }
        return;
    }
    constexpr std::size_t kTiles = kTilesOfHeader;
    const PanelKernel& panel = kPanels[static_cast<std::size_t>(kind)];
    const std::size_t tiles = vectors.columns / kTile;
    TileBytes weights[kTiles * kFloatParts * kLanes];
    const TileBytes* x = vectors.parts;
    for (std::size_t tile = 0; tile < tiles; tile += kTiles, x += kTiles * kVectors * kFloatParts) {
        const std::size_t some = tiles - tile < kTiles ? tiles - tile : kTiles;
        panel.unpack(group + format_of(kind).group_bytes(tile * kTile), some, weights);
        panel.multiply(weights, 1, some, x, kVectors, results, 0, tile > 0);
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
    SplitTile<kCacheParts<T>> weights[kWidest / kTile];
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
            load_weights<kCacheParts<T>>(weights[tile][0], kLanes);
            add_to_sums<kParts, kCacheParts<T>>(x + kParts * tile * kQueries, sixteens);
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
    SplitTile<kCacheParts<T>> split;
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
                    const std::size_t position = tile * kTile + 2 * i;  // memory reaches to a multiple of sixteen
                    const T* from = values + (begin + position) * width + first;
                    const F a = position < size ? V::load(from) : V::set(0.0f);
                    const F b = position + 1 < size ? V::load(from + width) : V::set(0.0f);
                    put_two_columns<kParts>(a, b, i, split);
                }
                load_weights<kCacheParts<T>>(split[0], kLanes);
                add_to_sums<kParts, kCacheParts<T>>(x + kParts * tile * kQueries, sixteens);
            }
            store_sums(results + first, width, sixteens);
        }
    }
    _tile_release();
}

// --- attention of sixteen or more queries to bytes ---

// The integers of sixteen queries or weights, as tile registers load them: a row holds the high or the low bytes of 64
// numbers of a vector.
struct alignas(64) SixteenRows {
    std::int8_t high[kLanes][kQuad], low[kLanes][kQuad];
};

// Converts `count` vectors of at most kMostRows * 64 numbers, `stride` apart, to integers, as score_bytes and mix_bytes
// do: [sixteens, rows of 64 numbers].
template <std::size_t kMostRows>
void put_integers(const float* numbers, std::size_t size, std::size_t count, std::size_t stride, float largest,
                  SixteenRows* to, ScaledIntegers* scales) {
    constexpr std::size_t kTiles = kMostRows * kQuad / kTile;
    for (std::size_t i = 0; i < count; ++i) {
        TileBytes own[kTiles];
        scales[i] = to_scaled_integers<V, kTiles>(numbers + i * stride, size, largest, 1, own);
        for (std::size_t tile = 0; tile * kTile < size; ++tile) {
            SixteenRows& rows = to[i / kLanes * kMostRows + tile / 2];
            std::memcpy(rows.high[i % kLanes] + tile % 2 * kTile, own[tile].bytes, kTile);
            std::memcpy(rows.low[i % kLanes] + tile % 2 * kTile, own[tile].bytes + kTile, kTile);
        }
    }
}

// The sums of the products of the high and of the low bytes of sixteen vectors with sixteen columns.
struct alignas(64) SixteenSums {
    std::int32_t high[kLanes][kLanes], low[kLanes][kLanes];

    // Returns the sums of products with the cached numbers of a vector, whose integers add up to `sum`.
    F row(std::size_t i, std::int32_t sum) const {
        const I total = V::add(V::shift_left<8>(_mm512_load_si512(high[i])), _mm512_load_si512(low[i]));
        return V::to_floats(without_bias<V>(total, sum));
    }
};

// Loads the integers of sixteen vectors to registers 2 and 3, and those of a second row of 64 numbers to 4 and 5.
template <std::size_t kRows>
[[gnu::always_inline]] inline void load_rows(const SixteenRows* rows) {
    _tile_loadd(2, rows[0].high, kQuad);
    _tile_loadd(3, rows[0].low, kQuad);
    if constexpr (kRows == 2) {
        _tile_loadd(4, rows[1].high, kQuad);
        _tile_loadd(5, rows[1].low, kQuad);
    }
}

// Multiplies the loaded integers with cached bytes: sixteen quads, `step` bytes apart, and for a second row sixteen
// more.
template <std::size_t kRows>
[[gnu::always_inline]] inline void multiply_rows(const std::uint8_t* quads, std::size_t step, SixteenSums& sums) {
    _tile_zero(0);
    _tile_zero(1);
    _tile_loadd(6, quads, step);
    _tile_dpbsud(0, 2, 6);
    _tile_dpbsud(1, 3, 6);
    if constexpr (kRows == 2) {
        _tile_loadd(7, quads + kLanes * step, step);
        _tile_dpbsud(0, 4, 7);
        _tile_dpbsud(1, 5, 7);
    }
    _tile_stored(0, sums.high, kQuad);
    _tile_stored(1, sums.low, kQuad);
}

// Multiplies the integers of sixteen vectors with `count` times sixteen columns of bytes, `distance` apart. Calls
// finish(number, sums) for each, while the next ones are multiplied.
template <std::size_t kRows, class Finish>
void multiply_columns(const SixteenRows* rows, const std::uint8_t* quads, std::size_t step, std::size_t count,
                      std::size_t distance, const Finish& finish) {
    SixteenSums sums[2];
    load_rows<kRows>(rows);
    for (std::size_t i = 0; i < count; ++i) {
        multiply_rows<kRows>(quads + i * distance, step, sums[i % 2]);
        if (i > 0) finish(i - 1, sums[(i - 1) % 2]);
    }
    if (count > 0) finish(count - 1, sums[(count - 1) % 2]);
}

template <std::size_t kRows>
void score_rows(const std::uint8_t* keys, std::size_t blocks, const float* queries, std::size_t count, float* scores,
                std::size_t stride) {
    constexpr std::size_t kHead = kRows * kQuad;  // dimensions
    SixteenRows rows[kQueries / kLanes * kRows] = {};
    ScaledIntegers scales[kQueries] = {};
    put_integers<kRows>(queries, kHead, count, kHead, largest_query(kHead), rows, scales);
    _tile_loadconfig(&kConfiguration<kQuad, kLanes>);
    for (std::size_t first = 0; first < count; first += kLanes) {
        multiply_columns<kRows>(rows + first / kLanes * kRows, keys, kQuad, blocks, kHead * kLanes,
                                [&](std::size_t block, const SixteenSums& sums) {
                                    for (std::size_t i = 0; i < kLanes; ++i) {
                                        const ScaledIntegers& own = scales[first + i];
                                        V::store(scores + (first + i) * stride + block * kLanes,
                                                 V::mul(sums.row(i, own.sum), V::set(own.scale)));
                                    }
                                });
    }
    _tile_release();
}

// Missing queries, up to a multiple of sixteen, count as zeros; `scores` has room for their scores.
void score_integers(const void* keys, std::size_t blocks, std::size_t head_dim, const float* queries, std::size_t count,
                    float* scores, std::size_t stride) {
    const auto* bytes = static_cast<const std::uint8_t*>(keys);
    if (count >= 16 && count <= kQueries && head_dim == kQuad) {
        score_rows<1>(bytes, blocks, queries, count, scores, stride);
    } else if (count >= 16 && count <= kQueries && head_dim == 2 * kQuad) {
        score_rows<2>(bytes, blocks, queries, count, scores, stride);
    } else {
        score_bytes<V>(keys, blocks, head_dim, queries, count, scores, stride);
    }
}

void mix_integers(const void* all_values, std::size_t positions, std::size_t width, const float* weights,
                  std::size_t count, std::size_t stride, float* results) {
    static_assert(kPiece == 2 * kQuad);
    if (count < 16 || count > kQueries || width > kWidest || positions == 0) {
        mix_bytes<V>(all_values, positions, width, weights, count, stride, results);
        return;
    }
    alignas(64) std::uint8_t last[kPiece * kWidest];
    const auto* values = static_cast<const std::uint8_t*>(all_values);
    _tile_loadconfig(&kConfiguration<kQuad, kLanes>);
    for (std::size_t begin = 0; begin < positions; begin += kPiece, values += kPiece * width) {
        const std::size_t size = positions - begin < kPiece ? positions - begin : kPiece;
        SixteenRows rows[kQueries / kLanes * 2] = {};
        ScaledIntegers scales[kQueries] = {};
        put_integers<2>(weights + begin, size, count, stride, kLargestInteger, rows, scales);
        if (size < kPiece) {  // registers load whole pieces, which memory may not have
            const std::size_t filled = (size + 3) / 4 * 4 * width;
            std::memcpy(last, values, filled);
            std::memset(last + filled, 0, kPiece * width - filled);
            values = last;
        }
        for (std::size_t first = 0; first < count; first += kLanes) {
            multiply_columns<2>(rows + first / kLanes * 2, values, 4 * width, width / kLanes, kQuad,
                                [&](std::size_t wide, const SixteenSums& sums) {
                                    for (std::size_t i = 0; i < kLanes; ++i) {
                                        const ScaledIntegers& own = scales[first + i];
                                        float* const to = results + (first + i) * width + wide * kLanes;
                                        V::store(to, V::fma(sums.row(i, own.sum), V::set(own.scale),
                                                            begin == 0 ? V::set(0.0f) : V::load(to)));
                                    }
                                });
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
    return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (d & kAll) == kAll && __builtin_cpu_supports("avx512bf16") &&
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
        made.split = split_vector<kFloatParts>;
        made.most_queries = kQueries;
        made.has_bfloat16_training = true;
        made.bfloat16_training = amx_training(made.training, 1);
        made.training = amx_training(made.training, 3);
        const auto set_attention = [&]<class T, CacheKind kind>(T, std::integral_constant<CacheKind, kind>) {
            made.attention[static_cast<std::size_t>(kind)] = {score_split<T, kind>, mix_split<T, kind>};
        };
        set_attention(Half(), std::integral_constant<CacheKind, CacheKind::kF16>());
        set_attention(BFloat16(), std::integral_constant<CacheKind, CacheKind::kBF16>());
        made.attention[static_cast<std::size_t>(CacheKind::kI8)] = {score_integers, mix_integers};
        set_attention(0.0f, std::integral_constant<CacheKind, CacheKind::kF32>());
        made.panels = kPanels;
        const auto set = [&]<class Tile>(Tile) {
            GroupProduct* const own = made.products[static_cast<std::size_t>(Tile::kKind)];
            own[3] = multiply_integers<Tile, 8>, own[4] = multiply_integers<Tile, 16>;
        };
        set(Q4_0<V>()), set(Q4_1<V>()), set(Q5_0<V>()), set(Q5_1<V>()), set(Q8_0<V>());
        set(Q4_K<V>()), set(Q5_K<V>()), set(Q6_K<V>());
        const auto set_many = [&]<std::size_t... kNumber>(std::index_sequence<kNumber...>) {
            ((made.products[kNumber][5] = multiply_many<static_cast<Kind>(kNumber), 32>), ...);
            ((made.products[kNumber][6] = multiply_many<static_cast<Kind>(kNumber), 64>), ...);
        };
        set_many(std::make_index_sequence<std::size(kPanels)>());
        return made;
    }();
    return kernel;
}

}  // namespace model
