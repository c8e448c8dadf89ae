#include "decoder.hpp"

#include <algorithm>
#include <cstring>
#include <stdexcept>
#include <utility>

namespace model {

namespace {

Matrix matrix_of(const Decoder::Kinds& kinds, const std::string& name, std::size_t rows, std::size_t columns) {
    const auto kind = kinds.find(name);
    if (kind == kinds.end()) throw std::invalid_argument(name + " is missing");
    try {
        return Matrix(kind->second, rows, columns);
    } catch (const std::invalid_argument& error) {
        throw std::invalid_argument(name + " has " + error.what());
    }
}

}  // namespace

Decoder::Decoder(const ModelShape& shape, const Kinds& kinds, std::size_t threads, const Kernel& kernel)
    : shape_(shape), kernel_(kernel), pool_(threads), arena_(pool_.size()) {
    layers_.reserve(shape.layers);  // so that pointers to matrices stay valid
    while (layers_.size() < shape.layers) add_layer(kinds);
    add_norm("norm.weight", norm_, shape.dim);
    embeddings_.push_back(matrix_of(kinds, "tok_embeddings.weight", shape.vocabulary, shape.dim));
    matrices_["tok_embeddings.weight"] = &embeddings_[0];
    arena_.add({&embeddings_[0]});
    if (!shape.tied) {
        output_.push_back(matrix_of(kinds, "output.weight", shape.vocabulary, shape.dim));
        matrices_["output.weight"] = &output_[0];
        arena_.add({&output_[0]});
    }
    arena_.allocate();
    for (const auto& [name, own] : matrices_) missing_[name] = true;
    for (const auto& [name, own] : vectors_) missing_[name] = true;
}

void Decoder::add_layer(const Kinds& kinds) {
    const std::size_t dim = shape_.dim, queries = shape_.queries(), keys = shape_.keys(), number = layers_.size();
    const std::string prefix = "layers." + std::to_string(number) + ".";
    const auto matrix = [&](const char* name, std::size_t rows, std::size_t columns) {
        return matrix_of(kinds, prefix + name + ".weight", rows, columns);
    };
    layers_.push_back({.wq = matrix("attention.wq", queries, dim),
                       .wk = matrix("attention.wk", keys, dim),
                       .wv = matrix("attention.wv", keys, dim),
                       .wo = matrix("attention.wo", dim, queries),
                       .window = shape_.windows[number],
                       .table = shape_.tables[number]});
    Layer& layer = layers_.back();
    const std::pair<const char*, Matrix*> named[] = {
        {"attention.wq", &layer.wq},
        {"attention.wk", &layer.wk},
        {"attention.wv", &layer.wv},
        {"attention.wo", &layer.wo},
    };
    for (const auto& [name, own] : named) matrices_[prefix + name + ".weight"] = own;
    if (shape_.pre_norm) {
        add_norm(prefix + "attention_norm.weight", layer.attention_norm, dim);
        add_norm(prefix + "ffn_norm.weight", layer.ffn_norm, dim);
    }
    if (shape_.post_norm) {
        add_norm(prefix + "attention_post_norm.weight", layer.attention_post_norm, dim);
        add_norm(prefix + "ffn_post_norm.weight", layer.ffn_post_norm, dim);
    }
    if (shape_.head_norm != HeadNorm::kNone) {
        const bool all = shape_.head_norm == HeadNorm::kAll;
        add_norm(prefix + "attention.q_norm.weight", layer.query_norm, all ? queries : shape_.head_dim);
        add_norm(prefix + "attention.k_norm.weight", layer.key_norm, all ? keys : shape_.head_dim);
    }
    if (shape_.query_bias) {
        add_vector(prefix + "attention.wq.bias", layer.query_bias, queries);
        add_vector(prefix + "attention.wk.bias", layer.key_bias, keys);
        add_vector(prefix + "attention.wv.bias", layer.value_bias, keys);
    }
    if (shape_.output_bias) add_vector(prefix + "attention.wo.bias", layer.output_bias, dim);
    for (Matrix* alone : {&layer.wq, &layer.wk, &layer.wv, &layer.wo}) arena_.add({alone});
    const std::size_t experts = shape_.experts[number];
    layer.networks.reserve(std::max<std::size_t>(1, experts));  // as above
    if (!experts) return add_network(kinds, layer, prefix + "feed_forward.", shape_.hidden);
    const std::string name = prefix + "feed_forward.router.weight";
    layer.router.push_back(matrix_of(kinds, name, experts, dim));
    matrices_[name] = &layer.router[0];
    arena_.add({&layer.router[0]});
    for (std::size_t i = 0; i < experts; ++i) {
        add_network(kinds, layer, prefix + "feed_forward.experts." + std::to_string(i) + ".", shape_.expert_hidden);
    }
}

void Decoder::add_network(const Kinds& kinds, Layer& layer, const std::string& prefix, std::size_t hidden) {
    layer.networks.push_back({.w1 = matrix_of(kinds, prefix + "w1.weight", hidden, shape_.dim),
                              .w3 = matrix_of(kinds, prefix + "w3.weight", hidden, shape_.dim),
                              .w2 = matrix_of(kinds, prefix + "w2.weight", shape_.dim, hidden)});
    Network& network = layer.networks.back();
    matrices_[prefix + "w1.weight"] = &network.w1;
    matrices_[prefix + "w3.weight"] = &network.w3;
    matrices_[prefix + "w2.weight"] = &network.w2;
    if (shape_.feed_forward_bias) {
        add_vector(prefix + "w1.bias", network.w1_bias, hidden);
        add_vector(prefix + "w3.bias", network.w3_bias, hidden);
        add_vector(prefix + "w2.bias", network.w2_bias, shape_.dim);
    }
    arena_.add({&network.w1, &network.w3});
    arena_.add({&network.w2});
}

void Decoder::add_norm(const std::string& name, std::vector<float>& numbers, std::size_t size) {
    add_vector(name, numbers, size, shape_.norm_offset);
}

void Decoder::add_vector(const std::string& name, std::vector<float>& numbers, std::size_t size, float offset) {
    numbers.resize(size);
    vectors_[name] = {&numbers, offset};
}

void Decoder::make_room(std::size_t tokens) {
    if (tokens <= room_) return;
    const std::size_t hidden = std::max(shape_.hidden, shape_.most_experts() ? shape_.expert_hidden : 0);
    const std::size_t widest = std::max({shape_.dim, shape_.queries(), hidden});
    const auto allocate = [&](Buffer& buffer, std::size_t count) {
        buffer.numbers.resize(count * widest);
        buffer.bytes.resize(count * (widest / kTile));
        buffer.scales.resize(count * (widest / kTile));
        if (kernel_.splits(kMostVectors, kTile)) buffer.parts.resize(count * (widest / kTile) * kFloatParts);
    };
    stream_.resize(tokens * shape_.dim);
    queries_.resize(tokens * shape_.queries());
    keys_.resize(tokens * shape_.keys());
    values_.resize(tokens * shape_.keys());
    hidden_.resize(tokens * hidden);
    if (shape_.post_norm || shape_.most_experts()) changes_.resize(tokens * shape_.dim);
    expert_scores_.resize(tokens * shape_.most_experts());
    shares_.resize(shape_.most_experts());
    allocate(shared_, tokens);
    own_.resize(pool_.size());
    for (Buffer& buffer : own_) allocate(buffer, 1);
    scratch_.resize(pool_.size());
    room_ = tokens;
}

void Decoder::put(const std::string& name, std::span<const std::uint8_t> bytes) {
    const std::lock_guard lock(mutex_);
    const auto check_size = [&](std::size_t expected) {
        if (bytes.size() != expected) {
            throw std::invalid_argument(name + " has " + std::to_string(bytes.size()) + " bytes, expected " +
                                        std::to_string(expected));
        }
    };
    if (const auto found = matrices_.find(name); found != matrices_.end()) {
        check_size(found->second->file_bytes());
        try {
            found->second->pack(bytes.data(), pool_);
        } catch (const std::invalid_argument& error) {
            throw std::invalid_argument(name + " contains " + error.what());
        }
    } else if (const auto other = vectors_.find(name); other != vectors_.end()) {
        std::vector<float>& numbers = *other->second.numbers;
        check_size(numbers.size() * sizeof(float));
        std::memcpy(numbers.data(), bytes.data(), bytes.size());
        if (!std::all_of(numbers.begin(), numbers.end(), [](float x) { return is_finite(x); })) {
            throw std::invalid_argument(name + " contains numbers that are not finite (NaN or infinity)");
        }
        for (float& number : numbers) number += other->second.offset;
    } else {
        throw std::invalid_argument(name + " is not a tensor of this model");
    }
    missing_.erase(name);
}

std::uint64_t Decoder::sum_weights() {
    std::vector<std::uint64_t> sums(pool_.size());
    pool_.run([&](std::size_t thread) { sums[thread] = arena_.sum(thread); });
    std::uint64_t total = 0;
    for (const std::uint64_t sum : sums) total += sum;
    return total;
}

void Decoder::check(std::span<const Token> tokens, const Cache& cache, std::size_t positions,
                    std::span<const std::size_t> wanted) const {
    if (!missing_.empty()) throw std::invalid_argument(missing_.begin()->first + " is missing");
    if (cache.layers() != shape_.layers || cache.kv_heads() != shape_.kv_heads || cache.head_dim() != shape_.head_dim) {
        throw std::invalid_argument("the cache belongs to another model");
    }
    if (tokens.empty() || tokens.size() > kMostTokens) {
        throw std::invalid_argument(std::to_string(tokens.size()) + " tokens, expected 1 to " +
                                    std::to_string(kMostTokens));
    }
    for (const Token& token : tokens) {
        if (token.id >= shape_.vocabulary || token.sequence >= cache.sequences() ||
            token.position >= cache.capacity(token.sequence) || token.position >= positions) {
            throw std::invalid_argument("id " + std::to_string(token.id) + " at position " +
                                        std::to_string(token.position) + " of sequence " +
                                        std::to_string(token.sequence) + " is out of range");
        }
    }
    for (const std::size_t number : wanted) {
        if (number >= tokens.size()) {
            throw std::invalid_argument("wanted contains " + std::to_string(number) + ", but there are " +
                                        std::to_string(tokens.size()) + " tokens");
        }
    }
}

}  // namespace model
