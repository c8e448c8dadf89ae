#include "kernels/front.hpp"

namespace bpe {

namespace {

// Looks up the first `count` pretokens as if all were short. Lists those that are not found, whatever their length, in
// missing.shorts. The processor cannot predict either, so neither causes a branch.
void probe_shorts(const Batch& batch, std::size_t count, const Fronts& fronts, std::uint64_t* values,
                  Missing& missing) {
    const std::uint8_t* const text = batch.text;
    const std::uint32_t* const edges = batch.edges;
    const ShortFront* const shorts = fronts.shorts;
    std::size_t not_found = 0;
    for (std::size_t i = 0; i < count; ++i) {
        const std::uint32_t begin = edges[i];
        const std::uint64_t length = edges[i + 1] - begin;
        const std::uint64_t beyond = ~std::uint64_t{0} << (8 * length & 63);
        const ShortKey key = (load_word(text + begin) & ~beyond) | length << 56;
        const ShortFront entry = shorts[hash_of(key) >> (64 - kShortFrontBits)];
        const std::uint64_t difference = (entry.key ^ key) | length / (kLongestShort + 1);
        const std::uint64_t missed = difference != 0;
        values[i] = entry.value & (missed - 1);
        missing.shorts[not_found] = static_cast<std::uint32_t>(i);
        not_found += missed;
    }
    missing.short_count = not_found;
}

// Moves the numbers of the longer pretokens from missing.shorts to their own lists.
void sort_by_length(const Batch& batch, Missing& missing) {
    const std::size_t count = missing.short_count;
    std::size_t shorts = 0, mediums = 0, longs = 0;
    for (std::size_t j = 0; j < count; ++j) {
        const std::uint32_t number = missing.shorts[j];
        const std::size_t length = batch.length(number);
        missing.shorts[shorts] = missing.mediums[mediums] = missing.longs[longs] = number;
        shorts += length <= kLongestShort;
        mediums += length - (kLongestShort + 1) <= kLongestMedium - (kLongestShort + 1);
        longs += length > kLongestMedium;
    }
    missing.short_count = shorts;
    missing.medium_count = mediums;
    missing.long_count = longs;
}

// Looks up the pretokens in missing.mediums and removes those that are found.
void probe_mediums(const Batch& batch, const Fronts& fronts, std::uint64_t* values, Missing& missing) {
    std::size_t left = 0;
    const std::size_t count = missing.medium_count;
    for (std::size_t j = 0; j < count; ++j) {
        const std::uint32_t number = missing.mediums[j];
        const MediumKey key = medium_key(batch, number);
        const MediumFront& entry = fronts.mediums[hash_of(key.low, key.high) >> (64 - kMediumFrontBits)];
        const std::uint64_t missed = ((entry.low ^ key.low) | (entry.high ^ key.high)) != 0;
        values[number] = entry.value & (missed - 1);
        missing.mediums[left] = number;
        left += missed;
    }
    missing.medium_count = left;
}

}  // namespace

void probe_plain(const Batch& batch, const Fronts& fronts, std::uint64_t* values, Missing& missing) {
    // The last few pretokens may be too near the end of the text for loads of eight bytes.
    std::size_t readable = batch.size;
    while (readable > 0 && batch.edges[readable - 1] + std::size_t{8} > batch.readable) --readable;
    probe_shorts(batch, readable, fronts, values, missing);
    sort_by_length(batch, missing);
    probe_mediums(batch, fronts, values, missing);
    probe_from(readable, batch, fronts, values, missing);
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
