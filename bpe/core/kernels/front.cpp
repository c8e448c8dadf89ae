#include "kernels/front.hpp"

namespace bpe {

void probe_plain(const Batch& batch, const Fronts& fronts, std::uint64_t* values, Missing& missing) {
    missing.short_count = missing.medium_count = missing.long_count = 0;
    probe_from(0, batch, fronts, values, missing);
}

// The processor cannot predict a pretoken's length or whether it is in the table, so short pretokens cause no branch.
void probe_from(std::size_t first, const Batch& batch, const Fronts& fronts, std::uint64_t* values, Missing& missing) {
    for (std::size_t i = first; i < batch.size; ++i) {
        const auto number = static_cast<std::uint32_t>(i);
        const std::size_t length = batch.length(i);
        if (length > kLongestShort) [[unlikely]] {
            values[i] = 0;
            if (length > kLongestMedium) {
                missing.longs[missing.long_count++] = number;
                continue;
            }
            const MediumKey key = medium_key(batch, i);
            const MediumFront& entry = fronts.mediums[hash_of(key.low, key.high) >> (64 - kMediumFrontBits)];
            if (entry.low == key.low && entry.high == key.high) {
                values[i] = entry.value;
            } else {
                missing.mediums[missing.medium_count++] = number;
            }
            continue;
        }
        const ShortKey key = short_key(batch, i);
        const ShortFront& entry = fronts.shorts[hash_of(key) >> (64 - kShortFrontBits)];
        values[i] = entry.value & -std::uint64_t{entry.key == key};
        missing.shorts[missing.short_count] = number;
        missing.short_count += entry.key != key;
    }
}

std::size_t write_plain(const std::uint64_t* values, std::size_t first, std::size_t last, std::uint32_t*& out) {
    constexpr std::uint32_t kId = (1u << kInlineBits) - 1;
    std::size_t i = first;
    for (; i < last && (values[i] & 3); ++i) {
        const std::uint64_t ids = values[i] >> 2;
        out[0] = ids & kId;
        out[1] = ids >> kInlineBits & kId;
        out[2] = ids >> 2 * kInlineBits & kId;
        out += values[i] & 3;
    }
    return i;
}

}  // namespace bpe
