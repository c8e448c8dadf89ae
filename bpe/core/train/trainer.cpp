#include "train/trainer.hpp"

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <cstring>
#include <map>
#include <mutex>
#include <stdexcept>
#include <string>
#include <unordered_set>
#include <utility>

#include "base/errors.hpp"
#include "base/memory.hpp"
#include "encode/merge.hpp"
#include "base/threads.hpp"

namespace bpe {

namespace {

using Position = std::uint32_t;
using Count = std::uint64_t;

// Two neighbours, as one number that orders like them: by the left id, then by the right.
using Pair = std::uint64_t;
Pair pair_of(Id left, Id right) { return Pair{left} << 32 | right; }
Id left_of(Pair pair) { return static_cast<Id>(pair >> 32); }
Id right_of(Pair pair) { return static_cast<Id>(pair); }

// The distinct words, in one array. Each word is followed by a separator, and before the first stands one too. A token
// has a cell for each of its parts at the time of the last `compact`: its id stands in the first, and in the last as
// well, and all but the first are marked. So the neighbours of a token are found without links: the one after it begins
// where it ends, and the cell before it is the last cell of the one before. Words of the same count stand together, so
// that the count of a cell's word follows from its position.
class Cells {
 public:
    static constexpr Id kMark = Id{1} << 31;
    static constexpr Id kSeparator = kMark - 1;

    // The words, encoded with the vocabulary. `uses` gets the counts of those that are one token.
    Cells(WordSource& words, const Vocabulary& vocabulary, std::vector<Count>& uses, std::size_t memory);

    Position size() const { return size_; }
    Id operator[](Position at) const { return cells_[at]; }
    Pair pair_at(Position at) const { return pair_of(cells_[at], cells_[at + 1]); }
    void prefetch(Position at) const { __builtin_prefetch(cells_.data() + at); }

    // Of the tokens around a place, and of the separators there.
    Id before(Position at) const { return cells_[at - 1] & ~kMark; }
    Position begin_before(Position at) const {
        do --at;
        while (cells_[at] & kMark);
        return at;
    }
    Position end_of(Position at) const {
        do ++at;
        while (cells_[at] & kMark);
        return at;
    }

    // How many cells a token takes.
    Position span(Id id) const { return spans_[id]; }
    void add_token(Position span) { spans_.push_back(span); }

    // Makes the cells from `begin` to `end` one token, of which the second part begins at `second`.
    void join(Position begin, Position second, Position end, Id made) {
        cells_[second] = made | kMark;
        cells_[end - 1] = made | kMark;
        cells_[begin] = made;
    }
    // The same for parts of any number.
    void join_all(Position begin, Position end, Id made) {
        for (Position at = begin; at < end; ++at) cells_[at] = made | kMark;
        cells_[begin] = made;
    }

    // How often the word that a cell belongs to was seen.
    Count count_at(Position at) const {
        std::size_t group = group_of_block_[at / kBlock];
        while (starts_[group + 1] <= at) ++group;
        return counts_[group];
    }

    // Gives each token one cell, and drops the words that are one token, since nothing happens to them any more; adds
    // to `uses` how often these were seen. On several threads, each of which calls note(thread, pair, count, is_pair)
    // for all neighbouring cells that are left, separators or not.
    template <class Note>
    void compact(std::size_t threads, std::vector<Count>& uses, const Note& note);

    // Only after `compact`, on as many threads, each with a part of the cells, in order: the places of the pairs for
    // which filter(place) is true go, some at a time, in order, to note(thread, places).
    template <class Filter, class Note>
    void visit(const Filter& filter, const Note& note) const;

    // The sum of the counts of all cells.
    Count total_count() const {
        Count total = 0;
        for (std::size_t group = 0; group < counts_.size(); ++group) {
            total += counts_[group] * (starts_[group + 1] - starts_[group]);
        }
        return total;
    }

    // How many parts there are for `visit`.
    std::size_t parts() const { return part_ends_.size(); }

 private:
    static constexpr Position kBlock = 64;
    struct Group {
        Count count;
        Position start;
    };
    // What a thread keeps of its part.
    struct Compacted {
        Position end;
        std::vector<Group> groups;
        std::vector<std::pair<Id, Count>> whole;  // words that are one token
    };
    void split(std::size_t parts);
    template <class Note>
    Compacted compact_part(Position begin, Position end, const Note& note);
    void index_blocks();
    std::size_t group_at(Position at) const {
        return static_cast<std::size_t>(std::upper_bound(starts_.begin(), starts_.end() - 1, at) - starts_.begin()) - 1;
    }

