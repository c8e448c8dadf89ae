// A Llama that reads quantized weights: from token ids to logits, all layers in one go.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "cache.hpp"
#include "kernels/kernels.hpp"
#include "pool.hpp"
#include "weights.hpp"

namespace model {

struct Shape {
    std::size_t dim, layers, heads, kv_heads, head_dim, hidden, vocabulary;
    float epsilon;  // of the norms
    bool tied;      // the output matrix is that of the embeddings
    bool query_bias, output_bias;
};

struct Token {
    std::size_t id, text, position;
};

class Decoder {
 public:
    // kinds: of every matrix, under Meta's names. Throws std::invalid_argument, naming the matrix, for one that is
    // missing or has rows of no whole blocks.
    Decoder(const Shape& shape, const std::map<std::string, Kind>& kinds, std::size_t threads, const Kernel& kernel);

    // Sets a tensor; a matrix to rows of blocks as in a file, others to floats. Throws std::invalid_argument for
    // another size, another name and for numbers that are not finite.
    void put(const std::string& name, std::span<const std::uint8_t> bytes);

    // Reads tokens, at most kMostTokens; those of a text follow each other and what the cache has of it. rotation has
    // cos and sin of the angle of each pair at every position, [positions, head_dim / 2, 2]. Writes the logits of what
    // follows each of `wanted`, which are numbers of tokens, to [wanted, vocabulary]. Whoever calls has checked that
    // numbers are in range (`check`).
    void forward(std::span<const Token> tokens, Cache& cache, const float* rotation,
                 std::span<const std::size_t> wanted, float* logits);

    // Throws std::invalid_argument for tokens that forward() cannot take, and before all tensors have been set.
    void check(std::span<const Token> tokens, const Cache& cache, std::size_t positions,
               std::span<const std::size_t> wanted) const;

    std::size_t bytes() const { return arena_.bytes(); }
    std::size_t threads() const { return pool_.size(); }
    const Shape& shape() const { return shape_; }

    // Reads all weights, as a step does, and adds them up.
    std::uint64_t sum();

    static constexpr std::size_t kMostTokens = 64;

 private:
    struct Layer {
        Matrix wq, wk, wv, wo, w1, w3, w2;
        std::vector<float> attention_norm, ffn_norm, query_bias, key_bias, value_bias, output_bias;
    };
    // A vector, or several, in both of the forms that weights may want.
    struct Buffer {
        std::vector<float> numbers;
        std::vector<TileBytes> bytes;
        std::vector<TileScale> scales;
    };
    struct Step;

    const Shape shape_;
    const Kernel& kernel_;
    Pool pool_;
    Arena arena_;
    std::vector<Layer> layers_;
    std::vector<Matrix> embeddings_, output_;  // one, and one or none
    std::vector<float> norm_;
    std::map<std::string, Matrix*> matrices_;
    std::map<std::string, std::vector<float>*> vectors_;
    std::map<std::string, bool> missing_;
    std::mutex mutex_;

    // Of a step; kept for the next.
    std::vector<float> stream_, queries_, keys_, values_, hidden_, partial_;
    Buffer shared_;
    std::vector<Buffer> own_;  // of each thread
    std::vector<std::vector<float>> scratch_;
};

}  // namespace model
