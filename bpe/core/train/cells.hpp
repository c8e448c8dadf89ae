// The words that training merges, as one array of ids.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <utility>
#include <vector>

#include "base/memory.hpp"
#include "base/threads.hpp"
#include "encode/vocab.hpp"
#include "train/pair_tables.hpp"
#include "train/words.hpp"

namespace bpe {

class RoomByCount;  // see cells.cpp

// The distinct words in one array of cells, with a separator after each word and before the first. A token occupies one
// cell for each part that it had at the last `compact`. Its id is in its first cell and in its last; all its cells but
// the first are marked. So a token's neighbours are found without links: the next token begins where this one ends, and
// the cell before its first is the last cell of the previous token. Words with the same count are adjacent, so that a
// cell's position determines the count of its word.
class Cells {
 public:
    static constexpr Id kMark = Id{1} << 31;
    static constexpr Id kSeparator = kMark - 1;

    // Encodes the words with the vocabulary. Throws InputError if they take more than `memory` bytes (0 for no limit).
    Cells(WordSource& words, const Vocabulary& vocabulary, std::size_t memory);

    Position size() const { return size_; }
    Id operator[](Position at) const { return cells_[at]; }
    Pair pair_at(Position at) const { return pair_of(cells_[at], cells_[at + 1]); }
    void prefetch(Position at) const { __builtin_prefetch(cells_.data() + at); }

    // Returns the id of the token, or separator, that ends before a position.
    Id before(Position at) const { return cells_[at - 1] & ~kMark; }
    // Returns where the token before a position begins.
    Position begin_before(Position at) const {
        do --at;
        while (cells_[at] & kMark);
        return at;
    }
    // Returns where the token at a position ends.
    Position end_of(Position at) const {
        do ++at;
        while (cells_[at] & kMark);
        return at;
    }

    // How many cells a token occupies.
    Position span(Id id) const { return spans_[id]; }
    // Adds the next id.
    void add_token(Position span) {
        spans_.push_back(span);
        uses_.push_back(0);
    }

    // Returns whether the pair is at this place. A token that absorbs another overwrites its first cell or marks it.
    bool holds(Position at, Pair pair) const {
        return cells_[at] == left_of(pair) && cells_[at + spans_[left_of(pair)]] == right_of(pair);
    }

    // Joins the two tokens in the cells [begin, second) and [second, end) into one.
    void join(Position begin, Position second, Position end, Id made) {
        cells_[second] = made | kMark;
        cells_[end - 1] = made | kMark;
        cells_[begin] = made;
    }
    // Joins any number of tokens in the cells [begin, end) into one.
    void join_all(Position begin, Position end, Id made) {
        for (Position at = begin; at < end; ++at) cells_[at] = made | kMark;
        cells_[begin] = made;
    }

    // Returns the count of the word that a cell belongs to.
    Count count_at(Position at) const {
        std::size_t group = group_of_block_[at / kBlockCells];
        while (starts_[group + 1] <= at) ++group;
        return counts_[group];
    }

    // Returns the sum of the counts of all cells.
    Count total_count() const;

    // Reduces each token to one cell, and drops the words that are a single token, since they cannot change any more.
    // Divides the cells among up to `threads` threads. Calls note(part, pair, count, is_pair) for each two neighbouring
    // cells before words are dropped; `is_pair` is false if one of them is a separator.
    template <class Note>
    void compact(std::size_t threads, const Note& note);

    // Calls note(part, places) with the places of the pairs for which filter(place) is true: each part on one thread,
    // in order, some hundred cells at a time. Only right after `compact`, with the same parts.
    template <class Filter, class Note>
    void visit_pairs(const Filter& filter, const Note& note) const;

    // The number of parts that the last `compact` divided the cells into.
    std::size_t parts() const { return part_ends_.size(); }

    // Returns how often each id occurs in the words. Nothing else may be called after it.
    std::vector<Count> take_uses();

 private:
    static constexpr Position kBlockCells = 64;
    // Adjacent words with the same count.
    struct Group {
        Count count;
        Position start;
    };
    struct CompactedPart {
        Position end;  // where the next cell is written
        std::vector<Group> groups;
        std::vector<std::pair<Id, Count>> whole;  // words that are a single token
    };

