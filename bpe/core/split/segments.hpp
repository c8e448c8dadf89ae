// The parts of a piece of text that a pattern matches, and the parts between them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>

#include "base/types.hpp"
#include "split/backtracker.hpp"
#include "split/program.hpp"

namespace bpe {

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
    void start(Bytes piece);

    // Returns the next segment, or none at the end of the piece.
    std::optional<Segment> next(const Program& program);

    std::uint64_t steps() const { return memory_.steps(); }

 private:
    bool find(const Program& program);

    Bytes piece_;
    std::size_t covered_ = 0;  // where the next segment begins
    std::size_t from_ = 0;     // where to search on
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
