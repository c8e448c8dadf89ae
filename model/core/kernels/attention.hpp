// Attention of some queries to the cached keys and values of one head, as templates over the lanes V (lanes.hpp).
#pragma once

#include "kernels/kernels.hpp"
#include "kernels/lanes.hpp"

namespace model {

template <class V, class T, std::size_t kCount, std::size_t kBlocks>
void score_some(const T* keys, std::size_t head_dim, const float* queries, float* scores, std::size_t stride) {
    using F = typename V::F;
    F sums[kCount][kBlocks];
    for (auto& own : sums) {
        for (F& sum : own) sum = V::set(0.0f);
    }
    for (std::size_t i = 0; i < head_dim; ++i) {
        F key[kBlocks];
        constexpr std::size_t kStep = kBlocks * kLanes;  // numbers that each iteration prefetches
        fetch_ahead<V, kStep * sizeof(T)>(reinterpret_cast<const std::uint8_t*>(keys + i * kStep));
        unrolled<kBlocks>([&](auto block) { key[block] = V::load(keys + (block * head_dim + i) * kLanes); });
        unrolled<kCount>([&](auto query) {
            const F number = V::set(queries[query * head_dim + i]);
            unrolled<kBlocks>([&](auto block) { sums[query][block] = V::fma(key[block], number, sums[query][block]); });
        });
    }
    unrolled<kCount>([&](auto query) {
        unrolled<kBlocks>([&](auto block) { V::store(scores + query * stride + block * kLanes, sums[query][block]); });
    });
}

// Calls f(compile-time count, first) in steps of kMost up to `count`, with one smaller step for the rest.
template <std::size_t kMost, class F>
void in_steps(std::size_t count, const F& f) {
    std::size_t first = 0;
    for (; first + kMost <= count; first += kMost) f(std::integral_constant<std::size_t, kMost>(), first);
    const auto rest = [&]<std::size_t... kBefore>(std::index_sequence<kBefore...>) {
        (void)((count - first == kBefore + 1 && (f(std::integral_constant<std::size_t, kBefore + 1>(), first), true)) ||
               ...);
    };
    rest(std::make_index_sequence<kMost - 1>());
}

// Calls f(compile-time count, first) in steps of kMost up to `count`, and in steps of 2 and 1 for the rest: fewer
// functions to compile than with a step for each rest.
template <std::size_t kMost, class F>
void in_few_steps(std::size_t count, const F& f) {
    std::size_t first = 0;
    for (; first + kMost <= count; first += kMost) f(std::integral_constant<std::size_t, kMost>(), first);
    if constexpr (kMost > 2) {
        for (; first + 2 <= count; first += 2) f(std::integral_constant<std::size_t, 2>(), first);
    }
    if constexpr (kMost > 1) {
        if (first < count) f(std::integral_constant<std::size_t, 1>(), first);
    }
}

// Returns how many blocks of keys, or sixteens of values, are handled together for this many queries.
template <class V>
constexpr std::size_t beside(std::size_t queries) {
    return V::kSums / queries < 4 ? V::kSums / queries : 4;
}

template <class V, class T>
void score(const void* keys, std::size_t blocks, std::size_t head_dim, const float* queries, std::size_t count,
           float* scores, std::size_t stride) {
    in_steps<V::kQueries>(count, [&](auto some, std::size_t query) {
        in_few_steps<beside<V>(some())>(blocks, [&](auto some_blocks, std::size_t block) {
            score_some<V, T, some(), some_blocks()>(static_cast<const T*>(keys) + block * head_dim * kLanes, head_dim,
                                                    queries + query * head_dim,
                                                    scores + query * stride + block * kLanes, stride);
        });
    });
}

template <class V, class T, std::size_t kCount, std::size_t kWidth>
void mix_some(const T* values, std::size_t positions, std::size_t width, const float* weights, std::size_t stride,
              float* results) {
    using F = typename V::F;
    F sums[kCount][kWidth];
    for (auto& own : sums) {
        for (F& sum : own) sum = V::set(0.0f);
    }
    for (std::size_t position = 0; position < positions; ++position) {
        F value[kWidth];
        fetch_ahead<V, kWidth * kLanes * sizeof(T)>(reinterpret_cast<const std::uint8_t*>(values + position * width));
        unrolled<kWidth>([&](auto i) { value[i] = V::load(values + position * width + i * kLanes); });
        unrolled<kCount>([&](auto query) {
            const F weight = V::set(weights[query * stride + position]);
            unrolled<kWidth>([&](auto i) { sums[query][i] = V::fma(value[i], weight, sums[query][i]); });
        });
    }
    unrolled<kCount>([&](auto query) {
        unrolled<kWidth>([&](auto i) { V::store(results + query * width + i * kLanes, sums[query][i]); });
    });
}

template <class V, class T>
void mix(const void* values, std::size_t positions, std::size_t width, const float* weights, std::size_t count,
         std::size_t stride, float* results) {
    in_steps<V::kQueries>(count, [&](auto some, std::size_t query) {
        in_few_steps<beside<V>(some())>(width / kLanes, [&](auto some_width, std::size_t i) {
            mix_some<V, T, some(), some_width()>(static_cast<const T*>(values) + i * kLanes, positions, width,
                                                 weights + query * stride, stride,
                                                 results + query * width + i * kLanes);
        });
    });
}

}  // namespace model