    void place(WordSource& words, const Vocabulary& vocabulary, RoomByCount& room);
    void split(std::size_t parts);
    template <class Note>
    CompactedPart compact_part(Position begin, Position end, const Note& note);
    template <class Note>
    void compact_block(Position begin, Position end, Count count, CompactedPart& done, const Note& note);
    void close_gaps(std::span<const CompactedPart> done);
    void index_blocks();
    std::size_t group_at(Position at) const {
        return static_cast<std::size_t>(std::upper_bound(starts_.begin(), starts_.end() - 1, at) - starts_.begin()) - 1;
    }

    ZeroedArray<Id> cells_{0};
    Position size_ = 0;
    std::vector<Position> spans_;                // by id
    std::vector<Count> uses_;                    // by id: the counts of dropped words
    std::vector<Count> counts_;                  // the count of each group, descending
    std::vector<Position> starts_;               // the first cell of each group, and the end
    std::vector<std::uint32_t> group_of_block_;  // the group of the first cell of each block
    std::vector<Position> part_ends_;            // where each part ends, after a separator
};

template <class Note>
void Cells::compact(std::size_t threads, const Note& note) {
    split(threads);
    std::vector<CompactedPart> done(parts());
    std::atomic<std::size_t> next = 0;
    on_threads(parts(), [&](std::size_t) {
        for (std::size_t part; (part = next++) < done.size();) {
            const Position begin = part ? part_ends_[part - 1] : 1;
            done[part] = compact_part(begin, part_ends_[part], [&, part](Pair pair, Count count, bool is_pair) {
                note(part, pair, count, is_pair);
            });
        }
    });
    close_gaps(done);
}

template <class Note>
Cells::CompactedPart Cells::compact_part(Position begin, Position end, const Note& note) {
    constexpr Position kBlockSize = 1 << 12;
    CompactedPart done{begin, {}, {}};
    for (std::size_t group = group_at(begin); begin < end; ++group) {
        const Count count = counts_[group];
        const Position group_end = std::min(end, starts_[group + 1]);
        const Position start = done.end;
        while (begin < group_end) {
            Position block_end = std::min(group_end, begin + kBlockSize);
            while (cells_[block_end - 1] != kSeparator) ++block_end;
            compact_block(begin, block_end, count, done, note);
            begin = block_end;
        }
        if (done.end > start) done.groups.push_back({count, start});
    }
    return done;
}

// No branch depends on what a cell holds, which cannot be predicted, except for words of a single token, which are few.
template <class Note>
void Cells::compact_block(Position begin, Position end, Count count, CompactedPart& done, const Note& note) {
    Position to = done.end;
    // 1. Keep the first cells of tokens, and separators.
    Position first = to, last = to;
    for (; begin < end; ++begin) {
        const Id cell = cells_[begin];
        cells_[last] = cell;
        last += !(cell & kMark);
    }
    // 2. Keep words of several tokens.
    bool after_separator = true, after_whole = false;
    for (; first + 1 < last; ++first) {
        const Id id = cells_[first];
        const bool is_separator = id == kSeparator;
        const Id next = cells_[first + 1];
        const bool is_last = next == kSeparator;
        const bool is_whole = after_separator & !is_separator & is_last;
        if (is_whole) [[unlikely]]
            done.whole.push_back({id, count});
        note(pair_of(id, next), count, !(is_separator | is_last));
        cells_[to] = id;
        to += !(is_whole | (is_separator & (after_separator | after_whole)));
        after_separator = is_separator;
        after_whole = is_whole;
    }
    // The last separator: the cell after it may belong to another thread.
    cells_[to] = kSeparator;
    to += !(after_separator | after_whole);
    done.end = to;
}

template <class Filter, class Note>
void Cells::visit_pairs(const Filter& filter, const Note& note) const {
    constexpr Position kAtOnce = 256;
    std::atomic<std::size_t> next = 0;
    on_threads(parts(), [&](std::size_t) {
        Position chosen[kAtOnce];
        for (std::size_t part; (part = next++) < parts();) {
            Position at = part ? part_ends_[part - 1] : 1;
            const Position end = part_ends_[part] - 1;  // a separator
            while (at < end) {
                std::size_t count = 0;
                for (const Position stop = std::min(end, at + kAtOnce); at < stop; ++at) {
                    chosen[count] = at;
                    count += (cells_[at] != kSeparator) & (cells_[at + 1] != kSeparator) & filter(at);
                }
                note(part, std::span<const Position>(chosen, count));
            }
        }
    });
}

}  // namespace bpe