    ZeroedArray<Id> cells_{0};
    Position size_ = 0;
    std::vector<Position> spans_;
    std::vector<Count> counts_;                  // of the words of each group, falling
    std::vector<Position> starts_;               // the first cell of each group, and the end
    std::vector<std::uint32_t> group_of_block_;  // the group of the first cell of each block
    std::vector<Position> part_ends_;            // where the part of each thread ends, behind a separator
};

// Encodes words, many at a time.
class WordEncoder {
 public:
    explicit WordEncoder(const Vocabulary& vocabulary) : vocabulary_(vocabulary), merger_(vocabulary) {}

    // Calls take(ids, count) for this word, or will do so later.
    template <class Take>
    void encode(Bytes word, Count count, const Take& take) {
        if (vocabulary_.token_count() == 256) {  // single bytes
            ids_.resize(word.size());
            for (std::size_t i = 0; i < word.size(); ++i) ids_[i] = vocabulary_.id_of_byte(word[i]);
            return take(std::span<const Id>(ids_.data(), word.size()), count);
        }
        if (const Id whole = vocabulary_.find(word.data(), word.size()); whole != kNoId) {
            return take(std::span<const Id>(&whole, 1), count);
        }
        bytes_.append(word.data(), word.size());
        waiting_.push_back({word.size(), count});
        if (bytes_.size() > kMost || waiting_.size() == kMost) finish(take);
    }
    template <class Take>
    void finish(const Take& take) {
        ids_.resize(bytes_.size());
        jobs_.clear();
        std::size_t at = 0;
        for (const Word& word : waiting_) {
            jobs_.push_back({bytes_.data() + at, word.size, ids_.data() + at, 0});
            at += word.size;
        }
        merger_.merge(jobs_);
        for (std::size_t i = 0; i < jobs_.size(); ++i) {
            take(std::span<const Id>(jobs_[i].ids, jobs_[i].count), waiting_[i].count);
        }
        waiting_.clear();
        bytes_.clear();
    }

