#include "trainer.hpp"

#include <algorithm>
#include <queue>
#include <stdexcept>
#include <unordered_map>

namespace bpe {

namespace {

// All distinct words stand in one array, a cell for each byte, with a separator cell around each. A token keeps the
// cells of its bytes: its id stands in the first and in the last of them, and what is between is of no meaning. So the
// neighbours of a token are found without links: the one after it begins where it ends, and the cell before it is the
// last cell of the one before.
class Training {
 public:
    Training(const PretokenCounts& counts, const TrainerOptions& options) : options_(options) {
        std::uint8_t id_of_byte[256];
        for (int id = 0; id < 256; ++id) id_of_byte[options.byte_order[id]] = static_cast<std::uint8_t>(id);
        lengths_.assign(256, 1);

        std::vector<std::uint32_t> order;
        std::size_t cells = 1;
        for (std::size_t word = 0; word < counts.size(); ++word) {
            if (counts.bytes_of(word).size() < 2) continue;
            order.push_back(static_cast<std::uint32_t>(word));
            cells += counts.bytes_of(word).size() + 1;
        }
        if (cells > 0xFFFFFFFF) throw std::length_error("the distinct pretokens hold more than 4 GiB");
        // Words of one count stand together, so that the count of a cell's word follows from its position.
        std::sort(order.begin(), order.end(), [&](std::uint32_t a, std::uint32_t b) {
            return counts.count_of(a) != counts.count_of(b) ? counts.count_of(a) > counts.count_of(b) : a < b;
        });
        cells_.reserve(cells);
        cells_.push_back(kNoId);
        for (const std::uint32_t word : order) {
            if (count_values_.empty() || count_values_.back() != counts.count_of(word)) {
                count_values_.push_back(counts.count_of(word));
                count_starts_.push_back(static_cast<std::uint32_t>(cells_.size()));
            }
            for (const std::uint8_t byte : counts.bytes_of(word)) cells_.push_back(id_of_byte[byte]);
            cells_.push_back(kNoId);
        }
    }

    std::vector<Merge> run() {
        note_pairs([&](const auto& note) {
            for (std::uint32_t at = 0; at + 1 < cells_.size(); ++at) note(at, cells_[at], cells_[at + 1]);
        });
        std::vector<Merge> merges;
        while (merges.size() < options_.merges && !queue_.empty()) {
            const Candidate best = queue_.top();
            queue_.pop();
            const auto found = pairs_.find(best.pair());
            if (found == pairs_.end()) continue;
            if (found->second.count != best.count) {  // it shrank since it was put here
                if (found->second.count) queue_.push({found->second.count, best.left, best.right});
                continue;
            }
            if (best.count < options_.min_frequency) break;
            const std::size_t length = lengths_[best.left] + lengths_[best.right];
            if (options_.max_token_length && length > options_.max_token_length) continue;
            const std::vector<std::uint32_t> places = std::move(found->second.places);
            pairs_.erase(found);
            apply(best, static_cast<Id>(lengths_.size()), places);
            merges.push_back({best.left, best.right, best.count});
            if (merges.size() % 256 == 0 && options_.progress && !options_.progress(merges.size())) break;
        }
        return merges;
    }

 private:
    struct Candidate {
        std::uint64_t count;
        Id left;
        Id right;
        std::uint64_t pair() const { return pair_of(left, right); }
        bool operator<(const Candidate& other) const {  // std::priority_queue takes the greatest first
            return count != other.count ? count < other.count : pair() > other.pair();
        }
    };
    struct Pair {
        std::uint64_t count = 0;
        std::vector<std::uint32_t> places;  // first cells of the left token, ascending; some may be out of date
    };

    static std::uint64_t pair_of(Id left, Id right) { return std::uint64_t{left} << 32 | right; }

    // How often the word that a cell belongs to was seen.
    std::uint64_t count_at(std::uint32_t cell) const {
        const auto after = std::upper_bound(count_starts_.begin(), count_starts_.end(), cell);
        return count_values_[static_cast<std::size_t>(after - count_starts_.begin()) - 1];
    }

    // Enters the pairs that `visit` calls note(place, left, right) for, all of whose occurrences it must name, in
    // ascending order: all pairs arise at once in the merge that makes the younger of the two tokens.
    template <class Visit>
    void note_pairs(const Visit& visit) {
        std::vector<std::uint64_t> fresh;
        visit([&](std::uint32_t place, Id left, Id right) {
            if (left == kNoId || right == kNoId) return;
            Pair& pair = pairs_[pair_of(left, right)];
            if (pair.places.empty()) fresh.push_back(pair_of(left, right));
            pair.count += count_at(place);
            pair.places.push_back(place);
        });
        for (const std::uint64_t key : fresh) {
            Pair& pair = pairs_[key];
            pair.places.shrink_to_fit();
            queue_.push({pair.count, static_cast<Id>(key >> 32), static_cast<Id>(key)});
        }
    }

    void lose(Id left, Id right, std::uint64_t count) {
        if (left == kNoId || right == kNoId) return;
        const auto found = pairs_.find(pair_of(left, right));
        if (found == pairs_.end()) return;
        found->second.count -= count;
        if (found->second.count == 0) pairs_.erase(found);
    }

    void apply(const Candidate& merge, Id made, const std::vector<std::uint32_t>& places) {
        const std::uint32_t left_length = lengths_[merge.left];
        const std::uint32_t length = left_length + lengths_[merge.right];
        lengths_.push_back(length);
        std::vector<std::uint32_t> merged;
        for (const std::uint32_t place : places) {
            // Up to date only where the left token is still there with both its ends (what absorbs a token overwrites
            // one of them) and the right one begins behind it.
            if (cells_[place] != merge.left || cells_[place + left_length - 1] != merge.left ||
                cells_[place + left_length] != merge.right) {
                continue;
            }
            const std::uint64_t count = count_at(place);
            // Where the token before is one just made, its pair with ours was counted off as that one's right side.
            if (cells_[place - 1] != made) lose(cells_[place - 1], merge.left, count);
            lose(merge.right, cells_[place + length], count);
            cells_[place] = made;
            cells_[place + length - 1] = made;
            merged.push_back(place);
        }
        note_pairs([&](const auto& note) {
            for (const std::uint32_t place : merged) {
                const Id before = cells_[place - 1];
                if (before != kNoId && before != made) note(place - lengths_[before], before, made);
                note(place, made, cells_[place + length]);
            }
        });
    }

    const TrainerOptions& options_;
    std::vector<Id> cells_;
    std::vector<std::uint32_t> lengths_;       // of each token, in bytes
    std::vector<std::uint64_t> count_values_;  // the distinct counts of words, falling
    std::vector<std::uint32_t> count_starts_;  // the first cell of the words of each
    std::unordered_map<std::uint64_t, Pair> pairs_;
    std::priority_queue<Candidate> queue_;
};

}  // namespace

std::vector<Merge> train_merges(const PretokenCounts& counts, const TrainerOptions& options) {
    return Training(counts, options).run();
}

}  // namespace bpe
