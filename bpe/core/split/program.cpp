#include "split/program.hpp"

#include <algorithm>
#include <map>
#include <string>

#include "base/errors.hpp"
#include "split/cuts.hpp"

namespace bpe {

namespace {

constexpr std::uint32_t kCodePoints = Program::kCodePoints;
constexpr std::size_t kMostClasses = 0xFFFF;
constexpr std::size_t kMostSetWork = std::size_t{1} << 27;  // words of 64 sets, over all ranges
constexpr std::size_t kMostWords = std::size_t{1} << 22;    // of 64 sets, over all classes

[[noreturn]] void refuse(const std::string& what) { throw InputError("the program of a split pattern: " + what); }

[[noreturn]] void refuse_at(std::size_t pc, const std::string& what) {
    refuse("instruction " + std::to_string(pc) + " " + what);
}

void check_sets(std::span<const Program::Set> sets) {
    if (sets.size() > Program::kMostInstructions) refuse("it has more than 65536 sets");
    for (const Program::Set& set : sets) {
        if (set.size() % 2) refuse("a range of a set has no end");
        for (std::size_t i = 0; i < set.size(); i += 2) {
            const bool is_sorted = i == 0 || set[i - 1] < set[i];
            if (set[i] > set[i + 1] || set[i + 1] >= kCodePoints || !is_sorted) {
                refuse("the ranges of a set are not sorted code points");
            }
        }
    }
}

// Checks the structure of a program: bodies, targets and loops.
class Checker {
 public:
    Checker(std::span<const Instruction> code, std::size_t sets)
        : code_(code), sets_(sets), region_(code.size()), is_nullable_(code.size()) {}

    void check() {
        find_regions();
        for (std::size_t pc = 0; pc < code_.size(); ++pc) check_operands(pc);
        for (std::size_t pc = code_.size(); pc-- > 0;) {
            if (code_[pc].op == Op::kAtomic) is_nullable_[pc] = matches_empty(pc + 1);
        }
        for (const bool zero_width : {true, false}) check_loops(zero_width);
    }

 private:
    static bool has_body(Op op) { return op == Op::kLook || op == Op::kAtomic; }

    // Numbers the bodies: region_[pc] is 1 + the instruction whose body contains pc most closely, or 0.
    void find_regions() {
        std::vector<std::pair<std::uint32_t, std::size_t>> open{{0, code_.size()}};  // region, end
        for (std::size_t pc = 0; pc < code_.size(); ++pc) {
            while (open.back().second == pc) open.pop_back();
            region_[pc] = open.back().first;
            if (!has_body(code_[pc].op)) continue;
            const std::size_t end = code_[pc].y;
            if (end < pc + 2 || end >= open.back().second)
                refuse_at(pc, "has a body that does not end inside the one around it");
            open.emplace_back(static_cast<std::uint32_t>(pc + 1), end);
        }
    }

    void check_operands(std::size_t pc) const {
        const Instruction& at = code_[pc];
        const bool uses_set = at.op == Op::kChar || at.op == Op::kAhead || at.op == Op::kBehind;
        if (uses_set && at.x >= sets_) refuse_at(pc, "names a set that does not exist");
        if ((at.op == Op::kAhead || at.op == Op::kBehind) && at.y > 1) refuse_at(pc, "has an edge that is not 0 or 1");
        if (at.op == Op::kLook && at.x > 1) refuse_at(pc, "has a kind of look-around that is not 0 or 1");
        if (at.op == Op::kBack && !is_in_look(pc)) refuse_at(pc, "steps back outside of a look-around");
        std::size_t targets[2];
        const std::size_t count = successors(pc, false, targets);
        for (std::size_t i = 0; i < count; ++i) {
            if (targets[i] >= code_.size()) refuse_at(pc, "leads beyond the end of the program");
            if (region_[targets[i]] != region_[pc]) refuse_at(pc, "leads out of its body or into another");
        }
    }

    bool is_in_look(std::size_t pc) const { return region_[pc] && code_[region_[pc] - 1].op == Op::kLook; }

    // Writes the instructions of the same body that may follow, at most two, and returns how many there are.
    std::size_t successors(std::size_t pc, bool zero_width, std::size_t* targets) const {
        const Instruction& at = code_[pc];
        switch (at.op) {
            case Op::kMatch: return 0;
            case Op::kJump: targets[0] = at.x; return 1;
            case Op::kSplit:
                targets[0] = at.x;
                targets[1] = at.y;
                return 2;
            case Op::kLook: targets[0] = at.y; return 1;
            case Op::kAtomic: targets[0] = at.y; return zero_width && !is_nullable_[pc] ? 0 : 1;
            case Op::kChar: targets[0] = pc + 1; return zero_width ? 0 : 1;
            default: targets[0] = pc + 1; return 1;
        }
    }

    // Whether a body may match without consuming a character.
    bool matches_empty(std::size_t begin) const {
        std::vector<std::size_t> open{begin};
        while (!open.empty()) {
            const std::size_t pc = open.back();
            open.pop_back();
            if (code_[pc].op == Op::kMatch) return true;
            std::size_t targets[2];
            const std::size_t count = successors(pc, true, targets);
            for (std::size_t i = 0; i < count; ++i) {
                if (!mark(targets[i], begin)) continue;
                open.push_back(targets[i]);
            }
        }
        return false;
    }
    // Notes that the body at `begin` reaches an instruction. Returns whether that is new. A body has an instruction
    // for itself, so the number of the body tells whether it has been noted for this one.
    bool mark(std::size_t pc, std::size_t begin) const {
        if (reached_.empty()) reached_.resize(code_.size());
        if (reached_[pc] == begin) return false;
        reached_[pc] = begin;
        return true;
    }

