#include "cache.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace model {

namespace {

std::size_t up(std::size_t size) { return (size + kLanes - 1) / kLanes * kLanes; }

}  // namespace

Cache::Cache(CacheKind kind, std::size_t layers, std::size_t kv_heads, std::size_t head_dim, std::size_t texts)
    : kind_(kind), layers_(layers), kv_heads_(kv_heads), head_dim_(head_dim), width_(up(head_dim)), texts_(texts) {}

std::size_t Cache::head_bytes(std::size_t capacity) const {
    const std::size_t scales = kind_ == CacheKind::kI8 ? 2 * sizeof(float) : 0;
    return capacity * ((head_dim_ + width_) * number_bytes() + scales);
}

std::size_t Cache::capacity() const {
    const auto less = [](const Text& a, const Text& b) { return a.capacity < b.capacity; };
    return std::min_element(texts_.begin(), texts_.end(), less)->capacity;
}

std::size_t Cache::bytes() const {
    std::size_t total = 0;
    for (const Text& text : texts_) total += text_bytes(text.capacity);
    return total;
}

Cache::Head Cache::head_in(const Text& text, std::size_t number) const {
    Head head{};
    head.keys = text.memory.get() + number * head_bytes(text.capacity);
    head.values = head.keys + text.capacity * head_dim_ * number_bytes();
    if (kind_ == CacheKind::kI8) {
        head.key_scales = reinterpret_cast<float*>(head.values + text.capacity * width_);
        head.value_scales = head.key_scales + text.capacity;
    }
    return head;
}

Cache::Head Cache::head(std::size_t text, std::size_t layer, std::size_t kv_head) const {
    return head_in(texts_[text], layer * kv_heads_ + kv_head);
}

Cache::Text Cache::copied(const Text& from, std::size_t filled, std::size_t capacity) const {
    Text to{take_pages(text_bytes(capacity)), capacity};
    std::memset(to.memory.get(), 0, text_bytes(capacity));  // so that what pads the last block is finite
    const std::size_t kept = up(std::min(filled, std::min(capacity, from.capacity)));
    for (std::size_t number = 0; kept && number < layers_ * kv_heads_; ++number) {
        const Head old = head_in(from, number), head = head_in(to, number);
        std::memcpy(head.keys, old.keys, kept * head_dim_ * number_bytes());
        std::memcpy(head.values, old.values, kept * width_ * number_bytes());
        if (kind_ == CacheKind::kI8) {
            std::memcpy(head.key_scales, old.key_scales, kept * sizeof(float));
            std::memcpy(head.value_scales, old.value_scales, kept * sizeof(float));
        }
    }
    return to;
}

void Cache::reserve(std::size_t capacity, std::span<const std::size_t> filled) {
    for (std::size_t i = 0; i < texts_.size(); ++i) {
        if (texts_[i].capacity < capacity) texts_[i] = copied(texts_[i], filled[i], up(capacity));
    }
}

void Cache::select(std::span<const std::size_t> texts, std::span<const std::size_t> filled) {
    std::vector<Text> selected(texts.size());
    std::vector<std::size_t> first_use(texts_.size(), texts.size());
    for (std::size_t i = 0; i < texts.size(); ++i) {
        std::size_t& first = first_use[texts[i]];
        if (first == texts.size()) {
            first = i;
        } else {
            selected[i] = copied(texts_[texts[i]], filled[texts[i]], texts_[texts[i]].capacity);
        }
    }
    for (std::size_t old = 0; old < texts_.size(); ++old) {
        if (first_use[old] < texts.size()) selected[first_use[old]] = std::move(texts_[old]);
    }
    texts_ = std::move(selected);
}

void Cache::store(const Head& head, std::size_t position, const float* key, const float* value,
                  const Kernel& kernel) const {
    const std::size_t first = position / kLanes * kLanes * head_dim_ + position % kLanes;  // then every 16th
    if (kind_ == CacheKind::kF16) {
        auto* keys = reinterpret_cast<Half*>(head.keys) + first;
        auto* values = reinterpret_cast<Half*>(head.values) + position * width_;
        Half sixteen[kLanes];
        for (std::size_t i = 0; i < head_dim_; i += kLanes) {
            const std::size_t count = std::min(kLanes, head_dim_ - i);
            float numbers[kLanes] = {};
            std::memcpy(numbers, key + i, count * sizeof(float));
            kernel.narrow(numbers, kLanes, sixteen);
            for (std::size_t j = 0; j < count; ++j) keys[(i + j) * kLanes] = sixteen[j];
            std::memcpy(numbers, value + i, count * sizeof(float));
            kernel.narrow(numbers, kLanes, values + i);
        }
    } else if (kind_ == CacheKind::kBF16) {
        auto* keys = reinterpret_cast<Brain*>(head.keys) + first;
        auto* values = reinterpret_cast<Brain*>(head.values) + position * width_;
        for (std::size_t i = 0; i < head_dim_; ++i) {
            keys[i * kLanes] = to_brain(key[i]);
            values[i] = to_brain(value[i]);
        }
    } else {
        auto* keys = reinterpret_cast<std::int8_t*>(head.keys) + first;
        auto* values = reinterpret_cast<std::int8_t*>(head.values) + position * width_;
        const auto quantized = [&](const float* numbers, float& scale, std::int8_t* to, std::size_t step) {
            float largest = 0;
            for (std::size_t i = 0; i < head_dim_; ++i) largest = std::max(largest, std::fabs(numbers[i]));
            scale = largest / 127;
            const float inverse = largest > 1e-30f ? 1 / scale : 0;
            for (std::size_t i = 0; i < head_dim_; ++i) {
                to[i * step] = static_cast<std::int8_t>(std::nearbyint(numbers[i] * inverse));
            }
        };
        quantized(key, head.key_scales[position], keys, kLanes);
        quantized(value, head.value_scales[position], values, 1);
    }
}

}  // namespace model
