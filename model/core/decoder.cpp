#include "decoder.hpp"

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <stdexcept>
#include <utility>

namespace model {

namespace {

// Groups of rows that vectors are multiplied with while they are in the nearest cache.
constexpr std::size_t kGroups = 4;

}  // namespace

Decoder::Decoder(const Shape& shape, const std::map<std::string, Kind>& kinds, std::size_t threads,
                 const Kernel& kernel)
    : shape_(shape), kernel_(kernel), pool_(threads), arena_(pool_.size()) {
    const std::size_t queries = shape.heads * shape.head_dim, keys = shape.kv_heads * shape.head_dim;
    const auto matrix = [&](const std::string& name, std::size_t rows, std::size_t columns) {
        const auto kind = kinds.find(name);
        if (kind == kinds.end()) throw std::invalid_argument(name + " is missing");
        try {
            return Matrix(kind->second, rows, columns);
        } catch (const std::invalid_argument& error) {
            throw std::invalid_argument(name + " has " + error.what());
        }
    };
    const auto vector = [&](const std::string& name, std::vector<float>& numbers, std::size_t size) {
        numbers.resize(size);
        vectors_[name] = &numbers;
    };
    layers_.reserve(shape.layers);  // matrices stay where they are
    for (std::size_t i = 0; i < shape.layers; ++i) {
        const std::string layer = "layers." + std::to_string(i) + ".";
        const auto weight = [&](const char* name) { return layer + name + ".weight"; };
        layers_.push_back({matrix(weight("attention.wq"), queries, shape.dim),
                           matrix(weight("attention.wk"), keys, shape.dim),
                           matrix(weight("attention.wv"), keys, shape.dim),
                           matrix(weight("attention.wo"), shape.dim, queries),
                           matrix(weight("feed_forward.w1"), shape.hidden, shape.dim),
                           matrix(weight("feed_forward.w3"), shape.hidden, shape.dim),
                           matrix(weight("feed_forward.w2"), shape.dim, shape.hidden),
                           {},
                           {},
                           {},
                           {},
                           {},
                           {}});
        Layer& own = layers_.back();
        matrices_[weight("attention.wq")] = &own.wq;
        matrices_[weight("attention.wk")] = &own.wk;
        matrices_[weight("attention.wv")] = &own.wv;
        matrices_[weight("attention.wo")] = &own.wo;
        matrices_[weight("feed_forward.w1")] = &own.w1;
        matrices_[weight("feed_forward.w3")] = &own.w3;
        matrices_[weight("feed_forward.w2")] = &own.w2;
        vector(weight("attention_norm"), own.attention_norm, shape.dim);
        vector(weight("ffn_norm"), own.ffn_norm, shape.dim);
        if (shape.query_bias) {
            vector(layer + "attention.wq.bias", own.query_bias, queries);
            vector(layer + "attention.wk.bias", own.key_bias, keys);
            vector(layer + "attention.wv.bias", own.value_bias, keys);
        }
        if (shape.output_bias) vector(layer + "attention.wo.bias", own.output_bias, shape.dim);
        for (Matrix* alone : {&own.wq, &own.wk, &own.wv, &own.wo}) arena_.add({alone});
        arena_.add({&own.w1, &own.w3});
        arena_.add({&own.w2});
    }
    vector("norm.weight", norm_, shape.dim);
    embeddings_.push_back(matrix("tok_embeddings.weight", shape.vocabulary, shape.dim));
    matrices_["tok_embeddings.weight"] = &embeddings_[0];
    arena_.add({&embeddings_[0]});
    if (!shape.tied) {
        output_.push_back(matrix("output.weight", shape.vocabulary, shape.dim));
        matrices_["output.weight"] = &output_[0];
        arena_.add({&output_[0]});
    }
    arena_.allocate();
    for (const auto& [name, own] : matrices_) missing_[name] = true;
    for (const auto& [name, own] : vectors_) missing_[name] = true;

    const std::size_t widest = std::max({shape.dim, queries, shape.hidden});
    const auto sized = [&](Buffer& buffer, std::size_t tokens) {
        buffer.numbers.resize(tokens * widest);
        buffer.bytes.resize(tokens * (widest / kTile) * kernel.tile_bytes(tokens));
        buffer.scales.resize(tokens * (widest / kTile));
    };
    stream_.resize(kMostTokens * shape.dim);
    queries_.resize(kMostTokens * queries);
    keys_.resize(kMostTokens * keys);
    values_.resize(kMostTokens * keys);
    hidden_.resize(kMostTokens * shape.hidden);
    sized(shared_, kMostTokens);
    own_.resize(pool_.size());
    for (Buffer& buffer : own_) sized(buffer, 1);
    scratch_.resize(pool_.size());
}

void Decoder::put(const std::string& name, std::span<const std::uint8_t> bytes) {
    const std::lock_guard lock(mutex_);
    const auto sized = [&](std::size_t expected) {
        if (bytes.size() != expected) {
            throw std::invalid_argument(name + " has " + std::to_string(bytes.size()) + " bytes, expected " +
                                        std::to_string(expected));
        }
    };
    if (const auto found = matrices_.find(name); found != matrices_.end()) {
        sized(found->second->file_bytes());
        try {
            found->second->pack(bytes.data(), pool_);
        } catch (const std::invalid_argument& error) {
            throw std::invalid_argument(name + " holds " + error.what());
        }
    } else if (const auto other = vectors_.find(name); other != vectors_.end()) {
        sized(other->second->size() * sizeof(float));
        std::memcpy(other->second->data(), bytes.data(), bytes.size());
        if (!std::all_of(other->second->begin(), other->second->end(), [](float x) { return is_finite(x); })) {
            throw std::invalid_argument(name + " holds numbers that are not finite (NaN or infinity)");
        }
    } else {
        throw std::invalid_argument(name + " is no tensor of this model");
    }
    missing_.erase(name);
}

std::uint64_t Decoder::sum() {
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
        throw std::invalid_argument("a cache of another model");
    }
    if (tokens.empty() || tokens.size() > kMostTokens) {
        throw std::invalid_argument(std::to_string(tokens.size()) + " tokens, expected 1 to " +
                                    std::to_string(kMostTokens));
    }
    for (const Token& token : tokens) {
        if (token.id >= shape_.vocabulary || token.text >= cache.texts() || token.position >= cache.capacity() ||
            token.position >= positions) {
            throw std::invalid_argument("the id " + std::to_string(token.id) + " at position " +
                                        std::to_string(token.position) + " of text " + std::to_string(token.text) +
                                        " is out of range");
        }
    }
    for (const std::size_t number : wanted) {
        if (number >= tokens.size()) throw std::invalid_argument("logits of a token that is not there");
    }
}

