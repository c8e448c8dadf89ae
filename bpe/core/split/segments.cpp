#include "split/segments.hpp"

namespace bpe {

void SegmentReader::start(Bytes piece) {
    piece_ = piece;
    covered_ = from_ = 0;
    is_done_ = false;
    last_end_.reset();
    found_.reset();
    ends_ = {};
    if (matcher_->fast()) return fast_.start(piece);
    memory_.start_piece();
}

// Joins gaps of one character, and gives them before the match that follows.
std::optional<Segment> SegmentReader::next_fast() {
    std::size_t gap_end = covered_;
    for (;;) {
        if (ends_.empty()) ends_ = fast_.read(*matcher_->fast());
        if (ends_.empty()) return gap_end > covered_ ? segment_to(gap_end, false) : std::nullopt;
        const std::uint64_t end = ends_.front();
        if (!(end & 1)) {
            if (gap_end > covered_) return segment_to(gap_end, false);
            ends_ = ends_.subspan(1);
            return segment_to(end >> 1, true);
        }
        gap_end = end >> 1;
        ends_ = ends_.subspan(1);
    }
}

std::optional<Segment> SegmentReader::segment_to(std::size_t end, bool is_match) {
    return Segment{std::exchange(covered_, end), end, is_match};
}

std::optional<Segment> SegmentReader::next() {
    if (matcher_->fast()) return next_fast();
    if (!found_ && !is_done_) is_done_ = !find();
    const std::size_t begin = covered_;
    if (found_) {
        if (begin < found_->begin) {
            covered_ = found_->begin;
            return Segment{begin, covered_, false};
        }
        const Segment segment = *found_;
        found_.reset();
        covered_ = segment.end;
        return segment;
    }
    if (begin == piece_.size()) return std::nullopt;
    covered_ = piece_.size();
    return Segment{begin, covered_, false};
}

// Finds the next match. Returns whether there is one.
bool SegmentReader::find() {
    const Program& program = matcher_->program();
    const Backtracker matcher(program);
    while (from_ <= piece_.size()) {
        const std::size_t begin = from_;
        std::size_t behind = begin + 1;
        if (begin < piece_.size()) {
            const Program::Character first = program.character_at(piece_, begin);
            behind = begin + first.length;
            if (!matcher_->may_begin(first.number)) {
                from_ = behind;
                continue;
            }
        }
        const std::optional<std::size_t> end = matcher.match(piece_, begin, memory_);
        from_ = end && *end > begin ? *end : behind;
        if (!end || (*end == begin && last_end_ == begin)) continue;
        last_end_ = *end;
        found_ = Segment{begin, *end, true};
        return true;
    }
    return false;
}

void Grouper::start() {
    open_.reset();
    previous_ = false;
}

// Whether a segment joins the group before it.
bool Grouper::joins(bool is_match) const {
    switch (behavior_) {
        case Behavior::kContiguous: return is_match == previous_;
        case Behavior::kMergedWithPrevious: return is_match && !previous_;
        case Behavior::kMergedWithNext: return is_single_ && is_match_ && !is_match;
        default: return false;
    }
}

std::optional<Group> Grouper::add(std::optional<Segment> segment) {
    std::optional<Group> complete = open_;
    if (!segment) {
        open_.reset();
        return complete;
    }
    const bool is_match = segment->is_match != invert_;
    if (open_ && joins(is_match)) {
        open_->end = segment->end;
        is_single_ = false;
        complete.reset();
    } else {
        open_ = Group{segment->begin, segment->end, is_match && behavior_ == Behavior::kRemoved};
        is_single_ = true;
    }
    is_match_ = previous_ = is_match;
    return complete;
}

}  // namespace bpe
