// The loop of a transducer over several places of a text at once.
#pragma once

#include <cstddef>
#include <cstdint>

#include "split/transducer.hpp"

namespace bpe {

// A walk over the symbols [at, to) of a window.
struct TransducerLane {
    std::uint32_t row;
    std::uint64_t* out;
    std::size_t at;
    std::size_t to;
};

// The symbols of a window that begins at the position `base`.
struct WindowSymbols {
    const std::uint8_t* classes;
    const std::uint32_t* starts;
    std::size_t base;
};

// Makes the steps of kCount lanes over `length` symbols each. With kDense, each symbol is one byte.
template <std::size_t kCount, bool kGaps, bool kDense>
void run_lanes(const Transducer::Step* steps, const WindowSymbols& symbols, TransducerLane* lanes, std::size_t length) {
    std::uint32_t row[kCount];
    std::uint64_t* out[kCount];
    std::uint64_t end[kCount];  // doubled
    const std::uint8_t* next[kCount];
    const std::uint32_t* starts[kCount];
    for (std::size_t k = 0; k < kCount; ++k) {
        row[k] = lanes[k].row;
        out[k] = lanes[k].out;
        end[k] = 2 * (symbols.base + (kDense ? lanes[k].at : 0));
        next[k] = symbols.classes + lanes[k].at;
        starts[k] = kDense ? nullptr : symbols.starts + lanes[k].at;
    }
    for (std::size_t i = 0; i < length; ++i) {
        for (std::size_t k = 0; k < kCount; ++k) {
            const Transducer::Step step = steps[row[k] + next[k][i]];
            out[k][step.slot()] = end[k] + 2 * (kDense ? i : starts[k][i]) + (kGaps ? step.is_gap() : 0);
            out[k] += step.growth();
            row[k] = step.row();
        }
    }
    for (std::size_t k = 0; k < kCount; ++k) {
        lanes[k].row = row[k];
        lanes[k].out = out[k];
        lanes[k].at += length;
    }
}

}  // namespace bpe
