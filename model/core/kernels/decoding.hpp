// The kernels, once for all processors. V has what is different: sixteen floats (F), sixteen integers of 32 bits or the
// 64 bytes of a quad (I), and what can be done with them; kSums tells how many sums (F) there are registers for, while
// what is added to them is at hand, kSignedBytes that the bytes of a quad are multiplied as signed ones.
// No function of the standard library is called that would be compiled here for all who call it elsewhere, too.
#pragma once

#include <limits>
#include <utility>

#include "kernels/kernels.hpp"

namespace model {

// Calls f(compile-time number) for all below kCount. An array that is indexed in a loop, even one that the compiler
// unrolls, may stay in memory; one that is indexed so becomes registers.
template <std::size_t kCount, class F>
inline void unrolled(const F& f) {
    [&]<std::size_t... kNumber>(std::index_sequence<kNumber...>) {
        (f(std::integral_constant<std::size_t, kNumber>()), ...);
    }(std::make_index_sequence<kCount>());
}

// The weights of a thread are one stream, in the order of use: while some are multiplied, those that come so much later
// are asked for, across the ends of groups and matrices, too. Asking for what is beyond the last does nothing. With two
// cores of Zen 3, a step of SmolLM2 took 8.4 ms without, 6.3 with this, and merely reading its weights 6.2. Keys and
// values of a head are such a stream, too.
template <class V, std::size_t kBytes>
void fetch_ahead([[maybe_unused]] const std::uint8_t* bytes) {
#ifdef __GNUC__
    constexpr std::size_t kLine = 64, kAhead = 4096;
    const std::uintptr_t address = reinterpret_cast<std::uintptr_t>(bytes) + kAhead;
    for (std::size_t i = 0; i < kBytes; i += kLine)
        __builtin_prefetch(reinterpret_cast<const void*>(address + i), 0, 2);
#endif
}

// --- quantized weights ---

// A tile's unpack() calls take(compile-time number, bytes) with each quad.
template <class V, class Take>
void unpack_nibbles(const std::uint8_t* tile, const Take& take) {
    unrolled<4>([&](auto i) {
        const auto packed = V::load_bytes(tile + i * kQuad);
        take(i, V::bit_and(packed, 0x0F0F0F0F));
        take(std::integral_constant<std::size_t, i() + 4>(),
             V::bit_and(V::template shift_right<4>(packed), 0x0F0F0F0F));
    });
}

template <class V>
typename V::F load_halves(const std::uint8_t* bytes) {
    return V::load(reinterpret_cast<const Half*>(bytes));
}

// What the integers of a part of a tile stand for. Without initial values: GCC copies them in pieces, and what is
// stored in pieces is slow to load as a whole.
template <class V>
struct Scales {
    typename V::F scale, offset;
    std::size_t part, sum;  // which of the activations' sums is that of this part

    void add(const typename V::I& dots, const TileScale& x, typename V::F& total) const {
        total = V::fma(V::mul(V::to_floats(dots), V::set(x.scale)), scale, total);
        total = V::fma(offset, V::set(x.sums[sum]), total);
    }
};

// How the integers of activations are kept and multiplied: as two signed bytes each, number = 256 * high + low, first
// all high ones of a tile. A processor that multiplies otherwise has a specialization.
template <class V>
struct Integers {
    using I = typename V::I;
    struct Sum {
        I high = V::zeros(), low = V::zeros();
    };
    static constexpr std::size_t kFactors = 1;          // in which a quad is multiplied
    static constexpr std::size_t kAtOnce = V::kAtOnce;  // vectors that are multiplied with a factor while it is at hand
    static constexpr std::size_t kUnpacked = 1;         // vectors whose sums have room while quads are unpacked

