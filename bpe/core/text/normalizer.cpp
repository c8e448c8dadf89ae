#include "text/normalizer.hpp"

#include <utility>

#include "text/code_points.hpp"

namespace bpe {

namespace {

constexpr std::size_t kAscii = 128;

// Fills `origins` with the range of its own character for each byte of the text.
void fill_origins(Bytes text, Buffer<Range>& origins) {
    origins.resize(text.size());
    for (std::size_t at = 0; at < text.size();) {
        const std::size_t end = at + code_point_at(text, at).length;
        const Range origin{at, end};
        while (at < end) origins[at++] = origin;
    }
}

}  // namespace

Normalizer::Normalizer(std::vector<std::shared_ptr<const NormalStep>> steps) : steps_(std::move(steps)) {
    for (const auto& step : steps_) can_cut_ = can_cut_ && step->can_cut();
    std::vector<bool> cuts(kAscii * kAscii);
    for (std::uint32_t before = 0; before < kAscii; ++before) {
        for (std::uint32_t after = 0; after < kAscii; ++after) {
            cuts[before * kAscii + after] = cuts_between({before, after});
        }
    }
    ascii_cuts_ = std::make_shared<const std::vector<bool>>(std::move(cuts));
}

Bytes Normalizer::apply(Bytes text, bool at_start, NormalRoom& room) const {
    std::size_t free = 0;  // the memory that the text is not in
    for (const auto& step : steps_) {
        Buffer<std::uint8_t>& out = room.texts[free].bytes;
        out.clear();
        if (!step->apply(text, at_start, out)) continue;
        text = {out.data(), out.size()};
        free = 1 - free;
    }
    return text;
}

NormalizedText Normalizer::apply_with_origins(Bytes text, bool at_start, NormalRoom& room) const {
    if (steps_.empty()) return {text, {}};
    fill_origins(text, room.texts[0].origins);
    NormalizedText now{text, {room.texts[0].origins.data(), text.size()}};
    std::size_t free = 1;
    bool is_changed = false;
    for (const auto& step : steps_) {
        NormalText& out = room.texts[free];
        out.bytes.clear();
        out.origins.clear();
        if (!step->apply(now, at_start, out)) continue;
        now = {{out.bytes.data(), out.bytes.size()}, {out.origins.data(), out.origins.size()}};
        free = 1 - free;
        is_changed = true;
    }
    return is_changed ? now : NormalizedText{text, {}};
}

std::size_t Normalizer::first_size(Bytes text, NormalRoom& room) const {
    const NormalizedText normalized = apply_with_origins(text, true, room);
    if (normalized.origins.empty()) return normalized.text.empty() ? 0 : code_point_at(text, 0).length;
    std::size_t size = 0;
    while (size < normalized.origins.size() && normalized.origins[size].begin == 0) ++size;
    return size;
}

// The last step may leave unknown neighbours: no step after it looks at them.
bool Normalizer::cuts_between(Neighbours neighbours) const {
    for (const auto& step : steps_) {
        if (neighbours.before == kUnknown || neighbours.after == kUnknown) return false;
        const auto after = step->across(neighbours);
        if (!after) return false;
        neighbours = *after;
    }
    return true;
}

std::size_t Normalizer::next_cut(Bytes text, std::size_t position) const {
    if (!can_cut_) return text.size();
    if (position == 0) position = 1;
    while (position < text.size() && is_continuation(text[position])) ++position;
    if (position >= text.size()) return text.size();
    if (steps_.empty()) return position;
    CodePoint before = code_point_before(text, position);
    while (position < text.size()) {
        const CodePoint after = code_point_at(text, position);
        const bool is_ascii = before.value < kAscii && after.value < kAscii;
        if (is_ascii ? (*ascii_cuts_)[before.value * kAscii + after.value]
                     : before.value != kMalformed && after.value != kMalformed &&
                           cuts_between({before.value, after.value})) {
            return position;
        }
        before = after;
        position += after.length;
    }
    return text.size();
}

}  // namespace bpe
