// One step of the decoder: all layers for up to kMostTokens tokens, on all threads.
#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <utility>

#include "decoder.hpp"
#include "kernels/rounding.hpp"

namespace model {

namespace {

// Groups of rows that are multiplied with all vectors before the next ones, while they are in the L1 cache.
constexpr std::size_t kGroups = 4;

}  // namespace

// Every thread runs work(), and takes its share of each piece of work.
struct Decoder::Step {
    // Neighbouring tokens of one sequence, whose queries attention handles together.
    struct Run {
        std::size_t first, end;
    };
    struct Thread {
        std::size_t number;
        std::size_t turn = 0;  // the counters that earlier pieces of work have used
    };

    Decoder& model;
    std::span<const Token> tokens;
    Cache& cache;
    const float* rotation;
    std::span<const std::size_t> wanted;
    float* logits;

    const ModelShape& shape = model.shape_;
    const Kernel& kernel = model.kernel_;
    Pool& pool = model.pool_;
    const AttentionKernel& attention = kernel.attention[static_cast<std::size_t>(cache.kind())];
    const std::size_t threads = pool.size();
    const std::size_t heads_of_group = shape.heads / shape.kv_heads;
    const std::size_t query_size = shape.queries(), key_size = shape.keys();
    // With more threads than tokens, threads also share the positions of a sequence, which are cut into slices.
    const std::size_t slices = std::max<std::size_t>(1, threads / tokens.size());
    const std::size_t partial_size = cache.width() + 2;  // mixed values, the largest score, the sum of weights
    const std::vector<float> no_bias = {};
    std::vector<Run> runs = {};

    // Threads take as much of shared work as they can, because a processor may be slower than another or serve other
    // processes. Each piece of work has its own counters, and all threads reach it at the same turn.
    struct alignas(64) Counter {
        std::atomic<std::size_t> taken{0};
        std::size_t take(std::size_t some) { return taken.fetch_add(some, std::memory_order_relaxed); }
    };
    std::vector<Counter> counters{tokens.size() > 1 ? shape.layers * (6 * threads + 1) + threads : 0};
    // Returns the counters of the next piece of work, or null for a single token, whose work is too small to share.
    Counter* share(Thread& thread, std::size_t count) {
        if (counters.empty()) return nullptr;
        thread.turn += count;
        return counters.data() + thread.turn - count;
    }

    static constexpr std::size_t room_for(std::size_t queries) { return rounded_up(queries, kLanes); }

