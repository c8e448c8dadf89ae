#include "merge.hpp"

#include <algorithm>
#include <functional>
#include <stdexcept>

namespace bpe {

std::size_t merge_plain(const Vocabulary& vocabulary, const std::uint8_t* bytes, std::size_t size, Id* ids) {
    for (std::size_t i = 0; i < size; ++i) ids[i] = vocabulary.id_of_byte(bytes[i]);
    for (;;) {
        Id lowest = kNoId;
        std::size_t place = 0;
        for (std::size_t i = 0; i + 1 < size; ++i) {
            const Id id = vocabulary.merged(ids[i], ids[i + 1]);
            if (id < lowest) {
                lowest = id;
                place = i;
            }
        }
        if (lowest == kNoId) return size;
        ids[place] = lowest;
        std::copy(ids + place + 2, ids + size, ids + place + 1);
        --size;
    }
}

// Up to this many bytes, looking over all ranks for the lowest is quicker than keeping a heap.
constexpr std::size_t kShort = 48;

std::size_t Merger::merge(const std::uint8_t* bytes, std::size_t size, Id* ids) {
    return size <= kShort ? merge_short(bytes, size, ids) : merge_long(bytes, size, ids);
}

// The definition with the ranks of all neighbours kept: a merge asks the table for two pairs, not for all of them.
std::size_t Merger::merge_short(const std::uint8_t* bytes, std::size_t size, Id* ids) {
    Id ranks[kShort];  // ranks[i]: what ids[i] and ids[i + 1] merge into
    for (std::size_t i = 0; i < size; ++i) ids[i] = vocabulary_.id_of_byte(bytes[i]);
    for (std::size_t i = 0; i + 1 < size; ++i) ranks[i] = vocabulary_.merged_bytes(bytes[i], bytes[i + 1]);
    while (size > 1) {
        std::size_t place = 0;
        Id lowest = ranks[0];
        for (std::size_t i = 1; i + 1 < size; ++i) {
            if (ranks[i] < lowest) {
                lowest = ranks[i];
                place = i;
            }
        }
        if (lowest == kNoId) break;
        ids[place] = lowest;
        --size;
        for (std::size_t i = place + 1; i < size; ++i) ids[i] = ids[i + 1];
        for (std::size_t i = place + 1; i + 1 < size; ++i) ranks[i] = ranks[i + 1];
        if (place > 0) ranks[place - 1] = vocabulary_.merged(ids[place - 1], lowest);
        if (place + 1 < size) ranks[place] = vocabulary_.merged(lowest, ids[place + 1]);
    }
    return size;
}

// A heap of candidate merges, lowest rank first, leftmost among equals. A candidate whose neighbours have changed since
// is recognised by what stands there now, and dropped.
std::size_t Merger::merge_long(const std::uint8_t* bytes, std::size_t size, Id* ids) {
    if (size >= 0xFFFFFFFF) throw std::length_error("a single pretoken of 4 GiB or more cannot be encoded");
    const auto count = static_cast<std::uint32_t>(size);
    symbols_.resize(count);
    next_.resize(count);
    previous_.resize(count);
    candidates_.clear();
    for (std::uint32_t i = 0; i < count; ++i) {
        symbols_[i] = vocabulary_.id_of_byte(bytes[i]);
        next_[i] = i + 1;
        previous_[i] = i - 1;  // wraps at 0, where it is not read
    }
    const auto candidate = [&](std::uint32_t place) {
        return std::uint64_t{vocabulary_.merged(symbols_[place], symbols_[next_[place]])} << 32 | place;
    };
    const auto is_merge = [](std::uint64_t found) { return found >> 32 != kNoId; };
    for (std::uint32_t i = 0; i + 1 < count; ++i) {
        if (const std::uint64_t c = candidate(i); is_merge(c)) candidates_.push_back(c);
    }
    std::make_heap(candidates_.begin(), candidates_.end(), std::greater<>{});
    const auto push = [&](std::uint32_t place) {
        if (const std::uint64_t c = candidate(place); is_merge(c)) {
            candidates_.push_back(c);
            std::push_heap(candidates_.begin(), candidates_.end(), std::greater<>{});
        }
    };
    while (!candidates_.empty()) {
        const std::uint64_t top = candidates_.front();
        std::pop_heap(candidates_.begin(), candidates_.end(), std::greater<>{});
        candidates_.pop_back();
        const auto place = static_cast<std::uint32_t>(top);
        if (symbols_[place] == kNoId || next_[place] == count || candidate(place) != top) continue;
        const std::uint32_t absorbed = next_[place];
        symbols_[place] = static_cast<Id>(top >> 32);
        symbols_[absorbed] = kNoId;
        next_[place] = next_[absorbed];
        if (next_[place] != count) {
            previous_[next_[place]] = place;
            push(place);
        }
        if (place > 0) push(previous_[place]);
    }
    std::size_t written = 0;
    for (std::uint32_t place = 0; place != count; place = next_[place]) ids[written++] = symbols_[place];
    return written;
}

}  // namespace bpe