    static void keep(const I& sixteen, std::size_t half, std::int8_t* bytes) {
        const I high = V::template shift_right_signed<8>(V::add(sixteen, V::set_integers(128)));
        V::store_bytes(bytes + half * kLanes, high);
        V::store_bytes(bytes + kTile + half * kLanes, V::subtract(sixteen, V::template shift_left<8>(high)));
    }
    template <std::size_t>
    static I factor(const I& quad) {
        return quad;
    }
    static void add(Sum& sum, const I& factor, std::size_t number, const std::int8_t* bytes) {
        sum.high = V::dot(sum.high, factor, bytes + 4 * number);
        sum.low = V::dot(sum.low, factor, bytes + kTile + 4 * number);
    }
    static I total(const Sum& sum) { return V::add(V::template shift_left<8>(sum.high), sum.low); }

    // Adds to the sums of vectors, kAtOnce or fewer, what a part of a tile makes.
    template <std::size_t kVectors, std::size_t kParts>
    static void add_part(const I* factors, const Scales<V>& scales, const TileBytes* bytes, const TileScale* x,
                         typename V::F* sums) {
        constexpr std::size_t kCount = 8 / kParts;
        Sum dots[kVectors];
        for (std::size_t j = scales.part * kCount; j < (scales.part + 1) * kCount; ++j) {
            unrolled<kVectors>([&](auto i) { add(dots[i], factors[j], j, bytes[i].bytes); });
        }
        unrolled<kVectors>([&](auto i) { scales.add(total(dots[i]), x[i], sums[i]); });
    }
};

// What all have in common. kParts: how many scales the columns of a tile have.
template <Kind kind, std::size_t parts = 1>
struct TileOf {
    static constexpr Kind kKind = kind;
    static constexpr Format kFormat = format_of(kind);
    static constexpr std::size_t kParts = parts;
};

template <class V>
struct Q4_0 : TileOf<Kind::kQ4_0> {
    void open(const std::uint8_t*) {}
    template <class Take>
    void unpack(const std::uint8_t* tile, const Take& take) const {
        unpack_nibbles<V>(tile, take);
    }
    void scale(const std::uint8_t* tile, std::size_t, typename V::F& scale, typename V::F& offset) const {
        scale = load_halves<V>(tile + 4 * kQuad);
        offset = V::mul(scale, V::set(-8.0f));
    }
};

template <class V>
struct Q4_1 : TileOf<Kind::kQ4_1> {
    void open(const std::uint8_t*) {}
    template <class Take>
    void unpack(const std::uint8_t* tile, const Take& take) const {
        unpack_nibbles<V>(tile, take);
    }
    void scale(const std::uint8_t* tile, std::size_t, typename V::F& scale, typename V::F& offset) const {
        scale = load_halves<V>(tile + 4 * kQuad);
        offset = load_halves<V>(tile + 4 * kQuad + 32);
    }
};

template <class V>
struct Q8_0 : TileOf<Kind::kQ8_0> {
    void open(const std::uint8_t*) {}
    template <class Take>
    void unpack(const std::uint8_t* tile, const Take& take) const {
        unrolled<8>([&](auto i) {
            const auto quad = V::load_bytes(tile + i * kQuad);
            if constexpr (V::kSignedBytes) {
                take(i, V::bit_xor(quad, 0x80808080));  // 128 less
            } else {
                take(i, quad);
            }
        });
    }
    void scale(const std::uint8_t* tile, std::size_t, typename V::F& scale, typename V::F& offset) const {
        scale = load_halves<V>(tile + 8 * kQuad);
        offset = V::mul(scale, V::set(V::kSignedBytes ? 0.0f : -128.0f));
    }
};

template <class V>
struct Q4_K : TileOf<Kind::kQ4_K> {
    typename V::F scales = V::set(0.0f), offsets = scales;
    void open(const std::uint8_t* header) {
        scales = load_halves<V>(header);
        offsets = V::mul(load_halves<V>(header + 32), V::set(-1.0f));
    }
    template <class Take>
    void unpack(const std::uint8_t* tile, const Take& take) const {
        unpack_nibbles<V>(tile, take);
    }
    void scale(const std::uint8_t* tile, std::size_t, typename V::F& scale, typename V::F& offset) const {
        const auto* own = reinterpret_cast<const std::int8_t*>(tile + 4 * kQuad);  // below 64
        scale = V::mul(scales, V::load(own));
        offset = V::mul(offsets, V::load(own + kLanes));
    }
};

template <class V>
struct Q6_K : TileOf<Kind::kQ6_K, 2> {
    typename V::F scales = V::set(0.0f);
    void open(const std::uint8_t* header) { scales = load_halves<V>(header); }
    template <class Take>
    void unpack(const std::uint8_t* tile, const Take& take) const {
        unpack_nibbles<V>(tile, [&](auto number, const typename V::I& nibbles) {
            const auto quarters = V::load_bytes(tile + (4 + number / 4) * kQuad);
            const auto shifted = [&] {
                if constexpr (number % 4 == 0) return V::template shift_left<4>(quarters);
                if constexpr (number % 4 == 1) return V::template shift_left<2>(quarters);
                if constexpr (number % 4 == 2) return quarters;
                if constexpr (number % 4 == 3) return V::template shift_right<2>(quarters);
            };
            take(number, V::bit_or(nibbles, V::bit_and(shifted(), 0x30303030)));
        });
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
        fetch_ahead<V, Tile::kFormat.tile>(group);
        if constexpr (Tile::kFormat.header) {
            if (number % kTilesOfHeader == 0) {
                tile.open(group);
                group += Tile::kFormat.header;
            }
        }
        constexpr std::size_t kParts = Tile::kParts, kQuads = 8 / kParts, kFactors = Integers<V>::kFactors;
        Scales<V> scales[kParts];
        unrolled<kParts>([&](auto part) {
            tile.scale(group, part, scales[part].scale, scales[part].offset);
            scales[part].part = part;
            scales[part].sum = kParts == 1 ? 0 : 1 + part;
        });
        const TileBytes* bytes = vectors.bytes + number * kVectors;
        const TileScale* x = vectors.scales + number * kVectors;
        if constexpr (kVectors <= Integers<V>::kUnpacked) {  // each quad is multiplied when it is unpacked
            typename Integers<V>::Sum dots[kParts][kVectors];
            tile.unpack(group, [&](auto number_of_quad, const I& quad) {
                unrolled<kFactors>([&](auto j) {
                    const I factor = Integers<V>::template factor<j>(quad);
                    unrolled<kVectors>([&](auto i) {
                        Integers<V>::add(dots[number_of_quad / kQuads][i], factor, number_of_quad * kFactors + j,
                                         bytes[i].bytes);
                    });
                });
            });
            unrolled<kParts>([&](auto part) {
                unrolled<kVectors>([&](auto i) { scales[part].add(Integers<V>::total(dots[part][i]), x[i], sums[i]); });
            });
        } else {
            I factors[8 * kFactors];
            tile.unpack(group, [&](auto number_of_quad, const I& quad) {
                unrolled<kFactors>(
                    [&](auto j) { factors[number_of_quad * kFactors + j] = Integers<V>::template factor<j>(quad); });
            });
            constexpr std::size_t kSome = kVectors < Integers<V>::kAtOnce ? kVectors : Integers<V>::kAtOnce;
            for (const Scales<V>& own : scales) {
                for (std::size_t first = 0; first < kVectors; first += kSome) {
                    Integers<V>::template add_part<kSome, kParts>(factors, own, bytes + first, x + first, sums + first);
                }
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
    constexpr std::size_t kAtOnce = kVectors < V::kSums ? kVectors : V::kSums;
    // Several sums of each vector, as an addition takes longer than what there is between two of them.
    constexpr std::size_t kMost = V::kSums < 8 ? V::kSums : 8;
    constexpr std::size_t kSums = kAtOnce < kMost ? kMost / kAtOnce : 1;
    const std::size_t columns = vectors.columns;
    for (std::size_t first = 0; first < kVectors; first += kAtOnce) {
        const float* numbers = vectors.numbers + first * columns;
        F sums[kAtOnce][kSums];
        for (auto& own : sums) {
            for (F& sum : own) sum = V::set(0.0f);
        }
        std::size_t column = 0;
        for (; column + kSums <= columns; column += kSums) {
            fetch_ahead<V, kSums * kLanes * sizeof(T)>(
                reinterpret_cast<const std::uint8_t*>(weights + column * kLanes));
            unrolled<kSums>([&](auto j) {
                const F weight = V::load(weights + (column + j) * kLanes);
                unrolled<kAtOnce>([&](auto i) {
                    sums[i][j] = V::fma(weight, V::set(numbers[i * columns + column + j]), sums[i][j]);
                });
            });
        }
        for (; column < columns; ++column) {
            const F weight = V::load(weights + column * kLanes);
            unrolled<kAtOnce>(
                [&](auto i) { sums[i][0] = V::fma(weight, V::set(numbers[i * columns + column]), sums[i][0]); });
        }
        unrolled<kAtOnce>([&](auto i) {
            unrolled<kSums - 1>([&](auto j) { sums[i][0] = V::add(sums[i][0], sums[i][j + 1]); });
            V::store(results + (first + i) * kLanes, sums[i][0]);
        });
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
        constexpr std::size_t kStep = kBlocks * kLanes;  // of all numbers that are read here, as many each time
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

// How many blocks, or sixteens of values, are looked at together for so many queries.
template <class V>
constexpr std::size_t beside(std::size_t queries) {
    return V::kSums / queries < 4 ? V::kSums / queries : 4;
}

template <class V, class T>
void score(const void* keys, std::size_t blocks, std::size_t head_dim, const float* queries, std::size_t count,
           float* scores, std::size_t stride) {
    in_steps<V::kQueries>(count, [&](auto some, std::size_t query) {
        in_steps<beside<V>(some())>(blocks, [&](auto some_blocks, std::size_t block) {
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
        in_steps<beside<V>(some())>(width / kLanes, [&](auto some_width, std::size_t i) {
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
void quantize(const float* numbers, std::size_t tiles, std::size_t step, TileBytes* bytes, TileScale* scales) {
    constexpr float kLargest = 127 * 256 + 127;  // that both halves are signed bytes of
    for (std::size_t tile = 0; tile < tiles; ++tile, numbers += kTile, bytes += step, scales += step) {
        const typename V::F halves[2] = {V::load(numbers), V::load(numbers + kLanes)};
        const float largest = V::largest(V::max(V::absolute(halves[0]), V::absolute(halves[1])));
        const float scale = largest / kLargest;
        // The inverse of a number as small as this is infinite; such vectors count as zeros.
        const auto inverse = V::set(largest > 1e-30f ? 1.0f / scale : 0.0f);
        scales->scale = scale;
        scales->sums[0] = 0;
        for (std::size_t i = 0; i < 2; ++i) {
            const auto integers = V::to_integers(V::mul(halves[i], inverse));
            Integers<V>::keep(integers, i, bytes->bytes);
            // The sum of what is multiplied, not of what it was made of, so that offsets and integers fit each other.
            scales->sums[1 + i] = V::sum(V::to_floats(integers)) * scale;
            scales->sums[0] += scales->sums[1 + i];
        }
    }
}

template <class V>
void narrow(const float* numbers, std::size_t size, Half* results) {
    for (std::size_t i = 0; i < size; i += kLanes) V::store_halves(results + i, V::load(numbers + i));
}

// --- the table ---

template <class V>
Kernel kernel_with(const char* name, const Training& training) {
    constexpr std::size_t kSizes = 5;  // 1, 2, 4, 8, 16
    Kernel kernel{name,        std::size_t{1} << (kSizes - 1),
                  16,          kMostVectors + 1,
                  {},          {},
                  quantize<V>, normalise<V>,
                  softmax<V>,  gate<V>,
                  narrow<V>,   training};
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
    sizes(std::make_index_sequence<kSizes>());
    kernel.attention[static_cast<std::size_t>(CacheKind::kF16)] = {score<V, Half>, mix<V, Half>};
    kernel.attention[static_cast<std::size_t>(CacheKind::kBF16)] = {score<V, Brain>, mix<V, Brain>};
    kernel.attention[static_cast<std::size_t>(CacheKind::kI8)] = {score<V, std::int8_t>, mix<V, std::int8_t>};
    return kernel;
}

}  // namespace model
