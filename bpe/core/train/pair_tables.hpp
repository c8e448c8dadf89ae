// Pairs of neighbouring tokens, and tables of what is known about them.
#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>

#include "base/hash.hpp"
#include "base/memory.hpp"
#include "base/types.hpp"

namespace bpe {

using Position = std::uint32_t;
using Count = std::uint64_t;

// Two neighbouring ids as one number, which orders pairs by the left id, then by the right.
using Pair = std::uint64_t;
inline Pair pair_of(Id left, Id right) { return Pair{left} << 32 | right; }
inline Id left_of(Pair pair) { return static_cast<Id>(pair >> 32); }
inline Id right_of(Pair pair) { return static_cast<Id>(pair); }

// A pair with its count. The greatest is merged first: the one with the highest count, then with the lowest ids.
struct RankedPair {
    Count count;
    Pair pair;
    bool operator<(const RankedPair& other) const {
        return count != other.count ? count < other.count : pair > other.pair;
    }
};

// How often a pair occurs in the text, and where: places[first_place, first_place + place_count) of a list kept
// elsewhere. A place is the first cell of the left token. The places ascend; some may be out of date.
struct PairEntry {
    Pair pair;
    Count count;
    std::uint32_t first_place;
    std::uint32_t place_count;
    RankedPair ranked() const { return {count, pair}; }
};

// A hash table of pairs. (kernels/pairs.hpp has another one, of the pairs of a vocabulary, which never changes.)
class KnownPairs {
 public:
    KnownPairs() { clear(0); }

    void clear(std::size_t expected) {
        const std::size_t slots = std::bit_ceil(std::max<std::size_t>(1024, expected * 2));
        entries_ = ZeroedArray<PairEntry>(slots, Pages::kFitting);
        shift_ = 64 - std::countr_zero(slots);
        size_ = 0;
    }
    // Calls use(entry) for each entry.
    template <class Use>
    void visit(const Use& use) {
        for (std::size_t slot = 0; slot < entries_.size(); ++slot) {
            if (entries_[slot].place_count) use(entries_[slot]);
        }
    }
    // Calls use(entry) for each entry and removes it. The memory stays, for as many pairs again.
    template <class Use>
    void drain(const Use& use) {
        visit([&](PairEntry& entry) { use(std::exchange(entry, {})); });
        size_ = 0;
    }

    void prefetch(Pair pair) const { __builtin_prefetch(&entries_[slot_of(pair)]); }
    // Returns the pair's entry, or null.
    PairEntry* find(Pair pair) {
        PairEntry& entry = entries_[slot_for(pair)];
        return entry.place_count ? &entry : nullptr;
    }
    // Returns the pair's entry, valid until the next call. A new entry has no places and must be given some.
    PairEntry& operator[](Pair pair) {
        std::size_t slot = slot_for(pair);
        if (!entries_[slot].place_count) {
            if (++size_ * 2 > entries_.size()) {
                grow();
                slot = slot_for(pair);
            }
            entries_[slot].pair = pair;
        }
        return entries_[slot];
    }

 private:
    std::size_t slot_of(Pair pair) const { return hash_of(pair, pair >> 7) >> shift_; }
    std::size_t slot_for(Pair pair) const {
        std::size_t slot = slot_of(pair);
        while (entries_[slot].place_count && entries_[slot].pair != pair) slot = (slot + 1) & (entries_.size() - 1);
        return slot;
    }
    void grow() {
        ZeroedArray<PairEntry> old(entries_.size() * 2, Pages::kFitting);
        std::swap(old, entries_);
        --shift_;
        for (std::size_t i = 0; i < old.size(); ++i) {
            if (old[i].place_count) entries_[slot_for(old[i].pair)] = old[i];
        }
    }

    ZeroedArray<PairEntry> entries_{0};  // open addressing; a free entry has no places
    int shift_ = 0;
    std::size_t size_ = 0;
};

// An upper bound of each pair's count, to find the pairs that may reach a threshold: one sum for all pairs with the
// same hash. The unit of the sums is a fraction of the threshold, and counts are rounded up to it.
class alignas(64) Sketch {  // aligned, because each thread changes its own
 public:
    // Uses these sums, all of which are 0. Their number is a power of two.
    Sketch(std::span<std::uint32_t> sums, Count threshold)
        : sums_(sums),
          shift_(64 - std::countr_zero(sums.size())),
          unit_(1 + (threshold - 1) / kMost),
          most_(1 + (threshold - 1) / unit_) {}

    // Returns how many sums to use for this many pairs.
    static std::size_t size_for(std::size_t pairs) {
        return std::bit_ceil(std::clamp<std::size_t>(pairs, std::size_t{1} << 18, std::size_t{1} << 24));
    }

    // Adds the count if it is `wanted`, without a branch. Many pairs with the same count come one after another, so the
    // division is done once for all of them.
    void add(Pair pair, Count count, bool wanted) {
        if (count != last_count_) {
            last_count_ = count;
            last_units_ = 1 + (count - 1) / unit_;
        }
        add_units(sums_[slot_of(pair)], last_units_ & -Count{wanted});
    }
    void add(const Sketch& other) {
        for (std::size_t i = 0; i < sums_.size(); ++i) add_units(sums_[i], other.sums_[i]);
    }
    bool may_reach(Pair pair) const { return sums_[slot_of(pair)] >= most_; }

 private:
    static constexpr Count kMost = 0x7FFFFFFF;
    std::size_t slot_of(Pair pair) const { return hash_of(pair, pair >> 7) >> shift_; }
    void add_units(std::uint32_t& sum, Count units) const {
        sum = static_cast<std::uint32_t>(std::min<Count>(most_, sum + std::min(units, most_)));
    }

    std::span<std::uint32_t> sums_;
    int shift_;
    Count unit_;
    Count most_;  // the threshold in units; sums stop there
    Count last_count_ = 0;
    Count last_units_ = 0;
};

}  // namespace bpe
