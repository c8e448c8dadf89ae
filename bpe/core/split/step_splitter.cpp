#include "split/step_splitter.hpp"

#include <algorithm>
#include <string>

#include "base/errors.hpp"
#include "split/cuts.hpp"
#include "split/levels.hpp"

namespace bpe {

namespace {

constexpr std::size_t kMostInserting = 8;

bool removes(const AnyStep& step) {
    const auto* split = std::get_if<SplitStep>(&step);
    return split && split->behavior == Behavior::kRemoved;
}

bool prepends_to_first(const AnyStep& step) {
    const auto* metaspace = std::get_if<MetaspaceStep>(&step);
    return metaspace && metaspace->prepend == MetaspaceStep::Prepend::kFirst;
}

// Returns how often the step may double what one byte of the text becomes.
std::size_t doublings(const AnyStep& step, bool maps_bytes) {
    if (std::holds_alternative<PrefixSpaceStep>(step) || std::holds_alternative<ToByteCharactersStep>(step)) return 1;
    const auto* metaspace = std::get_if<MetaspaceStep>(&step);
    if (!metaspace) return 0;
    return (metaspace->prepend != MetaspaceStep::Prepend::kNever) + (maps_bytes ? 2 : 0);
}

// Collects pretokens. As long as they are side by side in the text, nothing is copied.
class Collector {
 public:
    explicit Collector(SplitRoom& room) : room_(room) { room_.origins.clear(); }

    void add(const StepPiece& piece) {
        if (count_ == 0) begin_ = piece.bytes.data();
        if (!is_copy_ && (piece.is_copy() || piece.bytes.data() != begin_ + size_)) {
            room_.text.assign(begin_, begin_ + size_);
            is_copy_ = true;
        }
        if (is_copy_) room_.text.insert(room_.text.end(), piece.bytes.begin(), piece.bytes.end());
        size_ += piece.size();
        room_.ends[count_++] = size_;
        origin_end_ = piece.origin(piece.size() - 1).end;
        if (!room_.wants_origins) return;
        for (std::size_t i = 0; i < piece.size(); ++i) room_.origins.push_back(piece.origin(i));
    }

    bool is_full() const { return count_ == kBatch; }
    std::size_t origin_end() const { return origin_end_; }

    // `next` and `left_out` as in Pretokens.
    Pretokens pretokens(Bytes text, std::size_t next, std::size_t left_out) const {
        const std::span<const std::uint64_t> ends{room_.ends, count_};
        if (is_copy_) return {room_.text, ends, next, left_out};
        return {count_ ? Bytes(begin_, text.data() + text.size()) : Bytes(), ends, next, left_out};
    }

