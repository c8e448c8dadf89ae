// One step of the decoder: all layers for up to kMostTokens tokens, on all threads.
#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <numbers>
#include <numeric>
#include <utility>

#include "decoder.hpp"
#include "kernels/rounding.hpp"

namespace model {

namespace {

// Groups of rows that are multiplied with all vectors before the next ones, while they are in the L1 cache.
constexpr std::size_t kGroups = 4;
// Columns that are unpacked at a time, so that the unpacked weights of kGroups groups stay in the L2 cache.
constexpr std::size_t kPanelTiles = 64;
constexpr std::size_t kMostMatrices = 2;  // that are multiplied together
// Attention reads the positions of a text in slices, and adds up their results in order. The slices are always the
// same, so that a result depends neither on the number of threads nor on what else is read in the step.
constexpr std::size_t kSlice = 256;

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
    std::size_t positions;
    std::span<const std::size_t> wanted;
    float* logits;
    std::size_t layers;  // the tokens pass the first ones

    const ModelShape& shape = model.shape_;
    const Kernel& kernel = model.kernel_;
    Pool& pool = model.pool_;
    const AttentionKernel& attention = kernel.attention[static_cast<std::size_t>(cache.kind())];
    const std::size_t threads = pool.size();
    const std::size_t heads_of_group = shape.heads / shape.kv_heads;
    const std::size_t query_size = shape.queries(), key_size = shape.keys();
    // With more threads than tokens, threads also share the slices of a text. The results of each slice are then kept
    // until all are known.
    const bool shares_slices = threads / tokens.size() > 1;
    const std::size_t slices = shares_slices ? 1 + last_position() / kSlice : 1;
    const std::size_t partial_size = cache.width() + 2;  // mixed values, the largest score, the sum of weights
    const std::vector<float> no_bias = {};
    std::vector<Run> runs = {};

    // Threads take as much of shared work as they can, because a processor may be slower than another or serve other
    // processes. Each piece of work has its own counters, and all threads reach it at the same turn.
    struct alignas(64) Counter {
        std::atomic<std::size_t> taken{0};
        std::size_t take(std::size_t some) { return taken.fetch_add(some, std::memory_order_relaxed); }
    };
    std::vector<Counter> counters{tokens.size() > 1 ? layers * ((6 + networks()) * threads + 1) + threads : 0};
    // Returns the counters of the next piece of work, or null for a single token, whose work is too small to share.
    Counter* share(Thread& thread, std::size_t count) {
        if (counters.empty()) return nullptr;
        thread.turn += count;
        return counters.data() + thread.turn - count;
    }

    // Returns how many more pieces of work a layer has at most, for its router and experts.
    std::size_t networks() const { return shape.most_experts() ? 1 + 2 * shape.most_experts() : 0; }

    std::size_t last_position() const {
        const auto less = [](const Token& a, const Token& b) { return a.position < b.position; };
        return std::max_element(tokens.begin(), tokens.end(), less)->position;
    }

    static constexpr std::size_t room_for(std::size_t queries) { return rounded_up(queries, kLanes); }

    // The wanted tokens alone, if not all are wanted: what the others become in the last layer is never read.
    std::vector<Token> kept = {};
    std::vector<std::size_t> numbers_of_kept = {};
    std::unique_ptr<Step> last = {};

    // Allocates memory, before the threads start.
    void prepare() {
        if (wanted.size() < tokens.size() && std::is_sorted(wanted.begin(), wanted.end())) {
            for (const std::size_t token : wanted) kept.push_back(tokens[token]);
            numbers_of_kept.resize(kept.size());
            std::iota(numbers_of_kept.begin(), numbers_of_kept.end(), std::size_t{0});
            const std::span<const Token> others = kept.empty() ? tokens.first(1) : kept;
            last.reset(new Step{model, others, cache, rotation, positions, numbers_of_kept, logits, layers});
            last->prepare_attention();
        }
        prepare_attention();
    }

