// Products of matrices in training for AMX and AVX-512, called only where the processor and the operating system allow
// them.
//
// AMX multiplies bfloat16 numbers, with 8 significant bits each. A float32 number is the exact sum of three of them:
// high, middle and low. Of the nine products of two such sums, six are computed; each of the other three is at most
// 2^-24 of the whole, which is the rounding of one float32 number. On one core of a Xeon with AMX, November 2026,
// packed matrices with an inner dimension of 288 are multiplied at 420 GFLOP/s, at 205 with AVX-512, and at 2,000
// rounded to bfloat16. Storing four registers of sums takes 0.2 us, as long as fifty of their products, wherever they
// are stored: deeper products are faster. Numbers below 2^-110 lose their low parts; numbers beyond 3.39e38 count as
// infinite.
#include <cstring>

#include "kernels/avx512_lanes.hpp"
#include "kernels/kernels.hpp"
#include "kernels/rounding.hpp"

namespace model {
namespace {

using F = __m512;
using I = __m512i;

constexpr std::size_t kSixteen = 16, kStep = 32;     // rows of a tile register, and bfloat16 numbers in a row
constexpr std::size_t kRegister = kSixteen * kStep;  // bfloat16 numbers in a tile register
constexpr std::size_t kRows = 32, kColumns = 32;     // of a tile of the results: two registers each
constexpr std::size_t kRowBytes = kStep * sizeof(BFloat16);

struct alignas(64) Configuration {
    std::uint8_t palette = 1, start = 0, reserved[14] = {};
    std::uint16_t row_bytes[16] = {};
    std::uint8_t rows[16] = {};
};
constexpr Configuration kConfiguration = [] {
    Configuration made;
    for (std::size_t i = 0; i < 8; ++i) made.rows[i] = kSixteen, made.row_bytes[i] = kRowBytes;
    return made;
}();

// --- packing ---

// Sixteen rows of pairs of bfloat16 numbers, for each part of the numbers.
template <std::size_t kParts>
using Pairs = I[kParts][kSixteen];

// Returns the upper halves of numbers, rounded: a bfloat16 number followed by zeros.
inline F rounded(F x) {
    const I up = _mm512_add_epi32(_mm512_castps_si512(x), _mm512_set1_epi32(0x8000));
    return _mm512_castsi512_ps(_mm512_and_si512(up, _mm512_set1_epi32(static_cast<int>(0xFFFF0000))));
}

// Calls put(part, x, y) for each part of x and y, whose lower halves are zeros.
template <std::size_t kParts, class Put>
[[gnu::always_inline]] inline void split(F x, F y, const Put& put) {
    static_assert(kParts == 3);
    const F high_x = rounded(x), high_y = rounded(y);
    put(0, high_x, high_y);
    const F rest_x = _mm512_sub_ps(x, high_x), rest_y = _mm512_sub_ps(y, high_y);
    const F middle_x = rounded(rest_x), middle_y = rounded(rest_y);
    put(1, middle_x, middle_y);
    put(2, _mm512_sub_ps(rest_x, middle_x), _mm512_sub_ps(rest_y, middle_y));  // 7 bits are left
}

// Puts 32 neighbouring numbers, first x and then y, into row i.
template <std::size_t kParts>
[[gnu::always_inline]] inline void put_neighbours(F x, F y, std::size_t i, Pairs<kParts>& pairs) {
    alignas(64) static constexpr std::uint16_t kUpper[32] = {1,  3,  5,  7,  9,  11, 13, 15, 17, 19, 21,
                                                             23, 25, 27, 29, 31, 33, 35, 37, 39, 41, 43,
                                                             45, 47, 49, 51, 53, 55, 57, 59, 61, 63};
    const I upper = _mm512_load_si512(kUpper);
    if constexpr (kParts == 1) {
        pairs[0][i] = (I)_mm512_cvtne2ps_pbh(y, x);
    } else {
        split<kParts>(x, y, [&](std::size_t part, F a, F b) __attribute__((always_inline)) {
            pairs[part][i] = _mm512_permutex2var_epi16(_mm512_castps_si512(a), upper, _mm512_castps_si512(b));
        });
    }
}

// Puts sixteen pairs of numbers into row i: x holds the first of each pair, y the second.
template <std::size_t kParts>
[[gnu::always_inline]] inline void put_pairs(F x, F y, std::size_t i, Pairs<kParts>& pairs) {
    if constexpr (kParts == 1) {
        alignas(64) static constexpr std::uint16_t kInTurns[32] = {0,  16, 1,  17, 2,  18, 3,  19, 4,  20, 5,
                                                                   21, 6,  22, 7,  23, 8,  24, 9,  25, 10, 26,
                                                                   11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
        pairs[0][i] = _mm512_permutexvar_epi16(_mm512_load_si512(kInTurns), (I)_mm512_cvtne2ps_pbh(y, x));
    } else {
        split<kParts>(x, y, [&](std::size_t part, F a, F b) __attribute__((always_inline)) {
            const I first = _mm512_srli_epi32(_mm512_castps_si512(a), 16);
            pairs[part][i] = _mm512_mask_mov_epi16(first, 0xAAAAAAAA, _mm512_castps_si512(b));
        });
    }
}

// Transposes sixteen rows of sixteen pairs.
[[gnu::always_inline]] inline void transpose(I (&rows)[kSixteen]) {
    I some[kSixteen];
    for (std::size_t i = 0; i < kSixteen; i += 2) {
        some[i] = _mm512_unpacklo_epi32(rows[i], rows[i + 1]);
        some[i + 1] = _mm512_unpackhi_epi32(rows[i], rows[i + 1]);
    }
    for (std::size_t i = 0; i < kSixteen; i += 4) {
        for (std::size_t j = 0; j < 2; ++j) {
            rows[i + 2 * j] = _mm512_unpacklo_epi64(some[i + j], some[i + 2 + j]);
            rows[i + 2 * j + 1] = _mm512_unpackhi_epi64(some[i + j], some[i + 2 + j]);
        }
    }
    for (std::size_t i = 0; i < 4; ++i) {
        some[i] = _mm512_shuffle_i32x4(rows[i], rows[i + 4], 0x88);
        some[i + 4] = _mm512_shuffle_i32x4(rows[i], rows[i + 4], 0xDD);
        some[i + 8] = _mm512_shuffle_i32x4(rows[i + 8], rows[i + 12], 0x88);
        some[i + 12] = _mm512_shuffle_i32x4(rows[i + 8], rows[i + 12], 0xDD);
    }
    for (std::size_t i = 0; i < 4; ++i) {
        rows[i] = _mm512_shuffle_i32x4(some[i], some[i + 8], 0x88);
        rows[i + 8] = _mm512_shuffle_i32x4(some[i], some[i + 8], 0xDD);
        rows[i + 4] = _mm512_shuffle_i32x4(some[i + 4], some[i + 12], 0x88);
        rows[i + 12] = _mm512_shuffle_i32x4(some[i + 4], some[i + 12], 0xDD);
    }
}

inline __mmask16 first_of(std::size_t count) {
    return static_cast<__mmask16>(count < kSixteen ? (1U << count) - 1 : 0xFFFF);
}

// Packs at most sixteen rows from `first` on, and 32 columns or fewer from `begin` on, of a view. Writes the parts of
// the numbers `distance` apart. A row of the result is a row of the view or, if kTransposed is set, a pair of columns.
template <std::size_t kParts, bool kTransposed>
void pack_register(const View& view, std::size_t first, std::size_t rows, std::size_t begin, std::size_t columns,
                   BFloat16* to, std::size_t distance) {
    alignas(64) Pairs<kParts> pairs;
    const float* from = view.numbers + first * view.row_stride + begin * view.column_stride;
    const bool by_rows = view.column_stride == 1;
    if (by_rows) {
        const __mmask16 low = first_of(columns), high = first_of(columns < kSixteen ? 0 : columns - kSixteen);
        F low_scales = _mm512_set1_ps(1), high_scales = low_scales;
        if (view.column_scales) {
            low_scales = _mm512_maskz_loadu_ps(low, view.column_scales + begin);
            high_scales = _mm512_maskz_loadu_ps(high, view.column_scales + begin + kSixteen);
        }
        for (std::size_t i = 0; i < kSixteen; ++i) {
            F x = _mm512_setzero_ps(), y = x;
            if (i < rows) {
                const float* row = from + i * view.row_stride;
                x = _mm512_maskz_loadu_ps(low, row), y = _mm512_maskz_loadu_ps(high, row + kSixteen);
                if (view.column_scales) x = _mm512_mul_ps(x, low_scales), y = _mm512_mul_ps(y, high_scales);
                if (view.row_scales) {
                    const F scale = _mm512_set1_ps(view.row_scales[first + i]);
                    x = _mm512_mul_ps(x, scale), y = _mm512_mul_ps(y, scale);
                }
            }
            put_neighbours<kParts>(x, y, i, pairs);
        }
    } else {  // neighbours in memory are rows of the view
        const __mmask16 some = first_of(rows);
        const F scales = view.row_scales ? _mm512_maskz_loadu_ps(some, view.row_scales + first) : _mm512_set1_ps(1);
        const auto column = [&](std::size_t k) __attribute__((always_inline)) {
            if (k >= columns) return _mm512_setzero_ps();
            F x = _mm512_maskz_loadu_ps(some, from + k * view.column_stride);
            if (view.row_scales) x = _mm512_mul_ps(x, scales);
            return view.column_scales ? _mm512_mul_ps(x, _mm512_set1_ps(view.column_scales[begin + k])) : x;
        };
        for (std::size_t i = 0; i < kSixteen; ++i) put_pairs<kParts>(column(2 * i), column(2 * i + 1), i, pairs);
    }
    for (std::size_t part = 0; part < kParts; ++part) {
        if (by_rows == kTransposed) transpose(pairs[part]);
        for (std::size_t i = 0; i < kSixteen; ++i) {
            _mm512_storeu_si512(to + (kTransposed ? part : kParts - 1 - part) * distance + i * kStep, pairs[part][i]);
        }
    }
}

// Packs to [steps][parts][2 registers]. The second register stays unset where there are no rows for it.
template <std::size_t kParts, bool kTransposed>
void pack(const View& view, std::size_t first, std::size_t count, std::size_t begin, std::size_t depth, float* packed) {
    auto* to = reinterpret_cast<BFloat16*>(packed);
    for (std::size_t k = 0; k < depth; k += kStep, to += 2 * kParts * kRegister) {
        for (std::size_t i = 0; i < count; i += kSixteen) {
            const std::size_t rows = count - i < kSixteen ? count - i : kSixteen;
            const std::size_t columns = depth - k < kStep ? depth - k : kStep;
            pack_register<kParts, kTransposed>(view, first + i, rows, begin + k, columns, to + i / kSixteen * kRegister,
                                               2 * kRegister);
        }
    }
}

template <std::size_t kParts>
void pack_left(const View& view, std::size_t first, std::size_t count, std::size_t begin, std::size_t depth,
               float* to) {
    pack<kParts, false>(view, first, count, begin, depth, to);
}

template <std::size_t kParts>
void pack_right(const View& view, std::size_t first, std::size_t count, std::size_t begin, std::size_t depth,
                float* to) {
    pack<kParts, true>(view.transposed(), first, count, begin, depth, to);
}

// --- products ---

// Registers 0 to 3 hold sums, 4 and 5 numbers of the left matrix, 6 and 7 of the right one. The intrinsics take
// register numbers as literals.
template <std::size_t kTall, std::size_t kWide>
[[gnu::always_inline]] inline void load_left(const BFloat16* from) {
    _tile_loadd(4, from, kRowBytes);
    if constexpr (kTall == 2) _tile_loadd(5, from + kRegister, kRowBytes);
}

template <std::size_t kTall, std::size_t kWide>
[[gnu::always_inline]] inline void load_right(const BFloat16* from) {
    _tile_loadd(6, from, kRowBytes);
    if constexpr (kWide == 2) _tile_loadd(7, from + kRegister, kRowBytes);
}

template <std::size_t kTall, std::size_t kWide>
[[gnu::always_inline]] inline void add_products() {
    _tile_dpbf16ps(0, 4, 6);
    if constexpr (kWide == 2) _tile_dpbf16ps(1, 4, 7);
    if constexpr (kTall == 2) _tile_dpbf16ps(2, 5, 6);
    if constexpr (kTall == 2 && kWide == 2) _tile_dpbf16ps(3, 5, 7);
}

// Multiplies 16 * kTall rows with 16 * kWide columns.
template <std::size_t kParts, std::size_t kTall, std::size_t kWide>
void multiply_tile(const BFloat16* left, std::size_t steps, const BFloat16* right, float* results, std::size_t stride,
                   bool add) {
    const std::size_t row_bytes = stride * sizeof(float);
    float* const below = results + kSixteen * stride;
    if (add) {
        _tile_loadd(0, results, row_bytes);
        if constexpr (kWide == 2) _tile_loadd(1, results + kSixteen, row_bytes);
        if constexpr (kTall == 2) _tile_loadd(2, below, row_bytes);
        if constexpr (kTall == 2 && kWide == 2) _tile_loadd(3, below + kSixteen, row_bytes);
    } else {
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
    }
    constexpr std::size_t kPart = 2 * kRegister;
    for (std::size_t step = 0; step < steps; ++step, left += kParts * kPart, right += kParts * kPart) {
        if constexpr (kParts == 1) {
            load_left<kTall, kWide>(left);
            load_right<kTall, kWide>(right);
            add_products<kTall, kWide>();
        } else {  // neighbours share one of their parts; the smallest products come first
            load_left<kTall, kWide>(left);
            load_right<kTall, kWide>(right);
            add_products<kTall, kWide>();
            load_left<kTall, kWide>(left + kPart);
            add_products<kTall, kWide>();
            load_right<kTall, kWide>(right + kPart);
            add_products<kTall, kWide>();
            load_left<kTall, kWide>(left + 2 * kPart);
            add_products<kTall, kWide>();
            load_right<kTall, kWide>(right + 2 * kPart);
            add_products<kTall, kWide>();
            load_right<kTall, kWide>(right);
            add_products<kTall, kWide>();
        }
    }
    _tile_stored(0, results, row_bytes);
    if constexpr (kWide == 2) _tile_stored(1, results + kSixteen, row_bytes);
    if constexpr (kTall == 2) _tile_stored(2, below, row_bytes);
    if constexpr (kTall == 2 && kWide == 2) _tile_stored(3, below + kSixteen, row_bytes);
}

// Writes some rows and columns of a tile, or adds to them.
void copy_tile(const float* tile, std::size_t rows, std::size_t columns, float* results, std::size_t stride, bool add) {
    for (std::size_t i = 0; i < rows; ++i, tile += kColumns, results += stride) {
        for (std::size_t j = 0; j < columns; j += kSixteen) {
            const __mmask16 some = first_of(columns - j);
            F x = _mm512_loadu_ps(tile + j);
            if (add) x = _mm512_add_ps(x, _mm512_maskz_loadu_ps(some, results + j));
            _mm512_mask_storeu_ps(results + j, some, x);
        }
    }
}

// Fetches the cache lines of a tile of the results, so that storing them does not wait.
inline void fetch(const float* results, std::size_t rows, std::size_t columns, std::size_t stride) {
    for (std::size_t i = 0; i < rows; ++i, results += stride) {
        for (std::size_t j = 0; j < columns; j += kSixteen) __builtin_prefetch(results + j, 1, 3);
    }
}

template <std::size_t kParts>
void multiply(const float* packed_left, std::size_t rows, std::size_t depth, const float* packed_right,
              std::size_t columns, float* results, std::size_t stride, bool add) {
    const auto* left = reinterpret_cast<const BFloat16*>(packed_left);
    const auto* right = reinterpret_cast<const BFloat16*>(packed_right);
    const std::size_t steps = divided_up(depth, kStep);
    const bool wide = columns > kSixteen;
    _tile_loadconfig(&kConfiguration);
    const auto rows_from = [&](std::size_t row) { return rows - row < kRows ? rows - row : kRows; };
    fetch(results, rows_from(0), columns, stride);
    for (std::size_t row = 0; row < rows; row += kRows, left += steps * 2 * kParts * kRegister) {
        const std::size_t count = rows_from(row);
        if (row + kRows < rows) fetch(results + (row + kRows) * stride, rows_from(row + kRows), columns, stride);
        const bool tall = count > kSixteen;
        const auto product = tall   ? wide ? multiply_tile<kParts, 2, 2> : multiply_tile<kParts, 2, 1>
                             : wide ? multiply_tile<kParts, 1, 2>
                                    : multiply_tile<kParts, 1, 1>;
        float* const to = results + row * stride;
        if (count % kSixteen == 0 && columns % kSixteen == 0) {
            product(left, steps, right, to, stride, add);
        } else {
            alignas(64) float tile[kRows * kColumns];
            product(left, steps, right, tile, kColumns, false);
            copy_tile(tile, count, columns, to, stride, add);
        }
    }
    _tile_release();
}

}  // namespace

TrainingKernel amx_training(TrainingKernel others, std::size_t parts) {
    others.rows = kRows, others.columns = kColumns, others.step = kStep, others.number_bytes = parts * sizeof(BFloat16);
    others.pack_left = parts == 1 ? pack_left<1> : pack_left<3>;
    others.pack_right = parts == 1 ? pack_right<1> : pack_right<3>;
    others.multiply = parts == 1 ? multiply<1> : multiply<3>;
    return others;
}

}  // namespace model
