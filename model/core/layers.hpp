// Layers of a model that is trained, and the loss of its head: forward, and backward by hand.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <mutex>
#include <span>
#include <vector>

#include "kernels/kernels.hpp"
#include "pool.hpp"

namespace model {

// The shape of a layer and of what it is given: `batch` rows of `time` tokens each.
struct LayerShape {
    std::size_t batch, time, dim, heads, kv_heads, head_dim, hidden;
    float epsilon;

    std::size_t tokens() const { return batch * time; }
    std::size_t queries() const { return heads * head_dim; }
    std::size_t keys() const { return kv_heads * head_dim; }
};

// Its weights, or their slopes: norms [dim], matrices [out, in].
template <class T>
struct LayerWeights {
    T *attention_norm, *wq, *wk, *wv, *wo, *ffn_norm, *w1, *w2, *w3;
};

// Where the tokens stand: cos and sin of the angles of each pair, [time or tokens, head_dim], and the first token of
// each one's text that it looks at, [tokens], counted in its row; none where each row is one text.
struct Places {
    const float* rotation;
    std::size_t rotations;
    const std::int64_t* begins;
};

// What a layer makes on the way, and keeps for its slopes: 1 / root mean square of the rows it normalises, [tokens];
// queries and keys, turned, values, and what was attended to, [tokens, heads * head_dim]; what the feed-forward network
// is given, [tokens, dim]; its gate and what passes it, [tokens, hidden].
template <class T>
struct LayerStates {
    T *inverse, *queries, *keys, *values, *attended, *between, *between_inverse, *gate, *up;
};

class Trainer {
 public:
    Trainer(std::size_t threads, const Kernel& kernel);

    std::size_t threads() const { return pool_.size(); }
    std::size_t bytes() const;  // of memory that is kept from call to call

    // x and results: [tokens, dim]
    void forward(const LayerShape& shape, const LayerWeights<const float>& weights, const Places& places,
                 const float* x, const LayerStates<float>& states, float* results);

    // Given the slope of the results, those of x and of the weights.
    void backward(const LayerShape& shape, const LayerWeights<const float>& weights, const Places& places,
                  const float* x, const LayerStates<const float>& states, const float* slope, float* x_slope,
                  const LayerWeights<float>& slopes);

    // The sum of -log p(target) over the targets, of which negative ones count nothing, for hidden states [tokens, dim]
    // and a head [vocabulary, dim]; and its slopes, that of the head only if there is a place for it. So many logits
    // exist at a time, at least those of one token.
    double loss(const float* hidden, const float* head, const std::int64_t* targets, std::size_t tokens,
                std::size_t dim, std::size_t vocabulary, std::size_t logits, float* hidden_slope, float* head_slope);

    // results [rows, columns] = left [rows, inner] times right [inner, columns]
    void multiply(const View& left, const View& right, std::size_t rows, std::size_t inner, std::size_t columns,
                  float* results);

 private:
    struct Product {
        View right;  // [inner, columns]
        std::size_t columns;
        float* results;  // [rows, columns]
        bool add = false;
    };
    struct Scaled {
        const float* weight;
        float* slope;
        std::size_t rows;
    };
    using Rows = std::function<void(std::size_t first, std::size_t end)>;
    class Attention;

    // Left [rows, inner] times each of some matrices; calls done with the rows that are complete.
    void multiply(const View& left, std::size_t rows, std::size_t inner, std::span<const Product> products,
                  const Rows& done = {});
    void multiply_panel(const float* left, std::size_t rows, std::size_t depth, const float* right, std::size_t columns,
                        float* results, std::size_t stride, bool add) const;
    void pack_rows(const View& left, std::size_t first, std::size_t end, std::size_t begin, std::size_t depth,
                   float* to) const;
    // Calls work with some rows at a time, on all threads.
    void in_rows(std::size_t rows, const Rows& work);
    void attend(const LayerShape& shape, const Places& places, const std::function<void(Attention&)>& work);
    void normalise(const float* x, std::size_t dim, float epsilon, std::size_t first, std::size_t end,
                   float* inverse) const;
    static void rotate(const LayerShape& shape, const Places& places, std::size_t heads, float direction,
                       std::size_t first, std::size_t end, float* numbers);
    // The slopes of matrices and of the norm's scale that they were multiplied with, given those of the products.
    void unscale(const float* scale, std::size_t dim, std::initializer_list<Scaled> matrices, float* scale_slope);

    const Training& kernel_;
    Pool pool_;
    std::mutex mutex_;
    std::vector<float> right_;             // packed for all threads
    std::vector<std::vector<float>> own_;  // packed by each
    std::vector<float> buffers_[4];        // what is made between two products
};

}  // namespace model
