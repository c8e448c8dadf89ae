#include "split/automaton.hpp"

#include <algorithm>
#include <map>
#include <utility>

namespace bpe {

namespace {

constexpr std::size_t kMostStates = 4096;
constexpr std::size_t kMostMoves = std::size_t{1} << 19;
constexpr std::size_t kMostWork = std::size_t{1} << 26;  // places visited

}  // namespace

// Two places behind the program's own match a gap: one character, and its end.
class Determinizer {
 public:
    explicit Determinizer(const Program& program)
        : program_(program),
          code_(program.code()),
          gap_(static_cast<std::uint32_t>(code_.size())),
          edge_(program.class_count()),
          seen_(code_.size() + 2),
          automaton_(edge_) {}

    std::optional<Automaton> run() {
        const auto is_deterministic = [](const Instruction& at) { return at.op < Op::kLook; };
        if (!std::ranges::all_of(code_, is_deterministic)) return std::nullopt;
        for (std::uint32_t pc = 0; pc < code_.size(); ++pc) {
            if (code_[pc].op == Op::kAhead) looks_behind_later_ = looks_behind_later_ || reaches_behind(pc + 1);
        }
        add_state({{}, 0});
        for (std::size_t previous = 0; previous <= edge_; ++previous) {
            automaton_.starts_.push_back(state_of(close({0, gap_}, previous)));
        }
        const std::size_t starts = keys_.size();
        for (std::size_t state = 0; state < keys_.size(); ++state) {
            if (keys_.size() > kMostStates || keys_.size() * (edge_ + 1) > kMostMoves || work_ > kMostWork)
                return std::nullopt;
            for (std::size_t c = 0; c <= edge_; ++c) {
                const Automaton::Move move = make_move(state, c);
                automaton_.moves_.push_back(move);
                if (state < starts && move.accept == Automaton::Accept::kMatch) return std::nullopt;  // an empty match
                automaton_.has_gaps_ |= move.accept == Automaton::Accept::kGap;
            }
        }
        automaton_.find_cuts();
        return std::move(automaton_);
    }

 private:
    struct Key {
        std::vector<std::uint32_t> places;
        std::size_t previous;  // the class of the last character, if a place may still ask for it
        auto operator<=>(const Key&) const = default;
    };

    bool reaches_behind(std::uint32_t from) {
        ++round_;
        std::vector<std::uint32_t> open{from};
        while (!open.empty()) {
            const std::uint32_t pc = open.back();
            open.pop_back();
            if (std::exchange(seen_[pc], round_) == round_) continue;
            switch (code_[pc].op) {
                case Op::kBehind: return true;
                case Op::kJump: open.push_back(code_[pc].x); break;
                case Op::kSplit:
                    open.push_back(code_[pc].x);
                    open.push_back(code_[pc].y);
                    break;
                case Op::kAhead: open.push_back(pc + 1); break;
                default: break;
            }
        }
        return false;
    }

    // Follows everything that needs no character, and calls at(pc) for the places that need one or are a match, in
    // order, until it returns false. `next` is the class of the next character; without it, places that look ahead are
    // among those.
    template <class At>
    void follow(const std::vector<std::uint32_t>& places, std::size_t previous, std::optional<std::size_t> next,
                const At& at) {
        ++round_;
        open_.assign(places.rbegin(), places.rend());
        while (!open_.empty()) {
            const std::uint32_t pc = open_.back();
            open_.pop_back();
            ++work_;
            if (std::exchange(seen_[pc], round_) == round_) continue;
            if (pc >= gap_) {
                if (!at(pc)) return;
                continue;
            }
            const Instruction& i = code_[pc];
            switch (i.op) {
                case Op::kJump: open_.push_back(i.x); break;
                case Op::kSplit:
                    open_.push_back(i.y);
                    open_.push_back(i.x);
                    break;
                case Op::kBehind:
                    if (holds(i, previous)) open_.push_back(pc + 1);
                    break;
                case Op::kAhead:
                    if (!next) {
                        if (!at(pc)) return;
                    } else if (holds(i, *next)) {
                        open_.push_back(pc + 1);
                    }
                    break;
                default:
                    if (!at(pc)) return;
            }
        }
    }

