#include "layer_attention.hpp"

#include <algorithm>
#include <cmath>
#include <utility>

#include "kernels/rounding.hpp"

namespace model {

namespace {

constexpr std::size_t kQueries = 48;  // of a block, before they are rounded up to whole tiles

}  // namespace

LayerAttention::LayerAttention(const TrainingKernel& kernel, const LayerShape& shape, const Positions& positions,
                               Floats& memory, std::size_t number)
    : kernel_(kernel),
      shape_(shape),
      token_(number / shape.kv_heads * shape.time),
      group_(number % shape.kv_heads),
      begins_(positions.begins ? positions.begins + token_ : nullptr),
      factor_(1 / std::sqrt(static_cast<float>(shape.head_dim))),
      time_(rounded_up(shape.time, kernel.columns)),
      width_(rounded_up(shape.head_dim, kernel.columns)),
      queries_(rounded_up(kQueries, kernel.rows)) {
    const std::size_t d = shape.head_dim, most = queries_, scores = most * time_;
    const std::size_t of_keys = time_ / kernel.columns * kernel.panel_size(d);
    const std::size_t of_values = width_ / kernel.columns * kernel.panel_size(shape.time);
    const auto strips = [&](std::size_t rows, std::size_t depth) {
        return divided_up(rows, kernel.rows) * kernel.strip_size(depth);
    };
    const std::size_t left = std::max({strips(most, d), strips(most, shape.time), strips(shape.time, most)});
    const std::size_t right = width_ / kernel.columns * kernel.panel_size(most);
    std::size_t size = 0;
    const std::pair<float**, std::size_t> wanted[] = {{&keys_transposed_, of_keys},
                                                      {&values_, of_values},
                                                      {&values_transposed_, of_keys},
                                                      {&keys_, of_values},
                                                      {&probabilities_, scores},
                                                      {&score_gradients_, scores},
                                                      {&left_, left},
                                                      {&right_, right}};
    for (const auto& [to, room] : wanted) size += rounded_up(room, kLanes);
    memory.resize(std::max(memory.size(), size));
    float* free = memory.data();
    for (const auto& [to, room] : wanted) *to = std::exchange(free, free + rounded_up(room, kLanes));
}

void LayerAttention::forward(const LayerStates<float>& states) {
    pack(of_group(states.keys).transposed(), shape_.head_dim, shape_.time, keys_transposed_);
    pack(of_group(states.values), shape_.time, shape_.head_dim, values_);
    in_blocks([&](const Block& block) {
        compute_probabilities(states.queries, block);
        multiply({probabilities_, time_, 1}, block.queries(), block.keys(), values_ + kernel_.panel_size(block.low),
                 shape_.time, shape_.head_dim, at(states.attended, block), shape_.queries(), false);
    });
}

void LayerAttention::backward(const LayerStates<const float>& states, const float* gradient, float* queries,
                              float* keys, float* values) {
    const std::size_t d = shape_.head_dim, group = token_ * shape_.keys() + group_ * d;
    pack(of_group(states.keys).transposed(), d, shape_.time, keys_transposed_);
    pack(of_group(states.values).transposed(), d, shape_.time, values_transposed_);
    pack(of_group(states.keys), shape_.time, d, keys_);
    in_blocks([&](const Block& block) {
        compute_probabilities(states.queries, block);
        compute_score_gradients(states, gradient, block);
        multiply({score_gradients_, time_, 1}, block.queries(), block.keys(), keys_ + kernel_.panel_size(block.low),
                 shape_.time, d, at(queries, block), shape_.queries(), false);
        const std::size_t low = group + block.low * shape_.keys();
        pack({at(gradient, block), shape_.queries(), 1}, block.queries(), d, right_);
        multiply({probabilities_, 1, time_}, block.keys(), block.queries(), right_, block.queries(), d, values + low,
                 shape_.keys(), true);
        pack({at(states.queries, block), shape_.queries(), 1}, block.queries(), d, right_);
        multiply({score_gradients_, 1, time_}, block.keys(), block.queries(), right_, block.queries(), d, keys + low,
                 shape_.keys(), true);
    });
}

template <class Work>
void LayerAttention::in_blocks(const Work& work) const {
    const std::size_t heads = shape_.heads / shape_.kv_heads;
    for (std::size_t head = group_ * heads; head < (group_ + 1) * heads; ++head) {
        for (std::size_t first = 0; first < shape_.time; first += queries_) {
            const std::size_t end = std::min(shape_.time, first + queries_);
            std::size_t low = 0;
            if (begins_) low = static_cast<std::size_t>(*std::min_element(begins_ + first, begins_ + end));
            work(Block{head, first, end, low / kernel_.columns * kernel_.columns});
        }
    }
}

void LayerAttention::pack(const View& right, std::size_t rows, std::size_t columns, float* to) const {
    for (std::size_t first = 0; first < columns; first += kernel_.columns, to += kernel_.panel_size(rows)) {
        kernel_.pack_right(right, first, std::min(kernel_.columns, columns - first), 0, rows, to);
    }
}

void LayerAttention::multiply(const View& left, std::size_t rows, std::size_t inner, const float* right,
                              std::size_t panel_rows, std::size_t columns, float* results, std::size_t stride,
                              bool add) const {
    pack_rows(kernel_, left, 0, rows, 0, inner, left_);
    for (std::size_t first = 0; first < columns; first += kernel_.columns, right += kernel_.panel_size(panel_rows)) {
        kernel_.multiply(left_, rows, inner, right, std::min(kernel_.columns, columns - first), results + first, stride,
                         add);
    }
}

// Keys that a query does not attend to have probability zero.
void LayerAttention::compute_probabilities(const float* queries, const Block& block) const {
    const std::size_t d = shape_.head_dim;
    multiply({at(queries, block), shape_.queries(), 1}, block.queries(), d, transposed(keys_transposed_, block), d,
             block.keys(), probabilities_, time_, false);
    for (std::size_t i = 0; i < block.queries(); ++i) {
        float* own = probabilities_ + i * time_;
        const std::size_t begin = begin_of(block, i), size = visible_keys(block, i);
        float highest, sum;
        std::fill(own, own + begin, 0.0f);
        kernel_.probabilities(own + begin, size, factor_, &highest, &sum);
        std::fill(own + begin + size, own + block.keys(), 0.0f);
    }
}

// Requires the probabilities of the block.
void LayerAttention::compute_score_gradients(const LayerStates<const float>& states, const float* gradient,
                                             const Block& block) const {
    const std::size_t d = shape_.head_dim;
    multiply({at(gradient, block), shape_.queries(), 1}, block.queries(), d, transposed(values_transposed_, block), d,
             block.keys(), score_gradients_, time_, false);
    for (std::size_t i = 0; i < block.queries(); ++i) {
        const std::size_t offset = i * shape_.queries();
        // The sum of probability * gradient over the keys is the product of `attended` and its gradient.
        const float along = kernel_.dot(at(gradient, block) + offset, at(states.attended, block) + offset, d);
        float* own = score_gradients_ + i * time_;
        const std::size_t begin = begin_of(block, i), size = visible_keys(block, i);
        std::fill(own, own + begin, 0.0f);
        kernel_.score_gradients(probabilities_ + i * time_ + begin, own + begin, size, along, factor_);
        std::fill(own + begin + size, own + block.keys(), 0.0f);
    }
}

}  // namespace model