    // Refuses loops: with `zero_width`, those that consume nothing; otherwise those that step back. Tarjan's algorithm
    // for strongly connected components, without recursion.
    void check_loops(bool zero_width) const {
        const std::size_t size = code_.size();
        std::vector<std::size_t> index(size), low(size), component;
        std::vector<char> is_open(size);
        struct Call {
            std::size_t pc;
            std::size_t next;
        };
        std::vector<Call> calls;
        std::size_t counter = 0;
        for (std::size_t root = 0; root < size; ++root) {
            if (index[root]) continue;
            calls.push_back({root, 0});
            while (!calls.empty()) {
                auto& [pc, next] = calls.back();
                if (next == 0) {
                    index[pc] = low[pc] = ++counter;
                    component.push_back(pc);
                    is_open[pc] = 1;
                }
                std::size_t targets[2] = {};
                const std::size_t count = successors(pc, zero_width, targets);
                if (next > 0 && is_open[targets[next - 1]]) low[pc] = std::min(low[pc], low[targets[next - 1]]);
                if (next < count) {
                    const std::size_t target = targets[next++];
                    if (target == pc) refuse_loop(pc, zero_width);
                    if (!index[target]) calls.push_back({target, 0});
                    continue;
                }
                const std::size_t done = pc;
                calls.pop_back();
                if (low[done] != index[done]) continue;
                const bool is_loop = component.back() != done;
                for (std::size_t member = size; member != done;) {
                    member = component.back();
                    component.pop_back();
                    is_open[member] = 0;
                    if (is_loop) refuse_loop(member, zero_width);
                }
            }
        }
    }

    void refuse_loop(std::size_t pc, bool zero_width) const {
        if (zero_width) refuse_at(pc, "is in a loop that may consume nothing");
        if (code_[pc].op == Op::kBack) refuse_at(pc, "steps back in a loop");
    }

    std::span<const Instruction> code_;
    std::size_t sets_;
    std::vector<std::uint32_t> region_;
    std::vector<char> is_nullable_;  // for each kAtomic, whether its body may match without consuming a character
    mutable std::vector<std::size_t> reached_;
};

}  // namespace

Program::Program(std::span<const Set> sets, std::span<const std::uint32_t> instructions) : set_count_(sets.size()) {
    if (instructions.size() % 3 || instructions.empty()) refuse("it has no complete instructions");
    if (instructions.size() / 3 > kMostInstructions)
        refuse("it has more than 65536 instructions; use a shorter pattern");
    check_sets(sets);
    for (std::size_t i = 0; i < instructions.size(); i += 3) {
        if (instructions[i] >= kOpCount) refuse_at(i / 3, "has an unknown operation");
        code_.push_back({static_cast<Op>(instructions[i]), instructions[i + 1], instructions[i + 2]});
    }
    Checker(code_, sets.size()).check();
    add_classes(sets);
}

void Program::add_classes(std::span<const Set> sets) {
    struct Edge {
        std::uint32_t at;
        std::uint32_t set;
    };
    std::vector<Edge> edges;
    for (std::uint32_t set = 0; set < sets.size(); ++set) {
        for (std::size_t i = 0; i < sets[set].size(); i += 2) {
            edges.push_back({sets[set][i], set});
            edges.push_back({sets[set][i + 1] + 1, set});
        }
    }
    std::ranges::sort(edges, {}, &Edge::at);
    words_ = sets.size() / 64 + 1;
    if ((edges.size() + 1) * words_ > kMostSetWork)
        refuse("its sets are too many and too large; use a shorter pattern");

    std::vector<std::uint64_t> members(words_);
    std::map<std::vector<std::uint64_t>, Class> known;
    std::vector<std::uint32_t> begins;
    std::vector<Class> classes;
    std::size_t i = 0;
    for (std::uint32_t at = 0; at < kCodePoints; at = i < edges.size() ? edges[i].at : kCodePoints) {
        for (; i < edges.size() && edges[i].at == at; ++i) {
            members[edges[i].set / 64] ^= std::uint64_t{1} << edges[i].set % 64;
        }
        const auto [found, is_new] = known.try_emplace(members, static_cast<Class>(known.size()));
        if (is_new) class_sets_.insert(class_sets_.end(), members.begin(), members.end());
        if (known.size() > kMostClasses || class_sets_.size() > kMostWords) {
            refuse("its sets tell too many kinds of characters apart; use a shorter pattern");
        }
        begins.push_back(at);
        classes.push_back(found->second);
    }
    class_count_ = known.size();
    add_class_table(begins, classes);
}

void Program::add_class_table(std::span<const std::uint32_t> begins, std::span<const Class> classes) {
    constexpr std::uint32_t kBlockSize = 1u << kBlockBits;
    std::map<std::vector<Class>, std::uint16_t> known;
    std::size_t range = 0;
    for (std::uint32_t begin = 0; begin < kCodePoints; begin += kBlockSize) {
        std::vector<Class> block(kBlockSize);
        for (std::uint32_t i = 0; i < kBlockSize; ++i) {
            while (range + 1 < begins.size() && begins[range + 1] <= begin + i) ++range;
            block[i] = classes[range];
        }
        const auto [found, is_new] = known.try_emplace(block, static_cast<std::uint16_t>(known.size()));
        if (is_new) class_blocks_.insert(class_blocks_.end(), block.begin(), block.end());
        class_block_of_.push_back(found->second);
    }
    for (std::uint32_t byte = 0; byte < 128; ++byte) byte_classes_[byte] = class_of(byte);
}

Program::Character Program::character_before(Bytes text, std::size_t position) const {
    if (text[position - 1] < 0x80) return {byte_classes_[text[position - 1]], 1};
    return character_at(text, character_start(text, position - 1));
}

}  // namespace bpe
