// The plain matcher: tries the alternatives of a program one after the other, as backtracking engines do, but never
// twice at the same place.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "base/types.hpp"
#include "split/program.hpp"

namespace bpe {

// What is known of pairs of an instruction and a position: that no match follows, or where the match of the body around
// the instruction ends.
class Outcomes {
 public:
    static constexpr std::uint64_t kUnknown = 0;
    static constexpr std::uint64_t kFails = 1;
    static constexpr std::uint64_t kEnds = 2;  // plus the position

    std::uint64_t find(std::uint32_t pc, std::size_t position) const;
    void add(std::uint32_t pc, std::size_t position, std::uint64_t outcome);
    void clear();
    // Says that no outcome before this position is needed any more, except to save time.
    void forget_before(std::size_t position) { needed_from_ = position; }
    bool empty() const { return size_ == 0; }

 private:
    struct Entry {
        std::uint64_t key;
        std::uint64_t outcome;
    };
    void make_room();

    std::vector<Entry> table_;
    std::size_t size_ = 0;
    std::size_t needed_from_ = 0;
};

// The memory of one caller for one program, reused from match to match.
class BacktrackerMemory {
 public:
    // Begins another piece, or the same again. Positions of different pieces have nothing to do with each other.
    void start_piece();
    // Steps made so far, for tests of linear time.
    std::uint64_t steps() const { return steps_; }

 private:
    friend class Backtracker;

    enum class Kind : std::uint8_t { kChoice, kLook, kAtomic };
    // An alternative that is still open, or the begin of a body.
    struct Open {
        std::uint32_t pc;
        Kind kind;
        std::size_t position;
        std::size_t path;  // the size of path_ then
    };
    struct Place {
        std::uint32_t pc;
        std::size_t position;
    };

    std::vector<Open> open_;
    std::vector<std::size_t> bodies_;  // the places in open_ of the bodies that have begun
    std::vector<Place> path_;          // the places on the way here of which the outcome is not known yet
    Outcomes outcomes_;
    bool remembers_ = false;
    std::size_t furthest_ = 0;  // the last position of an outcome
    std::uint64_t credit_ = 0;  // steps that may be made without remembering
    std::uint64_t steps_ = 0;
};

// Returns for each class whether a match may begin before a character of it, as far as a quick look at the program
// says.
std::vector<char> first_classes(const Program& program);

// Linear time. Matches of a piece, from left to right, take a number of steps that is at most proportional to the size
// of the piece times that of the program:
//
//   - A program has no captures, so whether a match follows from an instruction and a position does not depend on how
//     they were reached, not even on where the match begins. A body is a program of its own whose result, an end or
//     none, depends on the two only.
//   - The outcomes are remembered of all instructions that branch, begin a body or lead back. Between two of these, a
//     matcher makes at most as many steps as the program has instructions. Once an alternative is dropped, its places
//     fail. Once a body ends, the places on the way through it have its end as outcome. So no place is left twice,
//     except those on the way of a match of the whole program, and the next match begins at their end.
//   - Remembering costs time and memory and is rarely needed, so it begins when a credit of steps is used up that grows
//     by kStepsPerByte for each byte that matches pass.
//   - Only a look-behind reads what is before the begin of a match, and it has a limit. So outcomes of places there are
//     forgotten once they fill half of the table, and a pattern that looks a limited number of characters ahead needs
//     memory for these alone, however long the piece is.
class Backtracker {
 public:
    explicit Backtracker(const Program& program) : program_(program) {}

    // Returns the end of the match that begins at `begin`, which is between two characters, if there is one. For one
    // piece, no call's `begin` is before that of the call before.
    std::optional<std::size_t> match(Bytes piece, std::size_t begin, BacktrackerMemory& memory) const;

 private:
    class Run;

    const Program& program_;
};

}  // namespace bpe
