// Functions of one vector, as templates over the lanes V (lanes.hpp).
#pragma once

#include <limits>

#include "kernels/kernels.hpp"
#include "kernels/lanes.hpp"
#include "kernels/products.hpp"

namespace model {

// Returns e^x to 2 units in the last place, by the polynomial of Cephes' expf. Far below 0, the result is 0 or nearly
// 0.
template <class V>
typename V::F exponential(typename V::F x) {
    using F = typename V::F;
    x = V::min(V::max(x, V::set(-87.0f)), V::set(88.0f));
    const typename V::I power = V::to_integers(V::mul(x, V::set(1.44269504088896341f)));
    const F whole = V::to_floats(power);
    F rest = V::fma(whole, V::set(-0.693359375f), x);
    rest = V::fma(whole, V::set(2.12194440e-4f), rest);
    F sum = V::set(1.9875691500e-4f);
    for (const float factor :
         {1.3981999507e-3f, 8.3334519073e-3f, 4.1665795894e-2f, 1.6666665459e-1f, 5.0000001201e-1f}) {
        sum = V::fma(sum, rest, V::set(factor));
    }
    sum = V::add(V::fma(V::mul(sum, rest), rest, rest), V::set(1.0f));
    return V::times_power_of_two(sum, power);
}

template <class V>
void softmax(float* scores, std::size_t size, float* largest, float* total) {
    using F = typename V::F;
    const std::size_t whole = (size + kLanes - 1) / kLanes * kLanes;
    for (std::size_t i = size; i < whole; ++i) scores[i] = -std::numeric_limits<float>::infinity();
    F most = V::load(scores);
    for (std::size_t i = kLanes; i < whole; i += kLanes) most = V::max(most, V::load(scores + i));
    *largest = V::largest(most);
    const F shift = V::set(-*largest);
    F sum = V::set(0.0f);
    for (std::size_t i = 0; i < whole; i += kLanes) {
        const F number = exponential<V>(V::add(V::load(scores + i), shift));
        V::store(scores + i, number);
        if (i + kLanes <= size) sum = V::add(sum, number);
    }
    *total = V::sum(sum);
    if (size < whole) {
        for (std::size_t i = whole - kLanes; i < size; ++i) *total += scores[i];
        for (std::size_t i = size; i < whole; ++i) scores[i] = 0;
    }
}

template <class V>
void gate(const float* x, const float* y, float* results) {
    const auto number = V::load(x);
    const auto below = V::add(V::set(1.0f), exponential<V>(V::mul(number, V::set(-1.0f))));
    V::store(results, V::mul(V::div(number, below), V::load(y)));
}

template <class V>
void normalise(const float* numbers, const float* weights, std::size_t size, float epsilon, float* results) {
    auto squares = V::set(0.0f);
    std::size_t i = 0;
    for (; i + kLanes <= size; i += kLanes) {
        const auto number = V::load(numbers + i);
        squares = V::fma(number, number, squares);
    }
    float sum = V::sum(squares);
    for (; i < size; ++i) sum += numbers[i] * numbers[i];
    const float factor = 1.0f / V::root(sum / static_cast<float>(size) + epsilon);
    for (i = 0; i + kLanes <= size; i += kLanes) {
        V::store(results + i, V::mul(V::mul(V::load(numbers + i), V::set(factor)), V::load(weights + i)));
    }
    for (; i < size; ++i) results[i] = numbers[i] * factor * weights[i];
}

template <class V>
void quantize(const float* numbers, std::size_t tiles, std::size_t step, TileBytes* bytes, TileScale* scales) {
    constexpr float kLargest = 127 * 256 + 127;  // the largest integer whose two bytes are signed bytes
    for (std::size_t tile = 0; tile < tiles; ++tile, numbers += kTile, bytes += step, scales += step) {
        const typename V::F halves[2] = {V::load(numbers), V::load(numbers + kLanes)};
        const float largest = V::largest(V::max(V::absolute(halves[0]), V::absolute(halves[1])));
        const float scale = largest / kLargest;
        // The inverse of so small a scale would be infinite; such tiles count as zeros.
        const auto inverse = V::set(largest > 1e-30f ? 1.0f / scale : 0.0f);
        scales->scale = scale;
        scales->sums[0] = 0;
        for (std::size_t i = 0; i < 2; ++i) {
            const auto integers = V::to_integers(V::mul(halves[i], inverse));
            Integers<V>::keep(integers, i, bytes->bytes);
            // The sum of the quantized numbers, not of the original ones, so that offsets match the integers.
            scales->sums[1 + i] = V::sum(V::to_floats(integers)) * scale;
            scales->sums[0] += scales->sums[1 + i];
        }
    }
}

template <class V>
void narrow(const float* numbers, std::size_t size, Half* results) {
    for (std::size_t i = 0; i < size; i += kLanes) V::store_halves(results + i, V::load(numbers + i));
}

}  // namespace model
