// A Llama, or a relative, that reads packed weights: from token ids to logits, all layers in one call.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <vector>

#include "cache.hpp"
#include "kernels/kernels.hpp"
#include "pool.hpp"
#include "weights.hpp"

namespace model {

enum class Activation : std::uint8_t { kSilu, kGelu, kGeluTanh };
enum class HeadNorm : std::uint8_t { kNone, kHead, kAll };

// The sizes and parts of a model. Defaults are those of a Llama.
struct ModelShape {
    std::size_t dim = 0, layers = 0, heads = 0, kv_heads = 0, head_dim = 0, hidden = 0, vocabulary = 0;
    float epsilon = 0;  // of the norms
    bool tied = false;  // the output matrix is the embedding matrix
    bool query_bias = false, output_bias = false, feed_forward_bias = false;
    bool pre_norm = true, post_norm = false;  // of what attention and feed-forward network read, and of their results
    float norm_offset = 0;                    // added to the weights of norms when they are set
    HeadNorm head_norm = HeadNorm::kNone;     // of queries and keys: each head, or all heads together
    Activation activation = Activation::kSilu;
    float attention_factor = 0;                       // of the scores
    float attention_softcap = 0, logits_softcap = 0;  // 0 for none
    float embedding_factor = 1, residual_factor = 1, logits_divisor = 1;
    std::size_t expert_hidden = 0, experts_per_token = 0;
    bool normalize_experts = false;  // the weights of a token's experts sum to 1
    // By layer: the number of tokens that a token attends to, itself included, or 0 for all; the number of its table of
    // rotations; the number of experts, or 0 for a single network.
    std::vector<std::size_t> windows = {}, tables = {}, experts = {};

    std::size_t queries() const { return heads * head_dim; }
    std::size_t keys() const { return kv_heads * head_dim; }
    std::size_t rotation_tables() const { return 1 + *std::max_element(tables.begin(), tables.end()); }
    std::size_t most_experts() const { return *std::max_element(experts.begin(), experts.end()); }
};

struct Token {
    std::size_t id, sequence, position;
};

class Decoder {
 public:
    using Kinds = std::map<std::string, Kind>;

    // `kinds` maps the name of every matrix, as Meta's checkpoints name it, to its type. Throws std::invalid_argument,
    // naming the matrix, when a matrix is missing or its rows do not end with a whole block.
    Decoder(const ModelShape& shape, const Kinds& kinds, std::size_t threads, const Kernel& kernel);

    // Sets a tensor: a matrix to rows of blocks stored as in a file, a vector to floats. Throws std::invalid_argument
    // for an unknown name, a wrong size and numbers that are not finite.
    void put(const std::string& name, std::span<const std::uint8_t> bytes);

    // Runs the model on 1 to kMostTokens tokens. The tokens of a sequence follow each other, and the positions in the
    // cache. `rotation` holds the cosine and sine of the angle of each pair at every position, in each table:
    // [tables, positions, head_dim / 2, 2]. `wanted` holds indices of tokens; writes the logits of the tokens that
    // follow them to [wanted, vocabulary]. The tokens pass the first `layers` layers, or all for 0; those logits are
    // guesses, and the cache then lacks the tokens in the others. The caller has validated the arguments with check().
    void forward(std::span<const Token> tokens, Cache& cache, const float* rotation, std::size_t positions,
                 std::span<const std::size_t> wanted, float* logits, std::size_t layers = 0);

    // Throws std::invalid_argument for arguments that forward() cannot take, and when a tensor has not been set.
    void check(std::span<const Token> tokens, const Cache& cache, std::size_t positions,
               std::span<const std::size_t> wanted) const;

    std::size_t bytes() const { return arena_.bytes(); }
    std::size_t threads() const { return pool_.size(); }
    const ModelShape& shape() const { return shape_; }

    // Reads all weights, as a step does, and adds them up: the time that this takes bounds the speed of a step.
    std::uint64_t sum_weights();

    static constexpr std::size_t kMostTokens = 256;

 private:
    struct Network {
        Matrix w1, w3, w2;
        std::vector<float> w1_bias = {}, w3_bias = {}, w2_bias = {};
    };
    // Vectors that a model lacks are empty.
    struct Layer {
        Matrix wq, wk, wv, wo;
        std::vector<Matrix> router = {};  // one, or none for a single network
        std::vector<Network> networks = {};
        std::vector<float> attention_norm = {}, attention_post_norm = {}, ffn_norm = {}, ffn_post_norm = {};
        std::vector<float> query_norm = {}, key_norm = {};
        std::vector<float> query_bias = {}, key_bias = {}, value_bias = {}, output_bias = {};
        std::size_t window = 0, table = 0;
    };
    // A token of an expert, and the weight of the expert's result.
    struct Share {
        std::size_t token;
        float weight;
    };
    // Activation vectors, in all forms that weights may need.
    struct Buffer {
        std::vector<float> numbers;
        std::vector<TileBytes> bytes, parts;
        std::vector<TileScale> scales;
    };
    struct Step;

    void add_layer(const Kinds& kinds);
    void add_network(const Kinds& kinds, Layer& layer, const std::string& prefix, std::size_t hidden);
    void add_norm(const std::string& name, std::vector<float>& numbers, std::size_t size);
    void add_vector(const std::string& name, std::vector<float>& numbers, std::size_t size, float offset = 0);
    void make_room(std::size_t tokens);  // in the buffers

    const ModelShape shape_;
    const Kernel& kernel_;
    Pool pool_;
    Arena arena_;
    std::vector<Layer> layers_;
    std::vector<Matrix> embeddings_, output_;  // one matrix; one, or none when tied
    std::vector<float> norm_;
    std::map<std::string, Matrix*> matrices_;
    struct Vector {
        std::vector<float>* numbers;
        float offset;  // added to the numbers of the file
    };
    std::map<std::string, Vector> vectors_;
    std::map<std::string, bool> missing_;
    std::mutex mutex_;

    // Buffers of a step, kept for the next step.
    std::size_t room_ = 0;  // tokens
    std::vector<float> stream_, queries_, keys_, values_, hidden_, partial_;
    std::vector<float> changes_;        // [tokens, dim]: what a part adds to the stream, if that is not known at once
    std::vector<float> expert_scores_;  // [tokens, experts]
    std::vector<std::vector<Share>> shares_;  // by expert
    Buffer shared_;
    std::vector<Buffer> own_;  // of each thread
    std::vector<std::vector<float>> scratch_;
    std::vector<std::vector<TileBytes>> panels_;  // of each thread: unpacked weights
    std::vector<std::vector<float>> results_;     // and their products
};

}  // namespace model