// What all threads do in one step, each its share.
struct Decoder::Step {
    // Neighbouring tokens of one text, which attention looks at together.
    struct Run {
        std::size_t first, end;
    };

    Decoder& model;
    std::span<const Token> tokens;
    Cache& cache;
    const float* rotation;
    std::span<const std::size_t> wanted;
    float* logits;

    const Shape& shape = model.shape_;
    const Kernel& kernel = model.kernel_;
    Pool& pool = model.pool_;
    const AttentionKernel& attention = kernel.attention[static_cast<std::size_t>(cache.kind())];
    const std::size_t threads = pool.size();
    const std::size_t heads_of_group = shape.heads / shape.kv_heads;
    const std::size_t query_size = shape.heads * shape.head_dim, key_size = shape.kv_heads * shape.head_dim;
    // Positions are shared out as well where there are more threads than tokens: of each text, slices.
    const std::size_t slices = std::max<std::size_t>(1, threads / tokens.size());
    const std::size_t partial_size = cache.width() + 2;  // mixed values, the largest score, the sum of weights
    std::vector<Run> runs = {};

    // What threads take of the work that they share, as much as each can: one processor may be slower than another, or
    // have others to serve. Each piece of work has counters of its own, and all threads come to it in the same turn.
    struct alignas(64) Counter {
        std::atomic<std::size_t> taken{0};
        std::size_t take(std::size_t some) { return taken.fetch_add(some, std::memory_order_relaxed); }
    };
    std::vector<Counter> counters{tokens.size() > 1 ? shape.layers * (6 * threads + 1) + threads : 0};
    // A single token's work is too little for that: then there are none.
    Counter* share(std::size_t& turn, std::size_t count) {
        if (counters.empty()) return nullptr;
        turn += count;
        return counters.data() + turn - count;
    }