    void prepare_attention() {
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
        const std::size_t partial = tokens.size() * shape.heads * slices * partial_size;
        model.partial_.resize(std::max(model.partial_.size(), partial));
        for (std::vector<float>& scratch : model.scratch_) {
            const std::size_t numbers = room_for(most * heads_of_group) * (kSlice + shape.head_dim + cache.width() + 2);
            scratch.resize(std::max(numbers, partial_size));
        }
    }

    void work(std::size_t number) {
        Thread thread{number};
        for (std::size_t i = number; i < tokens.size(); i += threads) {
            float* const to = model.stream_.data() + i * shape.dim;
            model.embeddings_[0].read_row(tokens[i].id, to);
            if (shape.embedding_factor != 1)
                std::for_each(to, to + shape.dim, [&](float& x) { x *= shape.embedding_factor; });
        }
        pool.barrier();
        const std::size_t end = layers - (last ? 1 : 0);
        for (std::size_t layer = 0; layer < end; ++layer) {
            project(thread, model.layers_[layer], true, true);
            attend_all(thread, layer, true);
            finish_layer(thread, model.layers_[layer]);
        }
        if (last) {
            project(thread, model.layers_[end], false, true);
            store_all(thread, end);
            if (!wanted.empty()) last->pass_last_layer(number, wanted);
        } else if (!wanted.empty()) {
            compute_logits(thread);
        }
    }

    // Passes the tokens through the last layer, which has stored the keys and values of all.
    void pass_last_layer(std::size_t number, std::span<const std::size_t> places) {
        Thread thread{number};
        if (number == 0) {
            for (std::size_t i = 0; i < places.size(); ++i) {
                const float* const from = model.stream_.data() + places[i] * shape.dim;
                std::memmove(model.stream_.data() + i * shape.dim, from, shape.dim * sizeof(float));
            }
        }
        pool.barrier();
        project(thread, model.layers_[layers - 1], true, false);
        attend_all(thread, layers - 1, false);
        finish_layer(thread, model.layers_[layers - 1]);
        compute_logits(thread);
    }

    void finish_layer(Thread& thread, const Layer& layer) {
        add_attended(thread, layer);
        if (layer.router.empty()) {
            feed_forward(thread, layer);
        } else {
            pass_experts(thread, layer);
        }
    }

    // --- layers ---

    // Returns a callback for vectors() that normalises the residual stream, or copies it if there are no weights.
    auto normalised(const std::vector<float>& weights) const {
        return [this, &weights, stream = model.stream_.data()](std::size_t token, float* to) {
            const float* const from = stream + token * shape.dim;
            if (weights.empty()) {
                std::memcpy(to, from, shape.dim * sizeof(float));
            } else {
                kernel.normalise(from, weights.data(), shape.dim, shape.epsilon, to);
            }
        };
    }

    // Returns a callback for multiply() that adds a bias, which may be empty, and keeps the results in rows of `size`.
    auto keep_in(std::vector<float>& numbers, std::size_t size, const std::vector<float>& bias) const {
        return [&numbers, size, &bias](std::size_t token, std::size_t first, std::size_t rows, auto y) {
            float* to = numbers.data() + token * size + first;
            for (std::size_t i = 0; i < rows; ++i) to[i] = y[0][i] + (bias.empty() ? 0 : bias[first + i]);
        };
    }

    // Multiplies a matrix with vectors, and adds the results, normalised if there are weights, to the stream.
    void add_product(Thread& thread, const Matrix& matrix, const Vectors& x, const std::vector<float>& bias,
                     const std::vector<float>& post_norm) {
        if (!post_norm.empty()) {
            multiply(thread, {&matrix}, x, tokens.size(), keep_in(model.changes_, shape.dim, bias));
            pool.barrier();
            add_changes(thread, post_norm);
            return;
        }
        multiply(thread, {&matrix}, x, tokens.size(),
                 [&](std::size_t token, std::size_t first, std::size_t rows, auto y) {
                     float* to = model.stream_.data() + token * shape.dim + first;
                     for (std::size_t i = 0; i < rows; ++i) {
                         to[i] += (y[0][i] + (bias.empty() ? 0 : bias[first + i])) * shape.residual_factor;
                     }
                 });
        pool.barrier();
    }

