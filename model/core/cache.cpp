#include "cache.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "kernels/rounding.hpp"

namespace model {

Cache::Cache(CacheKind kind, std::size_t layers, std::size_t kv_heads, std::size_t head_dim, std::size_t sequences)
    : kind_(kind),
      layers_(layers),
      kv_heads_(kv_heads),
      head_dim_(head_dim),
      width_(rounded_up(head_dim, kLanes)),
      sequences_(sequences) {}

std::size_t Cache::number_bytes() const {
    if (kind_ == CacheKind::kI8) return 1;
    return kind_ == CacheKind::kF32 ? 4 : 2;
}

std::size_t Cache::head_bytes(std::size_t capacity) const {
    const std::size_t scales = kind_ == CacheKind::kI8 ? 2 * sizeof(float) : 0;
    return capacity * ((key_width() + width_) * number_bytes() + scales);
}

std::size_t Cache::capacity() const {
    const auto less = [](const Sequence& a, const Sequence& b) { return a.capacity < b.capacity; };
    return std::min_element(sequences_.begin(), sequences_.end(), less)->capacity;
}

std::size_t Cache::bytes() const {
    std::size_t total = 0;
    for (const Sequence& sequence : sequences_) total += sequence_bytes(sequence.capacity);
    return total;
}

Cache::Head Cache::head_in(const Sequence& sequence, std::size_t number) const {
    Head head{};
    head.keys = sequence.memory.get() + number * head_bytes(sequence.capacity);
    head.values = head.keys + sequence.capacity * key_width() * number_bytes();
    if (kind_ == CacheKind::kI8) {
        head.key_scales = reinterpret_cast<float*>(head.values + sequence.capacity * width_);
        head.value_scales = head.key_scales + sequence.capacity;
    }
    return head;
}

Cache::Head Cache::head(std::size_t sequence, std::size_t layer, std::size_t kv_head) const {
    return head_in(sequences_[sequence], layer * kv_heads_ + kv_head);
}

Cache::Sequence Cache::copied(const Sequence& from, std::size_t filled, std::size_t capacity) const {
    Sequence to{take_pages(sequence_bytes(capacity)), capacity};
    std::memset(to.memory.get(), 0, sequence_bytes(capacity));  // so that the padding of the last block is finite
    copy_filled(from, std::min(filled, from.capacity), to);
    return to;
}

// Copies whole blocks of positions.
void Cache::copy_filled(const Sequence& from, std::size_t filled, Sequence& to) const {
    const std::size_t kept = std::min(rounded_up(filled, kLanes), to.capacity);
    for (std::size_t number = 0; kept && number < layers_ * kv_heads_; ++number) {
        const Head old = head_in(from, number), head = head_in(to, number);
        std::memcpy(head.keys, old.keys, kept * key_width() * number_bytes());
        std::memcpy(head.values, old.values, kept * width_ * number_bytes());
        if (kind_ == CacheKind::kI8) {
            std::memcpy(head.key_scales, old.key_scales, kept * sizeof(float));
            std::memcpy(head.value_scales, old.value_scales, kept * sizeof(float));
        }
    }
}

void Cache::resize(std::size_t sequence, std::size_t capacity, std::size_t filled) {
    sequences_[sequence] = capacity ? copied(sequences_[sequence], filled, rounded_up(capacity, kLanes)) : Sequence{};
}

void Cache::copy(std::size_t from, std::size_t to, std::size_t filled) {
    copy_filled(sequences_[from], filled, sequences_[to]);
}

void Cache::reserve(std::size_t capacity, std::span<const std::size_t> filled) {
    for (std::size_t i = 0; i < sequences_.size(); ++i) {
        if (sequences_[i].capacity < capacity)
            sequences_[i] = copied(sequences_[i], filled[i], rounded_up(capacity, kLanes));
    }
}

void Cache::select(std::span<const std::size_t> sequences, std::span<const std::size_t> filled) {
    std::vector<Sequence> selected(sequences.size());
    std::vector<std::size_t> first_use(sequences_.size(), sequences.size());
    for (std::size_t i = 0; i < sequences.size(); ++i) {
        std::size_t& first = first_use[sequences[i]];
        if (first == sequences.size()) {
            first = i;
        } else {
            selected[i] = copied(sequences_[sequences[i]], filled[sequences[i]], sequences_[sequences[i]].capacity);
        }
    }
    for (std::size_t old = 0; old < sequences_.size(); ++old) {
        if (first_use[old] < sequences.size()) selected[first_use[old]] = std::move(sequences_[old]);
    }
    sequences_ = std::move(selected);
}

void Cache::store(const Head& head, std::size_t position, const float* key, const float* value,
                  const Kernel& kernel) const {
    // Within a block of sixteen positions, the numbers of a key are kLanes apart.
    const std::size_t first = position / kLanes * kLanes * head_dim_ + position % kLanes;
    if (kind_ == CacheKind::kF32) {
        auto* keys = reinterpret_cast<float*>(head.keys) + first;
        for (std::size_t i = 0; i < head_dim_; ++i) keys[i * kLanes] = key[i];
        std::memcpy(reinterpret_cast<float*>(head.values) + position * width_, value, head_dim_ * sizeof(float));
    } else if (kind_ == CacheKind::kF16) {
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
        auto* keys = reinterpret_cast<BFloat16*>(head.keys) + first;
        auto* values = reinterpret_cast<BFloat16*>(head.values) + position * width_;
        for (std::size_t i = 0; i < head_dim_; ++i) {
            keys[i * kLanes] = to_bfloat16(key[i]);
            values[i] = to_bfloat16(value[i]);
        }
    } else {
        store_bytes(head, position, key, value);
    }
}

// The numbers of four neighbouring dimensions of a key, or of four neighbouring positions, are next to each other.
void Cache::store_bytes(const Head& head, std::size_t position, const float* key, const float* value) const {
    constexpr float kRound =
        12582912;  // 1.5 * 2^23: in a sum with it, the bits of a small number are its nearest integer
    const auto quantized = [this](const float* numbers, float& scale, const auto& put) {
        float largest = 0;
        for (std::size_t i = 0; i < head_dim_; ++i) largest = std::max(largest, std::fabs(numbers[i]));
        scale = largest / 127;
        const float inverse = largest > 1e-30f ? 1 / scale : 0;
        for (std::size_t i = 0; i < head_dim_; ++i) {
            const auto bits = std::bit_cast<std::uint32_t>(numbers[i] * inverse + kRound);
            put(i, static_cast<std::uint8_t>(bits ^ 0x80));
        }
    };
    const std::size_t inner = position % kLanes;
    std::uint8_t* const keys = head.keys + (position - inner) * key_width() + 4 * inner;
    quantized(key, head.key_scales[position],
              [=](std::size_t i, std::uint8_t byte) { keys[i / 4 * kQuad + i % 4] = byte; });
    std::uint8_t* const values = head.values + position / 4 * 4 * width_ + position % 4;
    quantized(value, head.value_scales[position], [=](std::size_t i, std::uint8_t byte) { values[4 * i] = byte; });
}

}  // namespace model