    // Allocates memory, before the threads start.
    void prepare() {
        const std::size_t most = std::max<std::size_t>(1, kernel.most_queries / heads_of_group);
        for (std::size_t i = 0; i < tokens.size(); ++i) {
            const bool continues = !runs.empty() && i - runs.back().first < most &&
                                   tokens[i].sequence == tokens[i - 1].sequence &&
                                   tokens[i].position == tokens[i - 1].position + 1;
            if (continues) {
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

    void work(std::size_t number) {
        Thread thread{number};
        for (std::size_t i = number; i < tokens.size(); i += threads) {
            model.embeddings_[0].read_row(tokens[i].id, model.stream_.data() + i * shape.dim);
        }
        pool.barrier();
        for (std::size_t layer = 0; layer < shape.layers; ++layer) {
            project(thread, model.layers_[layer]);
            attend_all(thread, layer);
            add_attended(thread, model.layers_[layer]);
            feed_forward(thread, model.layers_[layer]);
        }
        if (!wanted.empty()) compute_logits(thread);
    }

    // --- layers ---

    // Return a callback for vectors() that normalises the residual stream, and one for multiply() that adds to it.
    auto normalised(const std::vector<float>& weights) const {
        return [this, &weights, stream = model.stream_.data()](std::size_t token, float* to) {
            kernel.normalise(stream + token * shape.dim, weights.data(), shape.dim, shape.epsilon, to);
        };
    }

    auto add_to_stream(const std::vector<float>& bias) const {
        return [this, &bias, stream = model.stream_.data()](std::size_t token, std::size_t first, std::size_t rows,
                                                            auto y) {
            float* to = stream + token * shape.dim + first;
            for (std::size_t i = 0; i < rows; ++i) to[i] += y[0][i] + (bias.empty() ? 0 : bias[first + i]);
        };
    }

    // Computes the queries, keys and values of the tokens.
    void project(Thread& thread, const Layer& layer) {
        const std::size_t count = tokens.size();
        const Vectors x = vectors(thread, count, {&layer.wq, &layer.wk, &layer.wv}, normalised(layer.attention_norm));
        const float factor = 1 / std::sqrt(static_cast<float>(shape.head_dim));
        multiply(thread, {&layer.wq}, x, count, [&](std::size_t token, std::size_t first, std::size_t rows, auto y) {
            rotate(token, first, rows, layer.query_bias, y[0], factor, model.queries_.data() + token * query_size);
        });
        multiply(thread, {&layer.wk}, x, count, [&](std::size_t token, std::size_t first, std::size_t rows, auto y) {
            rotate(token, first, rows, layer.key_bias, y[0], 1, model.keys_.data() + token * key_size);
        });
        multiply(thread, {&layer.wv}, x, count, [&](std::size_t token, std::size_t first, std::size_t rows, auto y) {
            float* to = model.values_.data() + token * key_size + first;
            for (std::size_t i = 0; i < rows; ++i) {
                to[i] = y[0][i] + (layer.value_bias.empty() ? 0 : layer.value_bias[first + i]);
            }
        });
        pool.barrier();
    }

    // Stores keys and values in the cache, and computes attention to each slice of the positions.
    void attend_all(Thread& thread, std::size_t layer) {
        const std::size_t count = tokens.size();
        if (count > 1) {
            for (std::size_t i = thread.number; i < count * shape.kv_heads; i += threads) {
                store(layer, i / shape.kv_heads, i % shape.kv_heads);
            }
            pool.barrier();
        }
        Counter* const taken = share(thread, 1);
        const auto next = [&](std::size_t i) { return taken ? taken->take(1) : i; };
        for (std::size_t i = next(thread.number); i < runs.size() * shape.kv_heads * slices; i = next(i + threads)) {
            const std::size_t slice = i % slices, group = i / slices % shape.kv_heads;
            // A single new position is in the last slice, so only the thread of that slice reads it.
            if (count == 1 && slice == slices - 1) store(layer, 0, group);
            attend(thread, layer, runs[i / slices / shape.kv_heads], group, slice);
        }
        pool.barrier();
    }

    void add_attended(Thread& thread, const Layer& layer) {
        const std::size_t count = tokens.size();
        const Vectors x =
            vectors(thread, count, {&layer.wo}, [&](std::size_t token, float* to) { merge_slices(token, to); });
        multiply(thread, {&layer.wo}, x, count, add_to_stream(layer.output_bias));
        pool.barrier();
    }

    void feed_forward(Thread& thread, const Layer& layer) {
        const std::size_t count = tokens.size();
        Vectors x = vectors(thread, count, {&layer.w1, &layer.w3}, normalised(layer.ffn_norm));
        multiply(thread, {&layer.w1, &layer.w3}, x, count,
                 [&](std::size_t token, std::size_t first, std::size_t rows, auto y) {
                     float gated[kLanes];
                     kernel.gate(y[0], y[1], gated);
                     std::memcpy(model.hidden_.data() + token * shape.hidden + first, gated, rows * sizeof(float));
                 });
        pool.barrier();
        x = vectors(thread, count, {&layer.w2}, [&](std::size_t token, float* to) {
            std::memcpy(to, model.hidden_.data() + token * shape.hidden, shape.hidden * sizeof(float));
        });
        multiply(thread, {&layer.w2}, x, count, add_to_stream(no_bias));
        pool.barrier();
    }

    void compute_logits(Thread& thread) {
        const Matrix& head = shape.tied ? model.embeddings_[0] : model.output_[0];
        const auto normalise = normalised(model.norm_);
        const Vectors x =
            vectors(thread, wanted.size(), {&head}, [&](std::size_t i, float* to) { normalise(wanted[i], to); });
        multiply(thread, {&head}, x, wanted.size(), [&](std::size_t i, std::size_t first, std::size_t rows, auto y) {
            std::memcpy(logits + i * shape.vocabulary + first, y[0], rows * sizeof(float));
        });
    }

    // --- products ---

    // Returns how many of the vectors from `first` on are multiplied together: as many as a kernel exists for.
    std::size_t some_of(std::size_t count, std::size_t first) const {
        return std::bit_floor(std::min(kernel.most_vectors, count - first));
    }

    // Calls fill(token, numbers) for each vector, and returns the vectors in the form that `for_weights` need. For a
    // single token, every thread fills a vector of its own, which takes less time than waiting for another thread.
    template <class Fill>
    Vectors vectors(const Thread& thread, std::size_t count, std::initializer_list<const Matrix*> for_weights,
                    const Fill& fill) {
        const std::size_t columns = (*for_weights.begin())->columns();
        const bool quantized =
            std::any_of(for_weights.begin(), for_weights.end(), [](auto m) { return m->quantized(); });
        const bool alone = count == 1;
        Buffer& buffer = alone ? model.own_[thread.number] : model.shared_;
        const std::size_t tiles = columns / kTile;
        for (std::size_t first = 0, some; first < count; first += some) {
            some = some_of(count, first);
            TileBytes* const bytes = buffer.bytes.data() + kernel.tile_bytes(kMostVectors) * first * tiles;
            for (std::size_t i = alone ? 0 : thread.number; i < some; i += alone ? 1 : threads) {
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

    // Multiplies matrices with vectors. Calls done(vector, first row, rows, results) with the results of sixteen rows
    // of each matrix.
    template <std::size_t kCount, class Done>
    void multiply(Thread& thread, const Matrix* const (&matrices)[kCount], const Vectors& all, std::size_t count,
                  const Done& done) {
        const std::size_t tiles = all.columns / kTile;
        // A thread first multiplies its own part, which is near its processor, then the rest of others' parts.
        Counter* const taken = share(thread, threads);
        for (std::size_t tried = 0; tried < (taken ? threads : 1); ++tried) {
            const std::size_t number = (thread.number + tried) % threads;
            const Part& part = matrices[0]->parts()[number];
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
                        multiply_group(matrices, number, group, these, first, some, done);
                    }
                }
            }
        }
    }

    // Multiplies one group of rows of each matrix with the vectors [first, first + some).
    template <std::size_t kCount, class Done>
    void multiply_group(const Matrix* const (&matrices)[kCount], std::size_t number, std::size_t group,
                        const Vectors& these, std::size_t first, std::size_t some, const Done& done) const {
        const std::size_t rows = std::min(kLanes, matrices[0]->rows() - group * kLanes);
        float results[kCount][kMostVectors * kLanes];
        for (std::size_t i = 0; i < kCount; ++i) {
            const Matrix& own = *matrices[i];
            const Part& part = own.parts()[number];
            const auto& products = kernel.products[static_cast<std::size_t>(own.kind())];
            products[std::countr_zero(some)](part.data + (group - part.first) * own.stride(), these, results[i]);
        }
        for (std::size_t i = 0; i < some; ++i) {
            std::array<float*, kCount> own;
            for (std::size_t j = 0; j < kCount; ++j) own[j] = results[j] + i * kLanes;
            done(first + i, group * kLanes, rows, own);
        }
    }

    // Rotates rows of queries or keys by the angles at the token's position, and multiplies them with a factor.
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

    // --- attention ---

    // Stores the key and value of a token in one key-value head.
    void store(std::size_t layer, std::size_t token, std::size_t group) const {
        const std::size_t at = token * key_size + group * shape.head_dim;
        cache.store(cache.head(tokens[token].sequence, layer, group), tokens[token].position, model.keys_.data() + at,
                    model.values_.data() + at, kernel);
    }

    float* partial(std::size_t token, std::size_t head, std::size_t slice) const {
        return model.partial_.data() + ((token * shape.heads + head) * slices + slice) * partial_size;
    }

    // Computes the attention of a run's queries, in the heads of one key-value head, to one slice of the positions.
    void attend(const Thread& thread, std::size_t layer, const Run& run, std::size_t group, std::size_t slice) const {
        const std::size_t length = tokens[run.end - 1].position + 1;
        const std::size_t blocks = divided_up(length, kLanes);
        const std::size_t first = blocks * slice / slices, end = blocks * (slice + 1) / slices;
        const std::size_t begin = first * kLanes, size = std::min(length, end * kLanes) - std::min(length, begin);
        const std::size_t count = (run.end - run.first) * heads_of_group, stride = (end - first) * kLanes;
        const Cache::Head head = cache.head(tokens[run.first].sequence, layer, group);
        const std::size_t number_bytes = cache.kind() == CacheKind::kI8 ? 1 : 2;
        const auto token_of = [&](std::size_t i) { return run.first + i / heads_of_group; };
        const auto head_of = [&](std::size_t i) { return group * heads_of_group + i % heads_of_group; };
        float* queries = model.scratch_[thread.number].data();
        float* mixed = queries + count * shape.head_dim;
        float* scores = mixed + room_for(count) * cache.width();
        for (std::size_t i = 0; i < count; ++i) {
            const float* from = model.queries_.data() + token_of(i) * query_size + head_of(i) * shape.head_dim;
            std::memcpy(queries + i * shape.head_dim, from, shape.head_dim * sizeof(float));
        }
        attention.score(head.keys + begin * shape.head_dim * number_bytes, end - first, shape.head_dim, queries, count,
                        scores, stride);
        for (std::size_t i = 0; i < count; ++i) {
            float* own = scores + i * stride;
            const std::size_t seen = tokens[token_of(i)].position + 1;
            const std::size_t visible = std::min(size, seen - std::min(seen, begin));
            float* result = partial(token_of(i), head_of(i), slice);
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
        attention.mix(head.values + begin * cache.width() * number_bytes, size, cache.width(), scores, count, stride,
                      mixed);
        for (std::size_t i = 0; i < count; ++i) {
            std::memcpy(partial(token_of(i), head_of(i), slice), mixed + i * cache.width(),
                        cache.width() * sizeof(float));
        }
    }

    static void scale(float* numbers, const float* scales, std::size_t begin, std::size_t count) {
        if (!scales) return;
        for (std::size_t i = 0; i < count; ++i) numbers[i] *= scales[begin + i];
    }

    // Combines the attention of a token to all slices, in every head: [heads * head_dim].
    void merge_slices(std::size_t token, float* to) const {
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
};

void Decoder::forward(std::span<const Token> tokens, Cache& cache, const float* rotation,
                      std::span<const std::size_t> wanted, float* logits) {
    const std::lock_guard lock(mutex_);
    Step step{*this, tokens, cache, rotation, wanted, logits};
    step.prepare();
    pool_.run([&](std::size_t number) { step.work(number); });
}

}  // namespace model
