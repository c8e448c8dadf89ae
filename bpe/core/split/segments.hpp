// The parts of a piece of text that a pattern matches, and the parts between them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "base/types.hpp"
#include "split/backtracker.hpp"
#include "split/fast_matcher.hpp"
#include "split/program.hpp"

namespace bpe {

// A program and the fastest matcher that it allows. With `plain`, which the tests use, that is the backtracker.
class SplitMatcher {
 public:
    explicit SplitMatcher(Program of, bool plain = false) : program_(std::move(of)) {
        if (plain) return;
        fast_ = FastMatcher::of(program_);
        if (!fast_) first_classes_ = first_classes(program_);
    }
    SplitMatcher(const SplitMatcher&) = delete;
    SplitMatcher& operator=(const SplitMatcher&) = delete;

    const Program& program() const { return program_; }
    // Null if there is none.
    const FastMatcher* fast() const { return fast_ ? &*fast_ : nullptr; }
    // Whether the backtracker may find a match that begins with a character of a class.
    bool may_begin(Class c) const { return first_classes_.empty() || first_classes_[c]; }

 private:
    Program program_;
    std::optional<FastMatcher> fast_;
    std::vector<char> first_classes_;
};

// A part of a piece. Each begins where the one before ends. Parts that match may be empty.
struct Segment {
    std::size_t begin;
    std::size_t end;
    bool is_match;
};

// The segments of one piece, from left to right, as `find_matches` of tokenizers gives them. The engines' `find_iter`,
// fancy-regex's and Oniguruma's alike, search on from the end of a match. They leave out an empty match at the end of
// the match before it, and after an empty match search on behind the next character.
class SegmentReader {
 public:
    // `matcher` must outlive the reader.
    explicit SegmentReader(const SplitMatcher& matcher) : matcher_(&matcher) {}

    void start(Bytes piece);

    // Returns the next segment, or none at the end of the piece.
    std::optional<Segment> next();

    std::uint64_t steps() const { return memory_.steps() + fast_.steps(); }

 private:
    bool find();
    std::optional<Segment> next_fast();
    std::optional<Segment> segment_to(std::size_t end, bool is_match);

    const SplitMatcher* matcher_;
    Bytes piece_;
    std::size_t covered_ = 0;  // where the next segment begins
    FastReader fast_;
    std::span<const std::uint64_t> ends_;  // of matches and gaps, from the fast reader

    // The rest is for the backtracker.
    std::size_t from_ = 0;  // where to search on
    bool is_done_ = true;
    std::optional<std::size_t> last_end_;  // of the last match
    std::optional<Segment> found_;         // a match that is not given yet
    BacktrackerMemory memory_;
};

// What becomes of a match; see Behavior in bpe/splitting/steps.py.
enum class Behavior : std::uint8_t { kIsolated, kRemoved, kMergedWithPrevious, kMergedWithNext, kContiguous };

// A segment or several, joined.
struct Group {
    std::size_t begin;
    std::size_t end;
    bool is_removed;
};

// Joins segments as the `split` of tokenizers' NormalizedString does. That goes through the list of all segments; here,
// no more than one group waits for the segment after it.
class Grouper {
 public:
    Grouper(Behavior behavior, bool invert) : behavior_(behavior), invert_(invert) {}
    void start();

    // Takes the next segment, or none at the end. Returns the group that this completes, if it does.
    std::optional<Group> add(std::optional<Segment> segment);

 private:
    bool joins(bool is_match) const;

    Behavior behavior_;
    bool invert_;
    std::optional<Group> open_;
    bool is_match_ = false;  // the last segment of the open group
    bool previous_ = false;  // the last segment, or false at the beginning
    bool is_single_ = true;  // whether the open group is one segment
};

}  // namespace bpe
