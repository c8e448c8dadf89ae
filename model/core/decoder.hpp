// A Llama that reads packed weights: from token ids to logits, all layers in one call.
#pragma once

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

struct ModelShape {
    std::size_t dim, layers, heads, kv_heads, head_dim, hidden, vocabulary;
    float epsilon;  // of the norms
    bool tied;      // the output matrix is the embedding matrix
    bool query_bias, output_bias;

    std::size_t queries() const { return heads * head_dim; }
    std::size_t keys() const { return kv_heads * head_dim; }
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
    // cache. `rotation` holds the cosine and sine of the angle of each pair at every position,
    // [positions, head_dim / 2, 2]. `wanted` holds indices of tokens; writes the logits of the tokens that follow them
    // to [wanted, vocabulary]. The caller has validated the arguments with check().
    void forward(std::span<const Token> tokens, Cache& cache, const float* rotation,
                 std::span<const std::size_t> wanted, float* logits);

    // Throws std::invalid_argument for arguments that forward() cannot take, and when a tensor has not been set.
    void check(std::span<const Token> tokens, const Cache& cache, std::size_t positions,
               std::span<const std::size_t> wanted) const;

    std::size_t bytes() const { return arena_.bytes(); }
    std::size_t threads() const { return pool_.size(); }
    const ModelShape& shape() const { return shape_; }

    // Reads all weights, as a step does, and adds them up: the time that this takes bounds the speed of a step.
    std::uint64_t sum_weights();

    static constexpr std::size_t kMostTokens = 64;

 private:
    struct Layer {
        Matrix wq, wk, wv, wo, w1, w3, w2;
        std::vector<float> attention_norm = {}, ffn_norm = {};
        std::vector<float> query_bias = {}, key_bias = {}, value_bias = {}, output_bias = {};
    };
    // Activation vectors, in both of the forms that weights may need.
    struct Buffer {
        std::vector<float> numbers;
        std::vector<TileBytes> bytes;
        std::vector<TileScale> scales;
    };
    struct Step;

    void add_layer(const Kinds& kinds);
    void add_vector(const std::string& name, std::vector<float>& numbers, std::size_t size);
    void allocate_buffers();

    const ModelShape shape_;
    const Kernel& kernel_;
    Pool pool_;
    Arena arena_;
    std::vector<Layer> layers_;
    std::vector<Matrix> embeddings_, output_;  // one matrix; one, or none when tied
    std::vector<float> norm_;
    std::map<std::string, Matrix*> matrices_;
    std::map<std::string, std::vector<float>*> vectors_;
    std::map<std::string, bool> missing_;
    std::mutex mutex_;

    // Buffers of a step, kept for the next step.
    std::vector<float> stream_, queries_, keys_, values_, hidden_, partial_;
    Buffer shared_;
    std::vector<Buffer> own_;  // of each thread
    std::vector<std::vector<float>> scratch_;
};

}  // namespace model
