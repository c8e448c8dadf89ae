#include "merge.hpp"

#include <algorithm>
#include <bit>
#include <functional>
#include <stdexcept>

#include "unicode.hpp"

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

void Merger::merge(std::span<MergeJob> jobs) {
    std::size_t next = 0;
    std::size_t busy = 0;
    const auto fill = [&](Lane& lane) {
        while (next < jobs.size()) {
            MergeJob& job = jobs[next++];
            if (begin(lane, job)) return true;
            job.count = merge_long(job.bytes, job.size, job.ids);
        }
        return false;
    };
    while (busy < kLanes && fill(lanes_[busy])) ++busy;
    while (busy) {
        for (std::size_t i = 0; i < busy;) {
            if (step(lanes_[i])) {
                ++i;
            } else if (!fill(lanes_[i])) {  // nothing more to begin: the last lane takes this one's place
                if (i != --busy) lanes_[i] = lanes_[busy];
            }
        }
    }
}

// The token of the whole character at bytes[i], if merging may begin with it; `length` gets that of the character.
Id Merger::whole_character(const MergeJob& job, std::size_t i, std::size_t& length) const {
    const std::uint8_t* bytes = job.bytes;
    length = read_character(bytes, i, job.size).length;
    if (length != 2 && length != 3) return kNoId;
    const std::uint32_t code_point = length == 2
                                         ? (bytes[i] & 0x1F) << 6 | (bytes[i + 1] & 0x3F)
                                         : (bytes[i] & 0x0F) << 12 | (bytes[i + 1] & 0x3F) << 6 | (bytes[i + 2] & 0x3F);
    const std::size_t end = i + length;
    if (i > 0 && vocabulary_.may_be_crossed(bytes[i - 1], bytes[i])) return kNoId;
    if (end < job.size && vocabulary_.may_be_crossed(bytes[end - 1], bytes[end])) return kNoId;
    return vocabulary_.whole_character(code_point);
}

// Lays out the symbols that merging begins with, and the ranks of all their pairs; false where they are too many.
bool Merger::begin(Lane& lane, MergeJob& job) const {
    std::uint32_t count = 0;
    std::uint64_t whole = 0;  // the symbols that are characters of several bytes
    for (std::size_t i = 0; i < job.size;) {
        if (count == kShort) return false;
        std::size_t length = 1;
        Id id = kNoId;
        if (job.bytes[i] >= 0xC2) id = whole_character(job, i, length);
        if (id != kNoId) {
            whole |= std::uint64_t{1} << count;
            lane.symbols[count++] = id;
        } else {
            if (count + length > kShort) return false;
            for (std::size_t j = i; j < i + length; ++j) lane.symbols[count++] = vocabulary_.id_of_byte(job.bytes[j]);
        }
        i += length;
    }
    lane.job = &job;
    lane.place = kShort;
    lane.padded = (count + 7) & ~7u;
    lane.live = ~std::uint64_t{0} >> (64 - count);
    const auto set = [&](std::uint32_t i, Id id) {
        lane.candidates[i] = id == kNoId ? kNone : static_cast<std::int32_t>(id << 6 | i);
    };
    if (whole) {
        for (std::uint32_t i = 0; i + 1 < count; ++i) set(i, vocabulary_.merged(lane.symbols[i], lane.symbols[i + 1]));
    } else {
        for (std::uint32_t i = 0; i + 1 < count; ++i) set(i, vocabulary_.merged_bytes(job.bytes[i], job.bytes[i + 1]));
    }
    for (std::uint32_t i = count - 1; i < lane.padded; ++i) lane.candidates[i] = kNone;
    return true;
}

// Makes one merge; false where none is left, with the ids written.
bool Merger::step(Lane& lane) const {
    const auto candidate = [&](std::uint32_t left, std::uint32_t right) {
        const Id id = vocabulary_.merged(lane.symbols[left], lane.symbols[right]);
        lane.candidates[left] = id == kNoId ? kNone : static_cast<std::int32_t>(id << 6 | left);
    };
    const auto before = [&](std::uint32_t place) { return lane.live & ((std::uint64_t{1} << place) - 1); };
    const auto after = [&](std::uint32_t place) { return lane.live & (~std::uint64_t{1} << place); };
    const auto highest = [](std::uint64_t bits) { return static_cast<std::uint32_t>(63 - std::countl_zero(bits)); };
    const auto lowest = [](std::uint64_t bits) { return static_cast<std::uint32_t>(std::countr_zero(bits)); };

    // 1. Look up the pairs of the token that was made last.
    if (lane.place < kShort) {
        if (const std::uint64_t left = before(lane.place)) candidate(highest(left), lane.place);
        if (const std::uint64_t right = after(lane.place)) candidate(lane.place, lowest(right));
    }
    // 2. Take the lowest rank, the leftmost among equals: the place is in the low bits.
    std::int32_t best = kNone;
    for (std::uint32_t i = 0; i < lane.padded; ++i) best = std::min(best, lane.candidates[i]);
    if (best == kNone) {
        std::size_t count = 0;
        for (std::uint64_t left = lane.live; left; left &= left - 1)
            lane.job->ids[count++] = lane.symbols[lowest(left)];
        lane.job->count = count;
        return false;
    }
    // 3. Merge there, and ask for the memory of the two pairs that this makes.
    const std::uint32_t place = static_cast<std::uint32_t>(best) & (kShort - 1);
    const std::uint32_t absorbed = lowest(after(place));
    lane.symbols[place] = static_cast<Id>(best) >> 6;
    lane.live &= ~(std::uint64_t{1} << absorbed);
    lane.candidates[absorbed] = kNone;
    lane.candidates[place] = kNone;
    lane.place = place;
    if (const std::uint64_t left = before(place)) {
        vocabulary_.prefetch_merged(lane.symbols[highest(left)], lane.symbols[place]);
    }
    if (const std::uint64_t right = after(place)) {
        vocabulary_.prefetch_merged(lane.symbols[place], lane.symbols[lowest(right)]);
    }
    return true;
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
