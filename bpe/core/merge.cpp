#include "merge.hpp"

#include <algorithm>
#include <bit>
#include <functional>
#include <stdexcept>

#include "unicode.hpp"

namespace bpe {

namespace {

std::uint64_t before(std::uint64_t live, std::uint32_t place) { return live & ((std::uint64_t{1} << place) - 1); }
std::uint64_t after(std::uint64_t live, std::uint32_t place) { return live & (~std::uint64_t{1} << place); }
std::uint32_t highest(std::uint64_t bits) { return static_cast<std::uint32_t>(63 - std::countl_zero(bits)); }
std::uint32_t lowest(std::uint64_t bits) { return static_cast<std::uint32_t>(std::countr_zero(bits)); }

std::int32_t candidate_of(Id id, std::uint32_t place) {
    return static_cast<std::int32_t>((id & kIdMask) << 6 | place);  // kNoId gives one that is none
}

void ask_for(Lane& lane, int which, std::uint32_t place, std::uint64_t pair, const PairTable& pairs) {
    lane.places[which] = place;
    lane.pairs[which] = pair;
    lane.lines[which] = line_of(pair, pairs.line_mask);
    __builtin_prefetch(pairs.entries + lane.lines[which] * PairTable::kLine);
}

}  // namespace

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
    merge_short(jobs);
    for (MergeJob& job : jobs) {
        if (job.count) continue;
        job.count = merge_windows(job.bytes, job.size, job.ids);
        if (!job.count) job.count = merge_by_heap(job.bytes, job.size, job.ids);
    }
}