    // Adds model.changes_, normalised if there are weights, to the stream.
    void add_changes(Thread& thread, const std::vector<float>& post_norm) {
        for (std::size_t token = thread.number; token < tokens.size(); token += threads) {
            float* const change = model.changes_.data() + token * shape.dim;
            float* const to = model.stream_.data() + token * shape.dim;
            if (!post_norm.empty()) kernel.normalise(change, post_norm.data(), shape.dim, shape.epsilon, change);
            for (std::size_t i = 0; i < shape.dim; ++i) to[i] += change[i] * shape.residual_factor;
        }
        pool.barrier();
    }

    // Computes the queries of the tokens, or their keys and values, or all.
    void project(Thread& thread, const Layer& layer, bool queries, bool keys) {
        const std::size_t count = tokens.size();
        const Vectors x = vectors(thread, count, {&layer.wq, &layer.wk, &layer.wv}, normalised(layer.attention_norm));
        if (shape.head_norm == HeadNorm::kNone) {
            const auto rotated_in = [&](std::vector<float>& numbers, std::size_t size, const std::vector<float>& bias,
                                        float factor) {
                return [&, size, factor](std::size_t token, std::size_t first, std::size_t rows, auto y) {
                    rotate(layer, token, first, rows, bias, y[0], factor, numbers.data() + token * size);
                };
            };
            if (queries) {
                multiply(thread, {&layer.wq}, x, count,
                         rotated_in(model.queries_, query_size, layer.query_bias, shape.attention_factor));
            }
            if (keys) multiply(thread, {&layer.wk}, x, count, rotated_in(model.keys_, key_size, layer.key_bias, 1));
        } else {
            if (queries) multiply(thread, {&layer.wq}, x, count, keep_in(model.queries_, query_size, layer.query_bias));
            if (keys) multiply(thread, {&layer.wk}, x, count, keep_in(model.keys_, key_size, layer.key_bias));
        }
        if (keys) multiply(thread, {&layer.wv}, x, count, keep_in(model.values_, key_size, layer.value_bias));
        pool.barrier();
        if (shape.head_norm != HeadNorm::kNone) normalise_heads(thread, layer, queries, keys);
    }

    // Normalises and rotates queries and keys.
    void normalise_heads(Thread& thread, const Layer& layer, bool queries, bool keys) {
        const bool all = shape.head_norm == HeadNorm::kAll;
        const std::size_t of_queries = all ? 1 : shape.heads, parts = of_queries + (all ? 1 : shape.kv_heads);
        for (std::size_t i = thread.number; i < tokens.size() * parts; i += threads) {
            const std::size_t token = i / parts, part = i % parts;
            const bool query = part < of_queries;
            if (!(query ? queries : keys)) continue;
            const std::vector<float>& weights = query ? layer.query_norm : layer.key_norm;
            float* const row =
                query ? model.queries_.data() + token * query_size : model.keys_.data() + token * key_size;
            const std::size_t size = weights.size(), first = (query ? part : part - of_queries) * size;
            kernel.normalise(row + first, weights.data(), size, shape.epsilon, row + first);
            rotate(layer, token, first, size, no_bias, row + first, query ? shape.attention_factor : 1, row);
        }
        pool.barrier();
    }

    // Stores keys and values in the cache.
    void store_all(Thread& thread, std::size_t layer) {
        for (std::size_t i = thread.number; i < tokens.size() * shape.kv_heads; i += threads) {
            store(layer, i / shape.kv_heads, i % shape.kv_heads);
        }
        pool.barrier();
    }

