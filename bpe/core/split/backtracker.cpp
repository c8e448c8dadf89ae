#include "split/backtracker.hpp"

#include <algorithm>
#include <utility>

#include "base/hash.hpp"

namespace bpe {

namespace {

constexpr std::uint64_t kStepsPerByte = 16;
constexpr std::uint64_t kFirstCredit = 4096;
constexpr std::uint64_t kMostCredit = 1 << 16;

// Positions are below 2^47 on every machine, and a program has at most 2^16 instructions. No key is 0.
std::uint64_t key_of(std::uint32_t pc, std::size_t position) { return (std::uint64_t{position} + 1) << 16 | pc; }

}  // namespace

std::uint64_t Outcomes::find(std::uint32_t pc, std::size_t position) const {
    if (size_ == 0) return kUnknown;
    const std::uint64_t key = key_of(pc, position);
    const std::size_t mask = table_.size() - 1;
    for (std::size_t i = mix(key) & mask;; i = (i + 1) & mask) {
        if (table_[i].key == key) return table_[i].outcome;
        if (table_[i].key == 0) return kUnknown;
    }
}

void Outcomes::add(std::uint32_t pc, std::size_t position, std::uint64_t outcome) {
    if (4 * (size_ + 1) > 3 * table_.size()) make_room();
    const std::uint64_t key = key_of(pc, position);
    const std::size_t mask = table_.size() - 1;
    std::size_t i = mix(key) & mask;
    while (table_[i].key != 0 && table_[i].key != key) i = (i + 1) & mask;
    if (table_[i].key == 0) ++size_;
    table_[i] = {key, outcome};
}

// Drops the outcomes that are not needed any more. Doubles the table unless that frees half of it.
void Outcomes::make_room() {
    const std::uint64_t first = key_of(0, needed_from_);
    const auto is_needed = [first](const Entry& entry) { return entry.key >= first; };
    const auto needed = static_cast<std::size_t>(std::count_if(table_.begin(), table_.end(), is_needed));
    std::vector<Entry> old(std::max<std::size_t>(1024, 2 * needed <= size_ ? table_.size() : 2 * table_.size()));
    old.swap(table_);
    size_ = needed;
    const std::size_t mask = table_.size() - 1;
    for (const Entry& entry : old) {
        if (!is_needed(entry)) continue;
        std::size_t i = mix(entry.key) & mask;
        while (table_[i].key != 0) i = (i + 1) & mask;
        table_[i] = entry;
    }
}

// Frees a large table, so that clearing it costs no more than filling it did.
void Outcomes::clear() {
    if (size_ == 0) return;
    table_ = {};
    size_ = 0;
}

void BacktrackerMemory::start_piece() {
    outcomes_.clear();
    remembers_ = false;
    furthest_ = 0;
    credit_ = kFirstCredit;
}

class Backtracker::Run {
 public:
    Run(const Program& program, Bytes piece, BacktrackerMemory& memory)
        : program_(program), code_(program.code()), piece_(piece), memory_(memory) {}

    // Returns whether the run came to an end. It does not if the credit is used up.
    bool match(std::size_t begin) {
        memory_.open_.clear();
        memory_.bodies_.clear();
        memory_.path_.clear();
        end_.reset();
        pc_ = 0;
        position_ = begin;
        for (is_done_ = false; !is_done_;) {
            ++memory_.steps_;
            if (!memory_.remembers_) {
                if (memory_.credit_ == 0) return false;
                --memory_.credit_;
            }
            step();
        }
        return true;
    }

    std::optional<std::size_t> end() const { return end_; }

 private:
    using Kind = BacktrackerMemory::Kind;

    void step() {
        const Instruction& at = code_[pc_];
        switch (at.op) {
            case Op::kChar: return consume(at.x);
            case Op::kJump:
                if (at.x <= pc_ && is_known()) return;
                pc_ = at.x;
                return;
            case Op::kSplit:
                if (is_known()) return;
                open(at.y, Kind::kChoice);
                pc_ = at.x;
                return;
            case Op::kMatch: return end_body(position_);
            case Op::kAhead: return go_on(position_ == piece_.size() ? at.y != 0 : next_is_in(at.x));
            case Op::kBehind: return go_on(position_ == 0 ? at.y != 0 : previous_is_in(at.x));
            case Op::kLook: return begin_body(Kind::kLook);
            case Op::kAtomic: return begin_body(Kind::kAtomic);
            case Op::kBack: return step_back(at.x);
        }
    }

    void consume(std::uint32_t set) {
        if (position_ == piece_.size()) return fail();
        const Program::Character character = program_.character_at(piece_, position_);
        if (!program_.contains(set, character.number)) return fail();
        position_ += character.length;
        ++pc_;
    }

    bool next_is_in(std::uint32_t set) const {
        return program_.contains(set, program_.character_at(piece_, position_).number);
    }
    bool previous_is_in(std::uint32_t set) const {
        return program_.contains(set, program_.character_before(piece_, position_).number);
    }

