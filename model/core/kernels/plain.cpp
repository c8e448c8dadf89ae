// Kernels in portable C++, the reference that tests compare the other kernels with.
#include <algorithm>
#include <cmath>

#include "kernels/make_kernel.hpp"

namespace model {
namespace {

template <class T>
struct Sixteen {
    T lanes[kLanes];
};

template <class Operation, class T, class... Others>
auto each(Operation operation, const Sixteen<T>& first, const Others&... others) {
    Sixteen<decltype(operation(first.lanes[0], others.lanes[0]...))> results;
    for (std::size_t i = 0; i < kLanes; ++i) results.lanes[i] = operation(first.lanes[i], others.lanes[i]...);
    return results;
}

struct Plain {
    using F = Sixteen<float>;
    using I = Sixteen<std::int32_t>;
    static constexpr std::size_t kSums = 4, kQueries = 4, kAtOnce = 1;
    // More vectors at once are not faster, and each size adds two seconds to the build.
    static constexpr std::size_t kSizes = 3;
    static constexpr std::size_t kTileRows = 4, kTileWide = 1;
    static constexpr bool kSignedBytes = false;

    static void prefetch(const void*) {}
    static F set(float number) {
        F all;
        for (float& lane : all.lanes) lane = number;
        return all;
    }
    template <class T>
    static F load(const T* numbers) {
        F all;
        for (std::size_t i = 0; i < kLanes; ++i) all.lanes[i] = to_float(numbers[i]);
        return all;
    }
    static void store(float* numbers, const F& all) { std::memcpy(numbers, all.lanes, sizeof all.lanes); }
    static void store_halves(Half* numbers, const F& all) {
        for (std::size_t i = 0; i < kLanes; ++i) numbers[i] = to_half(all.lanes[i]);
    }

    static F add(const F& x, const F& y) {
        return each([](float a, float b) { return a + b; }, x, y);
    }
    static F mul(const F& x, const F& y) {
        return each([](float a, float b) { return a * b; }, x, y);
    }
    static F div(const F& x, const F& y) {
        return each([](float a, float b) { return a / b; }, x, y);
    }
    static F max(const F& x, const F& y) {
        return each([](float a, float b) { return a > b ? a : b; }, x, y);
    }
    static F min(const F& x, const F& y) {
        return each([](float a, float b) { return a < b ? a : b; }, x, y);
    }
    // std::fma would be a function call for each number on processors without an FMA instruction.
    static F fma(const F& x, const F& y, const F& z) {
        return each([](float a, float b, float c) { return a * b + c; }, x, y, z);
    }
    static F absolute(const F& x) {
        return each([](float a) { return std::fabs(a); }, x);
    }
    static float root(float x) { return std::sqrt(x); }
    static float sum(const F& x) {
        float total = 0;
        for (const float lane : x.lanes) total += lane;
        return total;
    }
    static float largest(const F& x) { return *std::max_element(x.lanes, x.lanes + kLanes); }

    static I zeros() { return set_integers(0); }
    static I set_integers(std::int32_t number) {
        I all;
        for (std::int32_t& lane : all.lanes) lane = number;
        return all;
    }
    static I load_bytes(const std::uint8_t* bytes) {
        I all;
        std::memcpy(all.lanes, bytes, sizeof all.lanes);
        return all;
    }
    static void store_bytes(std::int8_t* bytes, const I& x) {
        for (std::size_t i = 0; i < kLanes; ++i) bytes[i] = static_cast<std::int8_t>(x.lanes[i]);
    }
    static I add(const I& x, const I& y) {
        return each([](std::int32_t a, std::int32_t b) { return a + b; }, x, y);
    }
    static I subtract(const I& x, const I& y) {
        return each([](std::int32_t a, std::int32_t b) { return a - b; }, x, y);
    }
    static I bit_or(const I& x, const I& y) {
        return each([](std::int32_t a, std::int32_t b) { return a | b; }, x, y);
    }
    static I bit_and(const I& x, std::int32_t mask) {
        return each([mask](std::int32_t a) { return a & mask; }, x);
    }
    template <int kBits>
    static I shift_left(const I& x) {
        return each([](std::int32_t a) { return static_cast<std::int32_t>(static_cast<std::uint32_t>(a) << kBits); },
                    x);
    }
    template <int kBits>
    static I shift_right(const I& x) {
        return each([](std::int32_t a) { return static_cast<std::int32_t>(static_cast<std::uint32_t>(a) >> kBits); },
                    x);
    }
    template <int kBits>
    static I shift_right_signed(const I& x) {
        return each([](std::int32_t a) { return a >> kBits; }, x);
    }
    static F to_floats(const I& x) {
        return each([](std::int32_t a) { return static_cast<float>(a); }, x);
    }
    // Rounds to the nearest integer. The result for NaN and for numbers beyond the integers is unspecified.
    static I to_integers(const F& x) {
        return each([](float a) { return std::fabs(a) < 0x1p31f ? static_cast<std::int32_t>(std::nearbyint(a)) : 0; },
                    x);
    }
    static F times_power_of_two(const F& x, const I& power) {
        return each(
            [](float a, std::int32_t n) { return a * std::bit_cast<float>(static_cast<std::uint32_t>(n + 127) << 23); },
            x, power);
    }
    // Adds to each lane the four products of its unsigned bytes of x and the signed bytes, which all lanes share.
    static I dot(I sums, const I& x, const std::int8_t* bytes) {
        std::uint8_t factors[sizeof x.lanes];
        std::memcpy(factors, x.lanes, sizeof factors);
        for (std::size_t i = 0; i < kLanes; ++i) {
            for (std::size_t j = 0; j < 4; ++j) sums.lanes[i] += factors[4 * i + j] * bytes[j];
        }
        return sums;
    }
};

}  // namespace

const Kernel& plain_kernel() {
    static const Kernel kernel = make_kernel<Plain>("plain");
    return kernel;
}

}  // namespace model
