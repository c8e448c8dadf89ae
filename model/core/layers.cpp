#include "layers.hpp"

#include <algorithm>
#include <array>
#include <atomic>
#include <cmath>
#include <numeric>
#include <utility>

namespace model {

namespace {

// A product's copies are of so many numbers of each row and column at a time: a tile's columns fit the smallest cache.
constexpr std::size_t kDepth = 320;
// Columns of all, and rows of a thread, that are copied at a time: the rows fit the second cache.
constexpr std::size_t kColumns = 2048, kRows = 96;
// Pieces of a product's rows that each thread has at least.
constexpr std::size_t kShares = 4;
constexpr std::size_t kMostTile = 16 * 32;
// Queries that are looked at together.
constexpr std::size_t kQueries = 48;

std::size_t divided(std::size_t size, std::size_t by) { return (size + by - 1) / by; }

}  // namespace

Trainer::Trainer(std::size_t threads, const Kernel& kernel)
    : kernel_(kernel.training), pool_(threads), own_(pool_.size()) {}

std::size_t Trainer::bytes() const {
    std::size_t numbers = right_.capacity();
    for (const std::vector<float>& own : own_) numbers += own.capacity();
    for (const std::vector<float>& buffer : buffers_) numbers += buffer.capacity();
    return numbers * sizeof(float);
}

// --- products ---

// Packed rows [rows / tile][depth, tile] times one packed panel [depth, tile]: to `columns` columns of the results.
void Trainer::multiply_panel(const float* left, std::size_t rows, std::size_t depth, const float* right,
                             std::size_t columns, float* results, std::size_t stride, bool add) const {
    for (std::size_t row = 0; row < rows; row += kernel_.rows, left += kernel_.rows * depth) {
        float* to = results + row * stride;
        const std::size_t valid = std::min(kernel_.rows, rows - row);
        if (valid == kernel_.rows && columns == kernel_.columns) {
            kernel_.multiply(depth, left, right, to, stride, add);
            continue;
        }
        float tile[kMostTile];
        kernel_.multiply(depth, left, right, tile, kernel_.columns, false);
        for (std::size_t i = 0; i < valid; ++i) {
            for (std::size_t j = 0; j < columns; ++j) {
                float& result = to[i * stride + j];
                result = tile[i * kernel_.columns + j] + (add ? result : 0);
            }
        }
    }
}

void Trainer::pack_rows(const View& left, std::size_t first, std::size_t end, std::size_t begin, std::size_t depth,
                        float* to) const {
    for (; first < end; first += kernel_.rows, to += kernel_.rows * depth) {
        kernel_.pack_left(left, first, std::min(kernel_.rows, end - first), begin, depth, to);
    }
}

void Trainer::multiply(const View& left, std::size_t rows, std::size_t inner, std::span<const Product> products,
                       const Rows& done) {
    struct Panel {
        const Product* product;
        std::size_t first, columns;
    };
    std::vector<Panel> panels;
    for (const Product& product : products) {
        for (std::size_t first = 0; first < product.columns; first += kernel_.columns) {
            panels.push_back({&product, first, std::min(kernel_.columns, product.columns - first)});
        }
    }
    const std::size_t depths = divided(inner, kDepth), depth = divided(inner, depths);
    const std::size_t most = kColumns / kernel_.columns;
    const std::size_t share = divided(rows, kShares * pool_.size());  // so that all threads are busy to the end
    const std::size_t some = std::min(kRows, divided(share, kernel_.rows) * kernel_.rows);
    const std::size_t panel_size = depth * kernel_.columns;
    right_.resize(std::max(right_.size(), std::min(most, panels.size()) * panel_size));
    std::atomic<std::size_t> next;
    pool_.run([&](std::size_t thread) {
        std::vector<float>& own = own_[thread];
        own.resize(std::max(own.size(), (kRows + kernel_.rows) * depth));
        for (std::size_t at = 0; at < panels.size(); at += most) {
            const std::span<const Panel> these(panels.data() + at, std::min(most, panels.size() - at));
            for (std::size_t begin = 0; begin < inner; begin += depth) {
                const std::size_t size = std::min(depth, inner - begin);
                for (std::size_t i = thread; i < these.size(); i += pool_.size()) {
                    kernel_.pack_right(these[i].product->right, these[i].first, these[i].columns, begin, size,
                                       right_.data() + i * panel_size);
                }
                if (thread == 0) next = 0;
                pool_.barrier();
                for (std::size_t first; (first = next.fetch_add(some)) < rows;) {
                    const std::size_t end = std::min(rows, first + some);
                    pack_rows(left, first, end, begin, size, own.data());
                    for (std::size_t i = 0; i < these.size(); ++i) {
                        const Product& product = *these[i].product;
                        float* to = product.results + first * product.columns + these[i].first;
                        multiply_panel(own.data(), end - first, size, right_.data() + i * panel_size, these[i].columns,
                                       to, product.columns, begin || product.add);
                    }
                    if (done && at + these.size() == panels.size() && begin + size == inner) done(first, end);
                }
                pool_.barrier();
            }
        }
    });
}

void Trainer::in_rows(std::size_t rows, const Rows& work) {
    std::atomic<std::size_t> next = 0;
    pool_.run([&](std::size_t) {
        for (std::size_t first; (first = next.fetch_add(kRows)) < rows;) work(first, std::min(rows, first + kRows));
    });
}

void Trainer::multiply(const View& left, const View& right, std::size_t rows, std::size_t inner, std::size_t columns,
                       float* results) {
    const std::lock_guard lock(mutex_);
    const Product product{right, columns, results};
    multiply(left, rows, inner, {&product, 1});
}

// --- attention ---

// The queries of one key-value head in one row of the batch; by one thread. Positions are those of the row.
class Trainer::Attention {
 public:
    Attention(const Trainer& trainer, const LayerShape& shape, const Places& places, std::vector<float>& memory,
              std::size_t number)
        : trainer_(trainer),
          kernel_(trainer.kernel_),
          shape_(shape),
          token_(number / shape.kv_heads * shape.time),
          group_(number % shape.kv_heads),
          begins_(places.begins ? places.begins + token_ : nullptr),
          factor_(1 / std::sqrt(static_cast<float>(shape.head_dim))),
          time_(rounded(shape.time)),
          width_(rounded(shape.head_dim)) {
        const std::size_t packed = time_ * width_, scores = kQueries * time_;
        const std::size_t left = (kQueries + kernel_.rows) * (std::max(time_, width_) + kernel_.rows);
        memory.resize(std::max(memory.size(), 4 * packed + 2 * scores + left + kQueries * width_));
        float* free = memory.data();
        const auto take = [&](std::size_t size) { return std::exchange(free, free + size); };
        for (float** own : {&keys_across_, &values_, &values_across_, &keys_}) *own = take(packed);
        scores_ = take(scores), slopes_ = take(scores), left_ = take(left), right_ = take(kQueries * width_);
    }

