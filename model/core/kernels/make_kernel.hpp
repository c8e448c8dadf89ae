// The table of all kernels for the lanes V (lanes.hpp).
#pragma once

#include "kernels/attention.hpp"
#include "kernels/attention_bytes.hpp"
#include "kernels/products.hpp"
#include "kernels/training.hpp"
#include "kernels/vectors.hpp"

namespace model {

template <class V>
Kernel make_kernel(const char* name) {
    constexpr std::size_t kSizes = V::kSizes;
    Kernel kernel{name,       std::size_t{1} << (kSizes - 1),
                  16,         kMostVectors + 1,
                  {},         {},
                  nullptr,    quantize<V>,
                  nullptr,    normalise<V>,
                  softmax<V>, gate<V>,
                  narrow<V>,  make_training_kernel<V>(),
                  false,      {}};
    const auto sizes = [&]<std::size_t... kPower>(std::index_sequence<kPower...>) {
        const auto set = [&](Kind kind, auto... products) {
            std::size_t power = 0;
            ((kernel.products[static_cast<std::size_t>(kind)][power++] = products), ...);
        };
        set(Kind::kF32, multiply_numbers<V, float, std::size_t{1} << kPower>...);
        set(Kind::kF16, multiply_numbers<V, Half, std::size_t{1} << kPower>...);
        set(Kind::kBF16, multiply_numbers<V, BFloat16, std::size_t{1} << kPower>...);
        set(Kind::kQ4_0, multiply_tiles<V, Q4_0<V>, std::size_t{1} << kPower>...);
        set(Kind::kQ4_1, multiply_tiles<V, Q4_1<V>, std::size_t{1} << kPower>...);
        set(Kind::kQ5_0, multiply_tiles<V, Q5_0<V>, std::size_t{1} << kPower>...);
        set(Kind::kQ5_1, multiply_tiles<V, Q5_1<V>, std::size_t{1} << kPower>...);
        set(Kind::kQ8_0, multiply_tiles<V, Q8_0<V>, std::size_t{1} << kPower>...);
        set(Kind::kQ4_K, multiply_tiles<V, Q4_K<V>, std::size_t{1} << kPower>...);
        set(Kind::kQ5_K, multiply_tiles<V, Q5_K<V>, std::size_t{1} << kPower>...);
        set(Kind::kQ6_K, multiply_tiles<V, Q6_K<V>, std::size_t{1} << kPower>...);
    };
    sizes(std::make_index_sequence<kSizes>());
    kernel.attention[static_cast<std::size_t>(CacheKind::kF16)] = {score<V, Half>, mix<V, Half>};
    kernel.attention[static_cast<std::size_t>(CacheKind::kBF16)] = {score<V, BFloat16>, mix<V, BFloat16>};
    kernel.attention[static_cast<std::size_t>(CacheKind::kF32)] = {score<V, float>, mix<V, float>};
    kernel.attention[static_cast<std::size_t>(CacheKind::kI8)] = {score_bytes<V>, mix_bytes<V>};
    return kernel;
}

}  // namespace model
