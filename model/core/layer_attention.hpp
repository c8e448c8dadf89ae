// Causal attention of a layer in training: forward and backward.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "floats.hpp"
#include "gemm.hpp"
#include "kernels/kernels.hpp"
#include "layer_arrays.hpp"

namespace model {

// Attention of the heads of one key-value head in one row of the batch, on one thread. Positions count from the start
// of the row.
class LayerAttention {
 public:
    // `number` is batch row * kv_heads + key-value head. Uses `memory` as its buffers, and grows it.
    LayerAttention(const TrainingKernel& kernel, const LayerShape& shape, const Positions& positions, Floats& memory,
                   std::size_t number);

    // Writes states.attended.
    void forward(const LayerStates<float>& states);

    // Writes the gradients of queries, and adds those of keys and values, given the gradient of states.attended.
    void backward(const LayerStates<const float>& states, const float* gradient, float* queries, float* keys,
                  float* values);

 private:
    // Neighbouring queries [first, end) of a head. `low` is the first key that they attend to, rounded down to the
    // start of a panel.
    struct Block {
        std::size_t head, first, end, low;
        std::size_t queries() const { return end - first; }
        std::size_t keys() const { return end - low; }
    };

    template <class Work>
    void in_blocks(const Work& work) const;

    // Returns the row of a block's first query in an array [tokens, heads * head_dim].
    template <class T>
    T* at(T* numbers, const Block& block) const {
        return numbers + (token_ + block.first) * shape_.queries() + block.head * shape_.head_dim;
    }
    View of_group(const float* numbers) const {
        return {numbers + token_ * shape_.keys() + group_ * shape_.head_dim, shape_.keys(), 1};
    }
    // Returns the first of the block's keys that its query i attends to.
    std::size_t begin_of(const Block& block, std::size_t i) const {
        return begins_ ? static_cast<std::size_t>(begins_[block.first + i]) - block.low : 0;
    }
    std::size_t visible_keys(const Block& block, std::size_t i) const {
        return block.first + i + 1 - block.low - begin_of(block, i);
    }

    // Returns the first panel of a block's keys in packed keys or values [head_dim, time].
    const float* transposed(const float* packed, const Block& block) const {
        return packed + block.low / kernel_.columns * kernel_.panel_size(shape_.head_dim);
    }

    void pack(const View& right, std::size_t rows, std::size_t columns, float* to) const;
    // Multiplies left [rows, inner] with a packed matrix whose panels have `panel_rows` rows.
    void multiply(const View& left, std::size_t rows, std::size_t inner, const float* right, std::size_t panel_rows,
                  std::size_t columns, float* results, std::size_t stride, bool add) const;
    void compute_probabilities(const float* queries, const Block& block) const;
    void compute_score_gradients(const LayerStates<const float>& states, const float* gradient,
                                 const Block& block) const;

    const TrainingKernel& kernel_;
    const LayerShape& shape_;
    const std::size_t token_, group_;
    const std::int64_t* begins_;
    const float factor_;
    const std::size_t time_, width_;  // `time` and head_dim, rounded up to whole panels
    const std::size_t queries_;       // of a block, at most
    // Packed keys and values, transposed or not; [queries_, time_]: probabilities, and gradients of the scores; packed
    // left and right sides of products.
    float *keys_transposed_, *values_, *values_transposed_, *keys_, *probabilities_, *score_gradients_, *left_, *right_;
};

}  // namespace model