    static constexpr std::size_t room_for(std::size_t queries) { return (queries + kLanes - 1) / kLanes * kLanes; }

    // Before the threads start: what takes memory.
    void prepare() {
        const std::size_t most = std::max<std::size_t>(1, kernel.most_queries / heads_of_group);
        for (std::size_t i = 0; i < tokens.size(); ++i) {
            const bool goes_on = !runs.empty() && i - runs.back().first < most &&
                                 tokens[i].text == tokens[i - 1].text &&
                                 tokens[i].position == tokens[i - 1].position + 1;
            if (goes_on) {
                runs.back().end = i + 1;
            } else {
                runs.push_back({i, i + 1});
            }
        }
        model.partial_.resize(tokens.size() * shape.heads * slices * partial_size);
        for (std::vector<float>& scratch : model.scratch_) {
            scratch.resize(room_for(most * heads_of_group) * (cache.capacity() + shape.head_dim + cache.width()));
        }
    }

    // Vectors that are multiplied at once: of those from `first` on, as many as there is a kernel for.
    std::size_t some_of(std::size_t count, std::size_t first) const {
        return std::bit_floor(std::min(kernel.most_vectors, count - first));
    }

    // Calls fill(token, numbers) for vectors of so many columns, in the form that `for_weights` wants. One token's is
    // made by each thread for itself: to make it takes less time than to wait for another thread.
    template <class Fill>
    Vectors vectors(std::size_t thread, std::size_t count, std::initializer_list<const Matrix*> for_weights,
                    const Fill& fill) {
        const std::size_t columns = (*for_weights.begin())->columns();
        const bool quantized =
            std::any_of(for_weights.begin(), for_weights.end(), [](auto m) { return m->quantized(); });
        const bool alone = count == 1;
        Buffer& buffer = alone ? model.own_[thread] : model.shared_;
        const std::size_t tiles = columns / kTile;
        for (std::size_t first = 0, some; first < count; first += some) {
            some = some_of(count, first);
            TileBytes* const bytes = buffer.bytes.data() + kernel.tile_bytes(kMostVectors) * first * tiles;
            for (std::size_t i = alone ? 0 : thread; i < some; i += alone ? 1 : threads) {
                float* numbers = buffer.numbers.data() + (first + i) * columns;
                fill(first + i, numbers);
                if (quantized || some >= kernel.split_from) {
                    kernel.quantize(numbers, tiles, some, bytes + i * kernel.tile_bytes(some),
                                    buffer.scales.data() + first * tiles + i);
                }
            }
        }
        if (!alone) pool.barrier();
        return {buffer.numbers.data(), buffer.bytes.data(), buffer.scales.data(), columns};
    }

