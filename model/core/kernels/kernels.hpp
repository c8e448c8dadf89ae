// The inner loops of a model, which each kind of processor does in its own way. All ways give the same but for
// rounding.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "kernels/formats.hpp"
#include "kernels/training_table.hpp"

namespace model {

// Thirty-two numbers of a vector that quantized weights are multiplied with. number = scale * integer, of 16 bits: with
// 8 bits alone logits of SmolLM2 are off by 3, so by 0.02.
struct alignas(64) TileBytes {
    std::int8_t bytes[2 * kTile];  // the integers, in the order that the kernel multiplies them
};
struct TileScale {
    float scale;
    float sums[3];  // of all numbers, and of each half
};

// Some vectors; of the two, those are filled that the weights need.
struct Vectors {
    const float* numbers;     // [vectors, columns]
    const TileBytes* bytes;   // [tiles, vectors]
    const TileScale* scales;  // [tiles, vectors]
    std::size_t columns;
};

// A product of sixteen rows and some vectors: to [vectors, 16].
using Product = void (*)(const std::uint8_t* group, const Vectors& vectors, float* results);

inline constexpr std::size_t kVectorSizes = 7;  // 1, 2, 4, 8, 16, 32, 64
inline constexpr std::size_t kMostVectors = 64;

enum class CacheKind : std::uint8_t { kF16, kBF16, kI8 };

// Keys lie in blocks of sixteen positions, [blocks, head_dim, 16], values by position, [positions, stride], both padded
// with numbers that are finite. Of kI8, the scales are the caller's. Scores and results have room for a multiple of
// sixteen queries.
struct AttentionKernel {
    // queries [count, head_dim] times keys: scores [count, >= blocks * 16]
    void (*score)(const void* keys, std::size_t blocks, std::size_t head_dim, const float* queries, std::size_t count,
                  float* scores, std::size_t stride);
    // weights [count, >= positions] times values: results [count, width]; width is a multiple of 16
    void (*mix)(const void* values, std::size_t positions, std::size_t width, const float* weights, std::size_t count,
                std::size_t stride, float* results);
};

struct Kernel {
    const char* name;
    std::size_t most_vectors;  // that are multiplied at once
    std::size_t most_queries;  // that attention looks at at once
    std::size_t split_from;    // that, or more vectors have two TileBytes for each tile: they are no integers
    Product products[kKinds][kVectorSizes];
    AttentionKernel attention[3];  // by CacheKind
    // One of `step` vectors that will be multiplied at once.
    void (*quantize)(const float* numbers, std::size_t tiles, std::size_t step, TileBytes* bytes, TileScale* scales);
    // numbers / root mean square * weights
    void (*normalise)(const float* numbers, const float* weights, std::size_t size, float epsilon, float* results);
    // Replaces scores by exp(score - the largest), gives the largest and the sum; has room up to a multiple of 16.
    void (*softmax)(float* scores, std::size_t size, float* largest, float* sum);
    // x / (1 + exp(-x)) * y for sixteen numbers
    void (*gate)(const float* x, const float* y, float* results);
    // To 16 bits; size is a multiple of 16.
    void (*narrow)(const float* numbers, std::size_t size, Half* results);
    Training training;

    // How many TileBytes a tile of a vector has, where so many are multiplied at once.
    std::size_t tile_bytes(std::size_t vectors) const { return vectors < split_from ? 1 : 2; }
};

// What this machine's processor can run, the best first. The last is always "plain", in portable C++.
std::span<const Kernel> kernels();

const Kernel& plain_kernel();
const Kernel& avx2_kernel();
const Kernel& avx512_kernel();
const Kernel& amx_kernel();
bool can_amx();
const Kernel& neon_kernel();
bool can_neon();

}  // namespace model
