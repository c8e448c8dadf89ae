#include "encode/merge.hpp"

#include <algorithm>
#include <bit>
#include <functional>
#include <stdexcept>

#include "text/unicode.hpp"

namespace bpe {

namespace {

// Whether a byte may be the first of a character of several bytes.
bool may_lead_character(std::uint8_t byte) { return byte >= 0xC2; }

}  // namespace

std::size_t merge_plain(const Vocabulary& vocabulary, const std::uint8_t* bytes, std::size_t size, Id* ids) {
    std::transform(bytes, bytes + size, ids, [&](std::uint8_t byte) { return vocabulary.id_of_byte(byte); });
    size = static_cast<std::size_t>(std::remove(ids, ids + size, kNoId) - ids);
    for (;;) {
        std::uint32_t lowest = kNoId;
        std::size_t place = 0;
        for (std::size_t i = 0; i + 1 < size; ++i) {
            const std::uint32_t rank = vocabulary.rank_of(ids[i], ids[i + 1]);
            if (rank < lowest) {
                lowest = rank;
                place = i;
            }
        }
        if (lowest == kNoId) return size;
        ids[place] = token_of_rank(vocabulary.pair_table(), lowest);
        std::copy(ids + place + 2, ids + size, ids + place + 1);
        --size;
    }
}

void Merger::merge(std::span<MergeJob> jobs) {
    if (!vocabulary_.knows_all_bytes()) leave_unknown_bytes_out(jobs);
    merge_short(jobs);
    for (MergeJob& job : jobs) {
        if (job.count || !job.size) continue;
        job.count = merge_windows(job.bytes, job.size, job.ids);
        if (!job.count) job.count = merge_large_windows(job.bytes, job.size, job.ids);
        if (!job.count) job.count = merge_by_heap(job.bytes, job.size, job.ids);
    }
}

// Removes the bytes that have no token. The bytes around them are then merged as neighbours, as in `tokenizers`.
void Merger::leave_unknown_bytes_out(std::span<MergeJob> jobs) {
    const auto is_unknown = [this](std::uint8_t byte) { return vocabulary_.id_of_byte(byte) == kNoId; };
    const auto is_rare = [&](const MergeJob& job) { return std::any_of(job.bytes, job.bytes + job.size, is_unknown); };
    std::size_t room = 0;
    for (const MergeJob& job : jobs) room += is_rare(job) ? job.size : 0;
    known_bytes_.resize(room);
    std::uint8_t* out = known_bytes_.data();
    for (MergeJob& job : jobs) {
        if (!is_rare(job)) continue;
        std::uint8_t* const end = std::remove_copy_if(job.bytes, job.bytes + job.size, out, is_unknown);
        job.bytes = out;
        job.size = static_cast<std::size_t>(end - out);
        out = end;
    }
}

// Merges the jobs that fit into a lane. Sets the count of the others, and of jobs without bytes, to 0.
void Merger::merge_short(std::span<MergeJob> jobs) {
    constexpr std::size_t kAhead = 4;
    std::size_t next = 0;
    std::size_t prepared = 0;
    std::size_t busy = 0;
    const auto fill = [&](std::size_t lane) {
        while (next < jobs.size()) {
            while (prepared < std::min(next + kAhead, jobs.size())) prepare(jobs[prepared++]);
            MergeJob& job = jobs[next++];
            if (!job.count) continue;
            job_of_lane_[lane] = &job;
            begin(lanes_[lane], job);
            return true;
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
            // No job is left to begin: move the last busy lane to this place.
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

// Returns the token of the whole character at bytes[i] if merging may begin with it, else kNoId. Sets `length` to the
// length of the character.
Id Merger::whole_character(const MergeJob& job, std::size_t i, std::size_t& length) const {
    const std::uint8_t* bytes = job.bytes;
    length = read_character(bytes, i, job.size).length;
    if (length != 2 && length != 3) return kNoId;
    const std::size_t end = i + length;
    if (i > 0 && vocabulary_.may_be_crossed(bytes[i - 1], bytes[i])) return kNoId;
    if (end < job.size && vocabulary_.may_be_crossed(bytes[end - 1], bytes[end])) return kNoId;
    return vocabulary_.whole_character(code_point_of(bytes + i, length));
}

// Finds the symbols that merging begins with, and sets the count to their number, or to 0 if they are too many for a
// lane. Where some are whole characters, writes all to the place of the ids and prefetches what `begin` will look up.
void Merger::prepare(MergeJob& job) const {
    job.count = job.size;
    if (job.size <= kLaneSymbols && std::none_of(job.bytes, job.bytes + job.size, may_lead_character)) return;
    const PairTable pairs = vocabulary_.pair_table();
    std::size_t count = 0;
    job.count = 0;
    for (std::size_t i = 0; i < job.size;) {
        std::size_t length = 1;
        Id id = kNoId;
        if (may_lead_character(job.bytes[i])) id = whole_character(job, i, length);
        if (count + (id == kNoId ? length : 1) > kLaneSymbols) return;
        if (id != kNoId) {
            job.ids[count++] = id;
        } else {
            for (std::size_t j = i; j < i + length; ++j) job.ids[count++] = vocabulary_.id_of_byte(job.bytes[j]);
        }
        i += length;
    }
    job.count = count;
    if (count == job.size) return;  // only single bytes, whose pairs have their own table
    for (std::size_t i = 0; i + 1 < count; ++i) {
        prefetch_slot(pairs, slot_of(pair_key(job.ids[i], job.ids[i + 1]), pairs));
    }
}

// Sets up a lane with the symbols of a prepared job and the ranks of all their pairs.
void Merger::begin(Lane& lane, const MergeJob& job) const {
    const PairTable pairs = vocabulary_.pair_table();
    const std::size_t count = job.count;
    if (count < job.size) {
        std::copy_n(job.ids, count, lane.symbols);
        for (std::uint32_t i = 0; i + 1 < count; ++i) {
            const std::uint64_t pair = pair_key(lane.symbols[i], lane.symbols[i + 1]);
            lane.candidates[i] = candidate_of(find_pair(pairs, pair, slot_of(pair, pairs)), i);
        }
    } else {
        lane.symbols[0] = vocabulary_.id_of_byte(job.bytes[0]);
        for (std::uint32_t i = 0; i + 1 < count; ++i) {
            lane.symbols[i + 1] = vocabulary_.id_of_byte(job.bytes[i + 1]);
            lane.candidates[i] = candidate_of(vocabulary_.rank_of_bytes(job.bytes[i], job.bytes[i + 1]), i);
        }
    }
    lane.padded = ((count + kLaneBlock - 1) / kLaneBlock * kLaneBlock);
    for (std::size_t i = count - 1; i < lane.padded; ++i) lane.candidates[i] = kNoCandidate;
    lane.live = ~std::uint64_t{0} >> (64 - count);
    lane.places[0] = lane.places[1] = 0;
    lane.pairs[0] = lane.pairs[1] = count > 1 ? pair_key(lane.symbols[0], lane.symbols[1]) : kNoPair;
    lane.slots[0] = lane.slots[1] = slot_of(lane.pairs[0], pairs);
}

// Writes the ids of a lane in which no merge is left.
void Merger::finish(const Lane& lane, MergeJob& job) {
    std::size_t count = 0;
    for (std::uint64_t left = lane.live; left; left &= left - 1)
        job.ids[count++] = lane.symbols[std::countr_zero(left)];
    job.count = count;
}

// A long pretoken is encoded in overlapping windows, each by itself. Two windows are joined at a token that both have
// at the same place.
//
// The result is exact. Proof: let t and u be neighbours in the encoding of some text. No merge crossed the outer edges
// of their span, so the merges within it were those of the span encoded alone, and that encoding is t, u. Conversely,
// let every two neighbours t, u in a sequence of tokens be the encoding of their span. Then the sequence is the
// encoding of the whole text: suppose that some merge crosses an edge between two of the tokens, t and u, and take the
// first merge that crosses any edge. Up to then, all merges within the span of t and u were those of the span encoded
// alone. So this merge would happen there as well, and t, u would not be the encoding of the span. If two windows share
// a token, every two neighbours in the joined sequence are neighbours in one of the windows.
class Merger::JoinedWindows {
 public:
    JoinedWindows(const Vocabulary& vocabulary, Id* ids) : vocabulary_(vocabulary), ids_(ids) {}

    std::size_t size() const { return size_; }

    // Appends the ids of the window that begins at byte `begin`. Returns false if it shares no token with the window
    // before.
    bool append(std::size_t begin, std::span<const Id> window) {
        std::size_t ours = shared_, ours_begin = shared_begin_;
        std::size_t theirs = 0, theirs_begin = begin;
        while (size_ > 0 && (ours_begin != theirs_begin || ids_[ours] != window[theirs])) {
            const bool move_ours = ours_begin <= theirs_begin;
            const bool move_theirs = theirs_begin <= ours_begin;
            if (move_ours) ours_begin += length(ids_[ours++]);
            if (move_theirs) theirs_begin += length(window[theirs++]);
            if (ours == size_ || theirs == window.size()) return false;
        }
        std::copy(window.begin() + static_cast<std::ptrdiff_t>(theirs), window.end(), ids_ + ours);
        size_ = ours + window.size() - theirs;
        shared_ = ours;
        shared_begin_ = ours_begin;
        return true;
    }

    // Returns where the first token at or after `byte` begins. `byte` lies within the last window.
    std::size_t token_from(std::size_t byte) const {
        std::size_t begin = shared_begin_;
        for (std::size_t i = shared_; i < size_ && begin < byte; ++i) begin += length(ids_[i]);
        return begin;
    }

 private:
    std::size_t length(Id id) const { return vocabulary_.bytes_of(id).size(); }

    const Vocabulary& vocabulary_;
    Id* ids_;
    std::size_t size_ = 0;
    std::size_t shared_ = 0;        // the number of the token that the last two windows share
    std::size_t shared_begin_ = 0;  // where that token begins
};

// Encodes a pretoken in windows that fit into lanes. Returns the number of ids, or 0 if two windows share no token,
// which may happen in a run of one character.
std::size_t Merger::merge_windows(const std::uint8_t* bytes, std::size_t size, Id* ids) {
    constexpr std::size_t kWindow = kLaneSymbols;
    constexpr std::size_t kStride = 40;
    constexpr std::size_t kTogether = 64;
    window_ids_.resize(std::max(window_ids_.size(), kTogether * kWindow));
    MergeJob windows[kTogether];
    JoinedWindows joined(vocabulary_, ids);
    for (std::size_t begin = 0; begin == 0 || begin + kWindow - kStride < size;) {
        poll();
        std::size_t count = 0;
        for (; count < kTogether && (begin == 0 || begin + kWindow - kStride < size); begin += kStride) {
            windows[count] = {bytes + begin, std::min(kWindow, size - begin), &window_ids_[count * kWindow], 0};
            ++count;
        }
        merge_short({windows, count});
        for (const MergeJob& window : std::span(windows, count)) {
            if (!joined.append(static_cast<std::size_t>(window.bytes - bytes), {window.ids, window.count})) return 0;
        }
    }
    return joined.size();
}

// Encodes a pretoken in large windows. Each begins where a token of the window before begins, so that runs of one
// character join as well. Returns the number of ids, or 0 if two windows still share no token.
std::size_t Merger::merge_large_windows(const std::uint8_t* bytes, std::size_t size, Id* ids) {
    constexpr std::size_t kWindow = std::size_t{1} << 14;
    window_ids_.resize(std::max(window_ids_.size(), kWindow));
    JoinedWindows joined(vocabulary_, ids);
    for (std::size_t begin = 0;;) {
        poll();
        const std::size_t length = std::min(kWindow, size - begin);
        const std::size_t count = merge_by_heap(bytes + begin, length, window_ids_.data());
        if (!joined.append(begin, {window_ids_.data(), count})) return 0;
        if (begin + length == size) return joined.size();
        const std::size_t next = joined.token_from(begin + length / 4 * 3);
        if (next == begin + length) return 0;  // the tokens are so long that no window can share one
        begin = next;
    }
}

// Encodes a pretoken with a heap of candidate merges, lowest rank first, leftmost among equals. Drops a candidate if
// the tokens at its place have changed since it was pushed.
std::size_t Merger::merge_by_heap(const std::uint8_t* bytes, std::size_t size, Id* ids) {
    if (size >= 0xFFFFFFFF) throw std::length_error("cannot encode a single pretoken of 4 GiB or more; split the text");
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
        return std::uint64_t{vocabulary_.rank_of(symbols_[place], symbols_[next_[place]])} << 32 | place;
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
    constexpr std::size_t kBetweenPolls = std::size_t{1} << 16;
    for (std::size_t step = 1; !candidates_.empty(); ++step) {
        if (step % kBetweenPolls == 0) poll();
        const std::uint64_t top = candidates_.front();
        std::pop_heap(candidates_.begin(), candidates_.end(), std::greater<>{});
        candidates_.pop_back();
        const auto place = static_cast<std::uint32_t>(top);
        if (symbols_[place] == kNoId || next_[place] == count || candidate(place) != top) continue;
        const std::uint32_t absorbed = next_[place];
        symbols_[place] = token_of_rank(vocabulary_.pair_table(), static_cast<std::uint32_t>(top >> 32));
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
    if (count > (1u << 18)) {  // frees the buffers, about 20 bytes per byte, that only a very long pretoken needs
        symbols_ = std::vector<Id>();
        next_ = std::vector<std::uint32_t>();
        previous_ = std::vector<std::uint32_t>();
        candidates_ = std::vector<std::uint64_t>();
    }
    return written;
}

}  // namespace bpe
