// The deterministic automaton of a program.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "split/program.hpp"

namespace bpe {

// Matches as a Backtracker does. A state stands for the places in the program that the tries have reached, in the order
// in which a backtracker would come to them; what comes after a match is left out. So the last match that a walk meets
// before it dies is the one that a backtracker finds.
//
// Where no match begins, the automaton matches one character as a gap, so that a walk from any place of a text ends
// behind it.
class Automaton {
 public:
    using State = std::uint32_t;
    static constexpr State kDead = 0;

    enum class Accept : std::uint8_t { kNo, kMatch, kGap };
    // What the next character decides: whether the text so far is a match, and the state behind the character.
    struct Move {
        State next;
        Accept accept;  // of the text before the character
    };

    // Returns none if the program looks around by more than a character, has atomic groups, may match the empty text,
    // or has too many states.
    static std::optional<Automaton> of(const Program& program);

    // The number of classes is the class of the end of the text.
    std::size_t class_count() const { return class_count_; }
    std::size_t state_count() const { return moves_.size() / (class_count_ + 1); }
    const Move& move(State state, std::size_t c) const { return moves_[state * (class_count_ + 1) + c]; }
    // Returns where a match begins behind a character of a class. The number of classes stands for the begin of the
    // text.
    State start(std::size_t previous) const { return starts_[previous]; }
    bool has_gaps() const { return has_gaps_; }

    // Whether every match that reaches a character of class `left` ends there if a character of class `right` follows,
    // and the same holds at the end of the text; and whether a match begins at `right` as it would at the begin of a
    // text. Then a text may be cut between the two:
    //
    //   - Let a walk have consumed `left`. Its state is entered by a move for `left`. All these states accept a match,
    //     not a gap, before `right` and die by it. So the match ends between the two, whatever comes before, and the
    //     next match begins there.
    //   - At the end of the text, these states accept, too, so the left side alone has the same matches: a walk depends
    //     on what follows a character by the next character at most, and before that place all of these are the same.
    //   - The walk on the right side begins with the same move, so it is in the same state from then on, and looks
    //     behind a character only after that.
    bool may_cut(std::size_t left, std::size_t right) const { return cuts_[left * class_count_ + right]; }

 private:
    friend class Determinizer;

    explicit Automaton(std::size_t class_count) : class_count_(class_count) {}
    void find_cuts();

    std::size_t class_count_;
    std::vector<Move> moves_;
    std::vector<State> starts_;
    std::vector<char> cuts_;
    bool has_gaps_ = false;
};

}  // namespace bpe
