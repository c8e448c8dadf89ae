#include "split/fast_matcher.hpp"

#include <algorithm>
#include <cstring>
#include <utility>

namespace bpe {

namespace {

constexpr std::size_t kCheck = 64;       // bytes after which to look whether the transducer has stopped
constexpr std::size_t kFarFromEnd = 64;  // characters that are read beyond a match before that is remembered
constexpr std::size_t kLeastPart = 256;  // bytes of a part that is worth a lane
constexpr std::size_t kSlack = 64;       // ends that are written beyond the certain ones, by all lanes
constexpr std::size_t kSearched = 512;   // bytes in which to look for a place to cut

}  // namespace

FastMatcher::FastMatcher(const Program& program, Automaton automaton, Transducer transducer)
    : program_(&program), automaton_(std::move(automaton)), transducer_(std::move(transducer)) {
    for (std::size_t byte = 0; byte < 128; ++byte) {
        byte_classes_[byte] = static_cast<std::uint8_t>(program.byte_classes()[byte]);
    }
}

std::optional<FastMatcher> FastMatcher::of(const Program& program) {
    if (program.class_count() > 253) return std::nullopt;
    std::optional<Automaton> automaton = Automaton::of(program);
    if (!automaton) return std::nullopt;
    std::optional<Transducer> transducer = Transducer::of(*automaton);
    if (!transducer) return std::nullopt;
    return FastMatcher(program, std::move(*automaton), std::move(*transducer));
}

void FastMatcher::write_classes(Bytes piece, std::size_t begin, std::size_t end, std::uint8_t* classes) const {
    const auto rest = static_cast<std::uint8_t>(transducer_.rest());
    for (std::size_t at = begin; at < end;) {
        if (end - at >= 8) {
            std::uint64_t word;
            std::memcpy(&word, piece.data() + at, 8);
            if ((word & 0x8080808080808080) == 0) {
                for (std::size_t i = 0; i < 8; ++i) classes[at - begin + i] = byte_classes_[piece[at + i]];
                at += 8;
                continue;
            }
        }
        if (piece[at] < 0x80) {
            classes[at - begin] = byte_classes_[piece[at]];
            ++at;
            continue;
        }
        const Program::Character character = program_->character_at(piece, at);
        classes[at - begin] = static_cast<std::uint8_t>(character.number);
        for (std::size_t i = 1; i < character.length; ++i) classes[at - begin + i] = rest;
        at += character.length;
    }
}

void FastReader::start(Bytes piece) {
    piece_ = piece;
    at_ = certain_ = 0;
    is_done_ = is_started_ = false;
    outcomes_.clear();
    furthest_ = 0;
}

namespace {

// Makes the steps of kCount lanes over `length` bytes each. `classes` begins at the position `base`.
template <std::size_t kCount, bool kGaps, class Lane>
void run(const Transducer& transducer, const std::uint8_t* classes, std::size_t base, Lane* lanes, std::size_t length) {
    const Transducer::Step* steps = transducer.row(0);
    std::uint32_t row[kCount];
    std::uint64_t* out[kCount];
    std::uint64_t end[kCount];  // doubled
    const std::uint8_t* next[kCount];
    for (std::size_t k = 0; k < kCount; ++k) {
        row[k] = lanes[k].row;
        out[k] = lanes[k].out;
        end[k] = 2 * lanes[k].at;
        next[k] = classes + (lanes[k].at - base);
    }
    for (std::size_t i = 0; i < length; ++i) {
        for (std::size_t k = 0; k < kCount; ++k) {
            const Transducer::Step step = steps[row[k] + next[k][i]];
            out[k][step.slot()] = end[k] + 2 * i + (kGaps ? step.is_gap() : 0);
            out[k] += step.growth();
            row[k] = step.row();
        }
    }
    for (std::size_t k = 0; k < kCount; ++k) {
        lanes[k].row = row[k];
        lanes[k].out = out[k];
        lanes[k].at += length;
    }
}

template <std::size_t kCount, class Lane>
void run(const FastMatcher& matcher, const std::uint8_t* classes, std::size_t base, Lane* lanes, std::size_t length) {
    if (matcher.covers_text()) return run<kCount, false>(matcher.transducer(), classes, base, lanes, length);
    run<kCount, true>(matcher.transducer(), classes, base, lanes, length);
}

}  // namespace

// Returns a place behind the next window, between two characters.
std::size_t FastReader::window_end(const FastMatcher& matcher) const {
    std::size_t end = std::min(piece_.size(), at_ + kWindow);
    if (end == piece_.size()) return end;
    std::size_t last = end - 1;  // perhaps within a character
    while (last > at_ && end - last < 4 && is_continuation(piece_[last])) --last;
    while (last < end) last += matcher.program().character_at(piece_, last).length;
    return last;
}

// Returns the class of the character before a position, or edge() at the begin of the piece.
std::size_t FastReader::class_before(const FastMatcher& matcher, std::size_t position) const {
    if (position == 0) return matcher.transducer().edge();
    return matcher.program().character_before(piece_, position).number;
}

std::span<const std::uint64_t> FastReader::read(const FastMatcher& matcher) {
    for (count_ = 0; count_ == 0 && !is_done_;) read_window(matcher);
    return std::span<const std::uint64_t>(out_).first(count_);
}

void FastReader::read_window(const FastMatcher& matcher) {
    if (!is_started_) {
        row_ = matcher.transducer().start(matcher.transducer().edge());
        is_started_ = true;
    }
    const std::size_t end = window_end(matcher);
    classes_.resize(kWindow + 8);
    if (out_.size() < kWindow + kSlack) out_.resize(kWindow + kSlack);
    matcher.write_classes(piece_, at_, end, classes_.data());
    steps_ += end - at_;
    if (!read_by_lanes(matcher, end)) read_in_order(matcher, end);
    if (at_ == piece_.size()) {
        const Transducer::Step step = matcher.transducer().row(row_)[matcher.transducer().edge()];
        std::copy(pending_.begin(), pending_.end(), out_.begin() + static_cast<std::ptrdiff_t>(count_));
        out_[count_ + step.slot()] = at_ << 1 | step.is_gap();
        count_ += step.growth();
        is_done_ = true;
    }
    if (count_) certain_ = out_[count_ - 1] >> 1;
}

// Divides the window up to `end` at places where the text may be cut. Returns how many lanes there are.
std::size_t FastReader::find_lanes(const FastMatcher& matcher, std::size_t end, Lane* lanes) {
    const Transducer& transducer = matcher.transducer();
    lanes[0] = {row_, out_.data(), at_, end};
    std::size_t count = 1;
    const std::size_t part = (end - at_) / kLanes;
    for (std::size_t k = 1; k < kLanes && part >= kLeastPart; ++k) {
        const std::size_t first = k * part;  // from at_ on
        std::size_t left = transducer.rest();
        for (std::size_t i = first; i < first + std::min(kSearched, part); ++i) {
            const std::size_t right = classes_[i];
            if (right == transducer.rest()) continue;
            if (left != transducer.rest() && matcher.automaton().may_cut(left, right)) {
                lanes[count - 1].to = at_ + i + 1;  // the step at the cut makes the end there certain
                lanes[count] = {transducer.start(left), out_.data() + i + count * Transducer::kWalks * 2, at_ + i, end};
                ++count;
                break;
            }
            left = right;
        }
    }
    return count;
}

// Reads the window in several places at once. Returns false, as if nothing had happened, if the transducer stops.
bool FastReader::read_by_lanes(const FastMatcher& matcher, std::size_t end) {
    Lane lanes[kLanes];
    const std::size_t count = find_lanes(matcher, end, lanes);
    std::uint64_t* begins[kLanes];
    for (std::size_t k = 0; k < count; ++k) begins[k] = lanes[k].out;
    std::copy(pending_.begin(), pending_.end(), out_.begin());
    if (count == kLanes) {
        std::size_t length = end;
        for (const Lane& lane : lanes) length = std::min(length, lane.to - lane.at);
        run<kLanes>(matcher, classes_.data(), at_, lanes, length);
    }
    for (std::size_t k = 0; k < count; ++k) {
        run<1>(matcher, classes_.data(), at_, &lanes[k], lanes[k].to - lanes[k].at);
        if (lanes[k].row == matcher.transducer().stopped()) return false;
    }
    std::copy(lanes[count - 1].out, lanes[count - 1].out + pending_.size(), pending_.begin());
    count_ = 0;
    for (std::size_t k = 0; k < count; ++k) {
        const auto size = static_cast<std::size_t>(lanes[k].out - begins[k]);
        std::memmove(out_.data() + count_, begins[k], size * sizeof(std::uint64_t));
        count_ += size;
    }
    row_ = lanes[count - 1].row;
    at_ = end;
    return true;
}

// Reads the window from begin to end. Where the transducer stops, finds one match by the automaton.
void FastReader::read_in_order(const FastMatcher& matcher, std::size_t end) {
    const std::size_t base = at_;
    Lane lane{row_, out_.data(), at_, end};
    std::copy(pending_.begin(), pending_.end(), out_.begin());
    while (lane.at < end) {
        run<1>(matcher, classes_.data(), base, &lane, std::min(kCheck, end - lane.at));
        if (lane.row != matcher.transducer().stopped()) continue;
        const auto count = static_cast<std::size_t>(lane.out - out_.data());
        const std::size_t begin = count ? lane.out[-1] >> 1 : certain_;
        out_.resize(std::max(out_.size(), count + (base - std::min(base, begin)) + kWindow + kSlack));
        lane.out = out_.data() + count;
        const std::uint64_t next = next_end(matcher, begin);
        *lane.out++ = next;
        lane.at = next >> 1;
        lane.row = matcher.transducer().start(class_before(matcher, lane.at));
        // The next match may begin before the window.
        while (lane.at < base) {
            *lane.out++ = next_end(matcher, lane.at);
            lane.at = lane.out[-1] >> 1;
            lane.row = matcher.transducer().start(class_before(matcher, lane.at));
        }
    }
    std::copy(lane.out, lane.out + pending_.size(), pending_.begin());
    count_ = static_cast<std::size_t>(lane.out - out_.data());
    row_ = lane.row;
    at_ = lane.at;
}

// Returns the end of the match that begins at a place, or of the gap there. A walk that goes on far beyond the last
// match in vain is remembered, so that no other walk follows it again (Reps 1998, "Maximal-munch tokenization in linear
// time").
std::uint64_t FastReader::next_end(const FastMatcher& matcher, std::size_t begin) {
    const Automaton& automaton = matcher.automaton();
    if (begin > furthest_) outcomes_.clear();
    outcomes_.forget_before(begin);
    Automaton::State state = automaton.start(class_before(matcher, begin));
    std::uint64_t end = 0;
    std::size_t beyond = 0;  // characters since the last match
    std::vector<std::pair<Automaton::State, std::size_t>> walk;
    for (std::size_t at = begin; state != Automaton::kDead;) {
        ++steps_;
        const bool is_edge = at == piece_.size();
        const Program::Character character = is_edge
                                                 ? Program::Character{static_cast<Class>(automaton.class_count()), 0}
                                                 : matcher.program().character_at(piece_, at);
        const Automaton::Move& move = automaton.move(state, character.number);
        if (move.accept != Automaton::Accept::kNo) {
            end = at << 1 | (move.accept == Automaton::Accept::kGap);
            beyond = 0;
            walk.clear();
        } else if (++beyond > kFarFromEnd) {
            if (outcomes_.find(static_cast<std::uint32_t>(state), at) != Outcomes::kUnknown) break;
            walk.emplace_back(state, at);
        }
        state = move.next;
        at += character.length;
    }
    for (const auto& [at_state, at] : walk) {
        outcomes_.add(static_cast<std::uint32_t>(at_state), at, Outcomes::kFails);
        furthest_ = std::max(furthest_, at);
    }
    return end;
}

}  // namespace bpe