 private:
    static constexpr std::size_t kMost = 1 << 14;
    struct Word {
        std::size_t size;
        Count count;
    };
    const Vocabulary& vocabulary_;
    Merger merger_;
    Buffer<std::uint8_t> bytes_;
    Buffer<Id> ids_;
    std::vector<Word> waiting_;
    std::vector<MergeJob> jobs_;
};

// Two passes: how many cells the words of each count may take, then where each goes.
Cells::Cells(WordSource& words, const Vocabulary& vocabulary, std::vector<Count>& uses, std::size_t memory)
    : spans_(vocabulary.id_limit(), 1) {
    // Most words are rare: their counts are numbers in an array.
    constexpr Count kRare = 1 << 16;
    std::vector<std::uint64_t> rare(kRare);
    std::map<Count, std::uint64_t> frequent;
    const auto room_of = [&](Count count) -> std::uint64_t& { return count < kRare ? rare[count] : frequent[count]; };
    std::uint64_t total = 1;
    words.visit([&](Bytes word, Count count) {
        if (word.size() < 2) return;
        room_of(count) += word.size() + 1;
        total += word.size() + 1;
    });
    if (total > 0xFFFFFFFF) throw InputError("the distinct pretokens hold more than 4 GiB: use less text");
    if (const std::size_t needed = total * sizeof(Id) / 4 * 5; memory && needed > memory) {
        throw InputError("merging needs " + std::to_string(needed / 1'000'000) + " MB of memory, and has " +
                         std::to_string(memory / 1'000'000) +
                         " MB: give more (max_memory / --max-memory), or use less"
                         " text");
    }
    Position start = 1;
    const auto add_group = [&](Count count, std::uint64_t& room) {
        if (!room) return;
        counts_.push_back(count);
        starts_.push_back(start);
        start += static_cast<Position>(std::exchange(room, start));  // from now on, where the next word goes
    };
    for (auto entry = frequent.rbegin(); entry != frequent.rend(); ++entry) add_group(entry->first, entry->second);
    for (Count count = kRare; count-- > 0;) add_group(count, rare[count]);
    starts_.push_back(start);

    size_ = start;
    cells_ = ZeroedArray<Id>(size_ + 1);  // the last may be looked beyond
    cells_[0] = kSeparator;
    WordEncoder encoder(vocabulary);
    const auto place = [&](std::span<const Id> ids, Count count) {
        if (ids.size() == 1) {
            uses[ids[0]] += count;
            return;
        }
        std::uint64_t& at = room_of(count);
        for (const Id id : ids) cells_[at++] = id;
        cells_[at++] = kSeparator;
    };
    words.visit([&](Bytes word, Count count) { encoder.encode(word, count, place); });
    encoder.finish(place);
    words.release();
    // What is left of the room of each count is empty.
    for (std::size_t group = 0; group < counts_.size(); ++group) {
        for (std::uint64_t at = room_of(counts_[group]); at < starts_[group + 1]; ++at) cells_[at] = kSeparator;
    }
    index_blocks();
}

void Cells::index_blocks() {
    group_of_block_.resize(size_ / kBlock + 1);
    std::size_t group = 0;
    for (std::size_t block = 0; block < group_of_block_.size(); ++block) {
        while (group + 1 < counts_.size() && starts_[group + 1] <= block * kBlock) ++group;
        group_of_block_[block] = static_cast<std::uint32_t>(group);
    }
}

// Parts of about the same size.
void Cells::split(std::size_t parts) {
    constexpr Position kSmallest = 1 << 16;
    parts = std::clamp<std::size_t>(size_ / kSmallest, 1, parts);
    part_ends_.clear();
    for (std::size_t part = 1; part < parts; ++part) {
        auto end = static_cast<Position>(std::uint64_t{size_} * part / parts);
        while (cells_[end - 1] != kSeparator) ++end;
        part_ends_.push_back(end);
    }
    part_ends_.push_back(size_);
}

template <class Note>
void Cells::compact(std::size_t threads, std::vector<Count>& uses, const Note& note) {
    split(threads);
    std::vector<Compacted> done(parts());
    std::atomic<std::size_t> next = 0;
    on_threads(parts(), [&](std::size_t) {
        for (std::size_t part; (part = next++) < done.size();) {
            const Position begin = part ? part_ends_[part - 1] : 1;
            done[part] = compact_part(begin, part_ends_[part], [&, part](Pair pair, Count count, bool is_pair) {
                note(part, pair, count, is_pair);
            });
        }
    });
    // The parts move together.
    counts_.clear();
    starts_.clear();
    Position begin = 1, to = 1;
    for (std::size_t part = 0; part < done.size(); ++part) {
        const Position size = done[part].end - begin;
        std::memmove(cells_.data() + to, cells_.data() + begin, size * sizeof(Id));
        for (const Group& group : done[part].groups) {
            if (!counts_.empty() && counts_.back() == group.count) continue;
            counts_.push_back(group.count);
            starts_.push_back(group.start - begin + to);
        }
        for (const auto& [id, count] : done[part].whole) uses[id] += count;
        to += size;
        begin = std::exchange(part_ends_[part], to);
    }
    starts_.push_back(to);
    size_ = to;
    cells_.shrink(size_ + 1);
    std::fill(spans_.begin(), spans_.end(), 1);
    index_blocks();
}

// Nothing branches on what a cell holds but on words that are one token, which are few: it cannot be predicted.
template <class Note>
Cells::Compacted Cells::compact_part(Position begin, Position end, const Note& note) {
    constexpr Position kBlockSize = 1 << 12;
    Compacted result;
    Position to = begin;
    for (std::size_t group = group_at(begin); begin < end; ++group) {
        const Count count = counts_[group];
        const Position group_end = std::min(end, starts_[group + 1]);
        const Position start = to;
        while (begin < group_end) {
            Position block_end = std::min(group_end, begin + kBlockSize);
            while (cells_[block_end - 1] != kSeparator) ++block_end;
            // 1. The first cells of tokens, and separators.
            Position first = to, last = to;
            for (; begin < block_end; ++begin) {
                const Id cell = cells_[begin];
                cells_[last] = cell;
                last += !(cell & kMark);
            }
            // 2. Words of several tokens.
            bool after_separator = true, after_whole = false;
            for (; first + 1 < last; ++first) {
                const Id id = cells_[first];
                const bool is_separator = id == kSeparator;
                const Id next = cells_[first + 1];
                const bool is_last = next == kSeparator;
                const bool is_whole = after_separator & !is_separator & is_last;
                if (is_whole) [[unlikely]]
                    result.whole.push_back({id, count});
                note(pair_of(id, next), count, !(is_separator | is_last));
                cells_[to] = id;
                to += !(is_whole | (is_separator & (after_separator | after_whole)));
                after_separator = is_separator;
                after_whole = is_whole;
            }
            // What is behind the last separator may be another thread's.
            cells_[to] = kSeparator;
            to += !(after_separator | after_whole);
        }
        if (to > start) result.groups.push_back({count, start});
    }
    result.end = to;
    return result;
}

template <class Filter, class Note>
void Cells::visit(const Filter& filter, const Note& note) const {
    constexpr Position kAhead = 256;
    std::atomic<std::size_t> next = 0;
    on_threads(parts(), [&](std::size_t) {
        Position chosen[kAhead];
        for (std::size_t part; (part = next++) < parts();) {
            Position at = part ? part_ends_[part - 1] : 1;
            const Position end = part_ends_[part] - 1;  // a separator
            while (at < end) {
                std::size_t count = 0;
                for (const Position stop = std::min(end, at + kAhead); at < stop; ++at) {
                    chosen[count] = at;
                    count += (cells_[at] != kSeparator) & (cells_[at + 1] != kSeparator) & filter(at);
                }
                note(part, std::span<const Position>(chosen, count));
            }
        }
    });
}

// What is known of a pair: how often it stands in the text, and where. Its places are the first cells of the left
// token, ascending; some may be out of date.
struct PairEntry {
    Pair pair;
    Count count;
    std::uint32_t first_place;
    std::uint32_t place_count;
};

// The pairs that are worth knowing. (vocab.hpp has another such table, which never changes.)
class KnownPairs {
 public:
    KnownPairs() { clear(0); }