    bool holds(const Instruction& i, std::size_t c) const {
        return c == edge_ ? i.y != 0 : program_.contains(i.x, static_cast<Class>(c));
    }
    bool is_match(std::uint32_t pc) const { return pc == gap_ + 1 || (pc < gap_ && code_[pc].op == Op::kMatch); }

    // Returns the key of the state that has just reached some places.
    Key close(const std::vector<std::uint32_t>& places, std::size_t previous) {
        Key key{{}, 0};
        bool asks = false;
        follow(places, previous, std::nullopt, [&](std::uint32_t pc) {
            key.places.push_back(pc);
            asks |= pc < gap_ && code_[pc].op == Op::kAhead;
            return !is_match(pc);
        });
        if (asks && looks_behind_later_) key.previous = previous;
        return key;
    }

    Automaton::Move make_move(std::size_t state, std::size_t c) {
        Automaton::Move move{Automaton::kDead, Automaton::Accept::kNo};
        const Key key = keys_[state];
        std::vector<std::uint32_t> reached;
        follow(key.places, key.previous, c, [&](std::uint32_t pc) {
            if (is_match(pc)) {
                move.accept = pc < gap_ ? Automaton::Accept::kMatch : Automaton::Accept::kGap;
                return false;
            }
            if (c != edge_ && (pc == gap_ || program_.contains(code_[pc].x, static_cast<Class>(c))))
                reached.push_back(pc + 1);
            return true;
        });
        if (!reached.empty()) move.next = state_of(close(reached, c));
        return move;
    }

    Automaton::State state_of(Key key) {
        if (key.places.empty()) return Automaton::kDead;
        const auto found = numbers_.find(key);
        return found != numbers_.end() ? found->second : add_state(std::move(key));
    }
    Automaton::State add_state(Key key) {
        const auto number = static_cast<Automaton::State>(keys_.size());
        numbers_.emplace(key, number);
        keys_.push_back(std::move(key));
        return number;
    }

    const Program& program_;
    std::span<const Instruction> code_;
    std::uint32_t gap_;
    std::size_t edge_;
    std::vector<std::size_t> seen_;
    std::size_t round_ = 0;
    std::size_t work_ = 0;
    bool looks_behind_later_ = false;
    std::vector<std::uint32_t> open_;
    std::map<Key, Automaton::State> numbers_;
    std::vector<Key> keys_;
    Automaton automaton_;
};

std::optional<Automaton> Automaton::of(const Program& program) { return Determinizer(program).run(); }

void Automaton::find_cuts() {
    const std::size_t edge = class_count_;
    cuts_.assign(edge * edge, 0);
    std::vector<std::vector<State>> entered(edge);  // the states behind each class
    for (State state = 1; state < state_count(); ++state) {
        for (std::size_t c = 0; c < edge; ++c) {
            if (move(state, c).next != kDead) entered[c].push_back(move(state, c).next);
        }
    }
    for (std::size_t left = 0; left < edge; ++left) {
        std::ranges::sort(entered[left]);
        entered[left].erase(std::ranges::unique(entered[left]).begin(), entered[left].end());
        const auto ends = [&](State state, std::size_t c) {
            return move(state, c).accept == Accept::kMatch && move(state, c).next == kDead;
        };
        if (!std::ranges::all_of(entered[left], [&](State state) { return ends(state, edge); })) continue;
        for (std::size_t right = 0; right < edge; ++right) {
            const bool all_end = std::ranges::all_of(entered[left], [&](State state) { return ends(state, right); });
            const bool is_fresh = move(start(left), right).next == move(start(edge), right).next;
            cuts_[left * edge + right] = all_end && is_fresh;
        }
    }
}

}  // namespace bpe
