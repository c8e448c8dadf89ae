#include "layers.hpp"

#include <algorithm>
#include <array>
#include <atomic>
#include <cmath>
#include <numeric>

#include "kernels/rounding.hpp"

namespace model {

namespace {

using Product = Gemm::Product;

// Returns a weight matrix [out, dim] whose columns are scaled by the weight of the norm before it.
View scaled(const float* matrix, std::size_t dim, const float* scale) { return {matrix, dim, 1, nullptr, scale}; }

// Returns the transpose of a matrix with this many columns.
View transposed(const float* numbers, std::size_t columns) { return View{numbers, columns, 1}.transposed(); }

}  // namespace

LayerTrainer::LayerTrainer(std::size_t threads, const TrainingKernel& kernel)
    : kernel_(kernel), pool_(threads), gemm_(kernel_, pool_), attention_(pool_.size()) {}

std::size_t LayerTrainer::bytes() const {
    std::size_t numbers = 0;
    for (const Floats& own : attention_) numbers += own.capacity();
    for (const Floats& buffer : buffers_) numbers += buffer.capacity();
    return numbers * sizeof(float) + gemm_.bytes();
}

float* LayerTrainer::buffer(std::size_t number, std::size_t size) {
    buffers_[number].resize(std::max(buffers_[number].size(), size));
    return buffers_[number].data();
}

void LayerTrainer::multiply(const View& left, const View& right, std::size_t rows, std::size_t inner,
                            std::size_t columns, float* results) {
    const std::lock_guard lock(mutex_);
    const Product product{right, columns, results};
    gemm_.multiply(left, rows, inner, {&product, 1});
}

void LayerTrainer::attend(const LayerShape& shape, const Positions& positions,
                          const std::function<void(LayerAttention&)>& work) {
    const std::size_t count = shape.batch * shape.kv_heads;
    std::atomic<std::size_t> next = 0;
    pool_.run([&](std::size_t thread) {
        for (std::size_t number; (number = next.fetch_add(1)) < count;) {
            LayerAttention attention(kernel_, shape, positions, attention_[thread], number);
            work(attention);
        }
    });
}

void LayerTrainer::normalise(const float* x, std::size_t dim, float epsilon, std::size_t first, std::size_t end,
                             float* inverse) const {
    for (std::size_t i = first; i < end; ++i) {
        const float* row = x + i * dim;
        inverse[i] = 1 / std::sqrt(kernel_.dot(row, row, dim) / static_cast<float>(dim) + epsilon);
    }
}

void LayerTrainer::add_norm_gradient(const float* x, const float* inverse, const float* unit_gradient, std::size_t dim,
                                     std::size_t first, std::size_t end, float* x_gradient) const {
    for (std::size_t i = first; i < end; ++i) {
        kernel_.norm_gradient(x + i * dim, inverse[i], unit_gradient + i * dim, dim, x_gradient + i * dim);
    }
}

void LayerTrainer::rotate(const LayerShape& shape, const Positions& positions, std::size_t heads, float direction,
                          std::size_t first, std::size_t end, float* numbers) {
    const std::size_t d = shape.head_dim;
    for (std::size_t token = first; token < end; ++token) {
        const float* angles = positions.rotation + token % positions.rotations * d;
        for (float* head = numbers + token * heads * d; head < numbers + (token + 1) * heads * d; head += d) {
            for (std::size_t i = 0; i < d; i += 2) {
                const float x = head[i], y = head[i + 1], cos = angles[i], sin = angles[i + 1] * direction;
                head[i] = x * cos - y * sin;
                head[i + 1] = x * sin + y * cos;
            }
        }
    }
}

// --- forward ---

void LayerTrainer::forward(const LayerShape& shape, const LayerWeights<const float>& weights,
                           const Positions& positions, const float* x, const LayerStates<float>& states,
                           float* results) {
    const std::lock_guard lock(mutex_);
    const std::size_t tokens = shape.tokens(), dim = shape.dim, hidden = shape.hidden;
    gemm_.in_rows(tokens, [&](std::size_t first, std::size_t end) {
        normalise(x, dim, shape.epsilon, first, end, states.inverse);
        std::copy(x + first * dim, x + end * dim, states.between + first * dim);
    });
    const auto after_norm = [&](const float* matrix, const float* scale) {
        return scaled(matrix, dim, scale).transposed();
    };
    const Product projections[] = {
        {after_norm(weights.wq, weights.attention_norm), shape.queries(), states.queries},
        {after_norm(weights.wk, weights.attention_norm), shape.keys(), states.keys},
        {after_norm(weights.wv, weights.attention_norm), shape.keys(), states.values},
    };
    gemm_.multiply({x, dim, 1, states.inverse}, tokens, dim, projections, [&](std::size_t first, std::size_t end) {
        rotate(shape, positions, shape.heads, 1, first, end, states.queries);
        rotate(shape, positions, shape.kv_heads, 1, first, end, states.keys);
    });
    attend(shape, positions, [&](LayerAttention& attention) { attention.forward(states); });
    const Product attended[] = {{transposed(weights.wo, shape.queries()), dim, states.between, true}};
    gemm_.multiply({states.attended, shape.queries(), 1}, tokens, shape.queries(), attended,
                   [&](std::size_t first, std::size_t end) {
                       normalise(states.between, dim, shape.epsilon, first, end, states.between_inverse);
                       std::copy(states.between + first * dim, states.between + end * dim, results + first * dim);
                   });
    float* gated = buffer(0, tokens * hidden);
    const Product gates[] = {
        {after_norm(weights.w1, weights.ffn_norm), hidden, states.gate},
        {after_norm(weights.w3, weights.ffn_norm), hidden, states.up},
    };
    gemm_.multiply({states.between, dim, 1, states.between_inverse}, tokens, dim, gates,
                   [&](std::size_t first, std::size_t end) {
                       const std::size_t at = first * hidden;
                       kernel_.gate(states.gate + at, states.up + at, (end - first) * hidden, gated + at);
                   });
    const Product down[] = {{transposed(weights.w2, hidden), dim, results, true}};
    gemm_.multiply({gated, hidden, 1}, tokens, hidden, down);
}

// --- backward ---

void LayerTrainer::backward(const LayerShape& shape, const LayerWeights<const float>& weights,
                            const Positions& positions, const float* x, const LayerStates<const float>& states,
                            const float* gradient, float* x_gradient, const LayerWeights<float>& weight_gradients) {
    const std::lock_guard lock(mutex_);
    const float* between = backward_feed_forward(shape, weights, states, gradient, weight_gradients);
    backward_attention(shape, weights, positions, x, states, between, x_gradient, weight_gradients);
}

const float* LayerTrainer::backward_feed_forward(const LayerShape& shape, const LayerWeights<const float>& weights,
                                                 const LayerStates<const float>& states, const float* gradient,
                                                 const LayerWeights<float>& weight_gradients) {
    const std::size_t tokens = shape.tokens(), dim = shape.dim, hidden = shape.hidden;
    const auto multiply = [&](const View& left, std::size_t rows, std::size_t inner, const Product& product,
                              const Gemm::Rows& done = {}) { gemm_.multiply(left, rows, inner, {&product, 1}, done); };
    float *gated = buffer(0, tokens * hidden), *gate = buffer(1, tokens * hidden), *up = buffer(2, tokens * hidden);
    multiply({gradient, dim, 1}, tokens, dim, {View{weights.w2, hidden, 1}, hidden, up},
             [&](std::size_t first, std::size_t end) {
                 const std::size_t at = first * hidden;
                 kernel_.gate_gradients(states.gate + at, states.up + at, (end - first) * hidden, gated + at, gate + at,
                                        up + at);
             });
    multiply(transposed(gradient, dim), dim, tokens, {View{gated, hidden, 1}, hidden, weight_gradients.w2});
    const View unit{states.between, dim, 1, states.between_inverse};
    multiply(transposed(gate, hidden), hidden, tokens, {unit, dim, weight_gradients.w1});
    multiply(transposed(up, hidden), hidden, tokens, {unit, dim, weight_gradients.w3});
    float *unit_gradient = buffer(0, tokens * dim), *between = buffer(3, tokens * dim);
    multiply({gate, hidden, 1}, tokens, hidden, {scaled(weights.w1, dim, weights.ffn_norm), dim, unit_gradient});
    multiply({up, hidden, 1}, tokens, hidden, {scaled(weights.w3, dim, weights.ffn_norm), dim, unit_gradient, true},
             [&](std::size_t first, std::size_t end) {
                 std::copy(gradient + first * dim, gradient + end * dim, between + first * dim);
                 add_norm_gradient(states.between, states.between_inverse, unit_gradient, dim, first, end, between);
             });
    unscale(weights.ffn_norm, dim,
            {{weights.w1, weight_gradients.w1, hidden}, {weights.w3, weight_gradients.w3, hidden}},
            weight_gradients.ffn_norm);
    return between;
}

void LayerTrainer::backward_attention(const LayerShape& shape, const LayerWeights<const float>& weights,
                                      const Positions& positions, const float* x,
                                      const LayerStates<const float>& states, const float* between, float* x_gradient,
                                      const LayerWeights<float>& weight_gradients) {
    const std::size_t tokens = shape.tokens(), dim = shape.dim, query_size = shape.queries(), key_size = shape.keys();
    const auto multiply = [&](const View& left, std::size_t rows, std::size_t inner, const Product& product,
                              const Gemm::Rows& done = {}) { gemm_.multiply(left, rows, inner, {&product, 1}, done); };
    float* attended = buffer(0, tokens * query_size);
    multiply({between, dim, 1}, tokens, dim, {View{weights.wo, query_size, 1}, query_size, attended});
    multiply(transposed(between, dim), dim, tokens,
             {View{states.attended, query_size, 1}, query_size, weight_gradients.wo});
    float *queries = buffer(1, tokens * query_size), *keys = buffer(2, 2 * tokens * key_size);
    float* values = keys + tokens * key_size;
    std::fill(keys, keys + 2 * tokens * key_size, 0.0f);
    attend(shape, positions,
           [&](LayerAttention& attention) { attention.backward(states, attended, queries, keys, values); });
    gemm_.in_rows(tokens, [&](std::size_t first, std::size_t end) {
        rotate(shape, positions, shape.heads, -1, first, end, queries);
        rotate(shape, positions, shape.kv_heads, -1, first, end, keys);
    });
    const View unit{x, dim, 1, states.inverse};
    multiply(transposed(queries, query_size), query_size, tokens, {unit, dim, weight_gradients.wq});
    multiply(transposed(keys, key_size), key_size, tokens, {unit, dim, weight_gradients.wk});
    multiply(transposed(values, key_size), key_size, tokens, {unit, dim, weight_gradients.wv});
    float* unit_gradient = buffer(0, tokens * dim);
    const auto product = [&](const float* matrix, bool add) -> Product {
        return {scaled(matrix, dim, weights.attention_norm), dim, unit_gradient, add};
    };
    multiply({queries, query_size, 1}, tokens, query_size, product(weights.wq, false));
    multiply({keys, key_size, 1}, tokens, key_size, product(weights.wk, true));
    multiply({values, key_size, 1}, tokens, key_size, product(weights.wv, true),
             [&](std::size_t first, std::size_t end) {
                 std::copy(between + first * dim, between + end * dim, x_gradient + first * dim);
                 add_norm_gradient(x, states.inverse, unit_gradient, dim, first, end, x_gradient);
             });
    unscale(weights.attention_norm, dim,
            {{weights.wq, weight_gradients.wq, query_size},
             {weights.wk, weight_gradients.wk, key_size},
             {weights.wv, weight_gradients.wv, key_size}},
            weight_gradients.attention_norm);
}

void LayerTrainer::unscale(const float* scale, std::size_t dim, std::initializer_list<ScaledMatrix> matrices,
                           float* scale_gradient) {
    std::fill(scale_gradient, scale_gradient + dim, 0.0f);
    gemm_.in_rows(divided_up(dim, kLanes), [&](std::size_t first_group, std::size_t end_group) {
        const std::size_t first = first_group * kLanes, end = std::min(dim, end_group * kLanes);
        for (const ScaledMatrix& matrix : matrices) {
            for (std::size_t row = 0; row < matrix.rows; ++row) {
                const float* weight = matrix.weight + row * dim;
                float* gradient = matrix.gradient + row * dim;
                for (std::size_t i = first; i < end; ++i) {
                    scale_gradient[i] += gradient[i] * weight[i];
                    gradient[i] *= scale[i];
                }
            }
        }
    });
}

// --- the output head ---

double LayerTrainer::loss(const float* hidden, const float* head, const std::int64_t* targets, std::size_t tokens,
                          std::size_t dim, std::size_t vocabulary, std::size_t logits, float* hidden_gradient,
                          float* head_gradient) {
    const std::lock_guard lock(mutex_);
    const std::size_t most = std::max<std::size_t>(1, logits / vocabulary);
    std::vector<double> losses(tokens);
    for (std::size_t begin = 0; begin < tokens; begin += most) {
        const std::size_t count = std::min(most, tokens - begin);
        const View given{hidden + begin * dim, dim, 1};
        float* rows = buffer(0, count * vocabulary);  // first logits, then their gradients
        const auto replace_by_gradients = [&](std::size_t i) {
            float* row = rows + i * vocabulary;
            const std::int64_t target = targets[begin + i];
            if (target < 0) {
                std::fill(row, row + vocabulary, 0.0f);
                return;
            }
            const float reached = row[target];
            float highest, sum;
            kernel_.probabilities(row, vocabulary, 1, &highest, &sum);
            losses[begin + i] = std::log(static_cast<double>(sum)) + (highest - reached);
            row[target] -= 1;
        };
        const Product to_logits{transposed(head, dim), vocabulary, rows};
        gemm_.multiply(given, count, dim, {&to_logits, 1}, [&](std::size_t first, std::size_t end) {
            for (std::size_t i = first; i < end; ++i) replace_by_gradients(i);
        });
        const Product to_hidden{View{head, dim, 1}, dim, hidden_gradient + begin * dim};
        gemm_.multiply({rows, vocabulary, 1}, count, vocabulary, {&to_hidden, 1});
        if (head_gradient) {
            const Product to_head{given, dim, head_gradient, begin > 0};
            gemm_.multiply(transposed(rows, vocabulary), vocabulary, count, {&to_head, 1});
        }
    }
    return std::accumulate(losses.begin(), losses.end(), 0.0);
}

}  // namespace model