// Those that have too many symbols for a lane get a count of 0.
void Merger::merge_short(std::span<MergeJob> jobs) {
    std::size_t next = 0;
    std::size_t busy = 0;
    const auto fill = [&](std::size_t lane) {
        while (next < jobs.size()) {
            MergeJob& job = jobs[next++];
            job_of_lane_[lane] = &job;
            if (begin(lanes_[lane], job)) return true;
            job.count = 0;
        }
        return false;
    };
    while (busy < kLanes && fill(busy)) ++busy;
    while (busy) {
        std::uint32_t done = merge_round_(lanes_.data(), busy, vocabulary_.pair_table());
        for (; done; done &= done - 1) {
            const auto lane = static_cast<std::size_t>(std::countr_zero(done));
            finish(lanes_[lane], *job_of_lane_[lane]);
            if (fill(lane)) continue;
            // Nothing more to begin: the last lane that is still at work takes this one's place.
            while (--busy > lane && (done >> busy & 1)) {
                finish(lanes_[busy], *job_of_lane_[busy]);
                done &= ~(1u << busy);
            }
            if (busy > lane) {
                lanes_[lane] = lanes_[busy];
                job_of_lane_[lane] = job_of_lane_[busy];
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
        if (count == kLaneSymbols) return false;
        std::size_t length = 1;
        Id id = kNoId;
        if (job.bytes[i] >= 0xC2) id = whole_character(job, i, length);
        if (id != kNoId) {
            whole |= std::uint64_t{1} << count;
            lane.symbols[count++] = id;
        } else {
            if (count + length > kLaneSymbols) return false;
            for (std::size_t j = i; j < i + length; ++j) lane.symbols[count++] = vocabulary_.id_of_byte(job.bytes[j]);
        }
        i += length;
    }
    lane.padded = ((count + kLaneBlock - 1) / kLaneBlock * kLaneBlock);
    lane.live = ~std::uint64_t{0} >> (64 - count);
    lane.places[0] = lane.places[1] = 0;
    lane.pairs[0] = lane.pairs[1] = count > 1 ? pair_key(lane.symbols[0], lane.symbols[1]) : kNoPair;
    lane.lines[0] = lane.lines[1] = line_of(lane.pairs[0], vocabulary_.pair_table().line_mask);
    if (whole) {
        look_up_all_(lane, count, vocabulary_.pair_table());
    } else {
        for (std::uint32_t i = 0; i + 1 < count; ++i) {
            lane.candidates[i] = candidate_of(vocabulary_.merged_bytes(job.bytes[i], job.bytes[i + 1]), i);
        }
    }
    for (std::uint32_t i = count - 1; i < lane.padded; ++i) lane.candidates[i] = kNoCandidate;
    return true;
}

// In the first half all look up the pairs that their last merges made, in the second all make a merge: what is written
// in one half is read in the other, when it has long arrived.
std::uint32_t merge_round_plain(Lane* lanes, std::size_t count, const PairTable& pairs) {
    for (Lane* lane = lanes; lane < lanes + count; ++lane) {
        for (int which = 0; which < 2; ++which) {
            const std::uint32_t place = lane->places[which];
            lane->candidates[place] = candidate_of(find_pair(pairs, lane->pairs[which], lane->lines[which]), place);
        }
    }
    std::uint32_t done = 0;
    for (std::size_t i = 0; i < count; ++i) {
        Lane& lane = lanes[i];
        // The lowest rank, the leftmost among equals: the place is in the low bits.
        const std::int32_t best = *std::min_element(lane.candidates, lane.candidates + lane.padded);
        if (best >= kNoCandidate) {
            done |= 1u << i;
            continue;
        }
        const std::uint32_t place = static_cast<std::uint32_t>(best) & (kLaneSymbols - 1);
        const std::uint32_t absorbed = lowest(after(lane.live, place));
        const Id id = static_cast<Id>(best) >> 6;
        lane.symbols[place] = id;
        lane.live &= ~(std::uint64_t{1} << absorbed);
        lane.candidates[absorbed] = kNoCandidate;
        lane.candidates[place] = kNoCandidate;
        const std::uint64_t preceding = before(lane.live, place);
        const std::uint64_t following = after(lane.live, place);
        const std::uint32_t previous = preceding ? highest(preceding) : place;
        ask_for(lane, 0, previous, preceding ? pair_key(lane.symbols[previous], id) : kNoPair, pairs);
        ask_for(lane, 1, place, following ? pair_key(id, lane.symbols[lowest(following)]) : kNoPair, pairs);
    }
    return done;
}

void look_up_all_plain(Lane& lane, std::size_t count, const PairTable& pairs) {
    for (std::uint32_t i = 0; i + 1 < count; ++i) {
        const std::uint64_t pair = pair_key(lane.symbols[i], lane.symbols[i + 1]);
        lane.candidates[i] = candidate_of(find_pair(pairs, pair, line_of(pair, pairs.line_mask)), i);
    }
}

void Merger::finish(const Lane& lane, MergeJob& job) {
    std::size_t count = 0;
    for (std::uint64_t left = lane.live; left; left &= left - 1) job.ids[count++] = lane.symbols[lowest(left)];
    job.count = count;
}

// A long pretoken in short windows that overlap, each encoded by itself, and joined where two of them have the same
// token at the same place. Returns 0 where two have none in common, as may be in a run of one character.
//
// The result is exact. For let t and u be neighbours in the encoding of some text. No merge crossed the outer edges of
// the span of the two, so that within it the same merges were made as if it stood alone: t, u is its encoding.
// Conversely, let all neighbours in a sequence of tokens be such. Then it is the encoding of the whole: suppose that a
// merge crosses an edge between two of the tokens, t and u, and take the first one that crosses any. Until then all
// merges within the span of t and u were those that are made when it stands alone, so this one would be made there as
// well, and t, u would not be its encoding. Where two windows share a token, all neighbours are neighbours in one of
// them.
std::size_t Merger::merge_windows(const std::uint8_t* bytes, std::size_t size, Id* ids) {
    constexpr std::size_t kWindow = kLaneSymbols;
    constexpr std::size_t kStride = 40;
    constexpr std::size_t kTogether = 64;
    window_ids_.resize(kTogether * kWindow);
    MergeJob windows[kTogether];
    std::size_t written = 0;
    std::size_t shared = 0;        // number of the token that the last two windows share,
    std::size_t shared_begin = 0;  // and where it begins
    for (std::size_t begin = 0; begin == 0 || begin + kWindow - kStride < size;) {
        std::size_t count = 0;
        for (; count < kTogether && (begin == 0 || begin + kWindow - kStride < size); begin += kStride) {
            windows[count] = {bytes + begin, std::min(kWindow, size - begin), &window_ids_[count * kWindow], 0};
            ++count;
        }
        merge_short({windows, count});
        for (const MergeJob& window : std::span(windows, count)) {
            std::size_t ours = shared, ours_begin = shared_begin;
            std::size_t theirs = 0, theirs_begin = static_cast<std::size_t>(window.bytes - bytes);
            while (written > 0 && (ours_begin != theirs_begin || ids[ours] != window.ids[theirs])) {
                const bool move_ours = ours_begin <= theirs_begin;
                const bool move_theirs = theirs_begin <= ours_begin;
                if (move_ours) ours_begin += vocabulary_.bytes_of(ids[ours++]).size();
                if (move_theirs) theirs_begin += vocabulary_.bytes_of(window.ids[theirs++]).size();
                if (ours == written || theirs == window.count) return 0;
            }
            std::copy(window.ids + theirs, window.ids + window.count, ids + ours);
            written = ours + window.count - theirs;
            shared = ours;
            shared_begin = ours_begin;
        }
    }
    return written;
}

// A heap of candidate merges, lowest rank first, leftmost among equals. A candidate whose neighbours have changed since
// is recognised by what stands there now, and dropped.
std::size_t Merger::merge_by_heap(const std::uint8_t* bytes, std::size_t size, Id* ids) {
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
    if (count > (1u << 18)) {  // gives memory back, some 20 times as much, that only a very long pretoken needs
        symbols_ = std::vector<Id>();
        next_ = std::vector<std::uint32_t>();
        previous_ = std::vector<std::uint32_t>();
        candidates_ = std::vector<std::uint64_t>();
    }
    return written;
}

}  // namespace bpe
