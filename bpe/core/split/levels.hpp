// The pieces of a text that pass through steps.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "base/types.hpp"
#include "split/segments.hpp"
#include "split/splitter.hpp"
#include "split/steps.hpp"

namespace bpe {

// Where some bytes of a changed copy come from.
struct CopyRun {
    enum class Kind : std::uint8_t {
        kCopied,    // each byte is one of the origin
        kReplaced,  // the bytes stand for the whole origin
        kInserted   // the bytes stand before the origin, the character behind them, and count as a part of it
    };

    std::size_t at;  // the first of the bytes in the copy
    Range origin;    // of the bytes in the text
    Kind kind;

    Range origin_of(std::size_t place) const {
        if (kind != Kind::kCopied) return origin;
        return {origin.begin + (place - at), origin.begin + (place - at) + 1};
    }
};

// A piece of the text, or of a changed copy of a piece. Never empty.
struct StepPiece {
    Bytes bytes;
    std::size_t begin = 0;          // in the text, or in the copy
    std::span<const CopyRun> runs;  // of the copy; none for a piece of the text
    bool is_continued = false;  // whether the text was cut before this piece, so that it is not the begin of a piece

    bool is_copy() const { return !runs.empty(); }
    std::size_t size() const { return bytes.size(); }
    // Returns the bytes of the text that a byte stands for.
    Range origin(std::size_t at) const;
    // Returns the kind of the run that a byte belongs to.
    CopyRun::Kind kind(std::size_t at) const;
    StepPiece part(std::size_t from, std::size_t to) const {
        return {bytes.subspan(from, to - from), begin + from, runs, is_continued && from == 0};
    }
    // Returns the bytes of the text that the first character stands for.
    Range first_origin() const;
    // Returns how many bytes of the text a part stands for, without those that it only stands before.
    std::size_t origin_size(std::size_t from, std::size_t to) const;
};

// A changed copy of a piece.
class PieceCopy {
 public:
    void start(const StepPiece& piece);
    void add(const StepPiece& piece, std::size_t from, std::size_t to);
    void add(Bytes bytes, Range origin, CopyRun::Kind kind);
    StepPiece piece() const { return {bytes_, 0, runs_, is_continued_}; }

 private:
    std::vector<std::uint8_t> bytes_;
    std::vector<CopyRun> runs_;
    bool is_continued_ = false;
};

// One step at work: takes a piece and gives the pieces that the step makes of it.
class Level {
 public:
    explicit Level(const AnyStep& step);

    // `first_size` is how many bytes of the text stand for its first character.
    void start(const StepPiece& piece, Start start, std::size_t first_size);
    // Returns the next piece, or none. It is valid until the next call.
    std::optional<StepPiece> next();

    // Returns how many bytes of the text the step has removed since the last call.
    std::size_t take_removed();
    std::uint64_t steps() const { return reader_ ? reader_->steps() : 0; }

 private:
    std::optional<StepPiece> next_of(const SplitStep& step);
    std::optional<StepPiece> next_of(const PrefixSpaceStep& step);
    std::optional<StepPiece> next_of(const MetaspaceStep& step);
    std::optional<StepPiece> next_of(const ToByteCharactersStep& step);
    std::optional<StepPiece> next_of(const FromByteCharactersStep& step);
    void replace(std::size_t from, std::size_t to, Bytes replacement);
    std::size_t space_at(const MetaspaceStep& step, std::size_t at) const;
    bool prepends(const MetaspaceStep& step) const;

    const AnyStep& step_;
    StepPiece piece_;
    Start start_ = Start::kText;
    std::size_t first_size_ = 0;
    std::size_t at_ = 0;  // what comes before is done
    std::size_t removed_ = 0;
    PieceCopy copy_;
    std::optional<SegmentReader> reader_;  // of a SplitStep
    Grouper grouper_{Behavior::kIsolated, false};
};

// All steps at work.
class Levels final : public SplitRoom::State {
 public:
    // `steps` must outlive the levels.
    explicit Levels(const std::vector<AnyStep>& steps);

    const std::vector<AnyStep>& steps() const { return steps_; }

    // Begins with a text, or with what is left of it from a place where it may be cut. `first_size` as in SplitRoom.
    void start(Bytes text, Start start, std::optional<std::size_t> first_size, std::size_t from = 0);
    // Returns the next piece that all steps make, or none. It is valid until the next call.
    std::optional<StepPiece> next();
    std::size_t take_removed();
    std::uint64_t steps_made() const;

 private:
    const std::vector<AnyStep>& steps_;
    Start start_ = Start::kText;
    std::size_t first_size_ = 0;
    std::vector<Level> levels_;
    std::optional<StepPiece> whole_;  // the text, until the first step takes it
    std::size_t level_ = 0;           // of the next piece
};

}  // namespace bpe
