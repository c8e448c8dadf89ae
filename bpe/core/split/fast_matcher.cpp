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

FastMatcher::FastMatcher(const Program& program, Automaton automaton, Transducer transducer, ClassTable classes)
    : program_(&program),
      automaton_(std::move(automaton)),
      transducer_(std::move(transducer)),
      classes_(std::move(classes)) {}

std::optional<FastMatcher> FastMatcher::of(const Program& program) {
    const Program* const programs[] = {&program};
    if (program.class_count() > ClassTable::kMostClasses) return std::nullopt;
    std::optional<Automaton> automaton = Automaton::of(program);
    if (!automaton) return std::nullopt;
    std::optional<Transducer> transducer = Transducer::of(*automaton);
    if (!transducer) return std::nullopt;
    std::optional<ClassTable> classes = ClassTable::of(programs);
    if (!classes) return std::nullopt;
    return FastMatcher(program, std::move(*automaton), std::move(*transducer), std::move(*classes));
}

void FastReader::start(Bytes piece) {
    piece_ = piece;
    at_ = certain_ = 0;
    is_done_ = is_started_ = false;
    outcomes_.clear();
    furthest_ = 0;
}

namespace {

template <std::size_t kCount>
void run(const FastMatcher& matcher, const WindowSymbols& symbols, bool is_dense, TransducerLane* lanes,
         std::size_t length) {
    const Transducer::Step* steps = matcher.transducer().row(0);
    if (matcher.covers_text()) {
        if (is_dense) return run_lanes<kCount, false, true>(steps, symbols, lanes, length);
        return run_lanes<kCount, false, false>(steps, symbols, lanes, length);
    }
    run_lanes<kCount, true, false>(steps, symbols, lanes, length);
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
    classes_.resize(kWindow + ClassTable::kSlack);
    starts_.resize(kWindow + ClassTable::kSlack);
    if (out_.size() < kWindow + kSlack) out_.resize(kWindow + kSlack);
    symbol_count_ = matcher.classes().write(piece_, at_, end, {classes_.data(), starts_.data()});
    steps_ += end - at_;
    at_ = read_by_lanes(matcher) ? end : read_in_order(matcher, end);
    if (at_ == piece_.size()) {
        const Transducer::Step step = matcher.transducer().row(row_)[matcher.transducer().edge()];
        std::copy(pending_.begin(), pending_.end(), out_.begin() + static_cast<std::ptrdiff_t>(count_));
        out_[count_ + step.slot()] = at_ << 1 | step.is_gap();
        count_ += step.growth();
        is_done_ = true;
    }
    if (count_) certain_ = out_[count_ - 1] >> 1;
}

// Divides the window at places where the text may be cut. Returns how many lanes there are.
std::size_t FastReader::find_lanes(const FastMatcher& matcher, TransducerLane* lanes) {
    const Automaton& automaton = matcher.automaton();
    lanes[0] = {row_, out_.data(), 0, symbol_count_};
    std::size_t count = 1;
    const std::size_t part = symbol_count_ / kLanes;
    for (std::size_t k = 1; k < kLanes && part >= kLeastPart; ++k) {
        const std::size_t first = k * part;
        for (std::size_t i = first; i < first + std::min(kSearched, part); ++i) {
            if (!automaton.may_cut(classes_[i - 1], classes_[i])) continue;
            lanes[count - 1].to = i + 1;  // the step at the cut makes the end there certain
            lanes[count] = {matcher.transducer().start(classes_[i - 1]),
                            out_.data() + i + count * Transducer::kWalks * 2, i, symbol_count_};
            ++count;
            break;
        }
    }
    return count;
}

// Reads the window in several places at once. Returns false, as if nothing had happened, if the transducer stops.
bool FastReader::read_by_lanes(const FastMatcher& matcher) {
    TransducerLane lanes[kLanes];
    const WindowSymbols symbols{classes_.data(), starts_.data(), at_};
    const bool is_dense = symbol_count_ == 0 || starts_[symbol_count_ - 1] == symbol_count_ - 1;
    const std::size_t count = find_lanes(matcher, lanes);
    std::uint64_t* begins[kLanes];
    for (std::size_t k = 0; k < count; ++k) begins[k] = lanes[k].out;
    std::copy(pending_.begin(), pending_.end(), out_.begin());
    if (count == kLanes) {
        std::size_t length = symbol_count_;
        for (const TransducerLane& lane : lanes) length = std::min(length, lane.to - lane.at);
        run<kLanes>(matcher, symbols, is_dense, lanes, length);
    }
    for (std::size_t k = 0; k < count; ++k) {
        run<1>(matcher, symbols, is_dense, &lanes[k], lanes[k].to - lanes[k].at);
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
    return true;
}

// Returns the number of the symbol at a position of the window, or how many symbols there are if it is behind them.
std::size_t FastReader::symbol_at(std::size_t position) const {
    const auto end = starts_.begin() + static_cast<std::ptrdiff_t>(symbol_count_);
    return static_cast<std::size_t>(std::lower_bound(starts_.begin(), end, position - at_) - starts_.begin());
}

// Reads the window from begin to end. Where the transducer stops, finds one match by the automaton. Returns the
// position up to which the text is read, which may be behind the window's end.
std::size_t FastReader::read_in_order(const FastMatcher& matcher, std::size_t end) {
    const WindowSymbols symbols{classes_.data(), starts_.data(), at_};
    TransducerLane lane{row_, out_.data(), 0, symbol_count_};
    std::copy(pending_.begin(), pending_.end(), out_.begin());
    while (lane.at < symbol_count_) {
        run<1>(matcher, symbols, false, &lane, std::min(kCheck, symbol_count_ - lane.at));
        if (lane.row != matcher.transducer().stopped()) continue;
        const auto count = static_cast<std::size_t>(lane.out - out_.data());
        std::size_t position = count ? lane.out[-1] >> 1 : certain_;
        out_.resize(std::max(out_.size(), count + (at_ - std::min(at_, position)) + kWindow + kSlack));
        lane.out = out_.data() + count;
        do {  // the next match may begin before the window
            *lane.out++ = next_end(matcher, position);
            position = lane.out[-1] >> 1;
        } while (position < at_);
        lane.row = matcher.transducer().start(class_before(matcher, position));
        lane.at = symbol_at(position);
        end = std::max(end, position);
    }
    std::copy(lane.out, lane.out + pending_.size(), pending_.begin());
    count_ = static_cast<std::size_t>(lane.out - out_.data());
    row_ = lane.row;
    return end;
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
