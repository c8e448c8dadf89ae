// Tables for shuffling the chosen lanes of a vector together.
#pragma once

#include <cstdint>

namespace bpe {

// For each set of `kLanes` lanes of `kWidth` bytes: the places of the bytes of these lanes, in order, and their number.
template <unsigned kLanes, unsigned kWidth>
struct Packings {
    struct alignas(kLanes* kWidth) Packing {
        std::uint8_t bytes[kLanes * kWidth];
    };
    Packing of[1 << kLanes];
    std::uint8_t count[1 << kLanes];

    constexpr Packings() : of{}, count{} {
        for (unsigned lanes = 0; lanes < 1 << kLanes; ++lanes) {
            for (unsigned lane = 0; lane < kLanes; ++lane) {
                if (!(lanes >> lane & 1)) continue;
                for (unsigned byte = 0; byte < kWidth; ++byte)
                    of[lanes].bytes[kWidth * count[lanes] + byte] = static_cast<std::uint8_t>(kWidth * lane + byte);
                ++count[lanes];
            }
        }
    }
};

}  // namespace bpe
