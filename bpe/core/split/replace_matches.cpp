#include "split/replace_matches.hpp"

#include <utility>
#include <vector>

#include "text/normal_sinks.hpp"

namespace bpe {

namespace {

class ReplaceMatchesStep final : public SinkStep<ReplaceMatchesStep> {
 public:
    ReplaceMatchesStep(std::shared_ptr<const SplitMatcher> matcher, Bytes content)
        : matcher_(std::move(matcher)), content_(content.begin(), content.end()) {}

    template <class Sink>
    bool run(Bytes text, bool, Sink& sink) const {
        if (text.empty()) return false;  // as in tokenizers, even if the pattern matches nothing
        SegmentReader reader(*matcher_);
        reader.start(text);
        std::size_t done = 0;
        bool is_changed = false;
        while (const auto segment = reader.next()) {
            if (!segment->is_match) continue;
            sink.keep(text, done, segment->begin);
            sink.put(content_, segment->end == 0 ? kNowhere : segment->end - 1);
            done = segment->end;
            is_changed = true;
        }
        if (is_changed) sink.keep(text, done, text.size());
        return is_changed;
    }

    // A match may begin and end anywhere.
    bool can_cut() const override { return false; }
    std::optional<Neighbours> across(Neighbours) const override { return std::nullopt; }

 private:
    std::shared_ptr<const SplitMatcher> matcher_;
    std::vector<std::uint8_t> content_;
};

}  // namespace

Step replace_matches_step(std::shared_ptr<const SplitMatcher> matcher, Bytes content) {
    return std::make_shared<ReplaceMatchesStep>(std::move(matcher), content);
}

}  // namespace bpe