    void clear(std::size_t expected) {
        const std::size_t slots = std::bit_ceil(std::max<std::size_t>(1024, expected * 2));
        entries_ = ZeroedArray<PairEntry>(slots);
        shift_ = 64 - std::countr_zero(slots);
        size_ = 0;
    }
    template <class Note>
    void visit(const Note& note) {
        for (std::size_t slot = 0; slot < entries_.size(); ++slot) {
            if (entries_[slot].place_count) note(entries_[slot]);
        }
    }

    void prefetch(Pair pair) const { __builtin_prefetch(&entries_[slot_of(pair)]); }
    PairEntry* find(Pair pair) {
        PairEntry& entry = entries_[slot_for(pair)];
        return entry.place_count ? &entry : nullptr;
    }
    // The pair's entry, where one with no places is new; it must be given some. It is good until the next call.
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
        ZeroedArray<PairEntry> old(entries_.size() * 2);
        std::swap(old, entries_);
        --shift_;
        for (std::size_t i = 0; i < old.size(); ++i) {
            if (old[i].place_count) entries_[slot_for(old[i].pair)] = old[i];
        }
    }

    ZeroedArray<PairEntry> entries_{0};
    int shift_ = 0;
    std::size_t size_ = 0;
};

// For each pair, whether its count may reach a threshold: sums over pairs that share a hash, in parts of the threshold,
// rounded up.
class Sketch {
 public:
    Sketch(std::size_t sums, Count threshold)
        : sums_(sums),
          shift_(64 - std::countr_zero(sums)),
          unit_(1 + (threshold - 1) / kMost),
          most_(1 + (threshold - 1) / unit_) {}

    // How many sums serve so many pairs.
    static std::size_t size_for(std::size_t pairs) {
        return std::bit_ceil(std::clamp<std::size_t>(pairs, std::size_t{1} << 18, std::size_t{1} << 24));
    }

    // Nothing, if it is not `wanted`. Many pairs of the same count come one after the other.
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

    ZeroedArray<std::uint32_t> sums_;
    int shift_;
    Count unit_;
    Count most_;
    Count last_count_ = 0;
    Count last_units_ = 0;
};

// Pairs that come after a certain one, in the order in which they are merged, are left out of all tables, until none
// before it is left; then the bound is set anew. That changes nothing: counts never rise, and a pair that arises is no
// more frequent than the two that it came from.
class Training {
 public:
    Training(WordSource& words, const TrainerOptions& options)
        : options_(options),
          base_(*options.base),
          uses_(base_.id_limit()),
          cells_(words, base_, uses_, options.memory),
          lengths_(base_.id_limit()) {
        uses_.resize(base_.id_limit() + std::min<std::size_t>(options.merges, cells_.size()));  // each takes a cell
        left_.resize(uses_.size());
        right_.resize(uses_.size());
        for (Id id = 0; id < base_.id_limit(); ++id)
            lengths_[id] = static_cast<std::uint32_t>(base_.bytes_of(id).size());
        find_unreached();
        most_ = cells_.total_count();
        next_threshold_ = most_ / 32768;
    }