    void go_on(bool holds) {
        if (!holds) return fail();
        ++pc_;
    }

    void step_back(std::uint32_t count) {
        for (; count > 0; --count) {
            if (position_ == 0) return fail();
            position_ -= program_.character_before(piece_, position_).length;
        }
        ++pc_;
    }

    // Whether the outcome of this place is known, in which case the run has gone on from there. Otherwise notes that
    // the place is on the way.
    bool is_known() {
        if (!memory_.remembers_) return false;
        const std::uint64_t outcome = memory_.outcomes_.find(pc_, position_);
        if (outcome == Outcomes::kUnknown) {
            memory_.path_.push_back({pc_, position_});
            return false;
        }
        if (outcome == Outcomes::kFails) {
            fail();
        } else {
            end_body(outcome - Outcomes::kEnds);
        }
        return true;
    }

    void open(std::uint32_t pc, Kind kind) { memory_.open_.push_back({pc, kind, position_, memory_.path_.size()}); }

    void begin_body(Kind kind) {
        if (is_known()) return;
        memory_.bodies_.push_back(memory_.open_.size());
        open(pc_, kind);
        ++pc_;
    }

    // Ends the body around this place, or the whole match, at a position.
    void end_body(std::size_t end) {
        if (memory_.bodies_.empty()) {
            end_ = end;
            is_done_ = true;
            return;
        }
        memory_.open_.resize(memory_.bodies_.back() + 1);
        const BacktrackerMemory::Open body = memory_.open_.back();
        leave_body();
        settle(body.path, Outcomes::kEnds + end);
        if (body.kind == Kind::kLook && code_[body.pc].x) return fail();
        position_ = body.kind == Kind::kLook ? body.position : end;
        pc_ = code_[body.pc].y;
    }

    void leave_body() {
        memory_.open_.pop_back();
        memory_.bodies_.pop_back();
    }

    // Takes the last alternative that is still open.
    void fail() {
        while (!memory_.open_.empty()) {
            const BacktrackerMemory::Open last = memory_.open_.back();
            settle(last.path, Outcomes::kFails);
            position_ = last.position;
            if (last.kind == Kind::kChoice) {
                memory_.open_.pop_back();
                pc_ = last.pc;
                return;
            }
            leave_body();
            if (last.kind == Kind::kLook && code_[last.pc].x) {
                pc_ = code_[last.pc].y;
                return;
            }
        }
        settle(0, Outcomes::kFails);
        is_done_ = true;
    }

    // Remembers the outcome of the places on the way since its size was `begin`.
    void settle(std::size_t begin, std::uint64_t outcome) {
        auto& path = memory_.path_;
        for (; path.size() > begin; path.pop_back()) {
            memory_.outcomes_.add(path.back().pc, path.back().position, outcome);
            memory_.furthest_ = std::max(memory_.furthest_, path.back().position);
        }
    }

    const Program& program_;
    std::span<const Instruction> code_;
    Bytes piece_;
    BacktrackerMemory& memory_;
    std::uint32_t pc_ = 0;
    std::size_t position_ = 0;
    std::optional<std::size_t> end_;
    bool is_done_ = false;
};

std::vector<char> first_classes(const Program& program) {
    std::vector<char> found(program.class_count());
    std::vector<char> seen(program.code().size());
    std::vector<std::uint32_t> open{0};
    while (!open.empty()) {
        const std::uint32_t pc = open.back();
        open.pop_back();
        if (std::exchange(seen[pc], 1)) continue;
        const Instruction& at = program.code()[pc];
        switch (at.op) {
            case Op::kMatch:
            case Op::kBack: return std::vector<char>(program.class_count(), 1);
            case Op::kChar:
            case Op::kAhead:
                for (std::size_t c = 0; c < found.size(); ++c)
                    found[c] |= program.contains(at.x, static_cast<Class>(c));
                break;
            case Op::kSplit: open.push_back(at.y); [[fallthrough]];
            case Op::kJump: open.push_back(at.x); break;
            case Op::kLook: open.push_back(at.x ? at.y : pc + 1); break;  // what a negative one matches does not begin
            case Op::kBehind:
            case Op::kAtomic: open.push_back(pc + 1); break;
        }
    }
    return found;
}

std::optional<std::size_t> Backtracker::match(Bytes piece, std::size_t begin, BacktrackerMemory& memory) const {
    if (memory.remembers_ && begin > memory.furthest_) {
        memory.outcomes_.clear();
        memory.remembers_ = false;
    }
    memory.outcomes_.forget_before(begin);
    Run run(program_, piece, memory);
    if (!run.match(begin)) {
        memory.remembers_ = true;
        run.match(begin);
    }
    const std::size_t passed = run.end() ? *run.end() - begin : 1;
    memory.credit_ = std::min(kMostCredit, memory.credit_ + kStepsPerByte * (passed + 1));
    return run.end();
}

}  // namespace bpe
