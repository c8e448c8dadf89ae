#include "split/step_chain.hpp"

#include <algorithm>
#include <bit>
#include <utility>

#include "split/cuts.hpp"
#include "split/lane_runs.hpp"

namespace bpe {

namespace {

constexpr std::size_t kFirstWindow = std::size_t{1} << 13;
constexpr std::size_t kMostWindow = std::size_t{1} << 22;
constexpr std::size_t kMostChainClasses = 128;
constexpr std::size_t kMostChainSteps = std::size_t{1} << 20;
constexpr std::size_t kChainLanes = 4;
constexpr std::size_t kChainSlack = 64;

}  // namespace

std::optional<StepChain> StepChain::of(std::span<const AnyStep> steps) {
    std::vector<const FastMatcher*> matchers;
    std::vector<const Program*> programs;
    for (const AnyStep& step : steps) {
        const auto* split = std::get_if<SplitStep>(&step);
        if (!split || split->behavior != Behavior::kIsolated || !split->matcher->fast()) return std::nullopt;
        matchers.push_back(split->matcher->fast());
        programs.push_back(&matchers.back()->program());
    }
    if (matchers.size() < 2) return std::nullopt;
    std::optional<ClassTable> classes = ClassTable::of(programs);
    if (!classes || classes->class_count() > kMostChainClasses) return std::nullopt;
    const std::size_t flag = std::bit_ceil(classes->class_count());
    for (const FastMatcher* matcher : matchers) {
        if (matcher->transducer().state_count() * 2 * flag > kMostChainSteps) return std::nullopt;
    }
    StepChain chain(std::move(*classes), static_cast<std::uint8_t>(flag));
    for (std::size_t i = 0; i < matchers.size(); ++i) chain.add_stage(*matchers[i], i);
    return chain;
}

void StepChain::add_stage(const FastMatcher& matcher, std::size_t number) {
    const Transducer& transducer = matcher.transducer();
    const Automaton& automaton = matcher.automaton();
    const std::size_t count = classes_.class_count(), width = 2 * std::size_t{flag_};
    const std::size_t old_width = transducer.edge() + 1;
    const auto moved = [&](std::uint32_t row) { return static_cast<std::uint32_t>(row / old_width * width); };
    Stage stage{&matcher, {}, moved(transducer.start(transducer.edge())), std::vector<char>(count)};
    stage.steps.assign(transducer.state_count() * width, Transducer::Step{0});
    const Transducer::Step* first = transducer.row(transducer.start(transducer.edge()));
    for (std::size_t state = 1; state < transducer.state_count(); ++state) {
        const Transducer::Step* row = transducer.row(static_cast<std::uint32_t>(state * old_width));
        for (std::size_t c = 0; c < count; ++c) {
            const Class part = classes_.part(c, number);
            stage.steps[state * width + c] = row[part].with_row(moved(row[part].row()));
            stage.steps[state * width + flag_ + c] = row[transducer.edge()].with_row(moved(first[part].row()));
        }
    }
    // A class begins no match if only a gap may end behind it, and nothing follows.
    for (std::size_t c = 0; c < count; ++c) {
        for (std::size_t previous = 0; previous <= automaton.class_count(); ++previous) {
            const Automaton::State behind = automaton.move(automaton.start(previous), classes_.part(c, number)).next;
            for (std::size_t next = 0; next <= automaton.class_count(); ++next) {
                const Automaton::Move& move = automaton.move(behind, next);
                stage.may_match[c] |= move.accept == Automaton::Accept::kMatch || move.next != Automaton::kDead;
            }
        }
    }
    stages_.push_back(std::move(stage));
}

void ChainReader::start(Bytes text) {
    text_ = text;
    at_ = end_ = 0;
}

// Reads the classes of the next window. It ends where the first step cuts the text. Returns false if there is no such
// place.
bool ChainReader::find_window(const StepChain& chain) {
    for (std::size_t size = kFirstWindow; size <= kMostWindow; size *= 4) {
        end_ = text_.size() - at_ <= size ? text_.size() : character_start(text_, at_ + size);
        symbols_.resize(std::max(symbols_.size(), size + ClassTable::kSlack));
        starts_.resize(std::max(starts_.size(), size + ClassTable::kSlack));
        count_ = chain.classes().write(text_, at_, end_, {symbols_.data(), starts_.data()});
        steps_ += count_;
        if (end_ == text_.size()) return true;
        while (--count_ > 0 && !chain.may_cut(symbols_[count_ - 1], symbols_[count_])) {
        }
        if (count_ == 0) continue;
        end_ = at_ + starts_[count_];
        return true;
    }
    return false;
}

std::span<const std::uint64_t> ChainReader::read(const StepChain& chain) {
    if (at_ == text_.size() || !find_window(chain)) return {};
    bool seen[kMostChainClasses] = {};
    for (std::size_t i = 0; i < count_; ++i) seen[symbols_[i]] = true;
    for (std::size_t k = 1; k < kChainLanes; ++k) {
        const std::size_t first = k * (count_ / kChainLanes);
        for (std::size_t i = std::max<std::size_t>(first, 1); i < first + count_ / kChainLanes; ++i) {
            if (!chain.may_cut(symbols_[i - 1] & (chain.flag() - 1), symbols_[i])) continue;
            symbols_[i] |= chain.flag();
            break;
        }
    }
    if (out_.size() < count_ + kChainSlack) out_.resize(count_ + kChainSlack);
    for (const StepChain::Stage& stage : chain.stages()) {
        bool may_match = false;
        for (std::size_t c = 0; c < stage.may_match.size(); ++c) may_match |= seen[c] && stage.may_match[c];
        if (may_match) run(chain, stage);
    }
    std::size_t ends = 0;
    for (std::size_t i = 1; i < count_; ++i) {
        out_[ends] = (at_ + starts_[i]) << 1;
        ends += symbols_[i] >= chain.flag();
    }
    out_[ends++] = std::uint64_t{end_} << 1;
    at_ = end_;
    return std::span<const std::uint64_t>(out_).first(ends);
}

void ChainReader::run(const StepChain& chain, const StepChain::Stage& stage) {
    steps_ += count_;
    if (!run_lanes(chain, stage)) run_pieces(chain, stage);
}

// Flags where the stage cuts the window. Returns false, as if nothing had happened, if its transducer stops.
bool ChainReader::run_lanes(const StepChain& chain, const StepChain::Stage& stage) {
    const WindowSymbols symbols{symbols_.data(), nullptr, 0};
    TransducerLane lanes[kChainLanes];
    std::uint64_t* begins[kChainLanes];
    std::size_t lane_count = 0;
    const auto add_lane = [&](std::size_t at) {
        if (lane_count) lanes[lane_count - 1].to = at + 1;  // the step at the cut makes the end there certain
        begins[lane_count] = out_.data() + at + lane_count * Transducer::kWalks * 2;
        lanes[lane_count] = {stage.start, begins[lane_count], at, count_};
        ++lane_count;
    };
    add_lane(0);
    for (std::size_t k = 1; k < kChainLanes; ++k) {
        std::size_t at = std::max<std::size_t>(k * (count_ / kChainLanes), 1);
        const std::size_t to = (k + 1) * (count_ / kChainLanes);
        while (at < to && symbols_[at] < chain.flag()) ++at;
        if (at < to) add_lane(at);
    }
    if (lane_count == kChainLanes) {
        std::size_t length = count_;
        for (const TransducerLane& lane : lanes) length = std::min(length, lane.to - lane.at);
        bpe::run_lanes<kChainLanes, true, true>(stage.steps.data(), symbols, lanes, length);
    }
    for (std::size_t k = 0; k < lane_count; ++k) {
        bpe::run_lanes<1, true, true>(stage.steps.data(), symbols, &lanes[k], lanes[k].to - lanes[k].at);
        if (lanes[k].row == 0) return false;
    }
    // The end of the window is that of a piece. Its own end, the last, need not be flagged.
    TransducerLane& last = lanes[lane_count - 1];
    const Transducer::Step step = stage.steps[last.row + chain.flag()];
    last.out[step.slot()] = std::uint64_t{count_} << 1 | step.is_gap();
    last.out += step.growth();
    for (std::size_t k = 0; k < lane_count; ++k) {
        for (const std::uint64_t* end = begins[k]; end + 1 < lanes[k].out; ++end) {
            symbols_[end[0] >> 1] |= end[0] & end[1] & 1 ? 0 : chain.flag();
        }
    }
    return true;
}

// Flags where the stage cuts the window, piece by piece.
void ChainReader::run_pieces(const StepChain& chain, const StepChain::Stage& stage) {
    for (std::size_t begin = 0, next = 0; begin < count_; begin = next) {
        for (next = begin + 1; next < count_ && symbols_[next] < chain.flag();) ++next;
        const std::size_t to = next < count_ ? at_ + starts_[next] : end_;
        const std::size_t from = at_ + starts_[begin];
        reader_.start(text_.subspan(from, to - from));
        std::size_t symbol = begin;
        bool is_gap = false;  // the last end's
        for (auto ends = reader_.read(*stage.matcher); !ends.empty(); ends = reader_.read(*stage.matcher)) {
            for (const std::uint64_t end : ends) {
                if (symbol > begin && !(is_gap && end & 1)) symbols_[symbol] |= chain.flag();
                is_gap = end & 1;
                while (symbol < next && starts_[symbol] < from - at_ + (end >> 1)) ++symbol;
            }
        }
    }
}

}  // namespace bpe