    Learned run() {
        while (merges_.size() < options_.merges && begin_epoch()) {
            while (merges_.size() < options_.merges && !queue_.empty()) {
                const Candidate best = queue_.front();
                most_ = best.count;
                if (places_.size() > most_places_ && !drop_places()) break;
                std::pop_heap(queue_.begin(), queue_.end());
                queue_.pop_back();
                PairEntry& entry = *known_.find(best.pair);
                if (entry.count != best.count) {  // it shrank since it was put here
                    enqueue({entry.count, entry.pair});
                    continue;
                }
                entry.count = 0;
                merges_.push_back({left_of(best.pair), right_of(best.pair), best.count});
                const std::span places(places_.data() + entry.first_place, entry.place_count);
                if (merges_.size() <= options_.traced) trace(places);
                const bool joins = !affixes_.empty() && affixes_.contains(bytes_of(best.pair));
                joins ? apply_and_join(best.pair, places) : apply(best.pair, places);
                if (merges_.size() % 256 == 0 && !report()) return {};
                if (joins) break;
            }
        }
        cells_.compact(1, uses_, [](auto&&...) {});
        for (Position at = 1; at < cells_.size(); ++at) {
            if (cells_[at] != Cells::kSeparator) uses_[cells_[at]] += cells_.count_at(at);
        }
        uses_.resize(lengths_.size());
        return {std::move(merges_), std::move(uses_)};
    }

 private:
    struct Candidate {
        Count count;
        Pair pair;
        bool operator<(const Candidate& other) const {  // a heap has the greatest first
            return count != other.count ? count < other.count : pair > other.pair;
        }
    };
    // What a merge does to the neighbours of one kind on one side.
    struct Side {
        Count count = 0;
        std::uint32_t place_count = 0;
        std::uint32_t next_place = 0;
        bool touched = false;
        bool known = false;
    };
    struct Place {
        Position at;
        Id before;
        Id after;
    };

    bool may_join(Id left, Id right) const {
        return !options_.max_token_length || lengths_[left] + lengths_[right] <= options_.max_token_length;
    }
    void enqueue(const Candidate& candidate) {
        if (candidate < bound_) return;
        queue_.push_back(candidate);
        std::push_heap(queue_.begin(), queue_.end());
    }

    // The places of all pairs that may reach a threshold, for each part of the cells, by the pairs' hashes: so that
    // each share of the pairs can be counted apart, in a small table.
    static constexpr std::size_t kShares = 16;
    using Candidates = std::vector<std::array<Buffer<Position>, kShares>>;
    static std::size_t share_of(Pair pair) { return hash_of(pair, 0) >> 60; }

    // Sets the bound, and enters the pairs before it. Returns false where there is none.
    bool begin_epoch() {
        const Count least = std::max<Count>(1, options_.min_frequency);
        // So many pairs are entered, more or less: as many as may be merged soon.
        const std::size_t wanted = kFirstPairs + std::min(2 * merges_.size(), options_.merges - merges_.size());
        std::vector<PairEntry> kept;
        Candidates candidates;
        known_.clear(0);
        queue_.clear();
        places_ = {};
        while (kept.empty() && most_ >= least) {
            // It falls by a factor: how many pairs reach it is known only afterwards.
            Count threshold = std::max(least, std::min(most_, next_threshold_));
            // Where there are too many places for the memory there is, fewer pairs will do; but the first must be
            // there.
            for (std::size_t most = most_candidates(); !find_candidates(threshold, most, candidates);) {
                threshold < most_ / 4 ? threshold *= 4 : most = ~std::size_t{0};
            }
            kept = count_candidates(threshold, candidates);
            bound_ = {threshold, ~Pair{0}};
            most_ = threshold - 1;
            next_threshold_ = std::max<Count>(1, threshold / 4);
        }
        if (kept.size() > 2 * wanted) {
            const auto last = kept.begin() + static_cast<std::ptrdiff_t>(wanted);
            std::ranges::nth_element(kept, last, [](const PairEntry& a, const PairEntry& b) {
                return Candidate{b.count, b.pair} < Candidate{a.count, a.pair};
            });
            bound_ = {last->count, last->pair};
            most_ = next_threshold_ = last->count;
            if (most_ > least) next_threshold_ = std::max(least, most_ / 4);
            kept.erase(last + 1, kept.end());
        }
        enter(kept, candidates);
        return !kept.empty();
    }