 private:
    SplitRoom& room_;
    const std::uint8_t* begin_ = nullptr;
    std::size_t size_ = 0;
    std::size_t count_ = 0;
    std::size_t origin_end_ = 0;
    bool is_copy_ = false;
};

}  // namespace

StepSplitter::StepSplitter(std::vector<AnyStep> steps) : steps_(std::move(steps)) {
    const auto maps_bytes = [](const AnyStep& step) { return std::holds_alternative<ToByteCharactersStep>(step); };
    const bool has_mapped = std::ranges::any_of(steps_, maps_bytes);
    std::size_t inserting = 0;
    int mapped = 0;  // how many times bytes have become characters
    bool is_split = false;
    for (const AnyStep& step : steps_) {
        const auto* metaspace = std::get_if<MetaspaceStep>(&step);
        const bool is_split_step = std::holds_alternative<SplitStep>(step);
        const bool prepends = metaspace ? metaspace->prepend != MetaspaceStep::Prepend::kNever
                                        : std::holds_alternative<PrefixSpaceStep>(step);
        inserting += doublings(step, has_mapped);
        mapped += maps_bytes(step) - std::holds_alternative<FromByteCharactersStep>(step);
        needs_first_ |= prepends_to_first(step);
        depends_on_start_ |= needs_first_ || (prepends && !is_split);
        keeps_text_ &= mapped >= 0 && !metaspace && !prepends && !removes(step);
        is_split |= metaspace ? metaspace->split : is_split_step;
    }
    keeps_text_ &= mapped == 0;
    find_fast_step();
    if (!fast_) chain_ = StepChain::of(steps_);
    find_cutting_step();
    if (inserting > kMostInserting) {
        throw InputError("the pre-tokenizer may make 2^" + std::to_string(inserting) +
                         " pieces of one byte, by steps that put something before each piece or write characters for"
                         " bytes; at most 2^" +
                         std::to_string(kMostInserting) + " are supported");
    }
}

void StepSplitter::find_fast_step() {
    const auto* split = steps_.size() == 1 ? std::get_if<SplitStep>(&steps_[0]) : nullptr;
    if (!split || !split->matcher->fast() || !split->matcher->fast()->covers_text()) return;
    const bool keeps_matches =
        split->behavior == Behavior::kIsolated || (split->behavior == Behavior::kRemoved && split->invert);
    if (!keeps_matches) return;
    fast_ = split->matcher->fast();
    keeps_text_ = true;
}

// A text may be cut where the first step that splits would cut it whatever comes before and after: each later step sees
// the pieces of that step one by one. A space before the text changes no place between two characters of the text. The
// first piece on the right of a cut is a piece like any other for the later steps.
//
// A match and a gap are pieces of their own if they are isolated, and if one of them is removed.
void StepSplitter::find_cutting_step() {
    const auto inserts = [](const AnyStep& step) { return std::holds_alternative<PrefixSpaceStep>(step); };
    const auto first = std::ranges::find_if_not(steps_, inserts);
    if (first == steps_.end()) return;
    if (const auto* metaspace = std::get_if<MetaspaceStep>(&*first)) {
        if (metaspace->split && first == steps_.begin()) spaces_ = metaspace;
        return;
    }
    const auto* split = std::get_if<SplitStep>(&*first);
    const bool is_isolated = split && (split->behavior == Behavior::kIsolated || split->behavior == Behavior::kRemoved);
    if (is_isolated && split->matcher->fast()) cutting_ = split->matcher->fast();
}

// What `next` remembers of a text that a single fast matcher or a chain splits.
struct FastState final : SplitRoom::State {
    FastReader reader;
    ChainReader chain;
    std::span<const std::uint64_t> ends;
};

Pretokens StepSplitter::next_fast(Bytes text, std::size_t position, SplitRoom& room) const {
    auto* state = dynamic_cast<FastState*>(room.state.get());
    if (!state) {
        room.state = std::make_unique<FastState>();
        state = static_cast<FastState*>(room.state.get());
    }
    if (position == 0) {
        fast_ ? state->reader.start(text) : state->chain.start(text);
        state->ends = {};
    }
    if (state->ends.empty()) state->ends = fast_ ? state->reader.read(*fast_) : state->chain.read(*chain_);
    if (state->ends.empty()) {
        if (!fast_ && position < text.size()) return next_by_levels(text, position, Start::kInside, room);
        return {text.subspan(position), {}, text.size()};
    }
    const std::size_t count = std::min(kBatch, state->ends.size());
    for (std::size_t i = 0; i < count; ++i) room.ends[i] = (state->ends[i] >> 1) - position;
    state->ends = state->ends.subspan(count);
    const std::size_t size = room.ends[count - 1];
    if (room.wants_origins) {
        room.origins.clear();
        for (std::size_t i = position; i < position + size; ++i) room.origins.push_back({i, i + 1});
    }
    return {text.subspan(position), {room.ends, count}, position + size};
}

Pretokens StepSplitter::next(Bytes text, std::size_t position, Start start, SplitRoom& room) const {
    if (fast_) return next_fast(text, position, room);
    if (chain_ && (position == 0 || dynamic_cast<FastState*>(room.state.get()))) return next_fast(text, position, room);
    auto* levels = dynamic_cast<Levels*>(room.state.get());
    if (position == 0) {
        if (!levels || &levels->steps() != &steps_) {
            room.state = std::make_unique<Levels>(steps_);
            levels = static_cast<Levels*>(room.state.get());
        }
        levels->start(text, start, room.first_size);
    }
    return next_of(*levels, text, room);
}

// Reads on from a place where the chain finds no end of a window.
Pretokens StepSplitter::next_by_levels(Bytes text, std::size_t position, Start start, SplitRoom& room) const {
    auto levels = std::make_unique<Levels>(steps_);
    Levels& all = *levels;
    room.state = std::move(levels);
    all.start(text, start, room.first_size, position);
    return next_of(all, text, room);
}

Pretokens StepSplitter::next_of(Levels& levels, Bytes text, SplitRoom& room) {
    Collector batch(room);
    while (!batch.is_full()) {
        const std::optional<StepPiece> piece = levels.next();
        if (!piece) return batch.pretokens(text, text.size(), levels.take_removed());
        batch.add(*piece);
    }
    // More pieces may follow, even if they all stand for the last byte of the text: fewer than a batch, since no byte
    // makes more than 2^kMostInserting pieces.
    const std::size_t next = std::min<std::size_t>(batch.origin_end(), text.size() - 1);
    return batch.pretokens(text, next, levels.take_removed());
}

std::size_t StepSplitter::next_cut(Bytes text, std::size_t position) const {
    position = std::max<std::size_t>(position, 1);
    if (position >= text.size() || (!cutting_ && !spaces_)) return text.size();
    if (spaces_) {
        for (; position < text.size(); ++position) {
            if (text[position] == ' ') return position;
        }
        return position;
    }
    const Program& program = cutting_->program();
    const std::size_t start = character_start(text, position - 1);
    Program::Character left = program.character_at(text, start);
    for (position = start + left.length; position < text.size();) {
        const Program::Character right = program.character_at(text, position);
        if (cutting_->automaton().may_cut(left.number, right.number)) return position;
        left = right;
        position += right.length;
    }
    return text.size();
}

std::uint64_t StepSplitter::steps_made(const SplitRoom& room) const {
    if (const auto* state = dynamic_cast<const FastState*>(room.state.get()))
        return state->reader.steps() + state->chain.steps();
    const auto* levels = dynamic_cast<const Levels*>(room.state.get());
    return levels ? levels->steps_made() : 0;
}

}  // namespace bpe
