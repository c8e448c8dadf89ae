#include "encode/stream.hpp"

#include <algorithm>

#include "encode/cutter.hpp"
#include "kernels/kernels.hpp"
#include "split/cuts.hpp"
#include "text/unicode.hpp"

namespace bpe {

namespace {

constexpr std::size_t kShort = 64;     // a text of up to this many bytes is scanned again with each piece
constexpr std::size_t kLong = 4096;    // most of a longer text is encoded without a list of its pretokens
constexpr std::size_t kScanned = 256;  // pretokens that are scanned at once

}  // namespace

std::optional<std::string> Stream::feed(Bytes piece, IdBuffer& ids, Interrupt* interrupt) {
    drop_what_is_done();
    const std::size_t size = text_.size();
    const Progress before = at_;
    interrupt_ = interrupt;
    try {
        return add(piece, ids);
    } catch (...) {
        text_.resize(size);
        at_ = before;
        throw;
    }
}

std::optional<std::string> Stream::add(Bytes piece, IdBuffer& ids) {
    const std::size_t before = text_.size();
    text_.insert(text_.end(), piece.begin(), piece.end());
    if (forbidden_ && !forbidden_->empty()) {
        const Bytes text = text_;
        const SpecialTokens::Match match = forbidden_->find(text, before - std::min(before, forbidden_->longest() - 1));
        if (match.begin < text.size()) {
            std::string token(text.begin() + static_cast<std::ptrdiff_t>(match.begin),
                              text.begin() + static_cast<std::ptrdiff_t>(match.end));
            text_.resize(before);
            return token;
        }
    }
    if (!reads_ahead()) {
        give_before_a_cut(ids);
        return std::nullopt;
    }
    const std::size_t end = give_parts(false, ids);
    const Bytes part = Bytes(text_).subspan(at_.begin, end - at_.begin);
    const Bytes whole = part.first(part.size() - unfinished_character(part));
    if (worth_scanning(whole)) give_certain(whole, ids);
    return std::nullopt;
}

void Stream::flush(IdBuffer& ids, Interrupt* interrupt) {
    const Progress before = at_;
    interrupt_ = interrupt;
    try {
        if (reads_ahead()) give_parts(true, ids);  // some of the text that is left has been searched already
        encoder_.encode(Bytes(text_).subspan(at_.begin), reads_ahead() ? nullptr : added_, ids, interrupt, at_.start);
    } catch (...) {
        at_ = before;
        throw;
    }
    text_.clear();
    at_ = {};
}

// Drops the encoded part of the text once it is the larger part, so that each byte is moved at most once on average.
// Keeps the end of it, where a forbidden token may begin.
void Stream::drop_what_is_done() {
    const std::size_t kept = forbidden_ ? std::min(at_.begin, forbidden_->longest()) : 0;
    const std::size_t done = at_.begin - kept;
    if (done <= text_.size() / 2) return;
    text_.erase(text_.begin(), text_.begin() + static_cast<std::ptrdiff_t>(done));
    at_.begin -= done;
    at_.searched -= done;
}

// Whether the stream finds the tokens and the pretokens that are certain one by one, as it can for scanners and for
// tokens that do not depend on the text around them.
bool Stream::reads_ahead() const { return encoder_.scanned() && (!added_ || added_->is_plain()); }

// Encodes everything up to the last place where the text may be cut. A text without such a place is searched again
// whenever it has doubled.
void Stream::give_before_a_cut(IdBuffer& ids) {
    const Bytes rest = Bytes(text_).subspan(at_.begin);
    const Bytes text = rest.first(rest.size() - unfinished_character(rest));
    if (text.size() > kShort && text.size() < 2 * at_.scanned) return;
    const std::size_t cut = Cutter(encoder_.splitter(), encoder_.normalizer(), added_).last_cut(text);
    encoder_.encode(text.first(cut), added_, ids, interrupt_, at_.start);
    if (cut) at_.start = Start::kInside;
    at_.begin += cut;
    at_.searched = at_.begin;
    at_.scanned = text.size() - cut;
}

// Encodes everything up to the last complete token of added_, each part before a token as if it were the whole text. A
// complete token waits if it may become a longer one, unless this is the end of the text. Returns where the next token
// may have begun, or the end of the text.
std::size_t Stream::give_parts(bool is_end, IdBuffer& ids) {
    const Bytes text = text_;
    if (!added_) return at_.searched = text.size();
    for (;;) {
        const std::size_t unfinished = is_end ? text.size() : added_->unfinished(text, at_.searched);
        const AddedTokens::Match match = added_->find(text, at_.searched);
        if (match.begin >= unfinished) return at_.searched = unfinished;
        at_.searched = match.end;
        if (match.id == kNoId) continue;  // it stays text
        encoder_.encode(text.subspan(at_.begin, match.begin - at_.begin), nullptr, ids, interrupt_);
        ids.push(match.id);
        at_.begin = match.end;
        at_.scanned = at_.seen = 0;
    }
}

// Whether a pretoken may have become certain. A short text is always scanned. A long one is mostly a run of characters
// of one kind. A pretoken ends where the kind changes, and then everything kept back is encoded, so the total work is
// linear in the text. In some runs a change of kind does not show, as in o200k's words, which have letters of two
// kinds. There, scanning whenever the text has doubled is linear too.
bool Stream::worth_scanning(Bytes part) {
    if (part.size() <= at_.seen) return false;
    if (part.size() <= kShort || part.size() >= 2 * at_.scanned) return true;
    for (; at_.seen < part.size(); ++at_.seen) {
        if (is_continuation(part[at_.seen])) continue;
        const Kind kind = kind_of(part, at_.seen);
        if (kind == Kind::kAny) continue;
        if (at_.kind != Kind::kAny && kind != at_.kind) return true;
        at_.kind = kind;
    }
    return false;
}

// Encodes the certain pretokens of `part`, which begins at at_.begin.
void Stream::give_certain(Bytes part, IdBuffer& ids) {
    const Pattern pattern = encoder_.scanned()->pattern();
    if (part.size() >= kLong) {
        const std::size_t cut = next_cut(pattern, part, part.size() - kLong / 4);
        if (cut < part.size()) {
            encoder_.encode(part.first(cut), nullptr, ids, interrupt_);
            part = part.subspan(cut);
            at_.begin += cut;
        }
    }
    std::size_t count = 0;  // of pretokens
    for (edges_.assign(1, 0); edges_.back() < part.size();) {
        edges_.resize(count + 1 + kScanned);
        count += scan(pattern, part.data(), edges_[count], part.size(), edges_.data() + count + 1, kScanned);
        edges_.resize(count + 1);
    }
    const std::size_t certain = certain_pretokens(pattern, part, edges_);
    pretokens_.clear();
    for (std::size_t i = 0; i < certain; ++i) {
        pretokens_.push_back(part.subspan(edges_[i], edges_[i + 1] - edges_[i]));
    }
    if (certain) encoder_.encode_pretokens(pretokens_, ids, interrupt_);
    at_.begin += edges_[certain];
    at_.scanned = at_.seen = part.size() - edges_[certain];
    at_.kind = at_.scanned ? kind_of(part, character_start(part, part.size() - 1)) : Kind::kAny;
}

}  // namespace bpe
