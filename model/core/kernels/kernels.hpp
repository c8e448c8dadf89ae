// The inner loops of a model, as tables of functions, one table for each instruction set. All tables compute the same
// results up to rounding.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "kernels/packed_weights.hpp"

namespace model {

// --- generation: packed weights times activations ---

// A tile (32 numbers) of an activation vector that is multiplied with quantized weights. number = scale * integer, with
// integers of 16 bits: 8 bits alone would change logits of SmolLM2 by up to 3, 16 bits change them by up to 0.02.
struct alignas(64) TileBytes {
    std::int8_t bytes[2 * kTile];  // the integers, in the order in which the kernel multiplies them
};
struct TileScale {
    float scale;
    float sums[3];  // of all numbers, and of each half
};

// Activation vectors. Quantized weights read `bytes` and `scales`, others `numbers` or, in products of split_from
// vectors or more, `parts`. What no weights read may be unset.
struct Vectors {
    const float* numbers;     // [vectors, columns]
    const TileBytes* bytes;   // [tiles, vectors]
    const TileScale* scales;  // [tiles, vectors]
    const TileBytes* parts;   // [tiles, vectors, kFloatParts]
    std::size_t columns;
};

// How many parts of a number, split into a sum of bfloat16 numbers, have the precision of float32.
inline constexpr std::size_t kFloatParts = 3;

// Multiplies a group of sixteen rows with some vectors: results [vectors, 16].
using GroupProduct = void (*)(const std::uint8_t* group, const Vectors& vectors, float* results);

inline constexpr std::size_t kVectorSizes = 7;  // 1, 2, 4, 8, 16, 32, 64
inline constexpr std::size_t kMostVectors = 64;

// Products with many vectors, for which unquantized weights are unpacked once.
struct PanelKernel {
    std::size_t parts;  // of an unpacked tile, each of sixteen TileBytes
    // Unpacks some tiles of a group, from the first tile of a block on: [tiles, parts, 16]
    void (*unpack)(const std::uint8_t* group, std::size_t tiles, TileBytes* panel);
    // Multiplies the unpacked tiles of some groups, [groups, tiles, parts, 16], with 32 or 64 split vectors. Writes the
    // results, [groups, vectors, 16] with groups `stride` apart, or adds to them.
    void (*multiply)(const TileBytes* panels, std::size_t groups, std::size_t tiles, const TileBytes* x,
                     std::size_t vectors, float* results, std::size_t stride, bool add);
};

enum class CacheKind : std::uint8_t { kF16, kBF16, kI8, kF32 };
inline constexpr std::size_t kCacheKinds = 4;
inline constexpr std::size_t kWidestByteHead = 512;  // the largest head_dim for kI8

// Keys are stored in blocks of sixteen positions, [blocks, head_dim, 16], values by position, [positions, width]; those
// of kI8 as in attention_bytes.hpp. Both are padded with finite numbers. For kI8, the caller applies the scales. Scores
// and results have room for a multiple of sixteen queries.
struct AttentionKernel {
    // scores [count, >= blocks * 16] = queries [count, head_dim] times keys
    void (*score)(const void* keys, std::size_t blocks, std::size_t head_dim, const float* queries, std::size_t count,
                  float* scores, std::size_t stride);
    // results [count, width] = weights [count, >= positions] times values; width is a multiple of 16
    void (*mix)(const void* values, std::size_t positions, std::size_t width, const float* weights, std::size_t count,
                std::size_t stride, float* results);
};

// --- training, in float32: products of matrices of any layout, and the steps between them ---

// A matrix given by its strides, so that its transpose is another view of the same numbers. Each number is multiplied
// with the scale of its row and of its column, where these are set.
struct View {
    const float* numbers;
    std::size_t row_stride, column_stride;
    const float* row_scales = nullptr;
    const float* column_scales = nullptr;

    View transposed() const { return {numbers, column_stride, row_stride, column_scales, row_scales}; }
};

struct TrainingKernel {
    // The size of a tile of a product. Tiles are computed from packed copies of the matrices, which are read in order.
    std::size_t rows, columns;
    // Numbers are packed in steps of this many of the inner dimension, and take this many bytes each.
    std::size_t step, number_bytes;
    // Packs `count` rows from `first` on, of columns [begin, begin + depth), to a strip. Missing rows are zeros. One
    // stride of the view is 1.
    void (*pack_left)(const View& view, std::size_t first, std::size_t count, std::size_t begin, std::size_t depth,
                      float* to);
    // Packs `count` columns from `first` on, of rows [begin, begin + depth), to a panel.
    void (*pack_right)(const View& view, std::size_t first, std::size_t count, std::size_t begin, std::size_t depth,
                       float* to);
    // results [rows, columns], with rows `stride` apart, = strips of rows times a panel of columns, plus the previous
    // results if `add` is set. The panel may be deeper than the strips.
    void (*multiply)(const float* left, std::size_t rows, std::size_t depth, const float* right, std::size_t columns,
                     float* results, std::size_t stride, bool add);