    // Stores keys and values, if they are new, and computes attention to each slice of the positions.
    void attend_all(Thread& thread, std::size_t layer, bool fresh) {
        const std::size_t count = tokens.size();
        if (fresh && count > 1) store_all(thread, layer);
        Counter* const taken = share(thread, 1);
        const auto next = [&](std::size_t i) { return taken ? taken->take(1) : i; };
        for (std::size_t i = next(thread.number); i < runs.size() * shape.kv_heads * slices; i = next(i + threads)) {
            const Run& run = runs[i / slices / shape.kv_heads];
            const std::size_t group = i / slices % shape.kv_heads;
            const std::size_t low = first_slice(layer, tokens[run.first].position);
            const std::size_t end = tokens[run.end - 1].position / kSlice + 1;
            if (!shares_slices) {
                if (fresh && count == 1) store(layer, 0, group);
                for (std::size_t slice = low; slice < end; ++slice) attend(thread, layer, run, group, slice);
            } else if (const std::size_t slice = i % slices; slice >= low && slice < end) {
                // A single new position is in the last slice, so only the thread of that slice reads it.
                if (fresh && count == 1 && slice + 1 == end) store(layer, 0, group);
                attend(thread, layer, run, group, slice);
            }
        }
        pool.barrier();
    }

    void add_attended(Thread& thread, const Layer& layer) {
        const std::size_t count = tokens.size();
        const Vectors x = vectors(thread, count, {&layer.wo},
                                  [&](std::size_t token, float* to) { merge_slices(thread, layer, token, to); });
        add_product(thread, layer.wo, x, layer.output_bias, layer.attention_post_norm);
    }

    void feed_forward(Thread& thread, const Layer& layer) {
        const Network& network = layer.networks[0];
        const Vectors x = hidden_of(thread, network, tokens.size(), normalised(layer.ffn_norm));
        add_product(thread, network.w2, x, network.w2_bias, layer.ffn_post_norm);
    }

    // Computes the hidden state of a network for some vectors, given a callback for vectors().
    template <class Fill>
    Vectors hidden_of(Thread& thread, const Network& network, std::size_t count, const Fill& fill) {
        const std::size_t hidden = network.w1.rows();
        const Vectors x = vectors(thread, count, {&network.w1, &network.w3}, fill);
        multiply(thread, {&network.w1, &network.w3}, x, count,
                 [&](std::size_t i, std::size_t first, std::size_t rows, auto y) {
                     if (!network.w1_bias.empty()) {
                         for (std::size_t j = 0; j < rows; ++j) {
                             y[0][j] += network.w1_bias[first + j], y[1][j] += network.w3_bias[first + j];
                         }
                     }
                     float gated[kLanes];
                     gate(y[0], y[1], gated);
                     std::memcpy(model.hidden_.data() + i * hidden + first, gated, rows * sizeof(float));
                 });
        pool.barrier();
        return vectors(thread, count, {&network.w2}, [&, hidden](std::size_t i, float* to) {
            std::memcpy(to, model.hidden_.data() + i * hidden, hidden * sizeof(float));
        });
    }

    // results = activation(x) * y, for sixteen numbers
    void gate(const float* x, const float* y, float* results) const {
        if (shape.activation == Activation::kSilu) return kernel.gate(x, y, results);
        if (shape.activation == Activation::kGelu) {
            for (std::size_t i = 0; i < kLanes; ++i) {
                results[i] = 0.5f * x[i] * std::erfc(-x[i] * std::numbers::sqrt2_v<float> / 2) * y[i];
            }
            return;
        }
        // 1 + tanh(z) = 2 sigmoid(2z), so that gelu_tanh(x) = x * sigmoid(x * f), which is silu(x * f) / f. Beyond the
        // bound of x^2, sigmoid is 0 or 1.
        float inner[kLanes], outer[kLanes];
        constexpr float kFactor = 1.5957691216057308f;  // 2 sqrt(2 / pi)
        for (std::size_t i = 0; i < kLanes; ++i) {
            const float f = kFactor * (1 + 0.044715f * std::min(x[i] * x[i], 1e4f));
            inner[i] = x[i] * f, outer[i] = y[i] / f;
        }
        kernel.gate(inner, outer, results);
    }

    // --- experts ---

