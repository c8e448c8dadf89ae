#include "encode/pieces.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <functional>
#include <numeric>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>

#include "text/code_points.hpp"

namespace bpe {

namespace {

constexpr std::size_t kShortMerge = 32;  // symbols up to which a scan for the best pair is faster than a heap
constexpr std::size_t kPollEvery = 4096;
constexpr std::uint32_t kNoNeighbour = 0xFFFFFFFF;

std::string_view view_as_string(Bytes bytes) { return {reinterpret_cast<const char*>(bytes.data()), bytes.size()}; }

std::vector<std::uint32_t> code_points_of(Bytes text) {
    std::vector<std::uint32_t> code_points;
    for (std::size_t i = 0; i < text.size();) {
        const CodePoint point = code_point_at(text, i);
        code_points.push_back(point.value);
        i += point.length;
    }
    return code_points;
}

std::vector<Bytes> parts_of(Bytes bytes, std::span<const std::uint64_t> offsets) {
    if (offsets.empty() || offsets[0] != 0 || offsets.back() != bytes.size()) {
        throw std::invalid_argument("the offsets do not match the pieces");
    }
    if (offsets.size() > std::size_t{1} << 24) throw std::invalid_argument("there are more than 2**24 pieces");
    std::vector<Bytes> parts;
    parts.reserve(offsets.size() - 1);
    for (std::size_t i = 0; i + 1 < offsets.size(); ++i) {
        if (offsets[i] >= offsets[i + 1]) throw std::invalid_argument("piece " + std::to_string(i) + " is empty");
        parts.push_back(bytes.subspan(offsets[i], offsets[i + 1] - offsets[i]));
    }
    return parts;
}

// Returns the byte that a text such as <0x0A> stands for, or -1.
int byte_of(Bytes text) {
    const std::string_view digits = "0123456789ABCDEF";
    if (text.size() != 6 || view_as_string(text).substr(0, 3) != "<0x" || text[5] != '>') return -1;
    const std::size_t high = digits.find(static_cast<char>(text[3]));
    const std::size_t low = digits.find(static_cast<char>(text[4]));
    if (high == digits.npos || low == digits.npos) return -1;
    return static_cast<int>(high * 16 + low);
}

}  // namespace

void SymbolTrie::add(Bytes string, Id symbol) {
    std::uint32_t node = 0;
    for (const std::uint8_t byte : string) {
        const auto [found, is_new] =
            children_.try_emplace(std::uint64_t{node} << 8 | byte, static_cast<std::uint32_t>(nodes_.size()));
        if (is_new) nodes_.push_back(kNoId);
        node = found->second;
    }
    nodes_[node] = symbol;
    first_[string[0]] = true;
    has_inner_space_ |= view_as_string(string.subspan(1)).find(' ') != std::string_view::npos;
}

SymbolTrie::Match SymbolTrie::longest(Bytes text) const {
    Match longest;
    std::uint32_t node = 0;
    for (std::size_t i = 0; i < text.size(); ++i) {
        const auto found = children_.find(std::uint64_t{node} << 8 | text[i]);
        if (found == children_.end()) break;
        node = found->second;
        if (nodes_[node] != kNoId) longest = {i + 1, nodes_[node]};
    }
    return longest;
}

Pieces::Pieces() : basic_(0x10000, kNoId), pairs_(0), joined_((kAsciiBits + kHashedBits) / 64) {
    std::fill(std::begin(bytes_), std::end(bytes_), kNoId);
}

Id Pieces::add_symbol(std::uint32_t code_point) {
    first_code_point_.push_back(code_point);
    last_code_point_.push_back(code_point);
    size_.push_back(0);
    is_unknown_.push_back(false);
    return static_cast<Id>(first_code_point_.size() - 1);
}

void Pieces::set_symbol(std::uint32_t code_point, Id symbol) {
    if (code_point < 0x10000) {
        basic_[code_point] = symbol;
    } else {
        others_[code_point] = symbol;
    }
}

void Pieces::make_room_for(std::size_t pairs) {
    const std::size_t size = std::bit_ceil(pairs * 2 + 2);
    pairs_ = ZeroedArray<Pair>(size, Pair{kNoPair, kNoPair});
    mask_ = size - 1;
    shift_ = static_cast<unsigned>(64 - std::countr_zero(size));
}

// Adds a rule, or replaces that of the same pair.
void Pieces::add_pair(Id left, Id right, std::uint32_t rank, Id merged) {
    const std::uint64_t key = std::uint64_t{left} << 32 | right;
    std::size_t slot = key * 0x9E3779B97F4A7C15u >> shift_;
    while (pairs_[slot].key != key && pairs_[slot].key != kNoPair) slot = (slot + 1) & mask_;
    pair_count_ += pairs_[slot].key == kNoPair;
    pairs_[slot] = {key, std::uint64_t{rank} << 32 | merged};
    join(last_code_point_[left], first_code_point_[right]);
}

void Pieces::join(std::uint32_t before, std::uint32_t after) {
    const std::size_t bit = bit_of(before, after);
    joined_[bit / 64] |= std::uint64_t{1} << (bit % 64);
}

void Pieces::set_outputs(const std::vector<std::vector<Id>>& outputs) {
    output_begin_.assign(1, 0);
    for (const std::vector<Id>& ids : outputs) {
        outputs_.insert(outputs_.end(), ids.begin(), ids.end());
        output_begin_.push_back(static_cast<std::uint32_t>(outputs_.size()));
    }
}

Pieces Pieces::from_scores(Bytes bytes, std::span<const std::uint64_t> offsets, std::span<const float> scores,
                           std::span<const std::uint8_t> types, bool byte_fallback) {
    const std::vector<Bytes> pieces = parts_of(bytes, offsets);
    if (scores.size() != pieces.size() || types.size() != pieces.size()) {
        throw std::invalid_argument("pieces, scores and types differ in number");
    }
    Pieces self;
    std::vector<std::vector<std::uint32_t>> characters;
    for (std::size_t i = 0; i < pieces.size(); ++i) {
        const std::vector<std::uint32_t> points = code_points_of(pieces[i]);
        if (*std::max_element(points.begin(), points.end()) == kMalformed) {
            throw std::invalid_argument("piece " + std::to_string(i) + " is not valid UTF-8");
        }
        const Id symbol = self.add_symbol(points.front());
        self.last_code_point_.back() = points.back();
        self.size_.back() = static_cast<std::uint32_t>(pieces[i].size());
        const bool merges = types[i] == kNormal || types[i] == kUnused;
        if (merges && points.size() == 1) self.set_symbol(points[0], symbol);
        if (types[i] == kUserDefined) {
            self.user_defined_.add(pieces[i], symbol);
            for (std::size_t k = 0; k + 1 < points.size(); ++k) self.join(points[k], points[k + 1]);
        }
        if (types[i] == kUnknown) self.unknown_ = symbol;
        if (types[i] == kByte && byte_fallback) {
            const int byte = byte_of(pieces[i]);
            if (byte < 0) throw std::invalid_argument("piece " + std::to_string(i) + " is not a byte such as <0x0A>");
            self.bytes_[byte] = symbol;
        }
        characters.push_back(merges && points.size() > 1 ? points : std::vector<std::uint32_t>());
    }
    if (self.unknown_ == kNoId) throw std::invalid_argument("no piece has the type UNKNOWN");
    self.all_bytes_ = byte_fallback;
    if (byte_fallback && std::find(std::begin(self.bytes_), std::end(self.bytes_), kNoId) != std::end(self.bytes_)) {
        throw std::invalid_argument("a byte has no piece, but byte_fallback is set");
    }
    for (const std::vector<std::uint32_t>& points : characters) {  // characters of pieces that are no pieces
        for (const std::uint32_t point : points) {
            if (self.symbol_of(point) == kNoId) self.set_symbol(point, self.add_symbol(point));
        }
    }
    self.how_ = Unknown::kFused;
    self.unknown_id_ = self.unknown_;
    self.unknown_matters_ = byte_fallback ? kNever : kIfBoth;
    self.find_pairs(pieces, scores, types);
    self.set_outputs(self.outputs_by_piece(pieces, types));
    return self;
}

// Finds the pair that merges into each piece: the two symbols that are left when the piece is encoded by itself and
// before the piece is known. No other pair can ever merge into it.
//
// Proof: let two neighbours whose joined text is a piece p occur in some text. No merge has crossed the edges of their
// span, and none of its characters is within a user-defined symbol. Then none is when p is encoded by itself: the
// search for user-defined symbols found none at any of these characters, whatever follows. So the merges within the
// span are those of p by itself, in the same order: in both cases the pair with the highest score comes first, and
// among equals the leftmost. Both pass through the same states, and only one of these has two symbols. A merge inside p
// makes a piece of fewer characters than p. So if the pieces are handled by length, each finds all rules that it needs.
void Pieces::find_pairs(std::span<const Bytes> pieces, std::span<const float> scores,
                        std::span<const std::uint8_t> types) {
    std::vector<float> distinct(scores.begin(), scores.end());
    if (std::any_of(distinct.begin(), distinct.end(), [](float score) { return std::isnan(score); })) {
        throw std::invalid_argument("a score is not a number");
    }
    std::sort(distinct.begin(), distinct.end(), std::greater<>());
    distinct.erase(std::unique(distinct.begin(), distinct.end()), distinct.end());
    const auto rank_of = [&](float score) {
        return static_cast<std::uint32_t>(std::lower_bound(distinct.begin(), distinct.end(), score, std::greater<>()) -
                                          distinct.begin());
    };
    std::vector<Id> order;
    std::vector<std::size_t> length(pieces.size());
    for (Id i = 0; i < pieces.size(); ++i) {
        length[i] = code_points_of(pieces[i]).size();
        if ((types[i] == kNormal || types[i] == kUnused) && length[i] > 1) order.push_back(i);
    }
    std::stable_sort(order.begin(), order.end(), [&](Id a, Id b) { return length[a] < length[b]; });
    make_room_for(order.size());
    Room room;
    for (const Id piece : order) {
        begin(pieces[piece], room);
        merge(room);
        if (room.symbols.size() != 2) continue;
        const Id left = room.symbols[0];
        const Id right = room.symbols[1];
        const auto is_frozen = [&](Id symbol) { return symbol < types.size() && types[symbol] == kUserDefined; };
        if (!is_frozen(left) && !is_frozen(right)) add_pair(left, right, rank_of(scores[piece]), piece);
    }
}

// Returns the ids that each symbol is written as: the piece's own; or, of an unused piece, those of the two symbols
// that it was merged from; or, of a character without a piece, its bytes or the unknown token.
std::vector<std::vector<Id>> Pieces::outputs_by_piece(std::span<const Bytes> pieces,
                                                      std::span<const std::uint8_t> types) {
    std::vector<std::vector<Id>> outputs(first_code_point_.size());
    const auto set_unknown = [&](Id symbol, Bytes text) {
        if (all_bytes_) {
            for (const std::uint8_t byte : text) outputs[symbol].push_back(bytes_[byte]);
        } else {
            outputs[symbol].push_back(unknown_);
        }
        is_unknown_[symbol] = true;
    };
    std::unordered_map<std::string_view, Id> reserved;
    for (Id i = 0; i < pieces.size(); ++i) {
        if (types[i] == kUnknown || types[i] == kControl || types[i] == kByte)
            reserved.emplace(view_as_string(pieces[i]), i);
    }
    for (Id i = 0; i < pieces.size(); ++i) {
        const auto found = reserved.find(view_as_string(pieces[i]));
        const Id id = found == reserved.end() || types[i] == kByte ? i : found->second;
        if (id != i && types[id] == kControl) {
            throw std::invalid_argument("the text of piece " + std::to_string(i) + " is also a control symbol");
        }
        if (types[id] == kUnknown && types[i] != kUnknown) {
            set_unknown(i, pieces[i]);
        } else {
            outputs[i].push_back(id);
        }
    }
    for (std::uint32_t symbol = static_cast<std::uint32_t>(pieces.size()); symbol < outputs.size(); ++symbol) {
        const std::uint32_t point = first_code_point_[symbol];
        std::uint8_t text[4];
        std::size_t size = 0;
        if (point < 0x80) {
            text[size++] = static_cast<std::uint8_t>(point);
        } else {
            if (point < 0x800) {
                text[size++] = static_cast<std::uint8_t>(0xC0 | point >> 6);
            } else {
                if (point < 0x10000) {
                    text[size++] = static_cast<std::uint8_t>(0xE0 | point >> 12);
                } else {
                    text[size++] = static_cast<std::uint8_t>(0xF0 | point >> 18);
                    text[size++] = static_cast<std::uint8_t>(0x80 | (point >> 12 & 0x3F));
                }
                text[size++] = static_cast<std::uint8_t>(0x80 | (point >> 6 & 0x3F));
            }
            text[size++] = static_cast<std::uint8_t>(0x80 | (point & 0x3F));
        }
        const auto found = reserved.find(view_as_string({text, size}));
        if (found != reserved.end() && types[found->second] == kControl) {
            throw std::invalid_argument("a control symbol is a single character that other pieces contain");
        }
        set_unknown(symbol, {text, size});
    }
    // Each rule makes a longer symbol of two shorter ones, so the order of the lengths puts parts first.
    const std::vector<Id> rules = merges();
    std::vector<std::size_t> unused;
    for (std::size_t i = 0; i < rules.size(); i += 3) {
        const Id merged = rules[i + 2];
        if (types[merged] == kUnused && outputs[merged][0] == merged) unused.push_back(i);
    }
    std::sort(unused.begin(), unused.end(),
              [&](std::size_t a, std::size_t b) { return pieces[rules[a + 2]].size() < pieces[rules[b + 2]].size(); });
    for (const std::size_t i : unused) {
        std::vector<Id> both = outputs[rules[i]];
        both.insert(both.end(), outputs[rules[i + 1]].begin(), outputs[rules[i + 1]].end());
        outputs[rules[i + 2]] = std::move(both);
    }
    return outputs;
}

Pieces Pieces::from_merges(Bytes bytes, std::span<const std::uint64_t> offsets, std::span<const Id> ids,
                           std::span<const Id> merges, const Options& options) {
    const std::vector<Bytes> tokens = parts_of(bytes, offsets);
    if (ids.size() != tokens.size()) throw std::invalid_argument("tokens and ids differ in number");
    if (merges.size() % 3) throw std::invalid_argument("a merge has not three numbers");
    Pieces self;
    for (Id i = 0; i < tokens.size(); ++i) {
        const std::vector<std::uint32_t> points = code_points_of(tokens[i]);
        self.add_symbol(points.front());
        self.last_code_point_.back() = points.back();
        self.size_.back() = static_cast<std::uint32_t>(tokens[i].size());
        if (points.size() == 1) self.set_symbol(points[0], i);
        if (const int byte = byte_of(tokens[i]); byte >= 0 && options.byte_fallback) self.bytes_[byte] = i;
        if (options.takes_whole) self.whole_.emplace(view_as_string(tokens[i]), i);
    }
    self.unknown_ = options.unknown < tokens.size() ? static_cast<Id>(options.unknown) : kNoId;
    self.how_ = self.unknown_ == kNoId ? Unknown::kDropped : options.how;
    self.stands_for_bytes_ = options.stands_for_bytes;
    self.fuse_at_once_ = true;
    self.all_bytes_ = std::find(std::begin(self.bytes_), std::end(self.bytes_), kNoId) == std::end(self.bytes_);
    self.unknown_matters_ = self.all_bytes_ ? kNever : self.how_ == Unknown::kDropped ? kIfEither : kIfBoth;
    self.make_room_for(merges.size() / 3);
    bool is_strange = false;
    for (std::size_t i = 0; i < merges.size(); i += 3) {
        const Id left = merges[i];
        const Id right = merges[i + 1];
        if (std::max({left, right, merges[i + 2]}) >= tokens.size())
            throw std::invalid_argument("a merge has no token");
        self.add_pair(left, right, static_cast<std::uint32_t>(i / 3), merges[i + 2]);
        for (const Id part : {left, right}) {
            is_strange |= part == self.unknown_;
            is_strange |= options.byte_fallback && byte_of(tokens[part]) >= 0;
        }
    }
    // The symbol of a byte or of an unknown character does not have the characters of its token.
    if (is_strange) std::fill(self.joined_.begin(), self.joined_.end(), ~std::uint64_t{0});
    std::vector<std::vector<Id>> outputs;
    for (const Id id : ids) outputs.push_back({id});
    self.set_outputs(outputs);
    return self;
}

// Writes the symbols that merging begins with to the room: the whole text, or its characters.
void Pieces::begin(Bytes text, Room& room) const {
    room.symbols.clear();
    room.places.clear();
    if (const auto whole = whole_.empty() ? whole_.end() : whole_.find(view_as_string(text)); whole != whole_.end()) {
        room.symbols.push_back(whole->second);
        if (room.wants_places) room.places.push_back({0, text.size()});
        return;
    }
    begin_with_characters(text, room);
}

void Pieces::begin_with_characters(Bytes text, Room& room) const {
    std::vector<Id>& symbols = room.symbols;
    std::uint64_t done = 0;  // the bytes that symbols stand for so far
    const auto push = [&](Id symbol, std::size_t size) {
        symbols.push_back(symbol);
        if (room.wants_places) [[unlikely]]
            room.places.push_back({done, done + size});
        done += size;
    };
    std::size_t waiting = 0;  // bytes for which an unknown token is due, as in tokenizers, which looks for more to fuse
    for (std::size_t i = 0; i < text.size();) {
        if (user_defined_.may_begin_with(text[i])) {
            if (const SymbolTrie::Match match = user_defined_.longest(text.subspan(i)); match.length) {
                push(match.symbol, match.length);
                i += match.length;
                continue;
            }
        }
        const CodePoint point = code_point_at(text, i);
        const Bytes character = text.subspan(i, point.length);
        i += point.length;
        const Id symbol = point.value != kMalformed ? symbol_of(point.value) : kNoId;
        if (symbol != kNoId) [[likely]] {
            if (waiting) push(unknown_, std::exchange(waiting, 0));
            push(symbol, point.length);
            continue;
        }
        const auto has_symbol = [&](std::uint8_t byte) { return bytes_[byte] != kNoId; };
        if (all_bytes_ || std::all_of(character.begin(), character.end(), has_symbol)) {
            for (const std::uint8_t byte : character) push(bytes_[byte], 1);
        } else if (how_ == Unknown::kDropped) {
            done += point.length;
        } else if (!fuse_at_once_) {
            push(unknown_, point.length);
        } else {
            if (waiting && how_ == Unknown::kEach) push(unknown_, std::exchange(waiting, 0));
            waiting += point.length;
        }
    }
    if (waiting) push(unknown_, waiting);
}

void Pieces::merge(Room& room) const {
    const bool is_short = room.symbols.size() <= kShortMerge && !room.wants_places;
    is_short ? merge_short(room) : merge_long(room);
}

void Pieces::merge_short(Room& room) const {
    std::size_t size = room.symbols.size();
    if (size < 2) return;
    room.pairs.resize(size);
    Id* symbols = room.symbols.data();
    std::uint64_t* pairs = room.pairs.data();
    for (std::size_t i = 0; i + 1 < size; ++i) pairs[i] = find(symbols[i], symbols[i + 1]);
    while (size > 1) {
        std::size_t best = 0;
        std::uint32_t lowest = kNoNeighbour;
        for (std::size_t i = 0; i + 1 < size; ++i) {
            const auto rank = static_cast<std::uint32_t>(pairs[i] >> 32);
            best = rank < lowest ? i : best;
            lowest = std::min(rank, lowest);
        }
        if (lowest == kNoNeighbour) break;
        symbols[best] = static_cast<Id>(pairs[best]);
        --size;
        for (std::size_t i = best + 1; i < size; ++i) symbols[i] = symbols[i + 1];
        for (std::size_t i = best + 1; i + 1 < size; ++i) pairs[i] = pairs[i + 1];
        if (best + 1 < size) pairs[best] = find(symbols[best], symbols[best + 1]);
        if (best > 0) pairs[best - 1] = find(symbols[best - 1], symbols[best]);
    }
    room.symbols.resize(size);
}

// Merges with a heap, in O(n log n). An entry of the heap is out of date if the pair at its place has another rank.
void Pieces::merge_long(Room& room) const {
    const std::size_t size = room.symbols.size();
    if (size > 0x7FFFFFFF) throw std::length_error("a part of the text without a place to cut is longer than 2 GiB");
    std::vector<Id>& symbols = room.symbols;
    room.pairs.assign(size, kNoPair);
    room.next.resize(size);
    room.previous.resize(size);
    room.heap.clear();
    const auto look_up = [&](std::uint32_t left, std::uint32_t right) {
        room.pairs[left] = find(symbols[left], symbols[right]);
        return (room.pairs[left] & 0xFFFFFFFF00000000) | left;
    };
    for (std::uint32_t i = 0; i < size; ++i) {
        room.next[i] = i + 1 < size ? i + 1 : kNoNeighbour;
        room.previous[i] = i ? i - 1 : kNoNeighbour;
        if (i + 1 == size) break;
        const std::uint64_t entry = look_up(i, i + 1);
        if (room.pairs[i] != kNoPair) room.heap.push_back(entry);
    }
    std::make_heap(room.heap.begin(), room.heap.end(), std::greater<>());
    const auto push = [&](std::uint32_t left, std::uint32_t right) {
        const std::uint64_t entry = look_up(left, right);
        if (room.pairs[left] == kNoPair) return;
        room.heap.push_back(entry);
        std::push_heap(room.heap.begin(), room.heap.end(), std::greater<>());
    };
    for (std::size_t step = 0; !room.heap.empty(); ++step) {
        if (room.interrupt && step % kPollEvery == 0) room.interrupt->poll();
        std::pop_heap(room.heap.begin(), room.heap.end(), std::greater<>());
        const std::uint64_t entry = room.heap.back();
        room.heap.pop_back();
        const auto left = static_cast<std::uint32_t>(entry);
        if (room.pairs[left] == kNoPair || room.pairs[left] >> 32 != entry >> 32) continue;
        const std::uint32_t right = room.next[left];
        const std::uint32_t after = room.next[right];
        symbols[left] = static_cast<Id>(room.pairs[left]);
        symbols[right] = kNoId;
        if (room.wants_places) room.places[left].end = room.places[right].end;
        room.pairs[right] = kNoPair;
        room.pairs[left] = kNoPair;
        room.next[left] = after;
        if (after != kNoNeighbour) {
            room.previous[after] = left;
            push(left, after);
        }
        if (room.previous[left] != kNoNeighbour) push(room.previous[left], left);
    }
    std::size_t left = 0;
    for (std::size_t i = 0; i < size; ++i) {
        if (symbols[i] == kNoId) continue;
        if (room.wants_places) room.places[left] = room.places[i];
        symbols[left++] = symbols[i];
    }
    symbols.resize(left);
    if (room.wants_places) room.places.resize(left);
}

std::size_t Pieces::write(const Room& room, Id* ids) const {
    Id* out = ids;
    for (const Id symbol : room.symbols) {
        for (std::uint32_t i = output_begin_[symbol]; i < output_begin_[symbol + 1]; ++i) {
            const Id id = outputs_[i];
            if (id == unknown_id_ && out > ids && out[-1] == id) continue;
            *out++ = id;
        }
    }
    return static_cast<std::size_t>(out - ids);
}

std::size_t Pieces::encode(Bytes text, Room& room, Id* ids) const {
    begin(text, room);
    merge(room);
    return write(room, ids);
}

std::size_t Pieces::encode_plain(Bytes text, Room& room, Id* ids) const {
    begin(text, room);
    merge_short(room);
    return write(room, ids);
}

std::size_t Pieces::cut(Bytes text, std::uint64_t* ends, std::size_t limit) const {
    const auto character_at = [text](std::size_t at) -> CodePoint {
        if (text[at] < 0x80) return {text[at], 1};
        return code_point_at(text, at);
    };
    std::size_t count = 0;
    CodePoint before = character_at(0);
    for (std::size_t i = before.length; i < text.size();) {
        const CodePoint after = character_at(i);
        ends[count] = i;
        count += may_cut(before.value, after.value);
        if (count == limit) return count;
        i += after.length;
        before = after;
    }
    ends[count++] = text.size();
    return count;
}

std::vector<Id> Pieces::merges() const {
    std::vector<Pair> rules;
    std::copy_if(pairs_.data(), pairs_.data() + pairs_.size(), std::back_inserter(rules),
                 [](const Pair& pair) { return pair.key != kNoPair; });
    std::sort(rules.begin(), rules.end(), [](const Pair& a, const Pair& b) { return a.value < b.value; });
    std::vector<Id> flat;
    for (const Pair& pair : rules) {
        flat.insert(flat.end(),
                    {static_cast<Id>(pair.key >> 32), static_cast<Id>(pair.key), static_cast<Id>(pair.value)});
    }
    return flat;
}

}  // namespace bpe