    // Returns false where there are more than `most` places.
    bool find_candidates(Count threshold, std::size_t most, Candidates& candidates) {
        candidates.clear();
        const std::size_t sums = Sketch::size_for(cells_.size() / 16);
        std::vector<Sketch> sketches;
        for (std::size_t i = 0; i < options_.threads; ++i) sketches.emplace_back(sums, threshold);
        cells_.compact(options_.threads, uses_, [&](std::size_t part, Pair pair, Count count, bool is_pair) {
            sketches[part].add(pair, count, is_pair);
        });
        for (std::size_t i = 1; i < cells_.parts(); ++i) sketches[0].add(sketches[i]);
        candidates = Candidates(cells_.parts());
        std::atomic<std::size_t> total = 0;
        cells_.visit([&](Position at) { return sketches[0].may_reach(cells_.pair_at(at)); },
                     [&](std::size_t part, std::span<const Position> places) {
                         if ((total += places.size()) > most) return;
                         for (const Position at : places) candidates[part][share_of(cells_.pair_at(at))].push(at);
                     });
        return total <= most;
    }

    // They and the places that come of them take what the cells leave; a part of it is kept back.
    std::size_t most_candidates() const {
        if (!options_.memory) return ~std::size_t{0};
        const std::size_t taken = cells_.size() * sizeof(Id);
        const std::size_t left = options_.memory - std::min(options_.memory, taken);
        return std::max<std::size_t>(kFewPlaces + cells_.size() / 16, left / (3 * sizeof(Position)));
    }

    // Those that do reach the threshold.
    std::vector<PairEntry> count_candidates(Count threshold, const Candidates& candidates) {
        std::vector<PairEntry> kept;
        std::mutex mutex;
        for_shares([&](std::size_t share) {
            KnownPairs pairs;
            for (const auto& part : candidates) {
                visit_places(part[share], pairs, [&](Position at) {
                    PairEntry& entry = pairs[cells_.pair_at(at)];
                    entry.count += cells_.count_at(at);
                    ++entry.place_count;
                });
            }
            const std::lock_guard lock(mutex);
            pairs.visit([&](const PairEntry& entry) {
                if (entry.count < threshold || !may_join(left_of(entry.pair), right_of(entry.pair))) return;
                kept.push_back(entry);
            });
        });
        return kept;
    }

    // Enters pairs with their places.
    void enter(std::span<PairEntry> kept, Candidates& candidates) {
        known_.clear(kept.size());
        std::size_t places = 0;
        for (PairEntry& entry : kept) {
            entry.first_place = static_cast<std::uint32_t>(places);
            places += entry.place_count;
            known_[entry.pair] = entry;
            queue_.push_back({entry.count, entry.pair});
        }
        std::make_heap(queue_.begin(), queue_.end());
        places_.resize(places);
        most_places_ = places + kFewPlaces + cells_.size() / 4;
        for_shares([&](std::size_t share) {
            for (auto& part : candidates) {
                visit_places(part[share], known_, [&](Position at) {
                    if (PairEntry* entry = known_.find(cells_.pair_at(at))) places_[entry->first_place++] = at;
                });
                part[share] = {};
            }
        });
        for (const PairEntry& entry : kept) known_.find(entry.pair)->first_place -= entry.place_count;
    }

    template <class Work>
    void for_shares(const Work& work) {
        std::atomic<std::size_t> next = 0;
        on_threads(cells_.parts(), [&](std::size_t) {
            for (std::size_t share; (share = next++) < kShares;) work(share);
        });
    }

    // What the table will be asked for is on its way before it is.
    template <class Note>
    void visit_places(const Buffer<Position>& places, const KnownPairs& pairs, const Note& note) const {
        constexpr std::size_t kAhead = 16;
        for (std::size_t i = 0; i < places.size(); ++i) {
            if (i + kAhead < places.size()) pairs.prefetch(cells_.pair_at(places[i + kAhead]));
            note(places[i]);
        }
    }

