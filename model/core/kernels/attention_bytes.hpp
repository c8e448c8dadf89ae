// Attention to keys and values of 8 bits, as templates over the lanes V (lanes.hpp). Queries and weights become 16-bit
// integers, as activations do (products.hpp), so that all products and most sums are products of integers, which are
// faster than converting keys and values to floats.
//
// A cached number is an integer of 8 bits plus 128. Four neighbouring dimensions of a key, or four neighbouring
// positions of a value, make a quad: keys [blocks, head_dim / 4, 16 positions, 4 dimensions], values [positions / 4,
// width, 4 positions].
#pragma once

#include "kernels/attention.hpp"
#include "kernels/products.hpp"

namespace model {

inline constexpr std::int32_t kCachedZero = 128;

template <class V>
typename V::I load_cached(const std::uint8_t* quad) {
    if constexpr (V::kSignedBytes) {
        return V::bit_xor(V::load_bytes(quad), 0x80808080);
    } else {
        return V::load_bytes(quad);
    }
}

// The sum of products of cached numbers and integers, given the sum of the integers.
template <class V>
typename V::I without_bias(const typename V::I& total, std::int32_t sum) {
    if constexpr (V::kSignedBytes) {
        return total;
    } else {
        return V::add(total, V::set_integers(-kCachedZero * sum));
    }
}

struct ScaledIntegers {
    float scale = 0;
    std::int32_t sum = 0;  // of the integers
};

// Converts at most 32 * kMostTiles numbers to integers of at most `largest`, with one scale, and zeros for the rest of
// the last tile. Writes the tiles `step` apart.
template <class V, std::size_t kMostTiles>
ScaledIntegers to_scaled_integers(const float* numbers, std::size_t count, float largest, std::size_t step,
                                  TileBytes* to) {
    using F = typename V::F;
    const std::size_t sixteens = (count + kLanes - 1) / kLanes, whole = count / kLanes;
    float last[kLanes] = {};
    for (std::size_t i = whole * kLanes; i < count; ++i) last[i - whole * kLanes] = numbers[i];
    const auto load = [&](std::size_t i) { return i < whole ? V::load(numbers + i * kLanes) : V::load(last); };
    F most = V::set(0.0f);
    for (std::size_t i = 0; i < sixteens; ++i) most = V::max(most, V::absolute(load(i)));
    const float highest = V::largest(most);
    // The inverse of so small a scale would be infinite; such numbers count as zeros.
    const F inverse = V::set(highest > 1e-30f ? largest / highest : 0.0f);
    auto sum = V::zeros();
    for (std::size_t i = 0; i < sixteens; ++i) {
        const auto integers = V::to_integers(V::mul(load(i), inverse));
        sum = V::add(sum, integers);
        Integers<V>::keep(integers, i % 2, to[i / 2 * step].bytes);
    }
    if (sixteens % 2) Integers<V>::keep(V::zeros(), 1, to[sixteens / 2 * step].bytes);
    float sums[kLanes];  // each of at most 8 integers of 16 bits: exact
    V::store(sums, V::to_floats(sum));
    ScaledIntegers result{highest / largest, 0};
    for (const float own : sums) result.sum += static_cast<std::int32_t>(own);
    return result;
}

// The largest integer whose two bytes are signed bytes.
inline constexpr float kLargestInteger = 127 * 256 + 127;

// Returns the largest integer of a query: no sum of its products may exceed 31 bits.
constexpr float largest_query(std::size_t head_dim) {
    const float bound = 2147483647.0f / (256.0f * static_cast<float>(head_dim));
    return bound < kLargestInteger ? bound : kLargestInteger;
}

// Blocks of keys, or sixteens of dimensions of values, that are multiplied together: enough that sums need not wait for
// each other, if they fit in registers.
template <class V>
inline constexpr std::size_t kAtOnceOf = V::kSums >= 8 ? 2 : 1;

// --- keys ---

template <class V, std::size_t kCount, std::size_t kBlocks>
void score_quads(const std::uint8_t* keys, std::size_t quads, const TileBytes* queries, const ScaledIntegers* scales,
                 float* scores, std::size_t stride) {
    constexpr std::size_t kFactors = Integers<V>::kFactors;
    typename Integers<V>::Sum sums[kCount][kBlocks];
    const std::size_t block_bytes = quads * kQuad;
    for (std::size_t quad = 0; quad < quads; ++quad, keys += kQuad) {
        const TileBytes* const own = queries + quad / 8 * kCount;
        const std::size_t number = quad % 8 * kFactors;
        fetch_ahead<V, kBlocks * kQuad>(keys);
        unrolled<kBlocks>([&](auto block) {
            const auto cached = load_cached<V>(keys + block * block_bytes);
            unrolled<kFactors>([&](auto j) {
                const auto factor = Integers<V>::template factor<j>(cached);
                unrolled<kCount>(
                    [&](auto query) { Integers<V>::add(sums[query][block], factor, number + j, own[query].bytes); });
            });
        });
    }
    unrolled<kCount>([&](auto query) {
        unrolled<kBlocks>([&](auto block) {
            const auto total = without_bias<V>(Integers<V>::total(sums[query][block]), scales[query].sum);
            V::store(scores + query * stride + block * kLanes,
                     V::mul(V::to_floats(total), V::set(scales[query].scale)));
        });
    });
}

template <class V>
void score_bytes(const void* keys, std::size_t blocks, std::size_t head_dim, const float* queries, std::size_t count,
                 float* scores, std::size_t stride) {
    const std::size_t quads = (head_dim + 3) / 4;
    const float largest = largest_query(head_dim);
    in_steps<4>(count, [&](auto some, std::size_t query) {
        TileBytes integers[some() * kWidestByteHead / kTile];
        ScaledIntegers scales[some()];
        for (std::size_t i = 0; i < some(); ++i) {
            scales[i] = to_scaled_integers<V, kWidestByteHead / kTile>(queries + (query + i) * head_dim, head_dim,
                                                                       largest, some(), integers + i);
        }
        in_few_steps<kAtOnceOf<V>>(blocks, [&](auto some_blocks, std::size_t block) {
            score_quads<V, some(), some_blocks()>(static_cast<const std::uint8_t*>(keys) + block * quads * kQuad, quads,
                                                  integers, scales, scores + query * stride + block * kLanes, stride);
        });
    });
}

// --- values ---

// Values are read in pieces that fit in the L1 cache, once for every sixteen dimensions. A sum of as many products does
// not exceed 31 bits.
inline constexpr std::size_t kPiece = 4 * kTile;  // positions

// Adds the products of a piece of values, kWide sixteens of dimensions of them, and weights to results [kCount, width].
template <class V, std::size_t kCount, std::size_t kWide>
void mix_columns(const std::uint8_t* values, std::size_t quads, std::size_t width, const TileBytes* weights,
                 const ScaledIntegers* scales, float* results, bool first) {
    constexpr std::size_t kFactors = Integers<V>::kFactors;
    typename Integers<V>::Sum sums[kCount][kWide];
    for (std::size_t quad = 0; quad < quads; ++quad, values += 4 * width) {
        const TileBytes* const own = weights + quad / 8 * kCount;
        const std::size_t number = quad % 8 * kFactors;
        fetch_ahead<V, kWide * kQuad>(values);
        unrolled<kWide>([&](auto i) {
            const auto cached = load_cached<V>(values + i * kQuad);
            unrolled<kFactors>([&](auto j) {
                const auto factor = Integers<V>::template factor<j>(cached);
                unrolled<kCount>(
                    [&](auto query) { Integers<V>::add(sums[query][i], factor, number + j, own[query].bytes); });
            });
        });
    }
    unrolled<kCount>([&](auto query) {
        unrolled<kWide>([&](auto i) {
            const auto total = V::to_floats(without_bias<V>(Integers<V>::total(sums[query][i]), scales[query].sum));
            float* const to = results + query * width + i * kLanes;
            V::store(to, V::fma(total, V::set(scales[query].scale), first ? V::set(0.0f) : V::load(to)));
        });
    });
}

template <class V>
void mix_bytes(const void* values, std::size_t positions, std::size_t width, const float* weights, std::size_t count,
               std::size_t stride, float* results) {
    in_steps<4>(count, [&](auto some, std::size_t query) {
        TileBytes integers[some() * kPiece / kTile];
        ScaledIntegers scales[some()];
        for (std::size_t begin = 0; begin < positions; begin += kPiece) {
            const std::size_t size = positions - begin < kPiece ? positions - begin : kPiece;
            for (std::size_t i = 0; i < some(); ++i) {
                scales[i] = to_scaled_integers<V, kPiece / kTile>(weights + (query + i) * stride + begin, size,
                                                                  kLargestInteger, some(), integers + i);
            }
            const auto* piece = static_cast<const std::uint8_t*>(values) + begin * width;
            in_few_steps<kAtOnceOf<V>>(width / kLanes, [&](auto wide, std::size_t i) {
                mix_columns<V, some(), wide()>(piece + i * kQuad, (size + 3) / 4, width, integers, scales,
                                               results + query * width + i * kLanes, begin == 0);
            });
        }
        if (positions == 0) {
            for (std::size_t i = 0; i < some() * width; ++i) results[query * width + i] = 0;
        }
    });
}

}  // namespace model
