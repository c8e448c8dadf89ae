// The steps that look at no tables: Replace of a string, Prepend.

#include <cstring>
#include <string>
#include <string_view>

#include "text/normal_sinks.hpp"

namespace bpe {

namespace {

std::vector<std::uint8_t> copy_of(Bytes bytes) { return {bytes.begin(), bytes.end()}; }

// Returns where `pattern`, which is not empty, next occurs in the text at or after `position`, or text.size().
std::size_t find(Bytes text, std::size_t position, Bytes pattern) {
    while (position + pattern.size() <= text.size()) {
        const std::size_t starts = text.size() - position - pattern.size() + 1;
        const void* found = std::memchr(text.data() + position, pattern[0], starts);
        if (!found) break;
        position = static_cast<std::size_t>(static_cast<const std::uint8_t*>(found) - text.data());
        if (std::memcmp(text.data() + position, pattern.data(), pattern.size()) == 0) return position;
        ++position;
    }
    return text.size();
}

class ReplaceStep final : public SinkStep<ReplaceStep> {
 public:
    ReplaceStep(Bytes pattern, Bytes content) : pattern_(copy_of(pattern)), content_(copy_of(content)) {}

    template <class Sink>
    bool run(Bytes text, bool, Sink& sink) const {
        if (pattern_.empty()) return between_characters(text, sink);
        std::size_t done = 0;
        std::size_t found = find(text, 0, pattern_);
        if (found == text.size()) return false;
        for (; found < text.size(); found = find(text, done, pattern_)) {
            sink.keep(text, done, found);
            done = found + pattern_.size();
            sink.put(content_, done - 1);
        }
        sink.keep(text, done, text.size());
        return true;
    }

    std::optional<Neighbours> across(Neighbours neighbours) const override {
        if (pattern_.empty()) return std::nullopt;
        const Bytes pattern = pattern_;
        std::size_t count = 0;
        std::uint32_t last = kMalformed;
        bool has_before = false, has_after = false;
        for (std::size_t at = 0; at < pattern.size(); ++count) {
            const CodePoint next = code_point_at(pattern, at);
            if (last == neighbours.before && next.value == neighbours.after) return std::nullopt;
            has_before |= next.value == neighbours.before;
            has_after |= next.value == neighbours.after;
            last = next.value;
            at += next.length;
        }
        // A character that may or may not be part of an occurrence is unknown after this step.
        const bool is_unknown = count > 1 || content_.empty();
        if (has_before) {
            neighbours.before = is_unknown ? kUnknown : code_point_before(content_, content_.size()).value;
        }
        if (has_after) neighbours.after = is_unknown ? kUnknown : code_point_at(content_, 0).value;
        return neighbours;
    }

 private:
    template <class Sink>
    bool between_characters(Bytes text, Sink& sink) const {
        if (text.empty() || content_.empty()) return false;
        std::size_t from = kNowhere;
        for (std::size_t at = 0; at < text.size(); from = at - 1) {
            sink.put(content_, from);
            const std::size_t end = at + code_point_at(text, at).length;
            sink.keep(text, at, end);
            at = end;
        }
        sink.put(content_, from);
        return true;
    }

    std::vector<std::uint8_t> pattern_, content_;
};

class PrependStep final : public SinkStep<PrependStep> {
 public:
    explicit PrependStep(Bytes content) : content_(copy_of(content)) {}

    template <class Sink>
    bool run(Bytes text, bool at_start, Sink& sink) const {
        if (!at_start || text.empty() || content_.empty()) return false;
        sink.put(content_, 0);
        sink.keep(text, 0, text.size());
        return true;
    }

    // The left side of a cut is not empty: it ends with `neighbours.before`.
    std::optional<Neighbours> across(Neighbours neighbours) const override { return neighbours; }

 private:
    std::vector<std::uint8_t> content_;
};

}  // namespace

Step replace_step(Bytes pattern, Bytes content) { return std::make_shared<ReplaceStep>(pattern, content); }

Step prepend_step(Bytes content) { return std::make_shared<PrependStep>(content); }

}  // namespace bpe
