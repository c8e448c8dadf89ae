// An automaton that finds all matches of a text, one after the other, with one table lookup for each character.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "split/automaton.hpp"

namespace bpe {

// A walk of the automaton goes on as long as a longer match is possible, and only then is known where the next match
// begins. To read no character twice, a state of the transducer holds several walks: the first from the last certain
// end of a match; if that has met a match already, a second from the end of it, which counts if the first walk dies
// without a longer one; and so on. A walk that meets a match makes those behind it void, and another begins there.
//
// The ends are written to a list, the end that walk number k has met last behind the certain ones by k. A walk that
// dies makes its end certain, so that the list grows by one. So a step of the transducer writes at most one end.
//
// A text may need more walks than kWalks. Then the transducer stops, and somebody else finds the next match.
class Transducer {
 public:
    static constexpr unsigned kWalks = 4;
    static constexpr unsigned kRowShift = 6;

    // A step: where to write the position, and by how many ends the list grows after that. Steps that write nothing
    // write to a place that the last walk writes to later.
    struct Step {
        std::uint32_t bits;

        std::uint32_t row() const { return bits >> kRowShift; }  // of the next state
        std::uint32_t slot() const { return bits >> 3 & 3; }
        std::uint32_t growth() const { return bits & 7; }
        std::uint32_t is_gap() const { return bits >> 5 & 1; }  // whether the end is that of a gap
        Step with_row(std::uint32_t next) const { return {next << kRowShift | (bits & ((1u << kRowShift) - 1))}; }
    };

    // Returns none if there are too many states.
    static std::optional<Transducer> of(const Automaton& automaton);

    // A row has a step for each class, and one for the end of the text.
    const Step* row(std::uint32_t row) const { return steps_.data() + row; }
    std::size_t edge() const { return width_ - 1; }
    std::size_t state_count() const { return steps_.size() / width_; }
    // Returns the row in which no walk has begun, behind a character of a class or, for edge(), at the begin of a text.
    std::uint32_t start(std::size_t previous) const { return starts_[previous]; }
    std::uint32_t stopped() const { return 0; }

 private:
    friend class TransducerBuilder;
    static constexpr std::size_t kMostSteps = std::size_t{1} << 18;

    explicit Transducer(std::size_t width) : width_(width) {}

    std::size_t width_;
    std::vector<Step> steps_;
    std::vector<std::uint32_t> starts_;
};

}  // namespace bpe
