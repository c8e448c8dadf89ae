#include "split/transducer.hpp"

#include <map>
#include <utility>

namespace bpe {

class TransducerBuilder {
 public:
    explicit TransducerBuilder(const Automaton& automaton)
        : automaton_(automaton), edge_(automaton.class_count()), transducer_(edge_ + 1) {}

    std::optional<Transducer> run() {
        keys_.push_back({});  // the row that stops
        numbers_.emplace(Key{}, 0);
        for (std::size_t previous = 0; previous <= edge_; ++previous) {
            transducer_.starts_.push_back(
                row_of(state_of({{automaton_.start(previous)}, {}, automaton_.start(previous)})));
        }
        for (std::size_t state = 0; state < keys_.size(); ++state) {
            if ((keys_.size() + 1) * transducer_.width_ > Transducer::kMostSteps) return std::nullopt;
            for (std::size_t c = 0; c <= edge_; ++c) transducer_.steps_.push_back(make_step(Key(keys_[state]), c));
        }
        return std::move(transducer_);
    }

 private:
    struct Key {
        std::vector<Automaton::State> walks;  // all but the last have met a match
        std::vector<char> gaps;               // whether that is a gap, for each that has met one
        Automaton::State start = 0;           // of a match behind the last character
        auto operator<=>(const Key&) const = default;
    };

    static std::uint32_t last_slot(const Key& key) {
        return key.walks.empty() ? 0 : static_cast<std::uint32_t>(key.walks.size() - 1);
    }

    std::uint32_t row_of(std::uint32_t state) const { return static_cast<std::uint32_t>(state * transducer_.width_); }
    Transducer::Step step(std::uint32_t state, std::uint32_t slot, std::uint32_t growth, bool is_gap) const {
        return {row_of(state) << Transducer::kRowShift | std::uint32_t{is_gap} << 5 | slot << 3 | growth};
    }

    Transducer::Step make_step(const Key& key, std::size_t c) {
        if (key.walks.empty()) return step(0, 0, 0, false);
        const Automaton::State behind = c == edge_ ? Automaton::kDead : automaton_.start(c);
        Key next{{}, key.gaps, behind};
        std::uint32_t slot = last_slot(key);
        bool is_gap = false;
        std::size_t met = key.walks.size() - 1;  // walks that have met a match
        for (std::size_t k = 0; k < key.walks.size(); ++k) {
            const Automaton::Move& move = automaton_.move(key.walks[k], c);
            next.walks.push_back(move.next);
            if (move.accept == Automaton::Accept::kNo) continue;
            slot = static_cast<std::uint32_t>(k);
            is_gap = move.accept == Automaton::Accept::kGap;
            met = k + 1;
            next.gaps.resize(k);
            next.gaps.push_back(is_gap);
            next.walks.push_back(automaton_.move(key.start, c).next);
            if (joins_gap(next, k)) {
                next.walks.erase(next.walks.begin() + static_cast<std::ptrdiff_t>(k));
                next.gaps.pop_back();
                slot = static_cast<std::uint32_t>(k - 1);
                met = k;
            }
            break;
        }
        std::uint32_t growth = 0;
        while (growth < met && next.walks.front() == Automaton::kDead) {
            next.walks.erase(next.walks.begin());
            next.gaps.erase(next.gaps.begin());
            ++growth;
        }
        if (c == edge_) return step(0, slot, growth, is_gap);
        // The ends in the slots move up by `growth`; the step stops before a slot would be out of range.
        return step(next.walks.size() > Transducer::kWalks ? 0 : state_of(std::move(next)), slot, growth, is_gap);
    }

    // Whether walk k has met a gap behind that of the walk before it, and is in the same state. Then the two never
    // meet different matches, so that the walk before counts, or they die together, and the two gaps are one.
    static bool joins_gap(const Key& key, std::size_t k) {
        return k > 0 && key.gaps[k] && key.gaps[k - 1] && key.walks[k] == key.walks[k - 1];
    }

    std::uint32_t state_of(Key key) {
        const auto [found, is_new] = numbers_.try_emplace(key, static_cast<std::uint32_t>(keys_.size()));
        if (is_new) keys_.push_back(std::move(key));
        return found->second;
    }

    const Automaton& automaton_;
    std::size_t edge_;
    std::vector<Key> keys_;
    std::map<Key, std::uint32_t> numbers_;
    Transducer transducer_;
};

std::optional<Transducer> Transducer::of(const Automaton& automaton) { return TransducerBuilder(automaton).run(); }

}  // namespace bpe
