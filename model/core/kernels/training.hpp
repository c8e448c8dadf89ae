// The functions of TrainingKernel, as templates over the lanes V (lanes.hpp). A tile has V::kTileRows rows of
// V::kTileWide sixteens of columns.
#pragma once

#include <limits>

#include "kernels/kernels.hpp"
#include "kernels/lanes.hpp"
#include "kernels/vectors.hpp"

namespace model {

// --- products ---

template <class V>
void pack_left(const View& view, std::size_t first, std::size_t count, std::size_t begin, std::size_t depth,
               float* to) {
    constexpr std::size_t kRows = V::kTileRows;
    const float* from = view.numbers + first * view.row_stride + begin * view.column_stride;
    if (count == kRows && view.row_stride == 1) {
        for (std::size_t k = 0; k < depth; ++k) std::memcpy(to + k * kRows, from + k * view.column_stride, 4 * kRows);
    } else if (count == kRows) {
        for (std::size_t k = 0; k < depth; ++k) {
            unrolled<kRows>([&](auto i) { to[k * kRows + i] = from[i * view.row_stride + k * view.column_stride]; });
        }
    } else {
        for (std::size_t k = 0; k < depth; ++k) {
            for (std::size_t i = 0; i < kRows; ++i) {
                to[k * kRows + i] = i < count ? from[i * view.row_stride + k * view.column_stride] : 0;
            }
        }
    }
    if (view.row_scales) {
        float scales[kRows] = {};
        for (std::size_t i = 0; i < count; ++i) scales[i] = view.row_scales[first + i];
        for (std::size_t k = 0; k < depth; ++k) {
            for (std::size_t i = 0; i < kRows; ++i) to[k * kRows + i] *= scales[i];
        }
    }
}

template <class V>
void pack_right(const View& view, std::size_t first, std::size_t count, std::size_t begin, std::size_t depth,
                float* to) {
    constexpr std::size_t kColumns = V::kTileWide * kLanes;
    const float* from = view.numbers + begin * view.row_stride + first * view.column_stride;
    if (count == kColumns && view.column_stride == 1) {
        for (std::size_t k = 0; k < depth; ++k) {
            unrolled<V::kTileWide>([&](auto j) {
                V::store(to + k * kColumns + j * kLanes, V::load(from + k * view.row_stride + j * kLanes));
            });
        }
    } else {
        for (std::size_t j = 0; j < kColumns; ++j) {
            for (std::size_t k = 0; k < depth; ++k) {
                to[k * kColumns + j] = j < count ? from[k * view.row_stride + j * view.column_stride] : 0;
            }
        }
    }
    if (view.row_scales) {
        for (std::size_t k = 0; k < depth; ++k) {
            const auto scale = V::set(view.row_scales[begin + k]);
            unrolled<V::kTileWide>([&](auto j) {
                float* own = to + k * kColumns + j * kLanes;
                V::store(own, V::mul(V::load(own), scale));
            });
        }
    }
    if (view.column_scales) {
        float scales[kColumns] = {};
        for (std::size_t j = 0; j < count; ++j) scales[j] = view.column_scales[first + j];
        for (std::size_t k = 0; k < depth; ++k) {
            unrolled<V::kTileWide>([&](auto j) {
                float* own = to + k * kColumns + j * kLanes;
                V::store(own, V::mul(V::load(own), V::load(scales + j * kLanes)));
            });
        }
    }
}

template <class V>
void multiply_tile(std::size_t depth, const float* left, const float* right, float* results, std::size_t stride,
                   bool add) {
    using F = typename V::F;
    constexpr std::size_t kRows = V::kTileRows, kWide = V::kTileWide;
    F sums[kRows][kWide];
    unrolled<kRows>([&](auto i) {
        unrolled<kWide>([&](auto j) { sums[i][j] = V::set(0.0f); });
        V::prefetch(results + i * stride);
    });
    for (std::size_t k = 0; k < depth; ++k, left += kRows, right += kWide * kLanes) {
        F some[kWide];
        unrolled<kWide>([&](auto j) { some[j] = V::load(right + j * kLanes); });
        unrolled<kRows>([&](auto i) {
            const F number = V::set(left[i]);
            unrolled<kWide>([&](auto j) { sums[i][j] = V::fma(some[j], number, sums[i][j]); });
        });
    }
    unrolled<kRows>([&](auto i) {
        unrolled<kWide>([&](auto j) {
            float* to = results + i * stride + j * kLanes;
            V::store(to, add ? V::add(V::load(to), sums[i][j]) : sums[i][j]);
        });
    });
}

template <class V>
void multiply(const float* left, std::size_t rows, std::size_t depth, const float* right, std::size_t columns,
              float* results, std::size_t stride, bool add) {
    constexpr std::size_t kRows = V::kTileRows, kColumns = V::kTileWide * kLanes;
    for (std::size_t row = 0; row < rows; row += kRows, left += kRows * depth) {
        float* to = results + row * stride;
        const std::size_t valid = rows - row < kRows ? rows - row : kRows;
        if (valid == kRows && columns == kColumns) {
            multiply_tile<V>(depth, left, right, to, stride, add);
            continue;
        }
        float tile[kRows * kColumns];
        multiply_tile<V>(depth, left, right, tile, kColumns, false);
        for (std::size_t i = 0; i < valid; ++i) {
            for (std::size_t j = 0; j < columns; ++j) {
                float& result = to[i * stride + j];
                result = tile[i * kColumns + j] + (add ? result : 0);
            }
        }
    }
}

// --- vectors ---

// Sixteen numbers of a vector, or fewer at its end. Missing numbers are loaded as zeros and not stored.
template <class V>
struct Sixteens {
    std::size_t count;
    typename V::F load(const float* numbers) const {
        if (count == kLanes) return V::load(numbers);
        float some[kLanes] = {};
        std::memcpy(some, numbers, count * sizeof(float));
        return V::load(some);
    }
    void store(float* numbers, const typename V::F& x) const {
        if (count == kLanes) return V::store(numbers, x);
        float some[kLanes];
        V::store(some, x);
        std::memcpy(numbers, some, count * sizeof(float));
    }
};

// Calls body(offset, Sixteens) for each sixteen numbers of a vector, and for the rest.
template <class V, class Body>
void in_sixteens(std::size_t size, const Body& body) {
    std::size_t i = 0;
    for (; i + kLanes <= size; i += kLanes) body(i, Sixteens<V>{kLanes});
    if (i < size) body(i, Sixteens<V>{size - i});
}

template <class V>
float dot(const float* x, const float* y, std::size_t size) {
    auto sum = V::set(0.0f);
    in_sixteens<V>(size, [&](std::size_t i, auto at) { sum = V::fma(at.load(x + i), at.load(y + i), sum); });
    return V::sum(sum);
}

template <class V>
void add(const float* from, float factor, std::size_t size, float* to) {
    const auto factors = V::set(factor);
    in_sixteens<V>(
        size, [&](std::size_t i, auto at) { at.store(to + i, V::fma(at.load(from + i), factors, at.load(to + i))); });
}

// Returns 1 / (1 + e^-x).
template <class V>
typename V::F sigmoid(const typename V::F& x) {
    const auto one = V::set(1.0f);
    return V::div(one, V::add(one, exponential<V>(V::mul(x, V::set(-1.0f)))));
}

template <class V>
void gate_all(const float* gate, const float* up, std::size_t size, float* results) {
    in_sixteens<V>(size, [&](std::size_t i, auto at) {
        const auto x = at.load(gate + i);
        at.store(results + i, V::mul(V::mul(x, sigmoid<V>(x)), at.load(up + i)));
    });
}

template <class V>
void gate_gradients(const float* gate, const float* up, std::size_t size, float* results, float* gate_gradient,
                    float* up_gradient) {
    const auto one = V::set(1.0f), minus = V::set(-1.0f);
    in_sixteens<V>(size, [&](std::size_t i, auto at) {
        const auto x = at.load(gate + i), y = at.load(up + i), gradient = at.load(up_gradient + i);
        const auto some = sigmoid<V>(x), silu = V::mul(x, some);
        at.store(results + i, V::mul(silu, y));
        at.store(up_gradient + i, V::mul(gradient, silu));
        // silu' = sigmoid * (1 + x * (1 - sigmoid))
        const auto own = V::mul(some, V::fma(x, V::fma(some, minus, one), one));
        at.store(gate_gradient + i, V::mul(V::mul(gradient, y), own));
    });
}

template <class V>
void norm_gradient(const float* x, float inverse, const float* unit_gradient, std::size_t size, float* gradient_of_x) {
    // gradient = (unit_gradient - unit * mean(unit * unit_gradient)) * inverse
    const float along = dot<V>(x, unit_gradient, size) * inverse / static_cast<float>(size);
    const auto factor = V::set(inverse), minus = V::set(-along * inverse);
    in_sixteens<V>(size, [&](std::size_t i, auto at) {
        const auto gradient = V::fma(at.load(x + i), minus, at.load(unit_gradient + i));
        at.store(gradient_of_x + i, V::fma(gradient, factor, at.load(gradient_of_x + i)));
    });
}

template <class V>
void probabilities(float* scores, std::size_t size, float factor, float* highest, float* total) {
    const auto lowest = V::set(-std::numeric_limits<float>::infinity());
    auto most = lowest;
    in_sixteens<V>(size, [&](std::size_t i, auto at) {
        if (at.count == kLanes) most = V::max(most, V::load(scores + i));
    });
    float largest = V::largest(most);
    for (std::size_t i = size / kLanes * kLanes; i < size; ++i) largest = scores[i] > largest ? scores[i] : largest;
    const auto factors = V::set(factor), shift = V::set(-factor * largest);
    auto sums = V::set(0.0f);
    float sum = 0;
    in_sixteens<V>(size, [&](std::size_t i, auto at) {
        const auto number = exponential<V>(V::fma(at.load(scores + i), factors, shift));
        at.store(scores + i, number);
        if (at.count == kLanes) {
            sums = V::add(sums, number);
        } else {
            for (std::size_t j = i; j < size; ++j) sum += scores[j];
        }
    });
    sum += V::sum(sums);
    const auto inverse = V::set(1 / sum);
    in_sixteens<V>(size, [&](std::size_t i, auto at) { at.store(scores + i, V::mul(at.load(scores + i), inverse)); });
    *highest = factor * largest;
    *total = sum;
}

template <class V>
void score_gradients(const float* probabilities, float* gradients, std::size_t size, float along, float factor) {
    const auto minus = V::set(-along), factors = V::set(factor);
    in_sixteens<V>(size, [&](std::size_t i, auto at) {
        const auto gradient = V::add(at.load(gradients + i), minus);
        at.store(gradients + i, V::mul(V::mul(gradient, at.load(probabilities + i)), factors));
    });
}

template <class V>
TrainingKernel make_training_kernel() {
    return {V::kTileRows,
            V::kTileWide * kLanes,
            1,
            sizeof(float),
            pack_left<V>,
            pack_right<V>,
            multiply<V>,
            dot<V>,
            gate_all<V>,
            gate_gradients<V>,
            norm_gradient<V>,
            probabilities<V>,
            score_gradients<V>,
            add<V>};
}

}  // namespace model
