// Several steps that only split, read together.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "base/types.hpp"
#include "split/class_table.hpp"
#include "split/fast_matcher.hpp"
#include "split/steps.hpp"

namespace bpe {

// Steps that each split the pieces of the step before at the matches of a fast matcher, and keep both the matches and
// the text between them. Each step reads a whole window of text at once: a cut of the steps before it is a flag of the
// character behind the cut. The step of a flagged character is that of the end of a piece, and then that of the
// character at the begin of the next piece.
class StepChain {
 public:
    // Returns none if some step is of another kind, or if there are fewer than two, or too many classes. The steps must
    // outlive the chain.
    static std::optional<StepChain> of(std::span<const AnyStep> steps);

    // What one step needs.
    struct Stage {
        const FastMatcher* matcher;
        std::vector<Transducer::Step> steps;  // by row and symbol
        std::uint32_t start;                  // the row at the begin of a piece
        std::vector<char> may_match;          // whether a match may begin with a character of a class
    };

    std::span<const Stage> stages() const { return stages_; }
    const ClassTable& classes() const { return classes_; }
    // The bit of a symbol that says that the text is cut before it.
    std::uint8_t flag() const { return flag_; }
    // Whether the first step cuts between characters of two classes whatever is before and after them.
    bool may_cut(std::uint8_t left, std::uint8_t right) const {
        return stages_[0].matcher->automaton().may_cut(classes_.part(left, 0), classes_.part(right, 0));
    }

 private:
    StepChain(ClassTable classes, std::uint8_t flag) : classes_(std::move(classes)), flag_(flag) {}
    void add_stage(const FastMatcher& matcher, std::size_t number);

    ClassTable classes_;
    std::uint8_t flag_;
    std::vector<Stage> stages_;
};

// Where the pieces of one text end that a chain makes.
class ChainReader {
 public:
    void start(Bytes text);

    // Returns the next ends, doubled, or none at the end of the text or if the chain cannot read on from position().
    std::span<const std::uint64_t> read(const StepChain& chain);

    // What comes before is read. The text may be cut here.
    std::size_t position() const { return at_; }
    std::uint64_t steps() const { return steps_ + reader_.steps(); }

 private:
    bool find_window(const StepChain& chain);
    void run(const StepChain& chain, const StepChain::Stage& stage);
    bool run_lanes(const StepChain& chain, const StepChain::Stage& stage);
    void run_pieces(const StepChain& chain, const StepChain::Stage& stage);

    Bytes text_;
    std::size_t at_ = 0;
    std::size_t end_ = 0;  // of the window that begins at at_
    std::size_t count_ = 0;
    std::vector<std::uint8_t> symbols_;  // of the window
    std::vector<std::uint32_t> starts_;
    std::vector<std::uint64_t> out_;
    FastReader reader_;  // for pieces that a transducer cannot read
    std::uint64_t steps_ = 0;
};

}  // namespace bpe
