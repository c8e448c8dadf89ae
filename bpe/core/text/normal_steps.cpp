// The steps that look at no tables: Replace of a string, Prepend.

#include <cstring>
#include <string>
#include <string_view>

#include "text/normal_sinks.hpp"

namespace bpe {

namespace {

std::vector<std::uint8_t> copy_of(Bytes bytes) { return {bytes.begin(), bytes.end()}; }

// Finds a string that is not empty.
class StringFinder {
 public:
    explicit StringFinder(Bytes pattern) : pattern_(copy_of(pattern)) {
        if (pattern.size() <= kShort) return;
        borders_.resize(pattern.size());
        for (std::size_t i = 1, size = 0; i < pattern.size(); ++i) borders_[i] = size = extended(size, pattern[i]);
    }

    Bytes pattern() const { return pattern_; }

    // Returns where the string next occurs in the text at or after `position`, or text.size().
    std::size_t find(Bytes text, std::size_t position) const {
        return borders_.empty() ? find_short(text, position) : find_long(text, position);
    }

 private:
    static constexpr std::size_t kShort = 32;

    std::size_t find_short(Bytes text, std::size_t position) const {
        while (position + pattern_.size() <= text.size()) {
            const std::size_t starts = text.size() - position - pattern_.size() + 1;
            const void* found = std::memchr(text.data() + position, pattern_[0], starts);
            if (!found) break;
            position = static_cast<std::size_t>(static_cast<const std::uint8_t*>(found) - text.data());
            if (std::memcmp(text.data() + position, pattern_.data(), pattern_.size()) == 0) return position;
            ++position;
        }
        return text.size();
    }

    // The algorithm of Knuth, Morris and Pratt: linear time whatever the pattern.
    std::size_t find_long(Bytes text, std::size_t position) const {
        for (std::size_t size = 0; position < text.size(); ++position) {
            size = extended(size, text[position]);
            if (size == pattern_.size()) return position + 1 - size;
        }
        return text.size();
    }

    // Returns the size of the longest start of the pattern that text ends with, after `byte` follows a text that ends
    // with the first `size` bytes of the pattern.
    std::size_t extended(std::size_t size, std::uint8_t byte) const {
        while (size > 0 && pattern_[size] != byte) size = borders_[size - 1];
        return size + (pattern_[size] == byte);
    }

    std::vector<std::uint8_t> pattern_;
    std::vector<std::size_t> borders_;  // for a long pattern: the longest start that each start of it also ends with
};

class ReplaceStep final : public SinkStep<ReplaceStep> {
 public:
    ReplaceStep(Bytes pattern, Bytes content) : finder_(pattern), content_(copy_of(content)) {}

    template <class Sink>
    bool run(Bytes text, bool, Sink& sink) const {
        const std::size_t size = finder_.pattern().size();
        if (size == 0) return between_characters(text, sink);
        std::size_t done = 0;
        std::size_t found = finder_.find(text, 0);
        if (found == text.size()) return false;
        for (; found < text.size(); found = finder_.find(text, done)) {
            sink.keep(text, done, found);
            done = found + size;
            sink.put(content_, done - 1);
        }
        sink.keep(text, done, text.size());
        return true;
    }

    bool can_cut() const override { return !finder_.pattern().empty(); }

    std::optional<Neighbours> across(Neighbours neighbours) const override {
        const Bytes pattern = finder_.pattern();
        if (pattern.empty()) return std::nullopt;
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

    StringFinder finder_;
    std::vector<std::uint8_t> content_;
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
