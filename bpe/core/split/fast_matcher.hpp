// The fast matcher: a transducer that runs over a text in several places at once.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "base/types.hpp"
#include "split/automaton.hpp"
#include "split/backtracker.hpp"
#include "split/class_table.hpp"
#include "split/lane_runs.hpp"
#include "split/program.hpp"
#include "split/transducer.hpp"

namespace bpe {

// What the fast matcher needs of a program.
class FastMatcher {
 public:
    // Returns none if the program has no automaton, or too large a one. `program` must outlive the matcher.
    static std::optional<FastMatcher> of(const Program& program);

    const Program& program() const { return *program_; }
    const Automaton& automaton() const { return automaton_; }
    const Transducer& transducer() const { return transducer_; }
    // Whether matches cover every text.
    bool covers_text() const { return !automaton_.has_gaps(); }

    const ClassTable& classes() const { return classes_; }

 private:
    FastMatcher(const Program& program, Automaton automaton, Transducer transducer, ClassTable classes);

    const Program* program_;
    Automaton automaton_;
    Transducer transducer_;
    ClassTable classes_;
};

// Where the matches and the gaps of one piece end, one after the other.
class FastReader {
 public:
    void start(Bytes piece);

    // Returns the next ends, or none at the end of the piece. Each end is doubled, plus 1 for a gap, which may be only
    // a part of a longer one. The result is valid until the next call.
    std::span<const std::uint64_t> read(const FastMatcher& matcher);

    std::uint64_t steps() const { return steps_; }

 private:
    static constexpr std::size_t kWindow = std::size_t{1} << 14;
    static constexpr std::size_t kLanes = 4;

    std::size_t window_end(const FastMatcher& matcher) const;
    std::size_t find_lanes(const FastMatcher& matcher, TransducerLane* lanes);
    void read_window(const FastMatcher& matcher);
    bool read_by_lanes(const FastMatcher& matcher);
    std::size_t read_in_order(const FastMatcher& matcher, std::size_t end);
    std::size_t symbol_at(std::size_t position) const;
    std::uint64_t next_end(const FastMatcher& matcher, std::size_t begin);
    std::size_t class_before(const FastMatcher& matcher, std::size_t position) const;

    Bytes piece_;
    std::size_t at_ = 0;
    std::size_t certain_ = 0;  // the last certain end
    bool is_done_ = true;
    bool is_started_ = false;
    std::uint32_t row_ = 0;
    std::array<std::uint64_t, Transducer::kWalks> pending_{};  // the ends that are not certain
    std::vector<std::uint8_t> classes_;                        // of the symbols of the window
    std::vector<std::uint32_t> starts_;                        // of the symbols, from at_ on
    std::size_t symbol_count_ = 0;
    std::vector<std::uint64_t> out_;
    std::size_t count_ = 0;
    Outcomes outcomes_;  // pairs of a state and a position that lead to no match
    std::size_t furthest_ = 0;
    std::uint64_t steps_ = 0;
};

}  // namespace bpe
