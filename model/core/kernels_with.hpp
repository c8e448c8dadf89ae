// The kernels, once for all processors. V has what is different: sixteen floats (F), sixteen integers of 32 bits or the
// 64 bytes of a quad (I), and what can be done with them.
// No function of the standard library is called that would be compiled here for all who call it elsewhere, too.
#pragma once

#include <limits>
#include <utility>

#include "kernels.hpp"

namespace model {

// --- quantized weights ---

template <class V>
void unpack_nibbles(const std::uint8_t* tile, typename V::I* quads) {
    for (std::size_t i = 0; i < 4; ++i) {
        const auto packed = V::load_bytes(tile + i * kQuad);
        quads[i] = V::bit_and(packed, 0x0F0F0F0F);
        quads[i + 4] = V::bit_and(V::template shift_right<4>(packed), 0x0F0F0F0F);
    }
}

template <class V>
typename V::F load_halves(const std::uint8_t* bytes) {
    return V::load(reinterpret_cast<const Half*>(bytes));
}

// What all have in common; kNarrow: integers are below 64. kParts: how many scales the columns of a tile have.
template <Kind kind, bool narrow, std::size_t parts = 1>
struct TileOf {
    static constexpr Format kFormat = format_of(kind);
    static constexpr bool kNarrow = narrow;
    static constexpr std::size_t kParts = parts;
};

template <class V>
struct Q4_0 : TileOf<Kind::kQ4_0, true> {
    void open(const std::uint8_t*) {}
    void unpack(const std::uint8_t* tile, typename V::I* quads) const { unpack_nibbles<V>(tile, quads); }
    void scale(const std::uint8_t* tile, std::size_t, typename V::F& scale, typename V::F& offset) const {
        scale = load_halves<V>(tile + 4 * kQuad);
        offset = V::mul(scale, V::set(-8.0f));
    }
};

template <class V>
struct Q4_1 : TileOf<Kind::kQ4_1, true> {
    void open(const std::uint8_t*) {}
    void unpack(const std::uint8_t* tile, typename V::I* quads) const { unpack_nibbles<V>(tile, quads); }
    void scale(const std::uint8_t* tile, std::size_t, typename V::F& scale, typename V::F& offset) const {
        scale = load_halves<V>(tile + 4 * kQuad);
        offset = load_halves<V>(tile + 4 * kQuad + 32);
    }
};

template <class V>
struct Q8_0 : TileOf<Kind::kQ8_0, false> {
    void open(const std::uint8_t*) {}
    void unpack(const std::uint8_t* tile, typename V::I* quads) const {
        for (std::size_t i = 0; i < 8; ++i) quads[i] = V::load_bytes(tile + i * kQuad);
    }
    void scale(const std::uint8_t* tile, std::size_t, typename V::F& scale, typename V::F& offset) const {
        scale = load_halves<V>(tile + 8 * kQuad);
        offset = V::mul(scale, V::set(-128.0f));
    }
};

template <class V>
struct Q4_K : TileOf<Kind::kQ4_K, true> {
    typename V::F scales = V::set(0.0f), offsets = scales;
    void open(const std::uint8_t* header) {
        scales = load_halves<V>(header);
        offsets = V::mul(load_halves<V>(header + 32), V::set(-1.0f));
    }
    void unpack(const std::uint8_t* tile, typename V::I* quads) const { unpack_nibbles<V>(tile, quads); }
    void scale(const std::uint8_t* tile, std::size_t, typename V::F& scale, typename V::F& offset) const {
        const auto* own = reinterpret_cast<const std::int8_t*>(tile + 4 * kQuad);  // below 64
        scale = V::mul(scales, V::load(own));
        offset = V::mul(offsets, V::load(own + kLanes));
    }
};

template <class V>
struct Q6_K : TileOf<Kind::kQ6_K, true, 2> {
    typename V::F scales = V::set(0.0f);
    void open(const std::uint8_t* header) { scales = load_halves<V>(header); }
    void unpack(const std::uint8_t* tile, typename V::I* quads) const {
        unpack_nibbles<V>(tile, quads);
        for (std::size_t i = 0; i < 2; ++i) {
            const auto quarters = V::load_bytes(tile + (4 + i) * kQuad);
            const auto add = [&](std::size_t quad, typename V::I shifted) {
                quads[quad] = V::bit_or(quads[quad], V::bit_and(shifted, 0x30303030));
            };
            add(4 * i, V::template shift_left<4>(quarters));
            add(4 * i + 1, V::template shift_left<2>(quarters));
            add(4 * i + 2, quarters);
            add(4 * i + 3, V::template shift_right<2>(quarters));
        }
    }
    void scale(const std::uint8_t* tile, std::size_t part, typename V::F& scale, typename V::F& offset) const {
        scale = V::mul(scales, V::load(reinterpret_cast<const std::int8_t*>(tile + 6 * kQuad + part * kLanes)));
        offset = V::mul(scale, V::set(-32.0f));
    }
};

template <class V, class Tile, std::size_t kVectors>
void multiply_tiles(const std::uint8_t* group, const Vectors& vectors, float* results) {
    using F = typename V::F;
    using I = typename V::I;
    const std::size_t tiles = vectors.columns / kTile;
    F sums[kVectors];
    for (auto& sum : sums) sum = V::set(0.0f);
    Tile tile;
    for (std::size_t number = 0; number < tiles; ++number) {
        if constexpr (Tile::kFormat.header) {
            if (number % kTilesOfHeader == 0) {
                tile.open(group);
                group += Tile::kFormat.header;
            }
        }
        I quads[8];
        tile.unpack(group, quads);
        for (std::size_t part = 0; part < Tile::kParts; ++part) {
            constexpr std::size_t kQuads = 8 / Tile::kParts;
            F scale, offset;
            tile.scale(group, part, scale, offset);
            for (std::size_t i = 0; i < kVectors; ++i) {
                const Activations& x = vectors.activations[i * tiles + number];
                I high = V::zeros(), low = V::zeros();
                for (std::size_t quad = part * kQuads; quad < (part + 1) * kQuads; ++quad) {
                    high = V::template dot<Tile::kNarrow>(high, quads[quad], x.high + 4 * quad);
                    low = V::template dot<Tile::kNarrow>(low, quads[quad], x.low + 4 * quad);
                }
                const F dot = V::to_floats(V::add(V::template shift_left<8>(high), low));
                sums[i] = V::fma(V::mul(dot, V::set(x.scale)), scale, sums[i]);
                sums[i] = V::fma(offset, V::set(Tile::kParts == 1 ? x.sum : x.sums[part]), sums[i]);
            }
        }
        group += Tile::kFormat.tile;
    }
    for (std::size_t i = 0; i < kVectors; ++i) V::store(results + i * kLanes, sums[i]);
}

// --- weights that are numbers ---

template <class V, class T, std::size_t kVectors>
void multiply_numbers(const std::uint8_t* group, const Vectors& vectors, float* results) {
    using F = typename V::F;
    const auto* weights = reinterpret_cast<const T*>(group);
    // Several sums of each vector, as an addition takes longer than what there is between two of them.
    constexpr std::size_t kSums = kVectors < 4 ? 8 / kVectors : 1;
    F sums[kVectors][kSums];
    for (auto& own : sums) {
        for (F& sum : own) sum = V::set(0.0f);
    }
    const std::size_t columns = vectors.columns;
    std::size_t column = 0;
    for (; column + kSums <= columns; column += kSums) {
        for (std::size_t j = 0; j < kSums; ++j) {
            const F weight = V::load(weights + (column + j) * kLanes);
            for (std::size_t i = 0; i < kVectors; ++i) {
                sums[i][j] = V::fma(weight, V::set(vectors.numbers[i * columns + column + j]), sums[i][j]);
            }
        }
    }
    for (; column < columns; ++column) {
        const F weight = V::load(weights + column * kLanes);
        for (std::size_t i = 0; i < kVectors; ++i) {
            sums[i][0] = V::fma(weight, V::set(vectors.numbers[i * columns + column]), sums[i][0]);
        }
    }
    for (std::size_t i = 0; i < kVectors; ++i) {
        for (std::size_t j = 1; j < kSums; ++j) sums[i][0] = V::add(sums[i][0], sums[i][j]);
        V::store(results + i * kLanes, sums[i][0]);
    }
}

// --- attention ---

template <class V, class T, std::size_t kCount, std::size_t kBlocks>
void score_some(const T* keys, std::size_t head_dim, const float* queries, float* scores, std::size_t stride) {
    using F = typename V::F;
    F sums[kCount][kBlocks];
    for (auto& own : sums) {
        for (F& sum : own) sum = V::set(0.0f);
    }
    for (std::size_t i = 0; i < head_dim; ++i) {
        F key[kBlocks];
        for (std::size_t block = 0; block < kBlocks; ++block)
            key[block] = V::load(keys + (block * head_dim + i) * kLanes);
        for (std::size_t query = 0; query < kCount; ++query) {
            const F number = V::set(queries[query * head_dim + i]);
            for (std::size_t block = 0; block < kBlocks; ++block) {
                sums[query][block] = V::fma(key[block], number, sums[query][block]);
            }
        }
    }
    for (std::size_t query = 0; query < kCount; ++query) {
        for (std::size_t block = 0; block < kBlocks; ++block) {
            V::store(scores + query * stride + block * kLanes, sums[query][block]);
        }
    }
}

// Calls f(compile-time count, first) for all of `count` in steps of kMost, and what is left over in one step.
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

template <class V, class T>
void score(const void* keys, std::size_t blocks, std::size_t head_dim, const float* queries, std::size_t count,
           float* scores, std::size_t stride) {
    in_steps<4>(blocks, [&](auto some_blocks, std::size_t block) {
        in_steps<4>(count, [&](auto some, std::size_t query) {
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
        for (std::size_t i = 0; i < kWidth; ++i) value[i] = V::load(values + position * width + i * kLanes);
        for (std::size_t query = 0; query < kCount; ++query) {
            const F weight = V::set(weights[query * stride + position]);
            for (std::size_t i = 0; i < kWidth; ++i) sums[query][i] = V::fma(value[i], weight, sums[query][i]);
        }
    }
    for (std::size_t query = 0; query < kCount; ++query) {
        for (std::size_t i = 0; i < kWidth; ++i) V::store(results + query * width + i * kLanes, sums[query][i]);
    }
}

template <class V, class T>
void mix(const void* values, std::size_t positions, std::size_t width, const float* weights, std::size_t count,
         std::size_t stride, float* results) {
    in_steps<4>(width / kLanes, [&](auto some_width, std::size_t i) {
        in_steps<4>(count, [&](auto some, std::size_t query) {
            mix_some<V, T, some(), some_width()>(static_cast<const T*>(values) + i * kLanes, positions, width,
                                                 weights + query * stride, stride,
                                                 results + query * width + i * kLanes);
        });
    });
}

// --- vectors ---

// e^x to 2 units in the last place, by Cephes' polynomial; 0 (or as good as) far below.
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
void quantize(const float* numbers, std::size_t tiles, Activations* activations) {
    constexpr float kLargest = 127 * 256 + 127;  // that both halves are signed bytes of
    for (std::size_t tile = 0; tile < tiles; ++tile, numbers += kTile, ++activations) {
        const typename V::F halves[2] = {V::load(numbers), V::load(numbers + kLanes)};
        const float largest = V::largest(V::max(V::absolute(halves[0]), V::absolute(halves[1])));
        const float scale = largest / kLargest;
        // The inverse of a number as small as this is infinite; such vectors count as zeros.
        const auto inverse = V::set(largest > 1e-30f ? 1.0f / scale : 0.0f);
        activations->scale = scale;
        activations->sum = 0;
        for (std::size_t i = 0; i < 2; ++i) {
            const auto integers = V::to_integers(V::mul(halves[i], inverse));
            const auto high = V::template shift_right_signed<8>(V::add(integers, V::set_integers(128)));
            V::store_bytes(activations->high + i * kLanes, high);
            V::store_bytes(activations->low + i * kLanes, V::subtract(integers, V::template shift_left<8>(high)));
            // The sum of what is multiplied, not of what it was made of, so that offsets and integers fit each other.
            activations->sums[i] = V::sum(V::to_floats(integers)) * scale;
            activations->sum += activations->sums[i];
        }
    }
}

template <class V>
void narrow(const float* numbers, std::size_t size, Half* results) {
    for (std::size_t i = 0; i < size; i += kLanes) V::store_halves(results + i, V::load(numbers + i));
}

// --- the table ---

template <class V>
Kernel kernel_with(const char* name) {
    Kernel kernel{name, {}, {}, quantize<V>, normalise<V>, softmax<V>, gate<V>, narrow<V>};
    const auto sizes = [&]<std::size_t... kPower>(std::index_sequence<kPower...>) {
        const auto set = [&](Kind kind, auto... products) {
            std::size_t power = 0;
            ((kernel.products[static_cast<std::size_t>(kind)][power++] = products), ...);
        };
        set(Kind::kF32, multiply_numbers<V, float, std::size_t{1} << kPower>...);
        set(Kind::kF16, multiply_numbers<V, Half, std::size_t{1} << kPower>...);
        set(Kind::kBF16, multiply_numbers<V, Brain, std::size_t{1} << kPower>...);
        set(Kind::kQ4_0, multiply_tiles<V, Q4_0<V>, std::size_t{1} << kPower>...);
        set(Kind::kQ4_1, multiply_tiles<V, Q4_1<V>, std::size_t{1} << kPower>...);
        set(Kind::kQ8_0, multiply_tiles<V, Q8_0<V>, std::size_t{1} << kPower>...);
        set(Kind::kQ4_K, multiply_tiles<V, Q4_K<V>, std::size_t{1} << kPower>...);
        set(Kind::kQ6_K, multiply_tiles<V, Q6_K<V>, std::size_t{1} << kPower>...);
    };
    sizes(std::make_index_sequence<kVectorSizes>());
    kernel.attention[static_cast<std::size_t>(CacheKind::kF16)] = {score<V, Half>, mix<V, Half>};
    kernel.attention[static_cast<std::size_t>(CacheKind::kBF16)] = {score<V, Brain>, mix<V, Brain>};
    kernel.attention[static_cast<std::size_t>(CacheKind::kI8)] = {score<V, std::int8_t>, mix<V, std::int8_t>};
    return kernel;
}

}  // namespace model