    // Reads the matrices of an expert once, for all tokens that the router sends to it.
    void pass_experts(Thread& thread, const Layer& layer) {
        const Matrix& router = layer.router[0];
        const std::size_t experts = router.rows(), count = tokens.size();
        const auto normalise = normalised(layer.ffn_norm);
        const Vectors x = vectors(thread, count, {&router}, normalise);
        multiply(thread, {&router}, x, count, keep_in(model.expert_scores_, experts, no_bias));
        pool.barrier();
        if (thread.number == 0) {
            for (auto& shares : model.shares_) shares.clear();
            for (std::size_t token = 0; token < count; ++token) choose_experts(token, experts);
            std::fill_n(model.changes_.data(), count * shape.dim, 0.0f);
        }
        pool.barrier();
        for (std::size_t expert = 0; expert < experts; ++expert) {
            const std::vector<Share>& shares = model.shares_[expert];
            if (shares.empty()) continue;
            const Network& network = layer.networks[expert];
            const Vectors hidden = hidden_of(thread, network, shares.size(),
                                             [&](std::size_t i, float* to) { normalise(shares[i].token, to); });
            multiply(thread, {&network.w2}, hidden, shares.size(),
                     [&](std::size_t i, std::size_t first, std::size_t rows, auto y) {
                         float* to = model.changes_.data() + shares[i].token * shape.dim + first;
                         for (std::size_t j = 0; j < rows; ++j) {
                             const float bias = network.w2_bias.empty() ? 0 : network.w2_bias[first + j];
                             to[j] += (y[0][j] + bias) * shares[i].weight;
                         }
                     });
            pool.barrier();
        }
        add_changes(thread, layer.ffn_post_norm);
    }

    // Gives a token to the experts with the highest scores. Of equal scores, the first wins.
    void choose_experts(std::size_t token, std::size_t experts) const {
        float* const scores = model.expert_scores_.data() + token * experts;
        const float largest = *std::max_element(scores, scores + experts);
        float total = 0, chosen = 0;
        for (std::size_t i = 0; i < experts; ++i) total += scores[i] = std::exp(scores[i] - largest);
        std::vector<std::size_t> order(experts);
        std::iota(order.begin(), order.end(), std::size_t{0});
        std::stable_sort(order.begin(), order.end(), [&](auto a, auto b) { return scores[a] > scores[b]; });
        order.resize(shape.experts_per_token);
        for (const std::size_t expert : order) chosen += scores[expert];
        for (const std::size_t expert : order) {
            model.shares_[expert].push_back({token, scores[expert] / (shape.normalize_experts ? chosen : total)});
        }
    }

    // --- logits ---

    void compute_logits(Thread& thread) {
        const Matrix& head = shape.tied ? model.embeddings_[0] : model.output_[0];
        const auto normalise = normalised(model.norm_);
        const Vectors x =
            vectors(thread, wanted.size(), {&head}, [&](std::size_t i, float* to) { normalise(wanted[i], to); });
        multiply(thread, {&head}, x, wanted.size(), [&](std::size_t i, std::size_t first, std::size_t rows, auto y) {
            float* const to = logits + i * shape.vocabulary + first;
            std::memcpy(to, y[0], rows * sizeof(float));
            if (shape.logits_divisor != 1) std::for_each(to, to + rows, [&](float& z) { z /= shape.logits_divisor; });
            soften(to, rows, shape.logits_softcap);
        });
    }

    // Bounds numbers smoothly, if there is a bound.
    static void soften(float* numbers, std::size_t count, float bound) {
        if (bound == 0) return;
        for (std::size_t i = 0; i < count; ++i) numbers[i] = bound * std::tanh(numbers[i] / bound);
    }

    // --- products ---

    // Returns how many of the vectors from `first` on are multiplied together: as many as a kernel exists for.
    // Splitting numbers pays from kMostVectors on.
    std::size_t some_of(std::size_t count, std::size_t first, bool quantized) const {
        const bool whole = quantized || count < kMostVectors;
        const std::size_t most = whole ? kernel.most_whole_vectors() : kernel.most_vectors;
        return std::bit_floor(std::min(most, count - first));
    }

    // Vectors [first, first + some) that are multiplied together.
    struct Some {
        std::size_t first, some;
    };
    // Returns the vectors that vector i is multiplied together with.
    Some some_with(std::size_t i, std::size_t count, bool quantized) const {
        Some found{0, some_of(count, 0, quantized)};
        while (found.first + found.some <= i) {
            found.first += found.some;
            found.some = some_of(count, found.first, quantized);
        }
        return found;
    }

