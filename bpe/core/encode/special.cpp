#include "encode/special.hpp"

#include <algorithm>
#include <cstring>
#include <stdexcept>
#include <utility>

namespace bpe {

SpecialTokens::SpecialTokens(std::vector<std::string> tokens, std::span<const Id> ids) : group_of_{} {
    for (std::size_t i = 0; i < tokens.size(); ++i) {
        const std::string& token = tokens[i];
        if (token.empty()) throw std::invalid_argument("a special token is an empty string");
        ids_[token] = ids[i];
        std::uint8_t& index = group_of_[static_cast<std::uint8_t>(token[0])];
        if (!index) {
            if (groups_.size() == 255) {
                throw std::invalid_argument("the special tokens begin with more than 255 different bytes");
            }
            groups_.push_back({token, {}});
            index = static_cast<std::uint8_t>(groups_.size());
        }
        PrefixGroup& group = groups_[index - 1];
        const auto [end, unused] = std::mismatch(group.prefix.begin(), group.prefix.end(), token.begin(), token.end());
        group.prefix.erase(end, group.prefix.end());
        group.lengths.push_back(token.size());
        longest_ = std::max(longest_, token.size());
    }
    for (PrefixGroup& group : groups_) {
        std::sort(group.lengths.begin(), group.lengths.end(), std::greater<>{});
        group.lengths.erase(std::unique(group.lengths.begin(), group.lengths.end()), group.lengths.end());
    }
    sorted_ = std::move(tokens);
    std::sort(sorted_.begin(), sorted_.end());
}

SpecialTokens::Match SpecialTokens::find(Bytes text, std::size_t position) const {
    const std::uint8_t* bytes = text.data();
    while (position < text.size() && !groups_.empty()) {
        if (groups_.size() == 1) {  // nearly always "<", which memchr finds faster
            const void* found = std::memchr(bytes + position, groups_[0].prefix[0], text.size() - position);
            if (!found) break;
            position = static_cast<std::size_t>(static_cast<const std::uint8_t*>(found) - bytes);
        }
        if (const std::uint8_t index = group_of_[bytes[position]]) {
            const PrefixGroup& group = groups_[index - 1];
            const std::string_view rest(reinterpret_cast<const char*>(bytes + position), text.size() - position);
            if (rest.starts_with(group.prefix)) {
                for (const std::size_t length : group.lengths) {
                    if (length > rest.size()) continue;
                    const auto found = ids_.find(rest.substr(0, length));
                    if (found != ids_.end()) return {position, position + length, found->second};
                }
            }
        }
        ++position;
    }
    return {text.size(), text.size(), kNoId};
}

bool SpecialTokens::cross(Bytes text, std::size_t position) const {
    if (longest_ < 2) return false;
    const auto near = text.first(position + std::min(text.size() - position, longest_ - 1));
    for (std::size_t begin = position - std::min(position, longest_ - 1); begin < position; ++begin) {
        const Match match = find(near, begin);
        if (match.begin >= position) return false;
        if (match.end > position) return true;
        begin = match.begin;  // this token ends in time, but one that begins later may not
    }
    return false;
}

bool SpecialTokens::touch(Bytes text, std::size_t position) const {
    if (!longest_) return false;
    const Bytes near = text.first(position + std::min(text.size() - position, longest_));
    for (std::size_t begin = position - std::min(position, longest_);; ++begin) {
        const Match match = find(near, begin);
        if (match.begin == near.size() || match.begin > position) return false;
        if (match.end >= position) return true;
        begin = match.begin;
    }
}

std::size_t SpecialTokens::unfinished(Bytes text, std::size_t position) const {
    if (longest_ > 1 && text.size() - position >= longest_) position = text.size() - longest_ + 1;
    for (; longest_ > 1 && position < text.size(); ++position) {
        if (!group_of_[text[position]]) continue;
        const std::string_view rest(reinterpret_cast<const char*>(text.data() + position), text.size() - position);
        const auto next = std::upper_bound(sorted_.begin(), sorted_.end(), rest);  // the first token after it
        if (next != sorted_.end() && std::string_view(*next).starts_with(rest)) return position;
    }
    return text.size();
}

}  // namespace bpe
