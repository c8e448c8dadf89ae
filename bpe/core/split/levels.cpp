#include "split/levels.hpp"

#include <algorithm>
#include <utility>

#include "text/byte_characters.hpp"
#include "text/code_points.hpp"

namespace bpe {

namespace {

constexpr std::uint8_t kSpaceByte = ' ';

// Returns the run that contains a place of a copy.
std::span<const CopyRun>::iterator run_at(std::span<const CopyRun> runs, std::size_t place) {
    return std::ranges::upper_bound(runs, place, {}, &CopyRun::at) - 1;
}

}  // namespace

Range StepPiece::origin(std::size_t at) const {
    const std::size_t place = begin + at;
    return is_copy() ? run_at(runs, place)->origin_of(place) : Range{place, place + 1};
}

CopyRun::Kind StepPiece::kind(std::size_t at) const {
    return is_copy() ? run_at(runs, begin + at)->kind : CopyRun::Kind::kCopied;
}

Range StepPiece::first_origin() const {
    const std::uint32_t length = read_code_point(bytes.data(), 0, size()).length;
    return {origin(0).begin, origin(length - 1).end};
}

std::size_t StepPiece::origin_size(std::size_t from, std::size_t to) const {
    if (from == to || !is_copy()) return to - from;
    std::size_t sum = 0;
    for (auto run = run_at(runs, begin + from); run != runs.end() && run->at < begin + to; ++run) {
        if (run->kind == CopyRun::Kind::kInserted) continue;
        const std::size_t last = run + 1 == runs.end() ? begin + to : std::min(begin + to, (run + 1)->at);
        sum += run->origin_of(last - 1).end - run->origin_of(std::max(begin + from, run->at)).begin;
    }
    return sum;
}

void PieceCopy::start(const StepPiece& piece) {
    bytes_.clear();
    runs_.clear();
    is_continued_ = piece.is_continued;
}

void PieceCopy::add(const StepPiece& piece, std::size_t from, std::size_t to) {
    if (from == to) return;
    const std::size_t size = bytes_.size();
    const std::size_t begin = piece.begin + from, end = piece.begin + to;
    bytes_.insert(bytes_.end(), &piece.bytes[from], &piece.bytes[from] + (to - from));
    if (!piece.is_copy()) return runs_.push_back({size, {begin, end}, CopyRun::Kind::kCopied});
    for (auto run = run_at(piece.runs, begin); run != piece.runs.end() && run->at < end; ++run) {
        const std::size_t at = std::max(begin, run->at);
        runs_.push_back({size + (at - begin), {run->origin_of(at).begin, run->origin.end}, run->kind});
    }
}

void PieceCopy::add(Bytes bytes, Range origin, CopyRun::Kind kind) {
    runs_.push_back({bytes_.size(), origin, kind});
    bytes_.insert(bytes_.end(), bytes.begin(), bytes.end());
}

Level::Level(const AnyStep& step) : step_(step) {
    if (const auto* split = std::get_if<SplitStep>(&step)) {
        grouper_ = Grouper(split->behavior, split->invert);
        reader_.emplace(*split->matcher);
    }
}

void Level::start(const StepPiece& piece, Start start, std::size_t first_size) {
    piece_ = piece;
    start_ = start;
    first_size_ = first_size;
    at_ = 0;
    if (std::holds_alternative<SplitStep>(step_)) {
        reader_->start(piece.bytes);
        grouper_.start();
    }
}

std::optional<StepPiece> Level::next() {
    return std::visit([this](const auto& step) { return next_of(step); }, step_);
}

std::size_t Level::take_removed() { return std::exchange(removed_, 0); }

std::optional<StepPiece> Level::next_of(const SplitStep&) {
    while (at_ < piece_.bytes.size()) {
        const std::optional<Group> group = grouper_.add(reader_->next());
        if (!group) continue;
        at_ = group->end;
        if (group->is_removed) removed_ += piece_.origin_size(group->begin, group->end);
        if (group->is_removed || group->begin == group->end) continue;
        StepPiece part = piece_.part(group->begin, group->end);
        part.is_continued = false;
        return part;
    }
    return std::nullopt;
}

std::optional<StepPiece> Level::next_of(const PrefixSpaceStep&) {
    if (at_ == piece_.bytes.size()) return std::nullopt;
    at_ = piece_.bytes.size();
    if (piece_.is_continued || piece_.bytes[0] == kSpaceByte) return piece_;
    copy_.start(piece_);
    copy_.add({&kSpaceByte, 1}, piece_.first_origin(), CopyRun::Kind::kInserted);
    copy_.add(piece_, 0, at_);
    return copy_.piece();
}

// Returns the length of the space or replacement at a position, or 0 for any other character.
std::size_t Level::space_at(const MetaspaceStep& step, std::size_t at) const {
    if (piece_.bytes[at] == kSpaceByte) return 1;
    const std::size_t size = step.replacement.size();
    const bool is_replacement = size <= piece_.bytes.size() - at &&
                                std::equal(step.replacement.begin(), step.replacement.end(), &piece_.bytes[at]);
    return is_replacement ? size : 0;
}

// Whether the replacement is put before the piece.
bool Level::prepends(const MetaspaceStep& step) const {
    if (piece_.is_continued || space_at(step, 0)) return false;
    if (step.prepend == MetaspaceStep::Prepend::kAlways) return true;
    return step.prepend == MetaspaceStep::Prepend::kFirst && start_ == Start::kText &&
           piece_.origin(0).begin < first_size_;
}

// Gives the part up to the next space, or all of it. The part begins with a space or with what is put before the piece,
// if there is any.
std::optional<StepPiece> Level::next_of(const MetaspaceStep& step) {
    const std::size_t size = piece_.bytes.size();
    const std::size_t begin = at_;
    if (begin == size) return std::nullopt;
    copy_.start(piece_.part(begin, size));
    bool is_changed = false;
    if (begin == 0 && prepends(step)) {
        copy_.add(step.replacement, piece_.first_origin(), CopyRun::Kind::kInserted);
        is_changed = true;
    }
    std::size_t copied = begin;
    for (;;) {
        const std::size_t length = space_at(step, at_);
        if (length && piece_.bytes[at_] == kSpaceByte) {
            copy_.add(piece_, copied, at_);
            copy_.add(step.replacement, piece_.origin(at_), CopyRun::Kind::kReplaced);
            copied = at_ + 1;
            is_changed = true;
        }
        at_ += std::max<std::size_t>(1, length);
        if (at_ == size || (step.split && space_at(step, at_))) break;
    }
    StepPiece part = piece_.part(begin, at_);
    if (is_changed) {
        copy_.add(piece_, copied, at_);
        part = copy_.piece();
    }
    part.is_continued = part.is_continued && !step.split;
    return part;
}

// Adds to the copy what replaces a part of the piece.
void Level::replace(std::size_t from, std::size_t to, Bytes replacement) {
    const bool is_inserted = piece_.kind(from) == CopyRun::Kind::kInserted;
    copy_.add(replacement, {piece_.origin(from).begin, piece_.origin(to - 1).end},
              is_inserted ? CopyRun::Kind::kInserted : CopyRun::Kind::kReplaced);
}

std::optional<StepPiece> Level::next_of(const ToByteCharactersStep&) {
    if (at_ == piece_.size()) return std::nullopt;
    copy_.start(piece_);
    std::size_t copied = 0;
    for (; at_ < piece_.size(); ++at_) {
        const std::uint32_t character = kByteCharacters[piece_.bytes[at_]];
        if (character < 0x80) continue;
        copy_.add(piece_, copied, at_);
        std::uint8_t utf8[4];
        const std::size_t size = write_utf8(character, utf8);
        replace(at_, at_ + 1, {utf8, size});
        copied = at_ + 1;
    }
    if (copied == 0) return piece_;
    copy_.add(piece_, copied, at_);
    return copy_.piece();
}

std::optional<StepPiece> Level::next_of(const FromByteCharactersStep&) {
    if (at_ == piece_.size()) return std::nullopt;
    copy_.start(piece_);
    std::size_t copied = 0;
    while (at_ < piece_.size()) {
        const CodePoint character = code_point_at(piece_.bytes, at_);
        const std::size_t end = at_ + character.length;
        if (character.value >= 0x80 && character.value < kByteCharacterLimit &&
            kCharacterBytes[character.value] != kNoByte) {
            copy_.add(piece_, copied, at_);
            const auto byte = static_cast<std::uint8_t>(kCharacterBytes[character.value]);
            replace(at_, end, {&byte, 1});
            copied = end;
        }
        at_ = end;
    }
    if (copied == 0) return piece_;
    copy_.add(piece_, copied, at_);
    return copy_.piece();
}

Levels::Levels(const std::vector<AnyStep>& steps) : steps_(steps) {
    for (const AnyStep& step : steps) levels_.emplace_back(step);
}

void Levels::start(Bytes text, Start start, std::optional<std::size_t> first_size, std::size_t from) {
    start_ = start;
    first_size_ = first_size ? *first_size : text.empty() ? 0 : code_point_at(text, 0).length;
    level_ = 0;
    whole_.reset();
    if (from < text.size()) whole_ = StepPiece{text.subspan(from), from, {}, start == Start::kInside};
    if (!levels_.empty() && whole_) {
        levels_[0].start(*whole_, start, first_size_);
        whole_.reset();
        level_ = 1;
    }
}

// levels_[level_ - 1] is the last that may have another piece; those behind it have none.
std::optional<StepPiece> Levels::next() {
    if (levels_.empty()) return std::exchange(whole_, std::nullopt);
    while (level_ > 0) {
        const std::optional<StepPiece> piece = levels_[level_ - 1].next();
        if (!piece) {
            --level_;
            continue;
        }
        if (level_ == levels_.size()) return piece;
        levels_[level_++].start(*piece, start_, first_size_);
    }
    return std::nullopt;
}

std::size_t Levels::take_removed() {
    std::size_t removed = 0;
    for (Level& level : levels_) removed += level.take_removed();
    return removed;
}

std::uint64_t Levels::steps_made() const {
    std::uint64_t made = 0;
    for (const Level& level : levels_) made += level.steps();
    return made;
}

}  // namespace bpe
