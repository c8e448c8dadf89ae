#include "special.hpp"

#include <algorithm>
#include <cstring>
#include <stdexcept>

namespace bpe {

SpecialTokens::SpecialTokens(std::vector<std::string> tokens, std::span<const Id> ids) : group_of_{} {
    for (std::size_t i = 0; i < tokens.size(); ++i) {
        const std::string& token = tokens[i];
        if (token.empty()) throw std::invalid_argument("a special token is empty");
        ids_[token] = ids[i];
        std::uint8_t& index = group_of_[static_cast<std::uint8_t>(token[0])];
        if (!index) {
            if (groups_.size() == 255)
                throw std::invalid_argument("special tokens begin with too many different bytes");
            groups_.push_back({token, {}});
            index = static_cast<std::uint8_t>(groups_.size());
        }
        Group& group = groups_[index - 1];
        const auto [end, unused] = std::mismatch(group.prefix.begin(), group.prefix.end(), token.begin(), token.end());
        group.prefix.erase(end, group.prefix.end());
        group.lengths.push_back(token.size());
    }
    for (Group& group : groups_) {
        std::sort(group.lengths.begin(), group.lengths.end(), std::greater<>{});
        group.lengths.erase(std::unique(group.lengths.begin(), group.lengths.end()), group.lengths.end());
    }
}

SpecialTokens::Match SpecialTokens::find(std::span<const std::uint8_t> text, std::size_t position) const {
    const std::uint8_t* bytes = text.data();
    while (position < text.size()) {
        if (groups_.size() == 1) {  // nearly always "<": let memchr run ahead
            const void* found = std::memchr(bytes + position, groups_[0].prefix[0], text.size() - position);
            if (!found) break;
            position = static_cast<std::size_t>(static_cast<const std::uint8_t*>(found) - bytes);
        }
        if (const std::uint8_t index = group_of_[bytes[position]]) {
            const Group& group = groups_[index - 1];
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

}  // namespace bpe
