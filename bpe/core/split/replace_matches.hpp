// The step of a normalizer that replaces the matches of a pattern. Here, because it needs a matcher.
#pragma once

#include <memory>

#include "base/types.hpp"
#include "split/segments.hpp"
#include "text/normalizer.hpp"

namespace bpe {

// Replaces each match by the content as it is, as Replace of tokenizers does with a regular expression.
Step replace_matches_step(std::shared_ptr<const SplitMatcher> matcher, Bytes content);

}  // namespace bpe