    // Makes room by dropping the places of pairs that will not be merged any more. Returns whether that was enough.
    bool drop_places() {
        std::vector<PairEntry*> entries;
        known_.visit([&](PairEntry& entry) {
            if (Candidate{entry.count, entry.pair} < bound_) {
                entry.first_place = 0;
                entry.place_count = 1;
            } else {
                entries.push_back(&entry);
            }
        });
        std::ranges::sort(entries, {}, &PairEntry::first_place);
        std::size_t size = 0;
        for (PairEntry* entry : entries) {
            std::memmove(places_.data() + size, places_.data() + entry->first_place,
                         entry->place_count * sizeof(Position));
            entry->first_place = static_cast<std::uint32_t>(size);
            size += entry->place_count;
        }
        places_.resize(size);
        return size < most_places_ - most_places_ / 8;
    }

    // Whether a place is still up to date: what absorbs a token overwrites its first cell, or marks it.
    bool stands_at(Position at, Pair pair) const {
        return cells_[at] == left_of(pair) && cells_[at + cells_.span(left_of(pair))] == right_of(pair);
    }

    void apply(Pair pair, std::span<const Position> places) {
        constexpr std::size_t kAhead = 16;
        const Id left = left_of(pair), right = right_of(pair);
        const auto made = static_cast<Id>(lengths_.size());
        const Position left_span = cells_.span(left);
        const Position span = left_span + cells_.span(right);
        merged_.clear();
        Position previous_end = 0;
        Count repeated = 0;  // of the pair (right, left), where one occurrence follows another
        for (std::size_t i = 0; i < places.size(); ++i) {
            if (i + kAhead < places.size()) cells_.prefetch(places[i + kAhead]);
            const Position at = places[i];
            if (!stands_at(at, pair)) continue;
            const Count count = cells_.count_at(at);
            const Id before = cells_.before(at);
            const Id after = cells_[at + span];
            cells_.join(at, at + left_span, at + span, made);
            if (at == previous_end) {
                repeated += count;
                take_back(merged_.back().after, count);
                merged_.back().after = made;
                add(right_, touched_right_, made, count);
                merged_.push_back({at, Cells::kSeparator, after});
            } else {
                if (before != Cells::kSeparator) add(left_, touched_left_, before, count);
                merged_.push_back({at, before, after});
            }
            if (after != Cells::kSeparator) add(right_, touched_right_, after, count);
            previous_end = at + span;
        }
        cells_.add_token(span);
        lengths_.push_back(lengths_[left] + lengths_[right]);

        for (const Id id : touched_left_) known_.prefetch(pair_of(id, left));
        for (const Id id : touched_right_) known_.prefetch(pair_of(right, id));
        lose(pair_of(right, left), repeated);
        bool any = false;
        for (const Id id : touched_left_) {
            lose(pair_of(id, left), left_[id].count);
            any |= gain(pair_of(id, made), left_[id]);
        }
        for (const Id id : touched_right_) {
            if (id != made) lose(pair_of(right, id), right_[id].count);
            any |= gain(pair_of(made, id), right_[id]);
        }
        if (any) {
            for (const Place& place : merged_) {
                if (place.before != Cells::kSeparator && left_[place.before].known) {
                    places_[left_[place.before].next_place++] = place.at - cells_.span(place.before);
                }
                if (place.after != Cells::kSeparator && right_[place.after].known) {
                    places_[right_[place.after].next_place++] = place.at;
                }
            }
        }
        for (const Id id : touched_left_) left_[id] = {};
        for (const Id id : touched_right_) right_[id] = {};
        touched_left_.clear();
        touched_right_.clear();
    }

    // Tokens of the base that merging does not reach, only a whole pretoken: a merge may bring two neighbours together
    // that are such a token. Then one of them is the token just made, and an affix of the other.
    void find_unreached() {
        if (base_.token_count() == 256) return;
        Merger merger(base_);
        std::vector<Id> ids(base_.longest_token());
        for (Id id = 0; id < base_.id_limit(); ++id) {
            const Bytes bytes = base_.bytes_of(id);
            if (bytes.size() < 2 || merger.merge(bytes.data(), bytes.size(), ids.data()) == 1) continue;
            for (std::size_t size = 1; size < bytes.size(); ++size) {
                affixes_.emplace(bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(size));
                affixes_.emplace(bytes.end() - static_cast<std::ptrdiff_t>(size), bytes.end());
            }
        }
    }

