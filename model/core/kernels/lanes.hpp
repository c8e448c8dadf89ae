// The interface between kernels and instruction sets, and helpers for kernels that are written once for all of them.
//
// A kernel is a template over the type V, the "lanes" of one instruction set: sixteen floats (V::F), sixteen 32-bit
// integers or the 64 bytes of a quad (V::I), and the operations on them. Constants of V:
//     kSums         sums (F) that fit in registers beside the operands added to them
//     kQueries      queries that attention handles together
//     kAtOnce       vectors that are multiplied with a quad while it is in a register
//     kSizes        for how many sizes there are products: of 1, 2, 4, ... vectors
//     kTileRows, kTileWide   rows, and sixteens of columns, of a tile of a product in training
//     kSignedBytes  whether the bytes of a quad are multiplied as signed numbers
// Each file of kernels is compiled for its own instruction set, so kernels must not call functions of the standard
// library that the compiler emits out of line: the linker keeps one copy for all files, which could be this one.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>

namespace model {

// Calls f(compile-time number) for all numbers below kCount. An array indexed in a loop, even one that the compiler
// unrolls, may stay in memory; an array indexed by these numbers is kept in registers.
template <std::size_t kCount, class F>
inline void unrolled(const F& f) {
    [&]<std::size_t... kNumber>(std::index_sequence<kNumber...>) {
        (f(std::integral_constant<std::size_t, kNumber>()), ...);
    }(std::make_index_sequence<kCount>());
}

// Prefetches bytes that are read kAhead bytes later. The weights of a thread are one stream in the order of use, so
// prefetching continues across the ends of groups and matrices; a prefetch beyond the last has no effect. On two cores
// of Zen 3, a step of SmolLM2 took 8.4 ms without prefetching and 6.3 ms with it; only reading its weights takes 6.2
// ms. The keys and values of a head are such a stream, too.
template <class V, std::size_t kBytes>
void fetch_ahead([[maybe_unused]] const std::uint8_t* bytes) {
#ifdef __GNUC__
    constexpr std::size_t kLine = 64, kAhead = 4096;
    const std::uintptr_t address = reinterpret_cast<std::uintptr_t>(bytes) + kAhead;
    for (std::size_t i = 0; i < kBytes; i += kLine)
        __builtin_prefetch(reinterpret_cast<const void*>(address + i), 0, 2);
#endif
}

}  // namespace model