    // Calls fill(token, numbers) for each vector, and returns the vectors in the form that `for_weights` need. For a
    // single token, every thread fills a vector of its own, which takes less time than waiting for another thread.
    template <class Fill>
    Vectors vectors(const Thread& thread, std::size_t count, std::initializer_list<const Matrix*> for_weights,
                    const Fill& fill) {
        const std::size_t columns = (*for_weights.begin())->columns();
        const bool quantized =
            std::any_of(for_weights.begin(), for_weights.end(), [](auto m) { return m->quantized(); });
        const bool plain = std::any_of(for_weights.begin(), for_weights.end(), [](auto m) { return !m->quantized(); });
        const bool alone = count == 1;
        Buffer& buffer = alone ? model.own_[thread.number] : model.shared_;
        const std::size_t tiles = columns / kTile;
        for (std::size_t i = alone ? 0 : thread.number; i < count; i += alone ? 1 : threads) {
            float* numbers = buffer.numbers.data() + i * columns;
            fill(i, numbers);
            if (quantized) {
                const auto [first, some] = some_with(i, count, true);
                const std::size_t place = first * tiles + i - first;
                kernel.quantize(numbers, tiles, some, buffer.bytes.data() + place, buffer.scales.data() + place);
            }
            if (const auto [first, some] = some_with(i, count, false); plain && kernel.splits(some, columns)) {
                kernel.split(numbers, tiles, some, buffer.parts.data() + (first * tiles + i - first) * kFloatParts);
            }
        }
        if (!alone) pool.barrier();
        return {buffer.numbers.data(), buffer.bytes.data(), buffer.scales.data(), buffer.parts.data(), columns};
    }