    std::string bytes_of(Id id) const {
        if (id < base_.id_limit()) {
            const Bytes bytes = base_.bytes_of(id);
            return {bytes.begin(), bytes.end()};
        }
        const Merge& merge = merges_[id - base_.id_limit()];
        return bytes_of(merge.left) + bytes_of(merge.right);
    }
    std::string bytes_of(Pair pair) const { return bytes_of(left_of(pair)) + bytes_of(right_of(pair)); }

    // Does the merge as encoding does it: one place after the other, and at each, before the next, whatever merges into
    // a token of the base becomes possible. This is rare; the counts of the neighbours are found anew after it.
    void apply_and_join(Pair pair, std::span<const Position> places) {
        const auto made = static_cast<Id>(lengths_.size());
        const auto joined = [&](Id left, Id right) {
            if (left == Cells::kSeparator || right == Cells::kSeparator) return kNoId;
            const std::string bytes = bytes_of(left) + bytes_of(right);
            return base_.find(reinterpret_cast<const std::uint8_t*>(bytes.data()), bytes.size());
        };
        cells_.add_token(1);
        lengths_.push_back(lengths_[left_of(pair)] + lengths_[right_of(pair)]);
        for (const Position at : places) {
            if (!stands_at(at, pair)) continue;
            Position begin = at;
            Position end = cells_.end_of(cells_.end_of(at));
            for (Id id = made;;) {
                cells_.join_all(begin, end, id);
                const Id with_left = joined(cells_.before(begin), id);
                const Id with_right = joined(id, cells_[end]);
                if (with_left == kNoId && with_right == kNoId) break;
                if (with_left <= with_right) {
                    begin = cells_.begin_before(begin);
                } else {
                    end = cells_.end_of(end);
                }
                id = std::min(with_left, with_right);
            }
        }
    }

    void trace(std::span<const Position> places) const {
        const Merge& merge = merges_.back();
        for (Position at : places) {
            if (!stands_at(at, pair_of(merge.left, merge.right))) continue;
            std::vector<Id> word;
            Position begin = at;
            while (cells_[begin - 1] != Cells::kSeparator) begin = cells_.begin_before(begin);
            std::size_t place = 0;
            for (; cells_[begin] != Cells::kSeparator; begin = cells_.end_of(begin)) {
                if (begin == at) place = word.size();
                word.push_back(cells_[begin]);
            }
            return options_.trace(merge, word, place);
        }
    }

    bool report() { return !options_.progress || options_.progress(merges_); }

    static void add(std::vector<Side>& sides, std::vector<Id>& touched, Id id, Count count) {
        Side& side = sides[id];
        if (!side.touched) touched.push_back(id);
        side.touched = true;
        side.count += count;
        ++side.place_count;
    }
    // What stood after the last place was merged with what follows it.
    void take_back(Id after, Count count) {
        right_[after].count -= count;
        --right_[after].place_count;
    }

    void lose(Pair pair, Count count) {
        if (!count) return;
        if (PairEntry* entry = known_.find(pair)) entry->count -= std::min(entry->count, count);
    }

    // Enters a pair that arose, unless it is too rare. Then there is room for its places.
    bool gain(Pair pair, Side& side) {
        if (Candidate{side.count, pair} < bound_ || !may_join(left_of(pair), right_of(pair))) return false;
        side.known = true;
        side.next_place = static_cast<std::uint32_t>(places_.size());
        places_.resize(places_.size() + side.place_count);
        known_[pair] = {pair, side.count, side.next_place, side.place_count};
        enqueue({side.count, pair});
        return true;
    }

    static constexpr std::size_t kFirstPairs = 4096;
    static constexpr std::size_t kFewPlaces = std::size_t{1} << 18;

    const TrainerOptions& options_;
    const Vocabulary& base_;
    std::vector<Count> uses_;
    Cells cells_;
    std::vector<std::uint32_t> lengths_;       // of each token, in bytes
    std::unordered_set<std::string> affixes_;  // see find_unreached
    KnownPairs known_;
    Buffer<Position> places_;
    std::size_t most_places_ = 0;
    std::vector<Candidate> queue_;
    Candidate bound_{};  // the last pair that may be known
    Count most_;         // no pair has a higher count
    Count next_threshold_;
    std::vector<Merge> merges_;
    // One merge.
    std::vector<Place> merged_;
    std::vector<Side> left_, right_;  // by id
    std::vector<Id> touched_left_, touched_right_;
};

}  // namespace

Learned train_merges(WordSource& words, const TrainerOptions& options) { return Training(words, options).run(); }

}  // namespace bpe