    // Multiplies rows of matrices with vectors; calls done(vector, first row, rows, results) with the
    // results of sixteen rows of each matrix.
    template <std::size_t kCount, class Done>
    void multiply(std::size_t thread, std::size_t& turn, const Matrix* const (&matrices)[kCount], const Vectors& all,
                  std::size_t count, const Done& done) {
        const Matrix& matrix = *matrices[0];
        const std::size_t tiles = all.columns / kTile;
        // First the thread's own part, whose memory it has; then what is left of others'.
        Counter* const taken = share(turn, threads);
        for (std::size_t tried = 0; tried < (taken ? threads : 1); ++tried) {
            const std::size_t number = (thread + tried) % threads;
            const Part& part = matrix.parts()[number];
            std::size_t done_with = 0;
            const auto next = [&] {
                return part.first +
                       (taken ? taken[number].take(kGroups) : std::exchange(done_with, done_with + kGroups));
            };
            for (std::size_t begin; (begin = next()) < part.end;) {
                const std::size_t end = std::min(begin + kGroups, part.end);
                for (std::size_t first = 0, some; first < count; first += some) {
                    some = some_of(count, first);
                    const Vectors these{all.numbers + first * all.columns,
                                        all.bytes + kernel.tile_bytes(kMostVectors) * first * tiles,
                                        all.scales + first * tiles, all.columns};
                    for (std::size_t group = begin; group < end; ++group) {
                        const std::size_t rows = std::min(kLanes, matrix.rows() - group * kLanes);
                        float results[kCount][kMostVectors * kLanes];
                        for (std::size_t i = 0; i < kCount; ++i) {
                            const Matrix& own = *matrices[i];
                            const std::uint8_t* data = own.parts()[number].data + (group - part.first) * own.stride();
                            const auto& products = kernel.products[static_cast<std::size_t>(own.kind())];
                            products[std::countr_zero(some)](data, these, results[i]);
                        }
                        for (std::size_t i = 0; i < some; ++i) {
                            std::array<float*, kCount> own;
                            for (std::size_t j = 0; j < kCount; ++j) own[j] = results[j] + i * kLanes;
                            done(first + i, group * kLanes, rows, own);
                        }
                    }
                }
            }
        }
    }

    // Rows of queries or keys, turned by the angles at the token's position, times a factor.
    void rotate(std::size_t token, std::size_t first, std::size_t rows, const std::vector<float>& bias,
                const float* from, float factor, float* to) const {
        const float* angles = rotation + tokens[token].position * shape.head_dim;
        std::size_t place = first % shape.head_dim;
        for (std::size_t i = 0; i < rows; i += 2, place += 2) {
            if (place == shape.head_dim) place = 0;
            float x = from[i], y = from[i + 1];
            if (!bias.empty()) x += bias[first + i], y += bias[first + i + 1];
            const float cos = angles[place], sin = angles[place + 1];
            to[first + i] = (x * cos - y * sin) * factor;
            to[first + i + 1] = (x * sin + y * cos) * factor;
        }
    }

    void store(std::size_t layer, std::size_t token, std::size_t group) const {
        const std::size_t at = token * key_size + group * shape.head_dim;
        cache.store(cache.head(tokens[token].text, layer, group), tokens[token].position, model.keys_.data() + at,
                    model.values_.data() + at, kernel);
    }

    float* partial(std::size_t token, std::size_t head, std::size_t slice) const {
        return model.partial_.data() + ((token * shape.heads + head) * slices + slice) * partial_size;
    }