    // Multiplies matrices with vectors. Calls done(vector, first row, rows, results) with the results of sixteen rows
    // of each matrix.
    template <std::size_t kCount, class Done>
    void multiply(Thread& thread, const Matrix* const (&matrices)[kCount], const Vectors& all, std::size_t count,
                  const Done& done) {
        // A thread first multiplies its own part, which is near its processor, then the rest of others' parts.
        Counter* const taken = share(thread, threads);
        const bool quantized =
            std::any_of(std::begin(matrices), std::end(matrices), [](auto m) { return m->quantized(); });
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
                std::size_t first = quantized ? 0 : many_of(count, all.columns);
                if (first) multiply_panels(thread, matrices, number, begin, end, all, first, done);
                for (std::size_t some; first < count; first += some) {
                    some = some_of(count, first, quantized);
                    const Vectors these = from(all, first);
                    for (std::size_t group = begin; group < end; ++group) {
                        multiply_group(matrices, number, group, these, first, some, done);
                    }
                }
            }
        }
    }

    // Returns how many vectors are multiplied with unpacked unquantized weights: all but the last few.
    std::size_t many_of(std::size_t count, std::size_t columns) const {
        if (!kernel.panels || columns % kTile) return 0;
        const std::size_t rest = count % kMostVectors;
        return count < kMostVectors ? 0 : count - (rest < kernel.split_from ? rest : rest % kernel.split_from);
    }

    // Multiplies the groups [begin, end) of each matrix with the first `many` vectors. Weights are unpacked once for
    // all vectors, some columns at a time.
    template <std::size_t kCount, class Done>
    void multiply_panels(const Thread& thread, const Matrix* const (&matrices)[kCount], std::size_t number,
                         std::size_t begin, std::size_t end, const Vectors& all, std::size_t many,
                         const Done& done) const {
        static_assert(kCount <= kMostMatrices);
        const std::size_t tiles = all.columns / kTile, groups = end - begin;
        TileBytes* const panels = model.panels_[thread.number].data();
        float* const results = model.results_[thread.number].data();
        for (std::size_t i = 0; i < kCount; ++i) {
            const Matrix& own = *matrices[i];
            const Part& part = own.parts()[number];
            const PanelKernel& panel = kernel.panels[static_cast<std::size_t>(own.kind())];
            for (std::size_t tile = 0, some_tiles; tile < tiles; tile += some_tiles) {
                some_tiles = std::min(kPanelTiles, tiles - tile);
                const std::size_t skipped = format_of(own.kind()).group_bytes(tile * kTile);
                for (std::size_t group = begin; group < end; ++group) {
                    panel.unpack(part.data + (group - part.first) * own.stride() + skipped, some_tiles,
                                 panels + (group - begin) * some_tiles * panel.parts * kLanes);
                }
                for (std::size_t first = 0, some; first < many; first += some) {
                    some = some_of(many, first, false);
                    const TileBytes* const x = from(all, first).parts + tile * some * kFloatParts;
                    panel.multiply(panels, groups, some_tiles, x, some, results + (i * groups * many + first) * kLanes,
                                   many * kLanes, tile > 0);
                }
            }
        }
        for (std::size_t group = begin; group < end; ++group) {
            const std::size_t rows = std::min(kLanes, matrices[0]->rows() - group * kLanes);
            for (std::size_t vector = 0; vector < many; ++vector) {
                std::array<float*, kCount> own;
                for (std::size_t i = 0; i < kCount; ++i) {
                    own[i] = results + ((i * groups + group - begin) * many + vector) * kLanes;
                }
                done(vector, group * kLanes, rows, own);
            }
        }
    }

    // Returns the vectors from `first` on.
    Vectors from(const Vectors& all, std::size_t first) const {
        const std::size_t tiles = all.columns / kTile;
        return {all.numbers + first * all.columns, all.bytes + first * tiles, all.scales + first * tiles,
                all.parts + first * tiles * kFloatParts, all.columns};
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
    void rotate(const Layer& layer, std::size_t token, std::size_t first, std::size_t rows,
                const std::vector<float>& bias, const float* from, float factor, float* to) const {
        const float* angles = rotation + (layer.table * positions + tokens[token].position) * shape.head_dim;
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

    // Returns the first position that a token attends to.
    static std::size_t first_seen(std::size_t window, std::size_t position) {
        return window && position >= window ? position + 1 - window : 0;
    }
    std::size_t first_slice(std::size_t layer, std::size_t position) const {
        return first_seen(model.layers_[layer].window, position) / kSlice;
    }

    float* partial(std::size_t token, std::size_t head, std::size_t slice) const {
        const std::size_t place = shares_slices ? slice : 0;
        return model.partial_.data() + ((token * shape.heads + head) * slices + place) * partial_size;
    }

    // Computes the attention of a run's queries, in the heads of one key-value head, to one slice of the positions, and
    // adds it to that to the slices before, or keeps it for merge_slices().
    void attend(const Thread& thread, std::size_t layer, const Run& run, std::size_t group, std::size_t slice) const {
        const std::size_t window = model.layers_[layer].window, begin = slice * kSlice;
        const std::size_t size = std::min(tokens[run.end - 1].position + 1 - begin, kSlice);
        const std::size_t blocks = divided_up(size, kLanes), stride = blocks * kLanes;
        const std::size_t count = (run.end - run.first) * heads_of_group;
        const Cache::Head head = cache.head(tokens[run.first].sequence, layer, group);
        const std::size_t number_bytes = cache.number_bytes();
        const auto token_of = [&](std::size_t i) { return run.first + i / heads_of_group; };
        const auto head_of = [&](std::size_t i) { return group * heads_of_group + i % heads_of_group; };
        float* queries = model.scratch_[thread.number].data();
        float* mixed = queries + count * shape.head_dim;
        float* scores = mixed + room_for(count) * cache.width();
        float* const largest = scores + room_for(count) * kSlice;
        float* const totals = largest + count;
        for (std::size_t i = 0; i < count; ++i) {
            const float* from = model.queries_.data() + token_of(i) * query_size + head_of(i) * shape.head_dim;
            std::memcpy(queries + i * shape.head_dim, from, shape.head_dim * sizeof(float));
        }
        attention.score(head.keys + begin * cache.key_width() * number_bytes, blocks, shape.head_dim, queries, count,
                        scores, stride);
        for (std::size_t i = 0; i < count; ++i) {
            float* own = scores + i * stride;
            const std::size_t position = tokens[token_of(i)].position, start = first_seen(window, position);
            const std::size_t visible = std::min(size, position + 1 - std::min(position + 1, begin));
            const std::size_t hidden = std::min(visible, start - std::min(start, begin));
            largest[i] = -std::numeric_limits<float>::infinity(), totals[i] = 0;
            if (visible > hidden) {
                scale(own, head.key_scales, begin, visible);
                soften(own, visible, shape.attention_softcap);
                std::fill_n(own, hidden, -std::numeric_limits<float>::infinity());
                kernel.softmax(own, visible, &largest[i], &totals[i]);
                scale(own, head.value_scales, begin, visible);
                std::fill_n(own, hidden, 0.0f);
                std::fill(own + visible, own + size, 0.0f);
            } else {
                std::fill_n(own, size, 0.0f);
            }
        }
        attention.mix(head.values + begin * cache.width() * number_bytes, size, cache.width(), scores, count, stride,
                      mixed);
        for (std::size_t i = 0; i < count; ++i) {
            const std::size_t token = token_of(i);
            float* const to = partial(token, head_of(i), slice);
            if (shares_slices || slice == first_slice(layer, tokens[run.first].position)) clear(to);
            add_slice(mixed + i * cache.width(), largest[i], totals[i], to);
        }
    }

    static void scale(float* numbers, const float* scales, std::size_t begin, std::size_t count) {
        if (!scales) return;
        for (std::size_t i = 0; i < count; ++i) numbers[i] *= scales[begin + i];
    }

    // Sets a partial result to that of no positions.
    void clear(float* partial) const {
        std::fill_n(partial, partial_size, 0.0f);
        partial[cache.width()] = -std::numeric_limits<float>::infinity();
    }

    // Adds the attention to a slice, of which nothing may be visible, to a partial result.
    void add_slice(const float* mixed, float largest, float total, float* to) const {
        const std::size_t width = cache.width();
        float& before = to[width];
        float& sum = to[width + 1];
        if (largest == -std::numeric_limits<float>::infinity()) return;
        if (largest <= before) {
            const float weight = std::exp(largest - before);
            for (std::size_t i = 0; i < width; ++i) to[i] += mixed[i] * weight;
            sum += total * weight;
        } else {
            const float weight = std::exp(before - largest);
            for (std::size_t i = 0; i < width; ++i) to[i] = to[i] * weight + mixed[i];
            sum = sum * weight + total;
            before = largest;
        }
    }

    // Combines the attention of a token to all slices, in every head: [heads * head_dim].
    void merge_slices(const Thread& thread, const Layer& layer, std::size_t token, float* to) const {
        const std::size_t width = cache.width(), position = tokens[token].position;
        float* const merged = model.scratch_[thread.number].data();
        for (std::size_t head = 0; head < shape.heads; ++head, to += shape.head_dim) {
            const float* own = partial(token, head, 0);
            if (shares_slices) {
                clear(merged);
                for (std::size_t slice = first_seen(layer.window, position) / kSlice; slice <= position / kSlice;
                     ++slice) {
                    const float* const some = partial(token, head, slice);
                    add_slice(some, some[width], some[width + 1], merged);
                }
                own = merged;
            }
            const float inverse = 1 / own[width + 1];
            for (std::size_t i = 0; i < shape.head_dim; ++i) to[i] = own[i] * inverse;
        }
    }
};

void Decoder::forward(std::span<const Token> tokens, Cache& cache, const float* rotation, std::size_t positions,
                      std::span<const std::size_t> wanted, float* logits, std::size_t layers) {
    const std::lock_guard lock(mutex_);
    make_room(tokens.size());
    if (kernel_.panels && tokens.size() >= kernel_.split_from) {
        panels_.resize(pool_.size()), results_.resize(pool_.size());
        for (auto& panels : panels_) panels.resize(kGroups * kPanelTiles * kFloatParts * kLanes);
        for (auto& results : results_) results.resize(kMostMatrices * kGroups * kMostTokens * kLanes);
    }
    Step step{*this, tokens, cache, rotation, positions, wanted, logits, layers ? layers : shape_.layers};
    step.prepare();
    pool_.run([&](std::size_t number) { step.work(number); });
}

}  // namespace model