    void forward(const LayerStates<float>& states) {
        pack(of_group(states.keys).transposed(), shape_.head_dim, shape_.time, keys_across_);
        pack(of_group(states.values), shape_.time, shape_.head_dim, values_);
        in_blocks([&](const Block& block) {
            weigh(states.queries, block);
            multiply({scores_, time_, 1}, block.queries(), block.keys(), values_ + block.low * kernel_.columns,
                     shape_.time, shape_.head_dim, at(states.attended, block), shape_.queries(), false);
        });
    }

    // The slopes of keys and values are zeros before.
    void backward(const LayerStates<const float>& states, const float* slope, float* queries, float* keys,
                  float* values) {
        const std::size_t d = shape_.head_dim, group = token_ * shape_.keys() + group_ * d;
        pack(of_group(states.keys).transposed(), d, shape_.time, keys_across_);
        pack(of_group(states.values).transposed(), d, shape_.time, values_across_);
        pack(of_group(states.keys), shape_.time, d, keys_);
        in_blocks([&](const Block& block) {
            const View given{at(slope, block), shape_.queries(), 1};
            weigh(states.queries, block);
            multiply(given, block.queries(), d, values_across_ + block.low * d, d, block.keys(), slopes_, time_, false);
            for (std::size_t i = 0; i < block.queries(); ++i) {
                const std::size_t offset = i * shape_.queries(), begin = begin_of(block, i);
                const float along = kernel_.dot(at(slope, block) + offset, at(states.attended, block) + offset, d);
                float* own = slopes_ + i * time_;
                const std::size_t size = block.first + i + 1 - block.low - begin;
                std::fill(own, own + begin, 0.0f);
                kernel_.score_slopes(scores_ + i * time_ + begin, own + begin, size, along, factor_);
                std::fill(own + begin + size, own + block.keys(), 0.0f);
            }
            multiply({slopes_, time_, 1}, block.queries(), block.keys(), keys_ + block.low * kernel_.columns,
                     shape_.time, d, at(queries, block), shape_.queries(), false);
            const std::size_t low = group + block.low * shape_.keys();
            pack(given, block.queries(), d, right_);
            multiply({scores_, 1, time_}, block.keys(), block.queries(), right_, block.queries(), d, values + low,
                     shape_.keys(), true);
            pack({at(states.queries, block), shape_.queries(), 1}, block.queries(), d, right_);
            multiply({slopes_, 1, time_}, block.keys(), block.queries(), right_, block.queries(), d, keys + low,
                     shape_.keys(), true);
        });
    }