    // Return the room that a packed strip or panel takes, in floats.
    std::size_t strip_size(std::size_t depth) const { return rows * packed_depth(depth); }
    std::size_t panel_size(std::size_t depth) const { return columns * packed_depth(depth); }
    std::size_t packed_depth(std::size_t depth) const {
        return (depth + step - 1) / step * step * number_bytes / sizeof(float);
    }

    float (*dot)(const float* x, const float* y, std::size_t size);
    // results = silu(gate) * up
    void (*gate)(const float* gate, const float* up, std::size_t size, float* results);
    // Replaces the gradient of `results` in up_gradient by that of `up`, writes that of `gate`, and recomputes results.
    void (*gate_gradients)(const float* gate, const float* up, std::size_t size, float* results, float* gate_gradient,
                           float* up_gradient);
    // Adds the gradient of x, given that of unit = x * inverse, where inverse = 1 / root mean square of x.
    void (*norm_gradient)(const float* x, float inverse, const float* unit_gradient, std::size_t size,
                          float* x_gradient);
    // Replaces scores by softmax(factor * scores), for a factor above 0. Returns the highest factor * score, and the
    // sum of exp(factor * score - the highest).
    void (*probabilities)(float* scores, std::size_t size, float factor, float* highest, float* total);
    // Replaces gradients of probabilities by gradients of the scores that `probabilities` was given. `along` is the sum
    // of probability * gradient.
    void (*score_gradients)(const float* probabilities, float* gradients, std::size_t size, float along, float factor);
    // to += factor * from
    void (*add)(const float* from, float factor, std::size_t size, float* to);
};

// --- all functions for one instruction set ---

struct Kernel {
    const char* name;
    std::size_t most_vectors;  // that are multiplied together
    std::size_t most_queries;  // that attention handles together
    // Products of this many vectors or more are those of unquantized weights only, with numbers that are split into
    // sums of bfloat16 numbers: kFloatParts TileBytes per tile.
    std::size_t split_from;
    GroupProduct products[kKinds][kVectorSizes];
    AttentionKernel attention[kCacheKinds];  // by CacheKind
    const PanelKernel* panels;               // by unquantized kind, for split_from vectors or more; null for none
    // Quantizes one of `step` vectors that are multiplied together.
    void (*quantize)(const float* numbers, std::size_t tiles, std::size_t step, TileBytes* bytes, TileScale* scales);
    // Splits one of `step` vectors that are multiplied together with unquantized weights. Null if never needed.
    void (*split)(const float* numbers, std::size_t tiles, std::size_t step, TileBytes* parts);
    // results = numbers / root mean square * weights
    void (*normalise)(const float* numbers, const float* weights, std::size_t size, float epsilon, float* results);
    // Replaces scores by exp(score - the largest), and returns the largest and the sum. `scores` has room for a
    // multiple of 16.
    void (*softmax)(float* scores, std::size_t size, float* largest, float* sum);
    // results = silu(x) * y = x / (1 + exp(-x)) * y, for sixteen numbers
    void (*gate)(const float* x, const float* y, float* results);
    // Converts to 16 bits; size is a multiple of 16.
    void (*narrow)(const float* numbers, std::size_t size, Half* results);
    TrainingKernel training;
    // Products of numbers that are rounded to bfloat16, with float32 sums; only where has_bfloat16_training is set.
    bool has_bfloat16_training;
    TrainingKernel bfloat16_training;

    // Returns how many vectors are at most multiplied together, a power of two, if their numbers are not split.
    std::size_t most_whole_vectors() const { return most_vectors < split_from ? most_vectors : split_from / 2; }
    // Returns whether products with unquantized weights read the parts of this many vectors.
    bool splits(std::size_t vectors, std::size_t columns) const {
        return vectors >= split_from && columns % kTile == 0;
    }
};

// Returns the kernels that this processor can run, best first. The last is always "plain", in portable C++.
std::span<const Kernel> kernels();

// Returns the kernel that the environment variable MODEL_KERNEL names or, if it is not set, the best. Throws InputError
// if this processor cannot run the named kernel.
const Kernel& chosen_kernel();

const Kernel& plain_kernel();
const Kernel& avx2_kernel();
const Kernel& avxvnni_kernel();
const Kernel& avx512_kernel();
const Kernel& amx_kernel();
bool can_amx();
// Returns a training kernel with the products of AMX and the other functions of `others`. The products are those of
// float32 numbers in three parts, or of numbers rounded to bfloat16 in one part.
TrainingKernel amx_training(TrainingKernel others, std::size_t parts);
const Kernel& neon_kernel();
bool can_neon();

}  // namespace model
