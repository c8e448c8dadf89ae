#include "encode/stream.hpp"

#include <algorithm>

#include "encode/cuts.hpp"

namespace bpe {

namespace {

constexpr std::size_t kShort = 64;   // bytes that are scanned again whenever more comes
constexpr std::size_t kLong = 4096;  // bytes of which most are encoded without a list of the pretokens
constexpr std::size_t kScanned = 256;

}  // namespace

std::optional<std::string> Stream::feed(Bytes piece, IdBuffer& ids) {
    drop_what_is_done();
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
    const std::size_t end = give_parts(ids);
    const Bytes part = Bytes(text_).subspan(begin_, end - begin_);
    const Bytes whole = part.first(part.size() - unfinished_character(part));
    if (worth_scanning(whole)) give_certain(whole, ids);
    return std::nullopt;
}

void Stream::flush(IdBuffer& ids) {
    encoder_.encode(Bytes(text_).subspan(begin_), special_, ids);
    text_.clear();
    begin_ = searched_ = scanned_ = seen_ = 0;
}

// When it is the larger part, so that each byte is moved once at most on average. A forbidden token may begin in it.
void Stream::drop_what_is_done() {
    const std::size_t kept = forbidden_ ? std::min(begin_, forbidden_->longest()) : 0;
    const std::size_t done = begin_ - kept;
    if (done <= text_.size() / 2) return;
    text_.erase(text_.begin(), text_.begin() + static_cast<std::ptrdiff_t>(done));
    begin_ -= done;
    searched_ -= done;
}

// Encodes all up to the last special token that is complete. What stands before one is encoded as if it were alone.
// Returns where the next may have begun, or the end of the text. A token that is complete waits as well while it may
// become a longer one.
std::size_t Stream::give_parts(IdBuffer& ids) {
    const Bytes text = text_;
    if (!special_ || special_->empty()) return searched_ = text.size();
    for (;;) {
        const std::size_t unfinished = special_->unfinished(text, searched_);
        const SpecialTokens::Match match = special_->find(text, searched_);
        if (match.begin >= unfinished) return searched_ = unfinished;
        encoder_.encode(text.subspan(begin_, match.begin - begin_), nullptr, ids);
        ids.push(match.id);
        begin_ = searched_ = match.end;
        scanned_ = seen_ = 0;
    }
}

// Whether some pretoken may have become certain. A short text is always looked at. A long one is, for the most part,
// one run of characters of one kind, and where this changes, a pretoken ends: then all that was kept back goes, so that
// the work is in proportion to the text. Where it does not, as in o200k's words, whose letters are of two kinds, a look
// each time that the text has doubled is in proportion too.
bool Stream::worth_scanning(Bytes part) {
    if (part.size() <= seen_) return false;
    if (part.size() <= kShort || part.size() >= 2 * scanned_) return true;
    for (; seen_ < part.size(); ++seen_) {
        if ((part[seen_] & 0xC0) == 0x80) continue;
        const Kind kind = kind_of(part, seen_);
        if (kind == Kind::kAny) continue;
        if (kind_ != Kind::kAny && kind != kind_) return true;
        kind_ = kind;
    }
    return false;
}

// Encodes those pretokens of `part`, which begins at begin_, that stay whatever follows it.
void Stream::give_certain(Bytes part, IdBuffer& ids) {
    const Pattern pattern = encoder_.pattern();
    if (part.size() >= kLong) {
        const std::size_t cut = next_cut(pattern, part, part.size() - kLong / 4);
        if (cut < part.size()) {
            encoder_.encode(part.first(cut), nullptr, ids);
            part = part.subspan(cut);
            begin_ += cut;
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
    if (certain) encoder_.encode_pretokens(pretokens_, ids);
    begin_ += edges_[certain];
    scanned_ = seen_ = part.size() - edges_[certain];
    kind_ = scanned_ ? kind_of(part, character_start(part, part.size() - 1)) : Kind::kAny;
}

}  // namespace bpe