    // What the queries of a run see in a slice of the positions.
    void attend(std::size_t thread, std::size_t layer, const Run& run, std::size_t group, std::size_t slice) const {
        const std::size_t length = tokens[run.end - 1].position + 1;
        const std::size_t blocks = (length + kLanes - 1) / kLanes;
        const std::size_t first = blocks * slice / slices, end = blocks * (slice + 1) / slices;
        const std::size_t begin = first * kLanes, size = std::min(length, end * kLanes) - std::min(length, begin);
        const std::size_t count = (run.end - run.first) * heads_of_group, stride = (end - first) * kLanes;
        const Cache::Head head = cache.head(tokens[run.first].text, layer, group);
        const std::size_t number = cache.kind() == CacheKind::kI8 ? 1 : 2;
        float* queries = model.scratch_[thread].data();
        float* mixed = queries + count * shape.head_dim;
        float* scores = mixed + room_for(count) * cache.width();
        for (std::size_t i = 0; i < count; ++i) {
            const float* from = model.queries_.data() + (run.first + i / heads_of_group) * query_size;
            std::memcpy(queries + i * shape.head_dim,
                        from + (group * heads_of_group + i % heads_of_group) * shape.head_dim,
                        shape.head_dim * sizeof(float));
        }
        attention.score(head.keys + begin * shape.head_dim * number, end - first, shape.head_dim, queries, count,
                        scores, stride);
        for (std::size_t i = 0; i < count; ++i) {
            float* own = scores + i * stride;
            const std::size_t seen = tokens[run.first + i / heads_of_group].position + 1;
            const std::size_t visible = std::min(size, seen - std::min(seen, begin));
            float* result = partial(run.first + i / heads_of_group, group * heads_of_group + i % heads_of_group, slice);
            float& largest = result[cache.width()];
            float& sum = result[cache.width() + 1];
            largest = -std::numeric_limits<float>::infinity();
            sum = 0;
            if (visible) {
                scale(own, head.key_scales, begin, visible);
                kernel.softmax(own, visible, &largest, &sum);
                scale(own, head.value_scales, begin, visible);
            }
            std::fill(own + visible, own + size, 0.0f);
        }
        attention.mix(head.values + begin * cache.width() * number, size, cache.width(), scores, count, stride, mixed);
        for (std::size_t i = 0; i < count; ++i) {
            float* result = partial(run.first + i / heads_of_group, group * heads_of_group + i % heads_of_group, slice);
            std::memcpy(result, mixed + i * cache.width(), cache.width() * sizeof(float));
        }
    }

    static void scale(float* numbers, const float* scales, std::size_t begin, std::size_t count) {
        if (!scales) return;
        for (std::size_t i = 0; i < count; ++i) numbers[i] *= scales[begin + i];
    }

    // All heads' attention of a token, of what the slices found: [heads * head_dim].
    void merge(std::size_t token, float* to) const {
        for (std::size_t head = 0; head < shape.heads; ++head, to += shape.head_dim) {
            const std::size_t width = cache.width();
            float largest = partial(token, head, 0)[width];
            for (std::size_t slice = 1; slice < slices; ++slice) {
                largest = std::max(largest, partial(token, head, slice)[width]);
            }
            float total = 0;
            std::fill(to, to + shape.head_dim, 0.0f);
            for (std::size_t slice = 0; slice < slices; ++slice) {
                const float* own = partial(token, head, slice);
                const float weight = slices == 1 ? 1.0f : std::exp(own[width] - largest);
                total += own[width + 1] * weight;
                for (std::size_t i = 0; i < shape.head_dim; ++i) to[i] += own[i] * weight;
            }
            const float inverse = 1 / total;
            for (std::size_t i = 0; i < shape.head_dim; ++i) to[i] *= inverse;
        }
    }