 private:
    // Neighbouring queries of a head, and the first of the keys that they look at, at the begin of a panel.
    struct Block {
        std::size_t head, first, end, low;
        std::size_t queries() const { return end - first; }
        std::size_t keys() const { return end - low; }
    };

    std::size_t rounded(std::size_t size) const { return divided(size, kernel_.columns) * kernel_.columns; }

    template <class Work>
    void in_blocks(const Work& work) const {
        const std::size_t heads = shape_.heads / shape_.kv_heads;
        for (std::size_t head = group_ * heads; head < (group_ + 1) * heads; ++head) {
            for (std::size_t first = 0; first < shape_.time; first += kQueries) {
                const std::size_t end = std::min(shape_.time, first + kQueries);
                std::size_t low = 0;
                if (begins_) low = static_cast<std::size_t>(*std::min_element(begins_ + first, begins_ + end));
                work({head, first, end, low / kernel_.columns * kernel_.columns});
            }
        }
    }

    // Where a block's queries, or what belongs to them, are.
    template <class T>
    T* at(T* numbers, const Block& block) const {
        return numbers + (token_ + block.first) * shape_.queries() + block.head * shape_.head_dim;
    }

    View of_group(const float* numbers) const {
        return {numbers + token_ * shape_.keys() + group_ * shape_.head_dim, shape_.keys(), 1};
    }

    // The first of the block's keys that its query i sees.
    std::size_t begin_of(const Block& block, std::size_t i) const {
        return begins_ ? static_cast<std::size_t>(begins_[block.first + i]) - block.low : 0;
    }

    void pack(const View& right, std::size_t rows, std::size_t columns, float* to) const {
        for (std::size_t first = 0; first < columns; first += kernel_.columns, to += rows * kernel_.columns) {
            kernel_.pack_right(right, first, std::min(kernel_.columns, columns - first), 0, rows, to);
        }
    }

    // Left [rows, inner] times a packed matrix, whose panels have so many rows.
    void multiply(const View& left, std::size_t rows, std::size_t inner, const float* right, std::size_t panel_rows,
                  std::size_t columns, float* results, std::size_t stride, bool add) const {
        trainer_.pack_rows(left, 0, rows, 0, inner, left_);
        for (std::size_t first = 0; first < columns; first += kernel_.columns, right += panel_rows * kernel_.columns) {
            trainer_.multiply_panel(left_, rows, inner, right, std::min(kernel_.columns, columns - first),
                                    results + first, stride, add);
        }
    }

    // Each query's weights of the keys: zeros where it does not look.
    void weigh(const float* queries, const Block& block) const {
        const std::size_t d = shape_.head_dim;
        multiply({at(queries, block), shape_.queries(), 1}, block.queries(), d, keys_across_ + block.low * d, d,
                 block.keys(), scores_, time_, false);
        for (std::size_t i = 0; i < block.queries(); ++i) {
            float* own = scores_ + i * time_;
            const std::size_t begin = begin_of(block, i), size = block.first + i + 1 - block.low - begin;
            float highest, sum;
            std::fill(own, own + begin, 0.0f);
            kernel_.probabilities(own + begin, size, factor_, &highest, &sum);
            std::fill(own + begin + size, own + block.keys(), 0.0f);
        }
    }

