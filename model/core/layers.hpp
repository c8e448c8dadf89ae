// Training of transformer layers and of the output head on a CPU, in float32: forward and hand-written backward passes.
// Where the kernel allows it, the numbers of products are rounded to bfloat16; everything else stays float32.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <initializer_list>
#include <mutex>
#include <vector>

#include "floats.hpp"
#include "gemm.hpp"
#include "kernels/kernels.hpp"
#include "layer_arrays.hpp"
#include "layer_attention.hpp"
#include "pool.hpp"

namespace model {

// The threads and buffers with which layers are trained. Holds no weights.
class LayerTrainer {
 public:
    // `kernel` must outlive the trainer.
    LayerTrainer(std::size_t threads, const TrainingKernel& kernel);

    std::size_t threads() const { return pool_.size(); }
    std::size_t bytes() const;  // of buffers that are kept between calls

    // Computes a layer: results [tokens, dim], given x [tokens, dim]. Fills states.
    void forward(const LayerShape& shape, const LayerWeights<const float>& weights, const Positions& positions,
                 const float* x, const LayerStates<float>& states, float* results);

    // Computes the gradients of x and of the weights, given the gradient of the results.
    void backward(const LayerShape& shape, const LayerWeights<const float>& weights, const Positions& positions,
                  const float* x, const LayerStates<const float>& states, const float* gradient, float* x_gradient,
                  const LayerWeights<float>& weight_gradients);

    // Returns the sum of -log p(target) over the tokens, for hidden states [tokens, dim] and a head [vocabulary, dim].
    // A negative target does not count. Writes the gradient of the hidden states, and that of the head unless
    // head_gradient is null. Keeps at most `logits` logits in memory at a time, but at least those of one token.
    double loss(const float* hidden, const float* head, const std::int64_t* targets, std::size_t tokens,
                std::size_t dim, std::size_t vocabulary, std::size_t logits, float* hidden_gradient,
                float* head_gradient);

    // Computes results [rows, columns] = left [rows, inner] times right [inner, columns].
    void multiply(const View& left, const View& right, std::size_t rows, std::size_t inner, std::size_t columns,
                  float* results);

 private:
    // A matrix [rows, dim] that follows a norm, and the gradient of the matrix scaled by the norm's weight.
    struct ScaledMatrix {
        const float* weight;
        float* gradient;
        std::size_t rows;
    };

    // Returns a numbered buffer with room for `size` floats. Its contents are undefined.
    float* buffer(std::size_t number, std::size_t size);
    // Calls work(attention) for each key-value head of each row of the batch, on all threads.
    void attend(const LayerShape& shape, const Positions& positions, const std::function<void(LayerAttention&)>& work);
    // Each handles the tokens [first, end). normalise() computes 1 / root mean square of the rows of x.
    void normalise(const float* x, std::size_t dim, float epsilon, std::size_t first, std::size_t end,
                   float* inverse) const;
    void add_norm_gradient(const float* x, const float* inverse, const float* unit_gradient, std::size_t dim,
                           std::size_t first, std::size_t end, float* x_gradient) const;
    static void rotate(const LayerShape& shape, const Positions& positions, std::size_t heads, float direction,
                       std::size_t first, std::size_t end, float* numbers);

    // Computes the gradients of the feed-forward weights, given the gradient of the layer's results. Returns the
    // gradient of states.between, which is in buffer 3.
    const float* backward_feed_forward(const LayerShape& shape, const LayerWeights<const float>& weights,
                                       const LayerStates<const float>& states, const float* gradient,
                                       const LayerWeights<float>& weight_gradients);
    // Computes the gradients of x and of the attention weights, given the gradient of states.between.
    void backward_attention(const LayerShape& shape, const LayerWeights<const float>& weights,
                            const Positions& positions, const float* x, const LayerStates<const float>& states,
                            const float* between, float* x_gradient, const LayerWeights<float>& weight_gradients);
    // Turns gradients of norm weight * matrix into gradients of the matrices, and computes that of the norm's weight.
    void unscale(const float* scale, std::size_t dim, std::initializer_list<ScaledMatrix> matrices,
                 float* scale_gradient);

    const TrainingKernel& kernel_;
    Pool pool_;
    Gemm gemm_;
    std::mutex mutex_;
    std::vector<Floats> attention_;  // memory of attention, of each thread
    Floats buffers_[4];              // results that pass from one product to the next
};

}  // namespace model