    void work(std::size_t thread) {
        const std::size_t count = tokens.size(), dim = shape.dim;
        float* stream = model.stream_.data();
        const std::vector<float> no_bias;
        std::size_t turn = 0;
        const auto normalised = [&](const std::vector<float>& weights) {
            return [&, stream](std::size_t token, float* to) {
                kernel.normalise(stream + token * dim, weights.data(), dim, shape.epsilon, to);
            };
        };
        for (std::size_t i = thread; i < count; i += threads) {
            model.embeddings_[0].read_row(tokens[i].id, stream + i * dim);
        }
        pool.barrier();
        for (std::size_t number = 0; number < shape.layers; ++number) {
            const Layer& layer = model.layers_[number];
            // 1. Queries, keys and values of the tokens.
            Vectors x = vectors(thread, count, {&layer.wq, &layer.wk, &layer.wv}, normalised(layer.attention_norm));
            const float factor = 1 / std::sqrt(static_cast<float>(shape.head_dim));
            multiply(thread, turn, {&layer.wq}, x, count,
                     [&](std::size_t token, std::size_t first, std::size_t rows, auto y) {
                         rotate(token, first, rows, layer.query_bias, y[0], factor,
                                model.queries_.data() + token * query_size);
                     });
            multiply(thread, turn, {&layer.wk}, x, count,
                     [&](std::size_t token, std::size_t first, std::size_t rows, auto y) {
                         rotate(token, first, rows, layer.key_bias, y[0], 1, model.keys_.data() + token * key_size);
                     });
            multiply(thread, turn, {&layer.wv}, x, count,
                     [&](std::size_t token, std::size_t first, std::size_t rows, auto y) {
                         float* to = model.values_.data() + token * key_size + first;
                         for (std::size_t i = 0; i < rows; ++i) {
                             to[i] = y[0][i] + (layer.value_bias.empty() ? 0 : layer.value_bias[first + i]);
                         }
                     });
            pool.barrier();
            // 2. Attention. The newest position of a text is in its last slice, and seen by nobody else if it is the
            // only new one.
            if (count > 1) {
                for (std::size_t i = thread; i < count * shape.kv_heads; i += threads) {
                    store(number, i / shape.kv_heads, i % shape.kv_heads);
                }
                pool.barrier();
            }
            Counter* const taken = share(turn, 1);
            const auto next = [&](std::size_t i) { return taken ? taken->take(1) : i; };
            for (std::size_t i = next(thread); i < runs.size() * shape.kv_heads * slices; i = next(i + threads)) {
                const std::size_t slice = i % slices, group = i / slices % shape.kv_heads;
                if (count == 1 && slice == slices - 1) store(number, 0, group);
                attend(thread, number, runs[i / slices / shape.kv_heads], group, slice);
            }
            pool.barrier();
            const auto add = [&](const std::vector<float>& bias) {
                return [&, stream](std::size_t token, std::size_t first, std::size_t rows, auto y) {
                    float* to = stream + token * dim + first;
                    for (std::size_t i = 0; i < rows; ++i) to[i] += y[0][i] + (bias.empty() ? 0 : bias[first + i]);
                };
            };
            x = vectors(thread, count, {&layer.wo}, [&](std::size_t token, float* to) { merge(token, to); });
            multiply(thread, turn, {&layer.wo}, x, count, add(layer.output_bias));
            pool.barrier();
            // 3. The feed-forward network.
            x = vectors(thread, count, {&layer.w1, &layer.w3}, normalised(layer.ffn_norm));
            multiply(thread, turn, {&layer.w1, &layer.w3}, x, count,
                     [&](std::size_t token, std::size_t first, std::size_t rows, auto y) {
                         float gated[kLanes];
                         kernel.gate(y[0], y[1], gated);
                         std::memcpy(model.hidden_.data() + token * shape.hidden + first, gated, rows * sizeof(float));
                     });
            pool.barrier();
            x = vectors(thread, count, {&layer.w2}, [&](std::size_t token, float* to) {
                std::memcpy(to, model.hidden_.data() + token * shape.hidden, shape.hidden * sizeof(float));
            });
            multiply(thread, turn, {&layer.w2}, x, count, add(no_bias));
            pool.barrier();
        }
        // 4. The logits that are asked for.
        if (wanted.empty()) return;
        const Matrix& head = shape.tied ? model.embeddings_[0] : model.output_[0];
        const Vectors x = vectors(thread, wanted.size(), {&head},
                                  [&](std::size_t i, float* to) { normalised(model.norm_)(wanted[i], to); });
        multiply(thread, turn, {&head}, x, wanted.size(),
                 [&](std::size_t i, std::size_t first, std::size_t rows, auto y) {
                     std::memcpy(logits + i * shape.vocabulary + first, y[0], rows * sizeof(float));
                 });
    }
};

void Decoder::forward(std::span<const Token> tokens, Cache& cache, const float* rotation,
                      std::span<const std::size_t> wanted, float* logits) {
    const std::lock_guard lock(mutex_);
    Step step{*this, tokens, cache, rotation, wanted, logits};
    step.prepare();
    pool_.run([&](std::size_t thread) { step.work(thread); });
}

}  // namespace model