    const Trainer& trainer_;
    const Training& kernel_;
    const LayerShape& shape_;
    const std::size_t token_, group_;
    const std::int64_t* begins_;
    const float factor_;
    const std::size_t time_, width_;  // whole panels
    float *keys_across_, *values_, *values_across_, *keys_, *scores_, *slopes_, *left_, *right_;
};

void Trainer::attend(const LayerShape& shape, const Places& places, const std::function<void(Attention&)>& work) {
    const std::size_t count = shape.batch * shape.kv_heads;
    std::atomic<std::size_t> next = 0;
    pool_.run([&](std::size_t thread) {
        for (std::size_t number; (number = next.fetch_add(1)) < count;) {
            Attention attention(*this, shape, places, own_[thread], number);
            work(attention);
        }
    });
}

// --- a layer ---

void Trainer::normalise(const float* x, std::size_t dim, float epsilon, std::size_t first, std::size_t end,
                        float* inverse) const {
    for (std::size_t i = first; i < end; ++i) {
        const float* row = x + i * dim;
        inverse[i] = 1 / std::sqrt(kernel_.dot(row, row, dim) / static_cast<float>(dim) + epsilon);
    }
}

void Trainer::rotate(const LayerShape& shape, const Places& places, std::size_t heads, float direction,
                     std::size_t first, std::size_t end, float* numbers) {
    const std::size_t d = shape.head_dim;
    for (std::size_t token = first; token < end; ++token) {
        const float* angles = places.rotation + token % places.rotations * d;
        for (float* head = numbers + token * heads * d; head < numbers + (token + 1) * heads * d; head += d) {
            for (std::size_t i = 0; i < d; i += 2) {
                const float x = head[i], y = head[i + 1], cos = angles[i], sin = angles[i + 1] * direction;
                head[i] = x * cos - y * sin;
                head[i + 1] = x * sin + y * cos;
            }
        }
    }
}

void Trainer::forward(const LayerShape& shape, const LayerWeights<const float>& weights, const Places& places,
                      const float* x, const LayerStates<float>& states, float* results) {
    const std::lock_guard lock(mutex_);
    const std::size_t tokens = shape.tokens(), dim = shape.dim, hidden = shape.hidden;
    in_rows(tokens, [&](std::size_t first, std::size_t end) {
        normalise(x, dim, shape.epsilon, first, end, states.inverse);
        std::copy(x + first * dim, x + end * dim, states.between + first * dim);
    });
    const auto scaled = [&](const float* matrix, const float* scale) {
        return View{matrix, dim, 1, nullptr, scale}.transposed();
    };
    multiply({x, dim, 1, states.inverse}, tokens, dim,
             std::array<Product, 3>{{{scaled(weights.wq, weights.attention_norm), shape.queries(), states.queries},
                                     {scaled(weights.wk, weights.attention_norm), shape.keys(), states.keys},
                                     {scaled(weights.wv, weights.attention_norm), shape.keys(), states.values}}},
             [&](std::size_t first, std::size_t end) {
                 rotate(shape, places, shape.heads, 1, first, end, states.queries);
                 rotate(shape, places, shape.kv_heads, 1, first, end, states.keys);
             });
    attend(shape, places, [&](Attention& attention) { attention.forward(states); });
    multiply({states.attended, shape.queries(), 1}, tokens, shape.queries(),
             std::array<Product, 1>{{{View{weights.wo, shape.queries(), 1}.transposed(), dim, states.between, true}}},
             [&](std::size_t first, std::size_t end) {
                 normalise(states.between, dim, shape.epsilon, first, end, states.between_inverse);
                 std::copy(states.between + first * dim, states.between + end * dim, results + first * dim);
             });
    std::vector<float>& gated = buffers_[0];
    gated.resize(tokens * hidden);
    multiply({states.between, dim, 1, states.between_inverse}, tokens, dim,
             std::array<Product, 2>{{{scaled(weights.w1, weights.ffn_norm), hidden, states.gate},
                                     {scaled(weights.w3, weights.ffn_norm), hidden, states.up}}},
             [&](std::size_t first, std::size_t end) {
                 const std::size_t at = first * hidden;
                 kernel_.gate(states.gate + at, states.up + at, (end - first) * hidden, gated.data() + at);
             });
    multiply({gated.data(), hidden, 1}, tokens, hidden,
             std::array<Product, 1>{{{View{weights.w2, hidden, 1}.transposed(), dim, results, true}}});
}

void Trainer::backward(const LayerShape& shape, const LayerWeights<const float>& weights, const Places& places,
                       const float* x, const LayerStates<const float>& states, const float* slope, float* x_slope,
                       const LayerWeights<float>& slopes) {
    const std::lock_guard lock(mutex_);
    const std::size_t tokens = shape.tokens(), dim = shape.dim, hidden = shape.hidden;
    const auto buffer = [&](std::size_t number, std::size_t size) {
        buffers_[number].resize(std::max(buffers_[number].size(), size));
        return buffers_[number].data();
    };
    const auto across = [](const float* numbers, std::size_t columns) { return View{numbers, 1, columns}; };
    // 1. The feed-forward network.
    float *gated = buffer(0, tokens * hidden), *gate = buffer(1, tokens * hidden), *up = buffer(2, tokens * hidden);
    multiply({slope, dim, 1}, tokens, dim, std::array<Product, 1>{{{View{weights.w2, hidden, 1}, hidden, up}}},
             [&](std::size_t first, std::size_t end) {
                 const std::size_t at = first * hidden;
                 kernel_.gate_slopes(states.gate + at, states.up + at, (end - first) * hidden, gated + at, gate + at,
                                     up + at);
             });
    multiply(across(slope, dim), dim, tokens, std::array<Product, 1>{{{View{gated, hidden, 1}, hidden, slopes.w2}}});
    const View unit{states.between, dim, 1, states.between_inverse};
    multiply(across(gate, hidden), hidden, tokens, std::array<Product, 1>{{{unit, dim, slopes.w1}}});
    multiply(across(up, hidden), hidden, tokens, std::array<Product, 1>{{{unit, dim, slopes.w3}}});
    float* unit_slope = buffer(0, tokens * dim);
    const auto scaled = [&](const float* matrix, const float* scale) { return View{matrix, dim, 1, nullptr, scale}; };
    multiply({gate, hidden, 1}, tokens, hidden,
             std::array<Product, 1>{{{scaled(weights.w1, weights.ffn_norm), dim, unit_slope}}});
    float* between = buffer(3, tokens * dim);
    multiply({up, hidden, 1}, tokens, hidden,
             std::array<Product, 1>{{{scaled(weights.w3, weights.ffn_norm), dim, unit_slope, true}}},
             [&](std::size_t first, std::size_t end) {
                 std::copy(slope + first * dim, slope + end * dim, between + first * dim);
                 for (std::size_t i = first; i < end; ++i) {
                     kernel_.norm_slope(states.between + i * dim, states.between_inverse[i], unit_slope + i * dim, dim,
                                        between + i * dim);
                 }
             });
    unscale(weights.ffn_norm, dim, {{weights.w1, slopes.w1, hidden}, {weights.w3, slopes.w3, hidden}}, slopes.ffn_norm);
    // 2. Attention.
    float* attended = buffer(0, tokens * shape.queries());
    multiply({between, dim, 1}, tokens, dim,
             std::array<Product, 1>{{{View{weights.wo, shape.queries(), 1}, shape.queries(), attended}}});
    multiply(across(between, dim), dim, tokens,
             std::array<Product, 1>{{{View{states.attended, shape.queries(), 1}, shape.queries(), slopes.wo}}});
    float* queries = buffer(1, tokens * shape.queries());
    float *keys = buffer(2, 2 * tokens * shape.keys()), *values = keys + tokens * shape.keys();
    std::fill(keys, keys + 2 * tokens * shape.keys(), 0.0f);
    attend(shape, places, [&](Attention& attention) { attention.backward(states, attended, queries, keys, values); });
    in_rows(tokens, [&](std::size_t first, std::size_t end) {
        rotate(shape, places, shape.heads, -1, first, end, queries);
        rotate(shape, places, shape.kv_heads, -1, first, end, keys);
    });
    const View given{x, dim, 1, states.inverse};
    multiply(across(queries, shape.queries()), shape.queries(), tokens,
             std::array<Product, 1>{{{given, dim, slopes.wq}}});
    multiply(across(keys, shape.keys()), shape.keys(), tokens, std::array<Product, 1>{{{given, dim, slopes.wk}}});
    multiply(across(values, shape.keys()), shape.keys(), tokens, std::array<Product, 1>{{{given, dim, slopes.wv}}});
    unit_slope = buffer(0, tokens * dim);
    const auto back = [&](const float* some, std::size_t columns, const float* matrix, bool add, const Rows& done) {
        multiply({some, columns, 1}, tokens, columns,
                 std::array<Product, 1>{{{scaled(matrix, weights.attention_norm), dim, unit_slope, add}}}, done);
    };
    back(queries, shape.queries(), weights.wq, false, {});
    back(keys, shape.keys(), weights.wk, true, {});
    back(values, shape.keys(), weights.wv, true, [&](std::size_t first, std::size_t end) {
        std::copy(between + first * dim, between + end * dim, x_slope + first * dim);
        for (std::size_t i = first; i < end; ++i) {
            kernel_.norm_slope(x + i * dim, states.inverse[i], unit_slope + i * dim, dim, x_slope + i * dim);
        }
    });
    unscale(weights.attention_norm, dim,
            {{weights.wq, slopes.wq, shape.queries()},
             {weights.wk, slopes.wk, shape.keys()},
             {weights.wv, slopes.wv, shape.keys()}},
            slopes.attention_norm);
}

void Trainer::unscale(const float* scale, std::size_t dim, std::initializer_list<Scaled> matrices, float* scale_slope) {
    std::fill(scale_slope, scale_slope + dim, 0.0f);
    in_rows(divided(dim, kLanes), [&](std::size_t first_group, std::size_t end_group) {
        const std::size_t first = first_group * kLanes, end = std::min(dim, end_group * kLanes);
        for (const Scaled& matrix : matrices) {
            for (std::size_t row = 0; row < matrix.rows; ++row) {
                const float* weight = matrix.weight + row * dim;
                float* slope = matrix.slope + row * dim;
                for (std::size_t i = first; i < end; ++i) {
                    scale_slope[i] += slope[i] * weight[i];
                    slope[i] *= scale[i];
                }
            }
        }
    });
}

// --- the head ---

double Trainer::loss(const float* hidden, const float* head, const std::int64_t* targets, std::size_t tokens,
                     std::size_t dim, std::size_t vocabulary, std::size_t logits, float* hidden_slope,
                     float* head_slope) {
    const std::lock_guard lock(mutex_);
    const std::size_t most = std::max<std::size_t>(1, logits / vocabulary);
    std::vector<double> losses(tokens);
    for (std::size_t begin = 0; begin < tokens; begin += most) {
        const std::size_t count = std::min(most, tokens - begin);
        const View given{hidden + begin * dim, dim, 1};
        buffers_[0].resize(std::max(buffers_[0].size(), count * vocabulary));
        float* slopes = buffers_[0].data();
        multiply(given, count, dim, std::array<Product, 1>{{{View{head, dim, 1}.transposed(), vocabulary, slopes}}},
                 [&](std::size_t first, std::size_t end) {
                     for (std::size_t i = first; i < end; ++i) {
                         float* row = slopes + i * vocabulary;
                         const std::int64_t target = targets[begin + i];
                         if (target < 0) {
                             std::fill(row, row + vocabulary, 0.0f);
                             continue;
                         }
                         const float reached = row[target];
                         float highest, sum;
                         kernel_.probabilities(row, vocabulary, 1, &highest, &sum);
                         losses[begin + i] = std::log(static_cast<double>(sum)) + (highest - reached);
                         row[target] -= 1;
                     }
                 });
        multiply({slopes, vocabulary, 1}, count, vocabulary,
                 std::array<Product, 1>{{{View{head, dim, 1}, dim, hidden_slope + begin * dim}}});
        if (head_slope) {
            multiply({slopes, 1, vocabulary}, vocabulary, count,
                     std::array<Product, 1>{{{given, dim, head_slope, begin > 0}}});
        }
    }
    return std::accumulate(losses.begin(), losses.end(), 0.0);
}

}  // namespace model
